"""Trainers that train one model together, each on parts of its own: what they tell each other.

A trainer is found by torchrun's variables: `RANK`, `WORLD_SIZE`, `MASTER_ADDR`, `MASTER_PORT`. All
of them hold the same weights but for the titles' id embeddings: a title is at home in one part, so
its row has a gradient in one trainer only, and need not travel. What does travel in a step is one
sum over all other gradients.

Gradients are averaged over the trainers that had a part in this step, and *all* trainers then make
the same optimiser step. `DistributedDataParallel.join`, torch's way with uneven inputs, lets an
idle trainer follow the others' sums, but not their optimiser: its moments would fall behind.

On CPU by gloo; tensors on a GPU go by NCCL.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import Tensor, distributed
from torch.distributed.rendezvous import rendezvous

from model.semantic_gnn import SemanticGNN

TIMEOUT_S = 600.0  # longest wait for another trainer's step
PATIENCE_S = 86_400.0  # longest wait for the trainer with rank 0, which may prepare the work first


class TrainerLost(RuntimeError):
    """Another trainer is gone: who noticed, and in what."""


class Crew:
    """This trainer among its fellows.

    Attributes:
        rank: 0..size - 1.
        size: number of trainers.
    """

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size

    @classmethod
    def alone(cls) -> "Crew":
        """One trainer: nothing is sent, and no process group is made."""
        return cls(0, 1)

    @classmethod
    def join(
        cls,
        rank: int,
        size: int,
        address: str,
        port: int,
        *,
        timeout_s: float = TIMEOUT_S,
        patience_s: float | None = None,
    ) -> "Crew":
        """Meet the others at `address`; the trainer with rank 0 listens there, or torchrun does.

        Args:
            timeout_s: longest wait for the others, now and in every step.
            patience_s: longest wait for the one with rank 0 to come; None: `timeout_s`.

        Raises:
            TrainerLost: they did not all come in time.
        """
        crew = cls(rank, size)
        if size > 1:
            with crew._together("the meeting"):
                patience = timedelta(seconds=patience_s or timeout_s)
                place = f"tcp://{address}:{port}"
                store, _, _ = next(rendezvous(place, rank, size, timeout=patience))
                if rank == 0:
                    store.set("the first", "is here")
                else:
                    store.wait(["the first"], patience)
                distributed.init_process_group(
                    "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
                    store=store,
                    rank=rank,
                    world_size=size,
                    timeout=timedelta(seconds=timeout_s),
                )
        return crew

    @classmethod
    def by_environment(cls, *, patience_s: float | None = None) -> "Crew":
        """As torchrun says; alone where it says nothing.

        Args:
            patience_s: see `join`.

        Raises:
            TrainerLost: the others did not come in time.
            ValueError: some of the variables are missing.
        """
        if "RANK" not in os.environ:
            return cls.alone()
        names = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
        missing = [name for name in names if name not in os.environ]
        if missing:
            raise ValueError(f"RANK is set, but not {', '.join(missing)}: start me by torchrun")
        rank, size, address, port = (os.environ[name] for name in names)
        return cls.join(int(rank), int(size), address, int(port), patience_s=patience_s)

    def leave(self) -> None:
        """Part from the others; no harm where there are none."""
        if self.size > 1 and distributed.is_initialized():
            distributed.destroy_process_group()

    def sum(self, tensor: Tensor, what: str) -> Tensor:
        """The sum over all trainers, in place.

        Args:
            what: for the error's message.

        Raises:
            TrainerLost: one of them is gone.
        """
        if self.size > 1:
            with self._together(what):
                distributed.all_reduce(tensor)
        return tensor

    def gather(self, rows: Tensor, what: str) -> Tensor:
        """All trainers' rows, by rank; they may have different numbers of them.

        Raises:
            TrainerLost: one of them is gone.
        """
        if self.size == 1:
            return rows
        counts = torch.zeros(self.size, dtype=torch.int64, device=rows.device)
        counts[self.rank] = len(rows)
        self.sum(counts, what)
        padded = rows.new_zeros(int(counts.max()), *rows.shape[1:])
        padded[: len(rows)] = rows
        out = [torch.empty_like(padded) for _ in range(self.size)]
        with self._together(what):
            distributed.all_gather(out, padded)
        return torch.cat([one[:count] for one, count in zip(out, counts.tolist(), strict=True)])

    def share(self, number: int, what: str) -> list[int]:
        """A number of each trainer's, by rank.

        Raises:
            TrainerLost: one of them is gone.
        """
        return [int(one) for one in self.gather(torch.tensor([number]), what)]

    def average_gradients(
        self, model: SemanticGNN, *, active: bool, max_norm: float, what: str
    ) -> None:
        """Average the gradients over the active trainers, and clip them all alike.

        Args:
            active: whether this trainer's gradients count; at least one trainer's do.
            max_norm: largest norm of the averaged gradient of all weights together.

        Raises:
            TrainerLost: one of them is gone.
        """
        rows = model.title_TD
        trained = [one for one in model.parameters() if one.requires_grad]
        for one in (*trained, rows):
            if one.grad is None or not active:
                one.grad = torch.zeros_like(one)
        shared = [_grad(one) for one in trained if one is not rows]
        squares = _grad(rows).square().sum()
        tail = torch.stack([squares, torch.full_like(squares, float(active))])
        if self.size > 1:
            flat = self.sum(torch.cat([*(one.flatten() for one in shared), tail]), what)
            count = flat[-1]
            at = 0
            for grad in shared:
                grad.copy_(flat[at : at + grad.numel()].view_as(grad)).div_(count)
                at += grad.numel()
            _grad(rows).div_(count)
            tail = flat[-2:]
        squares = torch.stack([one.square().sum() for one in shared]).sum()
        norm = torch.sqrt(squares + tail[0] / tail[1] ** 2)
        torch.nn.utils.clip_grads_with_norm_(trained, max_norm, norm)
        if not rows.requires_grad:
            rows.grad = None

    @contextmanager
    def _together(self, what: str) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # DistBackendError, DistNetworkError, gloo's own
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise TrainerLost(
                f"trainer {self.rank} of {self.size} lost the others in {what}: {lines[0][:300]}"
            ) from error


def launched() -> tuple[int, int] | None:
    """Rank and number of trainers, where torchrun started this process among several."""
    rank, size = os.environ.get("RANK"), os.environ.get("WORLD_SIZE", "1")
    return None if rank is None or int(size) == 1 else (int(rank), int(size))


def _grad(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None  # noqa: S101  (set by the caller)
    return parameter.grad
