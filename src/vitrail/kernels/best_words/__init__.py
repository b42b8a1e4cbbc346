"""The best continuations of texts in a step of a beam search, ties broken by word and row."""

from vitrail.kernels.best_words import cpp, reference
from vitrail.kernels.dispatch import Backend, Op

best_words = Op(
    "best words",
    [
        Backend("cpp", cpp.best_words, cpp.unsupported_reason),
        Backend("reference", reference.best_words, lambda scores, sums, counts, best: None),
    ],
)
