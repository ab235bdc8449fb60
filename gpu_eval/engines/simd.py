"""64-byte vectors for Numba: the vocabulary that the CPU kernels are written in.

Numba vectorises simple loops only. Unfiltering and counting label maps need "which of these 64 bytes
differ" as a bit mask, so this module adds one type, a vector of 64 unsigned bytes, and the dozen
operations the kernels use. LLVM lowers them to whatever the machine has (one AVX-512 instruction, two
of AVX2, four of SSE2 or NEON); there is no assembly and no feature test.

Memory is given by address: an array argument would be reference-counted, with an atomic operation,
at every call of every inner function. `address` of an array is taken once, where the array is kept alive.

Masks are int64 with bit k for byte k. They are signed because Numba turns int64 with uint64 into
float64. Nothing here checks bounds: the caller's buffers carry `PAD` bytes of padding on both sides.
"""

# mypy cannot see through Numba's decorators, which rewrite these signatures.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc"
from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, register_model

PAD = 64

_I1, _I8, _I64 = ir.IntType(1), ir.IntType(8), ir.IntType(64)
_VECTOR = ir.VectorType(_I8, 64)


class _Bytes64(types.Type):
    def __init__(self) -> None:
        super().__init__(name="Bytes64")


bytes64 = _Bytes64()


@register_model(_Bytes64)
class _Bytes64Model(models.PrimitiveModel):
    def __init__(self, dmm, fe_type) -> None:
        super().__init__(dmm, fe_type, _VECTOR)


def _pointer(builder, base, index, kind=_I8):
    return builder.gep(builder.inttoptr(base, kind.as_pointer()), [index])


def _splat(builder, scalar):
    one = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
    lanes = ir.Constant(ir.VectorType(ir.IntType(32), 64), [0] * 64)
    return builder.shuffle_vector(one, one, lanes)


@intrinsic
def address(typingctx, array):
    """Where an array's first element lies, as int64; the caller keeps the array alive."""

    def codegen(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.ptrtoint(data, _I64)

    return types.int64(array), codegen


@intrinsic
def load(typingctx, base, index):
    """The 64 bytes at address `base` + `index`, at any alignment."""

    def codegen(context, builder, signature, args):
        pointer = _pointer(builder, *args)
        return builder.load(builder.bitcast(pointer, _VECTOR.as_pointer()), align=1)

    return bytes64(types.int64, types.int64), codegen


@intrinsic
def store(typingctx, base, index, vector):
    """Write 64 bytes at address `base` + `index`."""

    def codegen(context, builder, signature, args):
        pointer = _pointer(builder, args[0], args[1])
        builder.store(args[2], builder.bitcast(pointer, _VECTOR.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, bytes64), codegen


@intrinsic
def byte(typingctx, base, index):
    """The byte at address `base` + `index`, as int64."""

    def codegen(context, builder, signature, args):
        return builder.zext(builder.load(_pointer(builder, *args)), _I64)

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def set_byte(typingctx, base, index, value):
    """Write the low byte of an int64 at address `base` + `index`."""

    def codegen(context, builder, signature, args):
        builder.store(builder.trunc(args[2], _I8), _pointer(builder, args[0], args[1]))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


@intrinsic
def word(typingctx, base, index):
    """Element `index` of the int64 array at address `base`."""

    def codegen(context, builder, signature, args):
        return builder.load(_pointer(builder, args[0], args[1], _I64))

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def add_to_word(typingctx, base, index, value):
    """Add to element `index` of the int64 array at address `base`."""

    def codegen(context, builder, signature, args):
        pointer = _pointer(builder, args[0], args[1], _I64)
        builder.store(builder.add(builder.load(pointer), args[2]), pointer)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


@intrinsic
def splat(typingctx, value):
    """64 copies of the low byte of an int64."""

    def codegen(context, builder, signature, args):
        return _splat(builder, builder.trunc(args[0], _I8))

    return bytes64(types.int64), codegen


@intrinsic
def add(typingctx, a, b):
    """Bytewise a + b modulo 256."""

    def codegen(context, builder, signature, args):
        return builder.add(args[0], args[1])

    return bytes64(bytes64, bytes64), codegen


@intrinsic
def differ(typingctx, a, b):
    """Mask of the bytes in which a and b differ."""

    def codegen(context, builder, signature, args):
        return builder.bitcast(builder.icmp_unsigned("!=", args[0], args[1]), _I64)

    return types.int64(bytes64, bytes64), codegen


@intrinsic
def nonzero(typingctx, a):
    """Mask of the bytes that are not zero."""

    def codegen(context, builder, signature, args):
        zero = ir.Constant(_VECTOR, None)
        return builder.bitcast(builder.icmp_unsigned("!=", args[0], zero), _I64)

    return types.int64(bytes64), codegen


@intrinsic
def blend(typingctx, mask, a, b):
    """Bytes of a where the mask is set, of b elsewhere."""

    def codegen(context, builder, signature, args):
        lanes = builder.bitcast(args[0], ir.VectorType(_I1, 64))
        return builder.select(lanes, args[1], args[2])

    return bytes64(types.int64, bytes64, bytes64), codegen


@intrinsic
def lowest(typingctx, mask):
    """Index of the lowest set bit; 64 for an empty mask."""

    def codegen(context, builder, signature, args):
        return builder.cttz(args[0], ir.Constant(_I1, 0))

    return types.int64(types.int64), codegen


@intrinsic
def below(typingctx, count):
    """Mask of the lowest `count` bits, for count in 0..64 (a plain shift by 64 is undefined)."""

    def codegen(context, builder, signature, args):
        full = builder.icmp_signed(">=", args[0], ir.Constant(_I64, 64))
        shifted = builder.shl(ir.Constant(_I64, 1), builder.and_(args[0], ir.Constant(_I64, 63)))
        return builder.select(full, ir.Constant(_I64, -1), builder.sub(shifted, ir.Constant(_I64, 1)))

    return types.int64(types.int64), codegen
