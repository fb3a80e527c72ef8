"""Single precision with a fraction of ten bits, which matrix units of a GPU multiply."""

import triton
import triton.language as tl


@triton.jit
def rounded(x):
    """The nearest number of TF32, as libraries take it; a product by itself cuts bits off."""
    bits = (x.to(tl.int32, bitcast=True) + 0x1000) & -0x2000
    # What is no number may have all bits set, and would become a zero.
    return tl.where(x == x, bits.to(tl.float32, bitcast=True), x)
