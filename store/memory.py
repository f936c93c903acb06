"""An array of 32-bit words that grows in place.

It is an anonymous mapping: the kernel's page table is moved when it grows, not the bytes (mremap),
and a page costs nothing before it is touched. So an arena may reserve what a batch needs at worst.
"""

import mmap
from typing import TypeVar

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.int32]

T = TypeVar("T", bound=np.generic)

_HUGE = 32 << 20  # bytes from which huge pages are asked for: they spare misses in the page table
_PAGE = 2 << 20  # a mapping of a whole number of them is put, and moved, to where they stay whole


class GrowingWords:
    """Words that are 0 until they are written.

    Attributes:
        array: shape (count,), int32, on a page boundary. It is another array after each `grow`:
            do not keep it.
    """

    array: Words
    _map: mmap.mmap | None

    def __init__(self, count: int) -> None:
        self._map = _mapping(4 * count)
        self.array = np.frombuffer(self._map, np.int32)

    @classmethod
    def of(cls, array: Words) -> "GrowingWords":
        """An array as it is; it is copied when it grows."""
        made = cls.__new__(cls)
        made._map, made.array = None, array
        return made

    def grow(self, count: int) -> None:
        """Have at least `count` words.

        Raises:
            MemoryError: there is no room for them; the array stays as it was.
        """
        have = len(self.array)
        if count <= have:
            return
        if self._map is not None:
            del self.array
            try:
                self._map.resize(_rounded(4 * count))
            except (BufferError, OSError, SystemError, ValueError):
                # Somebody holds the array, or the system cannot move a mapping: copy it.
                self.array = np.frombuffer(self._map, np.int32)
            else:
                self.array = np.frombuffer(self._map, np.int32)
                _advise(self._map)
                return
        bigger = _mapping(4 * count)
        new = np.frombuffer(bigger, np.int32)
        new[:have] = self.array
        self._map, self.array = bigger, new


def copied(array: npt.NDArray[T]) -> npt.NDArray[T]:
    """A copy; of a large array in huge pages, which takes a fraction of the time.

    Raises:
        MemoryError: there is no room for it.
    """
    if array.nbytes < _HUGE:
        return array.copy()
    made = np.frombuffer(_mapping(array.nbytes), array.dtype, array.size).reshape(array.shape)
    np.copyto(made, array)
    return made


def _rounded(size: int) -> int:
    return size if size < _HUGE else -(-size // _PAGE) * _PAGE


def _mapping(size: int) -> mmap.mmap:
    size = _rounded(size)
    try:
        made = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(f"no room for {size} bytes: {error}") from error
    _advise(made)
    return made


def _advise(mapped: mmap.mmap) -> None:
    if len(mapped) >= _HUGE and hasattr(mmap, "MADV_HUGEPAGE"):
        mapped.madvise(mmap.MADV_HUGEPAGE)
