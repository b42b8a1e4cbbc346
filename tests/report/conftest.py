"""A small real model, as in `tests/inference`."""

import pytest
from shades import tiny_model
from torch import nn


@pytest.fixture(scope="session")
def tiny() -> nn.Module:
    return tiny_model()
