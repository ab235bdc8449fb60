"""64-byte vectors for Numba: the vocabulary that the CPU kernels are written in.

Numba vectorises simple loops only. Unfiltering and counting label maps need "which of these 64 bytes
differ" as a bit mask, so this module adds one type, a vector of 64 unsigned bytes, and the dozen
operations the kernels use. LLVM lowers them to whatever the machine has (one AVX-512 instruction, two
of AVX2, four of SSE2 or NEON); there is no assembly and no feature test.

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


def _pointer(context, builder, array_type, array, index):
    data = context.make_array(array_type)(context, builder, array).data
    return builder.gep(builder.bitcast(data, _I8.as_pointer()), [index])


def _splat(builder, scalar):
    one = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
    lanes = ir.Constant(ir.VectorType(ir.IntType(32), 64), [0] * 64)
    return builder.shuffle_vector(one, one, lanes)


@intrinsic
def load(typingctx, array, index):
    """The 64 bytes of a uint8 array from `index` on, at any alignment."""

    def codegen(context, builder, signature, args):
        pointer = _pointer(context, builder, signature.args[0], args[0], args[1])
        return builder.load(builder.bitcast(pointer, _VECTOR.as_pointer()), align=1)

    return bytes64(array, types.intp), codegen


@intrinsic
def store(typingctx, array, index, vector):
    """Write 64 bytes into a uint8 array from `index` on."""

    def codegen(context, builder, signature, args):
        pointer = _pointer(context, builder, signature.args[0], args[0], args[1])
        builder.store(args[2], builder.bitcast(pointer, _VECTOR.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(array, types.intp, bytes64), codegen


@intrinsic
def byte(typingctx, array, index):
    """One byte of a uint8 array as int64, without Numba's test for a negative index."""

    def codegen(context, builder, signature, args):
        pointer = _pointer(context, builder, signature.args[0], args[0], args[1])
        return builder.zext(builder.load(pointer), _I64)

    return types.int64(array, types.intp), codegen


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


@intrinsic
def call_crc32(typingctx, function, array, start, size):
    """Call `uint32_t crc32(uint32_t, const void *, size_t)` at the address `function`."""

    def codegen(context, builder, signature, args):
        i32 = ir.IntType(32)
        kind = ir.FunctionType(i32, [i32, _I8.as_pointer(), _I64]).as_pointer()
        data = _pointer(context, builder, signature.args[1], args[1], args[2])
        result = builder.call(builder.inttoptr(args[0], kind), [ir.Constant(i32, 0), data, args[3]])
        return builder.zext(result, _I64)

    return types.int64(types.int64, array, types.intp, types.intp), codegen


@intrinsic
def call_inflate(typingctx, function, state, source, start, size, target, target_start, target_size):
    """Call `libdeflate_zlib_decompress` at the address `function`.

    Returns libdeflate's result: 0 for success with exactly `target_size` bytes out, 1 for bad data (a
    wrong Adler-32 included), 2 for a stream that ends short, 3 for one that holds more.
    """

    def codegen(context, builder, signature, args):
        i32, pointer = ir.IntType(32), _I8.as_pointer()
        kind = ir.FunctionType(i32, [pointer, pointer, _I64, pointer, _I64, pointer]).as_pointer()
        data = _pointer(context, builder, signature.args[2], args[2], args[3])
        out = _pointer(context, builder, signature.args[5], args[5], args[6])
        null = ir.Constant(pointer, None)
        result = builder.call(
            builder.inttoptr(args[0], kind),
            [builder.inttoptr(args[1], pointer), data, args[4], out, args[7], null],
        )
        return builder.sext(result, _I64)

    signature = types.int64(
        types.int64, types.int64, source, types.intp, types.intp, target, types.intp, types.intp
    )
    return signature, codegen
