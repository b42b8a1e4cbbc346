"""One world for every test: fixed seeds, one thread, and shapes that are checked wherever a signature states them."""

import os
import random
import shutil
from pathlib import Path

import numpy
import pytest
import torch
from jaxtyping import install_import_hook

# Signatures carry shapes (`Tokens`, `Heads`); from here on a call with any other shape is an error. The hook sees only
# modules that are imported after it, so it comes first.
_CHECKED = ["vitrail.parts", "vitrail.models", "vitrail.kernels"]
_CHECKED += [f"vitrail.tasks.classify.{name}" for name in ("loss", "metric", "result", "distillation", "training")]
_hook = install_import_hook(_CHECKED, "beartype.beartype")

torch.set_num_threads(1)

os.environ.setdefault("VITRAIL_GEMM_BLOCKS", "formula")  # no measurement; the bits of results are the same

# Native code is compiled without a warning. GCC 12 warns of uninitialised SIMD registers in its own headers.
_WARNINGS = "-Wall -Wextra -Werror -Wno-maybe-uninitialized -Wno-uninitialized"
if "CXX" not in os.environ and shutil.which("g++"):
    os.environ.setdefault("VITRAIL_CXXFLAGS", _WARNINGS)  # of processes that tests start, too


@pytest.fixture(autouse=True)
def _same_seed() -> None:
    random.seed(0)
    numpy.random.seed(0)  # noqa: NPY002  (scikit-learn and matplotlib draw from it)
    torch.manual_seed(0)


def _shared_folder() -> Path | None:
    named = os.environ.get("VITRAIL_SHARED")
    folder = Path(named) if named else Path(__file__).parents[2] / "shared"
    return folder if folder.is_dir() else None


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real weights and images, or a skip where there is none."""
    folder = _shared_folder()
    if folder is None:
        pytest.skip("no shared folder: set VITRAIL_SHARED or put it beside the repository")
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked `shared` where that folder is not."""
    if _shared_folder() is None:
        for item in items:
            if item.get_closest_marker("shared"):
                item.add_marker(pytest.mark.skip(reason="no shared folder: set VITRAIL_SHARED"))


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    """Give fp32 and bf16 in turn, where compiled operations know them."""
    from vitrail.native.build import refusal

    reason = refusal(request.param)
    if reason:
        pytest.skip(reason)
    return request.param
