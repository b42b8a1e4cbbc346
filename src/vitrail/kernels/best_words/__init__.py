"""The best words of each row of scores, ties broken by the word: a step of a beam search."""

from vitrail.kernels.best_words import cpp, reference
from vitrail.kernels.dispatch import Backend, Op

best_words = Op(
    "best words",
    [
        Backend("cpp", cpp.best_words, cpp.unsupported_reason),
        Backend("reference", reference.best_words, lambda scores, count: None),
    ],
)
