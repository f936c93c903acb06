"""The one way in which this project compiles a kernel.

Only store/words.py and store/lanes.py know Numba besides.

A kernel is a free function over numpy arrays and scalars. It checks nothing: the class above it
checks the input. Compiled kernels are cached on disk, in a folder named after the sources of all
kernels: Numba itself does not see a change in a kernel of another file, and would go on with the
caller's old code.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

R_co = TypeVar("R_co", covariant=True)


def _cache_folder() -> Path:
    """A folder that no other version of the kernels shares; `NUMBA_CACHE_DIR` overrules it."""
    texts = [path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))]
    kernels = [text for text in texts if b"numba" in text or b"from store.jit import" in text]
    digest = hashlib.sha256(b"".join(kernels)).hexdigest()[:16]
    base = os.environ.get("XDG_CACHE_HOME")
    root = Path(base) if base else Path.home() / ".cache"
    folder = root / "upwell" / f"kernels-{digest}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    except OSError:  # a read-only home, as in a container
        return Path(tempfile.gettempdir()) / f"upwell-kernels-{os.getuid()}-{digest}"


os.environ.setdefault("NUMBA_CACHE_DIR", str(_cache_folder()))  # before the first import of numba

from numba import njit  # noqa: E402

# What is called is compiled while its caller is, and would inherit the caller's inlining.
_COMMON: dict[str, Any] = {"error_model": "numpy", "forceinline": False}

# Without wrappers for Python, a step compiles sooner.
_BARE: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}


class Kernel(Protocol[R_co]):
    """A compiled function that keeps its Python body at hand, for tests and for coverage.

    Its arguments are not checked before it is compiled: what a body calls an int is an int64 to
    Numba, wherever it comes from, and would be three types to a checker.
    """

    py_func: Callable[..., Any]

    def __call__(self, *args: Any) -> R_co: ...


def kernel(function: Callable[..., R_co]) -> Kernel[R_co]:
    """Compile `function` for the hot path; Python calls it.

    `nogil` lets a kernel run beside other threads; `cache` spares a worker the compile at start.
    `fastmath` stays off: sampling compares sums, and reordered sums differ. A division by zero
    gives numpy's result: a check at each division would stand in the hot path.
    """
    return cast("Kernel[R_co]", njit(cache=True, nogil=True, **_COMMON)(function))


class Routine:
    """A compiled function of one int64 that kernels call by its address, and Python never.

    So one kernel may call any, and none is compiled twice. It must not raise: it would go unheard.
    """

    def __init__(self, function: Callable[[int], None]) -> None:
        self._function = function

    @cached_property
    def address(self) -> int:
        """Where it starts; it is compiled, or taken from the cache, when first asked for."""
        options = {**_COMMON, "no_cpython_wrapper": True}
        made: Any = njit("void(int64)", cache=True, **options)(self._function)
        found = made.overloads[made.signatures[0]]
        # Its C wrapper is compiled with it: `cfunc` would compile all once more.
        return int(found.library.get_pointer_to_function(found.fndesc.llvm_cfunc_wrapper_name))


def step(function: Callable[..., R_co]) -> Kernel[R_co]:
    """Compile `function` for kernels alone to call: it may take pointers (store/words.py).

    It is kept with each kernel that calls it, and not by itself.
    """
    return cast("Kernel[R_co]", njit(**_COMMON, **_BARE)(function))


def inlined(function: Callable[..., R_co]) -> Kernel[R_co]:
    """Compile `function` into every kernel that calls it.

    For the short steps of a hot path, which take less time than a call does.
    """
    options = {**_COMMON, **_BARE, "forceinline": True}
    return cast("Kernel[R_co]", njit(**options)(function))
