"""Linear layers whose weights are codes of four bits, looked up in tables of 16 values."""

from vitrail.kernels.dispatch import Backend, Op
from vitrail.kernels.lookup_linear import cpp, reference

lookup_linear = Op(
    "lookup linear",
    [
        Backend("cpp", cpp.lookup_linear, cpp.unsupported_reason),
        Backend("reference", reference.lookup_linear, lambda x, codes, tables, scales, columns: None),
    ],
)
