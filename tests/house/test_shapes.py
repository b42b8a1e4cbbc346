"""Shapes in signatures are enforced while tests run: a call with another shape is an error, not a comment."""

import pytest
import torch
from jaxtyping import TypeCheckError

from vitrail.kernels.attention.reference import attention_map


def test_a_wrong_rank_is_refused():
    with pytest.raises(TypeCheckError):
        attention_map(torch.zeros(4), torch.zeros(4), None)


def test_a_wrong_kind_of_number_is_refused():
    heads = torch.zeros(1, 1, 2, 4, dtype=torch.int64)
    with pytest.raises(TypeCheckError):
        attention_map(heads, heads, None)
