"""What threads need of each other inside kernels: indivisible steps on int64, as LLVM IR."""

from typing import Any

from llvmlite import ir
from numba import types

from store.words import I32, I64, address_of, as_step


@as_step(int)
def fetch_add(_: Any, array: Any, index: Any, value: Any) -> Any:
    """Add to `array[index]`, and return what stood there; says nothing about other words."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        at = address_of(context, builder, signature.args[0], args[0], args[1], I64)
        return builder.atomic_rmw("add", at, args[2], "monotonic")

    return types.int64(array, types.int64, types.int64), code


@as_step(int)
def load_acquire(_: Any, array: Any, index: Any) -> Any:
    """Read `array[index]`, and see all that was written before it was (`store_release`)."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        at = address_of(context, builder, signature.args[0], args[0], args[1], I64)
        return builder.load_atomic(at, "acquire", 8)

    return types.int64(array, types.int64), code


@as_step(object)
def store_release(_: Any, array: Any, index: Any, value: Any) -> Any:
    """Write `array[index]`; who reads it so (`load_acquire`) sees all that was written before."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        at = address_of(context, builder, signature.args[0], args[0], args[1], I64)
        builder.store_atomic(args[2], at, "release", 8)
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64), code


@as_step(int)
def swap_if(_: Any, array: Any, index: Any, old: Any, new: Any) -> Any:
    """Write `new` to `array[index]` if `old` stands there; returns what stood there."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        at = address_of(context, builder, signature.args[0], args[0], args[1], I64)
        both = builder.cmpxchg(at, args[2], args[3], "acq_rel", "acquire")
        return builder.extract_value(both, 0)

    return types.int64(array, types.int64, types.int64, types.int64), code


@as_step(object)
def give_way(_: Any) -> Any:
    """Let another thread have the core, if one wants it."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(I32, [])
        name = "sched_yield"  # of the C library, where the process finds it
        there = builder.module.globals.get(name)
        builder.call(there or ir.Function(builder.module, kind, name), [])
        return context.get_dummy_value()

    return types.void(), code
