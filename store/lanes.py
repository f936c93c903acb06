"""Sixteen numbers at once: the vector steps of the store, written as LLVM IR.

LLVM lowers them to AVX-512, AVX2, SSE or NEON, whatever the machine has. A step loads 16 lanes
from an array of 32-bit words, or from a pointer into one, whether or not all of them count: so
every array that is handed in ends with at least `PAD` spare words. Lanes at or beyond `count` read
as 0. One array of int32 holds ids, halves of words and weights alike: `load_float` and the others
say how a word is to be read.

The order of additions is fixed by the IR: the same weights give the same sums on every machine.
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

PAD = 32
LANES = 16

_I8, _I16, _I32 = ir.IntType(8), ir.IntType(16), ir.IntType(32)
_FLOATS = ir.VectorType(ir.FloatType(), LANES)
_WORDS = ir.VectorType(_I32, LANES)
_HALVES = ir.VectorType(_I16, LANES)
_NUMBERS = ir.Constant(_WORDS, list(range(LANES)))
_ZEROS = ir.Constant(_FLOATS, [0.0] * LANES)


def _pointer_to(kind: Any) -> Any:
    made: Any = types.CPointer
    return made(kind)


def _step(result: type[R]) -> Callable[[Callable[..., Any]], Callable[..., R]]:
    """A step that kernels may call; it gives a `result`, or nothing where that is object."""

    def wrap(function: Callable[..., Any]) -> Callable[..., R]:
        return cast("Callable[..., R]", intrinsic(function))

    return wrap


def _address(context: Any, builder: Any, kind: Any, array: Any, index: Any, to: Any) -> Any:
    if isinstance(kind, types.Array):
        array = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(array, [index]), to.as_pointer())


def _splat(builder: Any, value: Any, to: Any) -> Any:
    empty = ir.Constant(to, ir.Undefined)
    first = builder.insert_element(empty, value, _I32(0))
    return builder.shuffle_vector(first, empty, ir.Constant(_WORDS, [0] * LANES))


def _mask(builder: Any, condition: Any) -> Any:
    """The lanes' truth as bits of an int32."""
    return builder.zext(builder.bitcast(condition, _I16), _I32)


def _load(context: Any, builder: Any, kind: Any, array: Any, index: Any, count: Any) -> Any:
    lanes = builder.load(_address(context, builder, kind, array, index, _FLOATS), align=4)
    valid = builder.icmp_signed("<", _NUMBERS, _splat(builder, count, _WORDS))
    return builder.select(valid, lanes, _ZEROS)


def _sum(builder: Any, lanes: Any) -> Any:
    for step in (8, 4, 2, 1):
        turned = ir.Constant(_WORDS, [(lane + step) % LANES for lane in range(LANES)])
        lanes = builder.fadd(lanes, builder.shuffle_vector(lanes, lanes, turned))
    return builder.extract_element(lanes, _I32(0))


def _prefix(builder: Any, lanes: Any) -> Any:
    """Inclusive prefix sums in four steps (Hillis and Steele)."""
    for step in (1, 2, 4, 8):
        numbers = [LANES] * step + list(range(LANES - step))
        moved = builder.shuffle_vector(lanes, _ZEROS, ir.Constant(_WORDS, numbers))
        lanes = builder.fadd(lanes, moved)
    return lanes


def _reachable(builder: Any, lanes: Any, prefix: Any) -> Any:
    """`prefix`, but -1 in lanes of weight 0: rounding must not let a draw fall there."""
    return builder.select(
        builder.fcmp_ordered(">", lanes, _ZEROS), prefix, ir.Constant(_FLOATS, [-1.0] * LANES)
    )


def _first_above(builder: Any, reachable: Any, mass: Any) -> Any:
    """First lane above `mass`; where rounding leaves none, the last that can be reached; or -1."""
    above = _mask(builder, builder.fcmp_ordered(">", reachable, _splat(builder, mass, _FLOATS)))
    there = _mask(builder, builder.fcmp_ordered(">=", reachable, _ZEROS))
    counted = ir.FunctionType(_I32, [_I32, ir.IntType(1)])
    first = builder.call(
        builder.module.declare_intrinsic("llvm.cttz", [_I32], counted), [above, ir.IntType(1)(0)]
    )
    leading = builder.call(
        builder.module.declare_intrinsic("llvm.ctlz", [_I32], counted), [there, ir.IntType(1)(0)]
    )
    none = builder.icmp_signed("==", above, _I32(0))
    return builder.select(none, builder.sub(_I32(31), leading), first)


def _match_halves(lanes: int) -> Callable[..., Any]:
    """Bits k where the uint16 number `index + k` of `array` is the low half of `value`."""

    def step(_: Any, array: Any, index: Any, value: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            zero, kind = ir.IntType(64)(0), ir.VectorType(_I16, lanes)
            base = _address(context, builder, signature.args[0], args[0], zero, _I16)
            at = builder.bitcast(builder.gep(base, [args[1]]), kind.as_pointer())
            found = builder.load(at, align=2)
            empty = ir.Constant(kind, ir.Undefined)
            first = builder.insert_element(empty, builder.trunc(args[2], _I16), _I32(0))
            numbers = ir.Constant(ir.VectorType(_I32, lanes), [0] * lanes)
            alike = builder.icmp_signed("==", found, builder.shuffle_vector(first, empty, numbers))
            return builder.zext(builder.bitcast(alike, ir.IntType(lanes)), ir.IntType(64))

        return types.int64(array, types.int64, types.int64), code

    return step


match_halves = _step(int)(_match_halves(16))
match_more_halves = _step(int)(_match_halves(32))


@_step(float)
def sum16(_: Any, array: Any, index: Any, count: Any) -> Any:
    """Sum of `array[index : index + count]`, count <= 16; float32, always in the same order."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _sum(builder, _load(context, builder, signature.args[0], args[0], args[1], args[2]))

    return types.float32(array, types.int64, types.int32), code


@_step(float)
def patch16(_: Any, array: Any, index: Any, count: Any, lane: Any, value: Any) -> Any:
    """As `sum16`, as if `value` stood in a lane already.

    A vector that is read just after one of its lanes was written waits until the write has left
    the processor's queue, which takes longer than all the rest: so what is new is handed over.
    """

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lanes = _load(context, builder, signature.args[0], args[0], args[1], args[2])
        here = builder.icmp_signed("==", _NUMBERS, _splat(builder, args[3], _WORDS))
        lanes = builder.select(here, _splat(builder, args[4], _FLOATS), lanes)
        return _sum(builder, lanes)

    return types.float32(array, types.int64, types.int32, types.int32, types.float32), code


@_step(float)
def scan16(_: Any, array: Any, index: Any, count: Any, out: Any) -> Any:
    """Write prefix sums of `array[index : index + count]` to `out[0:16]`, and return their total.

    Lanes of weight 0 hold -1 instead, so that `find16` never stops there.
    """

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lanes = _load(context, builder, signature.args[0], args[0], args[1], args[2])
        prefix = _prefix(builder, lanes)
        zero = ir.IntType(64)(0)
        at = _address(context, builder, signature.args[3], args[3], zero, _FLOATS)
        builder.store(_reachable(builder, lanes, prefix), at, align=4)
        return builder.extract_element(prefix, _I32(LANES - 1))

    return types.float32(array, types.int64, types.int32, out), code


@_step(int)
def find16(_: Any, scanned: Any, mass: Any) -> Any:
    """The lane in which `mass` falls, in what `scan16` wrote; -1 where all weights are 0."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        zero = ir.IntType(64)(0)
        at = _address(context, builder, signature.args[0], args[0], zero, _FLOATS)
        return _first_above(builder, builder.load(at, align=4), args[1])

    return types.int32(scanned, types.float32), code


@_step(int)
def pick16(_: Any, array: Any, index: Any, count: Any, uniform: Any) -> Any:
    """A lane drawn in proportion to `array[index : index + count]`; -1 where all are 0.

    `uniform` is in [0, 1).
    """

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lanes = _load(context, builder, signature.args[0], args[0], args[1], args[2])
        prefix = _prefix(builder, lanes)
        mass = builder.fmul(builder.extract_element(prefix, _I32(LANES - 1)), args[3])
        return _first_above(builder, _reachable(builder, lanes, prefix), mass)

    return types.int32(array, types.int64, types.int32, types.float32), code


@_step(int)
def others_up_to(_: Any, words: Any, index: Any, count: Any, value: Any) -> Any:
    """How many of the numbers `words[index : index + count]`, count <= 16, are <= `value`."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        at = _address(context, builder, signature.args[0], args[0], args[1], _WORDS)
        found = builder.load(at, align=4)
        count, value = (builder.trunc(one, _I32) for one in args[2:])
        below = builder.icmp_signed("<=", found, _splat(builder, value, _WORDS))
        valid = builder.icmp_signed("<", _NUMBERS, _splat(builder, count, _WORDS))
        mask = _mask(builder, builder.and_(below, valid))
        kind = ir.FunctionType(_I32, [_I32])
        ones = builder.call(builder.module.declare_intrinsic("llvm.ctpop", [_I32], kind), [mask])
        return builder.zext(ones, ir.IntType(64))

    return types.int64(words, types.int64, types.int64, types.int64), code


@_step(int)
def wide(_: Any, value: Any) -> Any:
    """An integer as int64."""
    return types.int64(types.int64), lambda context, builder, signature, args: args[0]


@_step(float)
def single(_: Any, value: Any) -> Any:
    """A number as float32."""
    return types.float32(types.float32), lambda context, builder, signature, args: args[0]


@_step(_Array)
def pointer(_: Any, array: Any) -> Any:
    """Where a contiguous array's items start: read and written like the array, in one dimension.

    To hand an array over takes seven machine words, a count of references (an atomic step, as dear
    as a whole lookup), and at each use a look whether the index is negative. A pointer takes one
    word, and nobody counts: let the owner of the array stay in use to the end.
    """

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return context.make_array(signature.args[0])(context, builder, args[0]).data

    return _pointer_to(array.dtype)(array), code


@_step(_Array)
def words_at(_: Any, address: Any) -> Any:
    """A pointer to the int32 items that start at an address."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], _I32.as_pointer())

    return _pointer_to(types.int32)(types.int64), code


@_step(_Array)
def longs_at(_: Any, address: Any) -> Any:
    """A pointer to the int64 items that start at an address."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], ir.IntType(64).as_pointer())

    return _pointer_to(types.int64)(types.int64), code


@_step(_Array)
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


@_step(float)
def load_float(_: Any, words: Any, index: Any) -> Any:
    """The float32 whose bits stand in `words[index]`."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        at = _address(context, builder, signature.args[0], args[0], args[1], ir.FloatType())
        return builder.load(at, align=4)

    return types.float32(words, types.int64), code


@_step(object)
def store_float(_: Any, words: Any, index: Any, value: Any) -> Any:
    """Write the bits of float32 `value` to `words[index]`."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        at = _address(context, builder, signature.args[0], args[0], args[1], ir.FloatType())
        builder.store(args[2], at, align=4)
        return context.get_dummy_value()

    return types.void(words, types.int64, types.float32), code


@_step(int)
def load_half(_: Any, words: Any, index: Any) -> Any:
    """Number `index` of the uint16 that stand two a word in `words`."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        zero = ir.IntType(64)(0)
        base = _address(context, builder, signature.args[0], args[0], zero, _I16)
        return builder.zext(builder.load(builder.gep(base, [args[1]]), align=2), ir.IntType(64))

    return types.int64(words, types.int64), code


@_step(object)
def store_half(_: Any, words: Any, index: Any, value: Any) -> Any:
    """Write `value`, 0..65535, as number `index` of the uint16 in `words`."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        zero = ir.IntType(64)(0)
        base = _address(context, builder, signature.args[0], args[0], zero, _I16)
        builder.store(builder.trunc(args[2], _I16), builder.gep(base, [args[1]]), align=2)
        return context.get_dummy_value()

    return types.void(words, types.int64, types.int64), code


@_step(int)
def load_pair(_: Any, words: Any, byte: Any) -> Any:
    """The 16 bits from any byte of `words` on."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        at = _address(context, builder, signature.args[0], args[0], ir.IntType(64)(0), _I8)
        at = builder.bitcast(builder.gep(at, [args[1]]), _I16.as_pointer())
        return builder.zext(builder.load(at, align=1), ir.IntType(64))

    return types.int64(words, types.int64), code


@_step(object)
def unpack16(_: Any, words: Any, half: Any, byte: Any, form: Any, base: Any, out: Any) -> Any:
    """Write 16 ids of up to 20 bits (store/blocks.py) to the int32 `out[0:16]`.

    Args:
        half: the number of the first low half.
        byte: where the upper bits start.
        form: 0 to 2.
    """

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        zero, long = ir.IntType(64)(0), ir.IntType(64)
        array, half, byte, form, base, out = args
        longs = ir.VectorType(long, LANES)
        at = _address(context, builder, signature.args[0], array, zero, _I16)
        at = builder.bitcast(builder.gep(at, [half]), _HALVES.as_pointer())
        low = builder.zext(builder.load(at, align=2), _WORDS)
        at = _address(context, builder, signature.args[0], array, zero, _I8)
        at = builder.bitcast(builder.gep(at, [byte]), long.as_pointer())
        upper = _splat(builder, builder.load(at, align=1), longs)
        numbers = ir.Constant(longs, list(range(LANES)))
        upper = builder.lshr(upper, builder.shl(numbers, _splat(builder, form, longs)))
        bits = builder.and_(builder.shl(long(1), form), long(6))
        mask = builder.sub(builder.shl(long(1), bits), long(1))
        upper = builder.and_(upper, _splat(builder, mask, longs))
        upper = builder.shl(builder.trunc(upper, _WORDS), ir.Constant(_WORDS, [16] * LANES))
        base = _splat(builder, builder.trunc(base, _I32), _WORDS)
        ids = builder.add(builder.add(low, upper), base)
        to = _address(context, builder, signature.args[5], out, zero, _WORDS)
        builder.store(ids, to, align=4)
        return context.get_dummy_value()

    long = types.int64
    return types.void(words, long, long, long, long, out), code


@_step(int)
def load_byte(_: Any, words: Any, byte: Any) -> Any:
    """A byte of `words`."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        at = _address(context, builder, signature.args[0], args[0], ir.IntType(64)(0), _I8)
        return builder.zext(builder.load(builder.gep(at, [args[1]]), align=1), ir.IntType(64))

    return types.int64(words, types.int64), code


@_step(object)
def store_byte(_: Any, words: Any, byte: Any, value: Any) -> Any:
    """Write the low 8 bits of `value` to a byte of `words`."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        at = _address(context, builder, signature.args[0], args[0], ir.IntType(64)(0), _I8)
        builder.store(builder.trunc(args[2], _I8), builder.gep(at, [args[1]]), align=1)
        return context.get_dummy_value()

    return types.void(words, types.int64, types.int64), code


@_step(int)
def lowest(_: Any, mask: Any) -> Any:
    """Number of the lowest bit set in `mask`, which is not 0."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        counted = ir.FunctionType(_I32, [_I32, ir.IntType(1)])
        count = builder.module.declare_intrinsic("llvm.cttz", [_I32], counted)
        return builder.call(count, [args[0], ir.IntType(1)(1)])

    return types.int32(types.int32), code


@_step(int)
def lowest64(_: Any, mask: Any) -> Any:
    """Number of the lowest bit set in `mask`, which is not 0."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        long = ir.IntType(64)
        counted = ir.FunctionType(long, [long, ir.IntType(1)])
        count = builder.module.declare_intrinsic("llvm.cttz", [long], counted)
        return builder.call(count, [args[0], ir.IntType(1)(1)])

    return types.int64(types.int64), code


@_step(object)
def prefetch(_: Any, array: Any, index: Any) -> Any:
    """Ask for the cache line of `array[index]`; any index is harmless."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        byte = ir.IntType(8)
        at = _address(context, builder, signature.args[0], args[0], args[1], byte)
        kind = ir.FunctionType(ir.VoidType(), [at.type, _I32, _I32, _I32])
        insert: Any = cgutils.get_or_insert_function
        function = insert(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [at, _I32(0), _I32(3), _I32(1)])  # read, keep close, data
        return context.get_dummy_value()

    return types.void(array, types.int64), code


@_step(int)
def fetch_add(_: Any, array: Any, index: Any, value: Any) -> Any:
    """Add to `array[index]` (int64) in one indivisible step, and return what stood there."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        at = _address(context, builder, signature.args[0], args[0], args[1], ir.IntType(64))
        return builder.atomic_rmw("add", at, args[2], "monotonic")

    return types.int64(array, types.int64, types.int64), code
