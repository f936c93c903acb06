"""Sixteen numbers at once, or eight: the vector steps of the store, written as LLVM IR.

LLVM lowers them to AVX-512, AVX2, SSE or NEON, whatever the machine has. A step loads 16 lanes
from an array of 32-bit words, or from a pointer into one, whether or not all of them count: so
every array that is handed in ends with at least `PAD` spare words. Lanes at or beyond `count` read
as 0.

The order of additions is fixed by the IR: the same weights give the same sums on every machine.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types

from store.words import I8, I16, I32, I64, address_of, as_step

PAD = 32
LANES = 16

_FLOATS = ir.VectorType(ir.FloatType(), LANES)
_WORDS = ir.VectorType(I32, LANES)
_HALVES = ir.VectorType(I16, LANES)
_NUMBERS = ir.Constant(_WORDS, list(range(LANES)))
_ZEROS = ir.Constant(_FLOATS, [0.0] * LANES)
_EIGHT = ir.VectorType(I32, 8)
# Of each byte, the numbers of the bits that are set.
_PLACES = [[k for k in range(8) if byte >> k & 1] for byte in range(256)]


def _splat(builder: Any, value: Any, to: Any) -> Any:
    empty = ir.Constant(to, ir.Undefined)
    first = builder.insert_element(empty, value, I32(0))
    return builder.shuffle_vector(first, empty, ir.Constant(_WORDS, [0] * LANES))


def _mask(builder: Any, condition: Any) -> Any:
    """The lanes' truth as bits of an int32."""
    return builder.zext(builder.bitcast(condition, I16), I32)


def _load(context: Any, builder: Any, kind: Any, array: Any, index: Any, count: Any) -> Any:
    lanes = builder.load(address_of(context, builder, kind, array, index, _FLOATS), align=4)
    valid = builder.icmp_signed("<", _NUMBERS, _splat(builder, count, _WORDS))
    return builder.select(valid, lanes, _ZEROS)


def _sum(builder: Any, lanes: Any) -> Any:
    for step in (8, 4, 2, 1):
        turned = ir.Constant(_WORDS, [(lane + step) % LANES for lane in range(LANES)])
        lanes = builder.fadd(lanes, builder.shuffle_vector(lanes, lanes, turned))
    return builder.extract_element(lanes, I32(0))


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
    counted = ir.FunctionType(I32, [I32, ir.IntType(1)])
    first = builder.call(
        builder.module.declare_intrinsic("llvm.cttz", [I32], counted), [above, ir.IntType(1)(0)]
    )
    leading = builder.call(
        builder.module.declare_intrinsic("llvm.ctlz", [I32], counted), [there, ir.IntType(1)(0)]
    )
    none = builder.icmp_signed("==", above, I32(0))
    return builder.select(none, builder.sub(I32(31), leading), first)


def _match_halves(lanes: int) -> Callable[..., Any]:
    """Bits k where the uint16 number `index + k` of `array` is the low half of `value`."""

    def step(_: Any, array: Any, index: Any, value: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            zero, kind = I64(0), ir.VectorType(I16, lanes)
            base = address_of(context, builder, signature.args[0], args[0], zero, I16)
            at = builder.bitcast(builder.gep(base, [args[1]]), kind.as_pointer())
            found = builder.load(at, align=2)
            empty = ir.Constant(kind, ir.Undefined)
            first = builder.insert_element(empty, builder.trunc(args[2], I16), I32(0))
            numbers = ir.Constant(ir.VectorType(I32, lanes), [0] * lanes)
            alike = builder.icmp_signed("==", found, builder.shuffle_vector(first, empty, numbers))
            return builder.zext(builder.bitcast(alike, ir.IntType(lanes)), I64)

        return types.int64(array, types.int64, types.int64), code

    return step


match_halves = as_step(int)(_match_halves(16))
match_more_halves = as_step(int)(_match_halves(32))


@as_step(float)
def sum16(_: Any, array: Any, index: Any, count: Any) -> Any:
    """Sum of `array[index : index + count]`, count <= 16; float32, always in the same order."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _sum(builder, _load(context, builder, signature.args[0], args[0], args[1], args[2]))

    return types.float32(array, types.int64, types.int32), code


@as_step(float)
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


@as_step(float)
def scan16(_: Any, array: Any, index: Any, count: Any, out: Any) -> Any:
    """Write prefix sums of `array[index : index + count]` to `out[0:16]`, and return their total.

    Lanes of weight 0 hold -1 instead, so that `find16` never stops there.
    """

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lanes = _load(context, builder, signature.args[0], args[0], args[1], args[2])
        prefix = _prefix(builder, lanes)
        zero = I64(0)
        at = address_of(context, builder, signature.args[3], args[3], zero, _FLOATS)
        builder.store(_reachable(builder, lanes, prefix), at, align=4)
        return builder.extract_element(prefix, I32(LANES - 1))

    return types.float32(array, types.int64, types.int32, out), code


@as_step(int)
def find16(_: Any, scanned: Any, mass: Any) -> Any:
    """The lane in which `mass` falls, in what `scan16` wrote; -1 where all weights are 0."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        zero = I64(0)
        at = address_of(context, builder, signature.args[0], args[0], zero, _FLOATS)
        return _first_above(builder, builder.load(at, align=4), args[1])

    return types.int32(scanned, types.float32), code


@as_step(int)
def pick16(_: Any, array: Any, index: Any, count: Any, uniform: Any) -> Any:
    """A lane drawn in proportion to `array[index : index + count]`; -1 where all are 0.

    `uniform` is in [0, 1).
    """

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lanes = _load(context, builder, signature.args[0], args[0], args[1], args[2])
        prefix = _prefix(builder, lanes)
        mass = builder.fmul(builder.extract_element(prefix, I32(LANES - 1)), args[3])
        return _first_above(builder, _reachable(builder, lanes, prefix), mass)

    return types.int32(array, types.int64, types.int32, types.float32), code


@as_step(int)
def others_up_to(_: Any, words: Any, index: Any, count: Any, value: Any) -> Any:
    """How many of the numbers `words[index : index + count]`, count <= 16, are <= `value`."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        at = address_of(context, builder, signature.args[0], args[0], args[1], _WORDS)
        found = builder.load(at, align=4)
        count, value = (builder.trunc(one, I32) for one in args[2:])
        below = builder.icmp_signed("<=", found, _splat(builder, value, _WORDS))
        valid = builder.icmp_signed("<", _NUMBERS, _splat(builder, count, _WORDS))
        mask = _mask(builder, builder.and_(below, valid))
        kind = ir.FunctionType(I32, [I32])
        ones = builder.call(builder.module.declare_intrinsic("llvm.ctpop", [I32], kind), [mask])
        return builder.zext(ones, I64)

    return types.int64(words, types.int64, types.int64, types.int64), code


@as_step(object)
def unpack16(_: Any, words: Any, half: Any, byte: Any, form: Any, base: Any, out: Any) -> Any:
    """Write 16 ids of up to 20 bits (store/blocks.py) to the int32 `out[0:16]`.

    Args:
        half: the number of the first low half.
        byte: where the upper bits start.
        form: 0 to 2.
    """

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        zero, long = I64(0), I64
        array, half, byte, form, base, out = args
        longs = ir.VectorType(long, LANES)
        at = address_of(context, builder, signature.args[0], array, zero, I16)
        at = builder.bitcast(builder.gep(at, [half]), _HALVES.as_pointer())
        low = builder.zext(builder.load(at, align=2), _WORDS)
        at = address_of(context, builder, signature.args[0], array, zero, I8)
        at = builder.bitcast(builder.gep(at, [byte]), long.as_pointer())
        upper = _splat(builder, builder.load(at, align=1), longs)
        numbers = ir.Constant(longs, list(range(LANES)))
        upper = builder.lshr(upper, builder.shl(numbers, _splat(builder, form, longs)))
        bits = builder.and_(builder.shl(long(1), form), long(6))
        mask = builder.sub(builder.shl(long(1), bits), long(1))
        upper = builder.and_(upper, _splat(builder, mask, longs))
        upper = builder.shl(builder.trunc(upper, _WORDS), ir.Constant(_WORDS, [16] * LANES))
        base = _splat(builder, builder.trunc(base, I32), _WORDS)
        ids = builder.add(builder.add(low, upper), base)
        to = address_of(context, builder, signature.args[5], out, zero, _WORDS)
        builder.store(ids, to, align=4)
        return context.get_dummy_value()

    long = types.int64
    return types.void(words, long, long, long, long, out), code


@as_step(int)
def bits_of(_: Any, words: Any, index: Any, shift: Any, mask: Any, wanted: Any) -> Any:
    """Bits k, 0..7, where number (`words[index + k]` >> `shift`) & `mask` is set in `wanted`."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        at = address_of(context, builder, signature.args[0], args[0], args[1], _EIGHT)
        shift, mask, wanted = (_eight(builder, builder.trunc(one, I32)) for one in args[2:])
        number = builder.and_(builder.lshr(builder.load(at, align=4), shift), mask)
        bit = builder.and_(builder.lshr(wanted, number), ir.Constant(_EIGHT, [1] * 8))
        there = builder.icmp_signed("!=", bit, ir.Constant(_EIGHT, [0] * 8))
        return builder.zext(builder.bitcast(there, I8), I64)

    long = types.int64
    return long(words, long, long, long, long), code


@as_step(int)
def write_where(_: Any, words: Any, index: Any, first: Any, bits: Any) -> Any:
    """Write `first + k` to `words[index:]` for each k, 0..7, set in `bits`; returns how many.

    Eight words are written, of which the others mean nothing.
    """

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        table = _places(builder.module)
        places = builder.load(builder.gep(table, [I64(0), args[3]]), align=32)
        first = _eight(builder, builder.trunc(args[2], I32))
        at = address_of(context, builder, signature.args[0], args[0], args[1], _EIGHT)
        builder.store(builder.add(places, first), at, align=4)
        kind = ir.FunctionType(I64, [I64])
        count = builder.module.declare_intrinsic("llvm.ctpop", [I64], kind)
        return builder.call(count, [args[3]])

    long = types.int64
    return long(words, long, long, long), code


def _eight(builder: Any, value: Any) -> Any:
    empty = ir.Constant(_EIGHT, ir.Undefined)
    first = builder.insert_element(empty, value, I32(0))
    return builder.shuffle_vector(first, empty, ir.Constant(_EIGHT, [0] * 8))


def _places(module: Any) -> Any:
    """The constant table of `_PLACES`, shape (256, 8)."""
    name = "upwell_places"
    if name not in module.globals:
        rows = [ir.Constant(_EIGHT, (row + [0] * 8)[:8]) for row in _PLACES]
        kind = ir.ArrayType(_EIGHT, 256)
        table = ir.GlobalVariable(module, kind, name)
        table.initializer = ir.Constant(kind, rows)
        table.linkage, table.global_constant, table.align = "internal", True, 32
    return module.globals[name]
