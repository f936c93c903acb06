"""A device that is not there: its tensors are on the CPU, but do not mix with those that are.

It stands for a GPU where a machine has none. What a GPU would refuse is refused: an operation on
tensors of both places, and numpy's look at a far one. It says nothing of speed, and nothing of what
a GPU's own kernels cannot do. Its type is `lazy`, which torch names and never starts.
"""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

FAR = torch.device("lazy", 0)
CPU = torch.device("cpu")

aten = torch.ops.aten
# A GPU, too, takes indices from either place; and these are the ways from one to the other.
BOTH = {
    aten.index.Tensor,
    aten.index_put_.default,
    aten._index_put_impl_.default,
    aten._to_copy.default,
    aten.copy_.default,
}


class TwoPlaces(RuntimeError):
    """Tensors of both places in one operation."""


class Far(torch.Tensor):
    """One of the device's tensors; `near` holds what is in it."""

    near: torch.Tensor

    @staticmethod
    def __new__(cls, near: torch.Tensor) -> "Far":
        dense = near.layout == torch.strided
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            near.size(),
            strides=near.stride() if dense else None,
            storage_offset=near.storage_offset() if dense else None,
            dtype=near.dtype,
            layout=near.layout,
            device=FAR,
        )
        made.near = near
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


class Machine(TorchDispatchMode):
    """A machine that has the device: inside, tensors can be made there."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    given: list[torch.Tensor] = []

    def near(one: Any) -> Any:
        if isinstance(one, torch.Tensor):
            given.append(one)
            return one.near if isinstance(one, Far) else one
        return CPU if isinstance(one, torch.device) and one == FAR else one

    near_args, near_kwargs = tree_map(near, args), tree_map(near, kwargs)
    far = [one for one in given if isinstance(one, Far)]
    if far and func not in BOTH and any(one.ndim for one in given if not isinstance(one, Far)):
        places = ", ".join(f"{tuple(one.shape)} on {one.device}" for one in given)
        raise TwoPlaces(f"{func}: {places}")
    named = kwargs.get("device")
    there = bool(far) if named is None else named == FAR
    same = {id(one.near): one for one in far}

    def back(one: Any) -> Any:
        if not isinstance(one, torch.Tensor):
            return one
        known = same.get(id(one))
        return known if known is not None else Far(one) if there else one

    return tree_map(back, func(*near_args, **near_kwargs))
