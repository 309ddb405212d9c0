"""The innermost loop of the products, its sums in registers: numba's own would store them."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic

LANES = 128  # sums at a time: half of AVX-512's registers for float32
NUMBER = ir.IntType(32)
FUSED = ("contract",)  # product and sum in one instruction


@intrinsic
def add_products(
    typing: Any, column: Any, value: Any, weight: Any, left: Any, target: Any
) -> tuple[Any, Any]:
    """target[left:] += Σ value[i] · weight[column[i], left:] over all entries, for LANES places.

    A row of `weight`, and `target`, lie side by side in memory. All numbers are of one type.
    """
    if not value.dtype == weight.dtype == target.dtype:
        # Read as what they are not, they would be written beyond the end of what is there.
        raise TypingError(f"entries of {value.dtype} times weights of {weight.dtype}")
    return types.void(column, value, weight, left, target), generate_products


def generate_products(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """LLVM's instructions of `add_products`."""
    kinds = signature.args
    column, value, weight, target = (
        context.make_array(kinds[at])(context, builder, arguments[at]) for at in (0, 1, 2, 4)
    )
    left, n_entries = arguments[3], builder.extract_value(column.shape, 0)
    vector = ir.VectorType(context.get_data_type(kinds[1].dtype), LANES)
    size = context.get_abi_sizeof(vector.element)
    step = builder.udiv(builder.extract_value(weight.strides, 0), left.type(size))
    nothing, everywhere = ir.Constant(vector, ir.Undefined), ir.VectorType(NUMBER, LANES)(None)

    def find_lanes(array: Any, at: Any) -> Any:
        return builder.bitcast(builder.gep(array.data, [at]), vector.as_pointer())

    out = find_lanes(target, left)
    # From 0, not from the target: a chain of all a row's thousands of additions would round worse
    # than the product of dense matrices does.
    total = cgutils.alloca_once_value(builder, vector(None))
    with cgutils.for_range(builder, n_entries) as entry:
        i = entry.index
        place = builder.load(builder.gep(column.data, [i]))
        place = builder.mul(context.cast(builder, place, kinds[0].dtype, types.int64), step)
        row = builder.load(find_lanes(weight, builder.add(place, left)), align=size)
        one = builder.load(builder.gep(value.data, [i]))
        one = builder.insert_element(nothing, one, NUMBER(0))
        product = builder.fmul(builder.shuffle_vector(one, nothing, everywhere), row, flags=FUSED)
        builder.store(builder.fadd(product, builder.load(total), flags=FUSED), total)
    whole = builder.fadd(builder.load(out, align=size), builder.load(total))
    builder.store(whole, out, align=size)
    return context.get_dummy_value()
