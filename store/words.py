"""Words and pointers: how kernels reach the arena, and what they read there, written as LLVM IR.

One array of int32 holds ids, halves of words and weights alike: `load_float` and the others say how
a word is to be read. They take an array, or a pointer into one.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

R = TypeVar("R")

_Array = np.ndarray[Any, Any]

I8, I16, I32, I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))


def _pointer_to(kind: Any) -> Any:
    made: Any = types.CPointer
    return made(kind)


def as_step(result: type[R]) -> Callable[[Callable[..., Any]], Callable[..., R]]:
    """A step that kernels may call; it gives a `result`, or nothing where that is object."""

    def wrap(function: Callable[..., Any]) -> Callable[..., R]:
        return cast("Callable[..., R]", intrinsic(function))

    return wrap


def address_of(context: Any, builder: Any, kind: Any, array: Any, index: Any, to: Any) -> Any:
    if isinstance(kind, types.Array):
        array = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(array, [index]), to.as_pointer())


@as_step(int)
def wide(_: Any, value: Any) -> Any:
    """An integer as int64."""
    return types.int64(types.int64), lambda context, builder, signature, args: args[0]


@as_step(float)
def single(_: Any, value: Any) -> Any:
    """A number as float32."""
    return types.float32(types.float32), lambda context, builder, signature, args: args[0]


@as_step(_Array)
def pointer(_: Any, array: Any) -> Any:
    """Where a contiguous array's items start: read and written like the array, in one dimension.

    To hand an array over takes seven machine words, a count of references (an atomic step, as dear
    as a whole lookup), and at each use a look whether the index is negative. A pointer takes one
    word, and nobody counts: let the owner of the array stay in use to the end.
    """

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return context.make_array(signature.args[0])(context, builder, args[0]).data

    return _pointer_to(array.dtype)(array), code


@as_step(int)
def address(_: Any, array: Any) -> Any:
    """Where a contiguous array's items start, as a number; see `words_at` and the others."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        start = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.ptrtoint(start, I64)

    return types.int64(array), code


@as_step(int)
def start_of(_: Any, pointer: Any) -> Any:
    """Where a pointer points to, as a number."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ptrtoint(args[0], I64)

    return types.int64(pointer), code


def _at(kind: Any) -> Any:
    """A step that gives a pointer to the items of one kind that start at an address."""

    def start(_: Any, address: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.inttoptr(args[0], context.get_value_type(kind).as_pointer())

        return _pointer_to(kind)(types.int64), code

    return intrinsic(start)


words_at: Callable[[int], np.ndarray[Any, np.dtype[np.int32]]] = _at(types.int32)
longs_at: Callable[[int], np.ndarray[Any, np.dtype[np.int64]]] = _at(types.int64)
floats_at: Callable[[int], np.ndarray[Any, np.dtype[np.float32]]] = _at(types.float32)
bytes_at: Callable[[int], np.ndarray[Any, np.dtype[np.uint8]]] = _at(types.uint8)


@as_step(_Array)
def onwards(_: Any, start: Any, count: Any) -> Any:
    """A pointer to the item `count` after the one that `start` points to."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.gep(args[0], [args[1]])

    return start(start, types.int64), code


def _room(kind: Any) -> Any:
    """A step that makes room for a constant number of items, which lasts while its kernel runs."""

    def room(_: Any, count: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            reserve: Any = cgutils.alloca_once
            made = reserve(builder, context.get_value_type(kind), size=count.literal_value)
            made.align = 64  # a vector that stands on two cache lines takes twice the time
            return made

        return _pointer_to(kind)(count), code

    return intrinsic(prefer_literal=True)(room)


words_room: Callable[[int], np.ndarray[Any, np.dtype[np.int32]]] = _room(types.int32)
longs_room: Callable[[int], np.ndarray[Any, np.dtype[np.int64]]] = _room(types.int64)
floats_room: Callable[[int], np.ndarray[Any, np.dtype[np.float32]]] = _room(types.float32)


@as_step(float)
def load_float(_: Any, words: Any, index: Any) -> Any:
    """The float32 whose bits stand in `words[index]`."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        at = address_of(context, builder, signature.args[0], args[0], args[1], ir.FloatType())
        return builder.load(at, align=4)

    return types.float32(words, types.int64), code


@as_step(object)
def store_float(_: Any, words: Any, index: Any, value: Any) -> Any:
    """Write the bits of float32 `value` to `words[index]`."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        at = address_of(context, builder, signature.args[0], args[0], args[1], ir.FloatType())
        builder.store(args[2], at, align=4)
        return context.get_dummy_value()

    return types.void(words, types.int64, types.float32), code


@as_step(int)
def load_half(_: Any, words: Any, index: Any) -> Any:
    """Number `index` of the uint16 that stand two a word in `words`."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        zero = I64(0)
        base = address_of(context, builder, signature.args[0], args[0], zero, I16)
        return builder.zext(builder.load(builder.gep(base, [args[1]]), align=2), I64)

    return types.int64(words, types.int64), code


@as_step(object)
def store_half(_: Any, words: Any, index: Any, value: Any) -> Any:
    """Write `value`, 0..65535, as number `index` of the uint16 in `words`."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        zero = I64(0)
        base = address_of(context, builder, signature.args[0], args[0], zero, I16)
        builder.store(builder.trunc(args[2], I16), builder.gep(base, [args[1]]), align=2)
        return context.get_dummy_value()

    return types.void(words, types.int64, types.int64), code


@as_step(int)
def load_pair(_: Any, words: Any, byte: Any) -> Any:
    """The 16 bits from any byte of `words` on."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        at = address_of(context, builder, signature.args[0], args[0], I64(0), I8)
        at = builder.bitcast(builder.gep(at, [args[1]]), I16.as_pointer())
        return builder.zext(builder.load(at, align=1), I64)

    return types.int64(words, types.int64), code


@as_step(int)
def load_byte(_: Any, words: Any, byte: Any) -> Any:
    """A byte of `words`."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        at = address_of(context, builder, signature.args[0], args[0], I64(0), I8)
        return builder.zext(builder.load(builder.gep(at, [args[1]]), align=1), I64)

    return types.int64(words, types.int64), code


@as_step(object)
def store_byte(_: Any, words: Any, byte: Any, value: Any) -> Any:
    """Write the low 8 bits of `value` to a byte of `words`."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        at = address_of(context, builder, signature.args[0], args[0], I64(0), I8)
        builder.store(builder.trunc(args[2], I8), builder.gep(at, [args[1]]), align=1)
        return context.get_dummy_value()

    return types.void(words, types.int64, types.int64), code


@as_step(int)
def lowest(_: Any, mask: Any) -> Any:
    """Number of the lowest bit set in `mask`, which is not 0."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        long = I64
        counted = ir.FunctionType(long, [long, ir.IntType(1)])
        count = builder.module.declare_intrinsic("llvm.cttz", [long], counted)
        return builder.call(count, [args[0], ir.IntType(1)(1)])

    return types.int64(types.int64), code


@as_step(object)
def prefetch(_: Any, array: Any, index: Any) -> Any:
    """Ask for the cache line of `array[index]`; any index is harmless."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        byte = ir.IntType(8)
        at = address_of(context, builder, signature.args[0], args[0], args[1], byte)
        kind = ir.FunctionType(ir.VoidType(), [at.type, I32, I32, I32])
        insert: Any = cgutils.get_or_insert_function
        function = insert(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [at, I32(0), I32(3), I32(1)])  # read, keep close, data
        return context.get_dummy_value()

    return types.void(array, types.int64), code


@as_step(object)
def call_at(_: Any, address: Any, argument: Any) -> Any:
    """Call the routine (store/jit.py) at an address."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [I64])
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), [args[1]])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), code
