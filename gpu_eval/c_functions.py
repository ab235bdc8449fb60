"""Functions of C libraries, called by address from Numba's kernels, which hold no lock then.

What has an address in a library has none in a cache of compiled kernels, so the address is an argument.
"""

# mypy cannot see through Numba's decorators.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"
from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

# C's types on the machines there are wheels for: of an int, of size_t and ssize_t, of any pointer.
INT, UINT, SIZE, POINTER = "int", "unsigned", "size_t", "void *"

_I64 = ir.IntType(64)
_TYPES = {INT: ir.IntType(32), UINT: ir.IntType(32), SIZE: _I64, POINTER: ir.IntType(8).as_pointer()}


def c_function(result: str, *parameters: str):
    """A function for kernels, `f(address, *arguments)`, that calls the C function of this type at an address.

    All arguments and the result are int64, addresses too; what is wider than its C type is cut.
    """
    kind = ir.FunctionType(_TYPES[result], [_TYPES[parameter] for parameter in parameters])
    signature = types.int64(types.int64, types.StarArgUniTuple(types.int64, len(parameters)))

    def codegen(_context, builder, _signature, args):
        address, given = args
        values = []
        for i, parameter in enumerate(parameters):
            value = builder.extract_value(given, i)
            if parameter == POINTER:
                value = builder.inttoptr(value, _TYPES[POINTER])
            elif parameter != SIZE:
                value = builder.trunc(value, _TYPES[parameter])
            values.append(value)
        found = builder.call(builder.inttoptr(address, kind.as_pointer()), values)
        if result == POINTER:
            return builder.ptrtoint(found, _I64)
        if result == SIZE:
            return found
        return builder.sext(found, _I64) if result == INT else builder.zext(found, _I64)

    @intrinsic
    def call(_typingctx, _function, *_arguments):
        return signature, codegen

    return call
