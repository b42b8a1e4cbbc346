"""Exported programs of PyTorch: files that PyTorch alone loads and runs at any size."""

import subprocess
import sys

import pytest
import torch
from small_texts import small
from torch.export import Dim
from torch.nn import Conv2d

from vitrail.errors import VitrailError
from vitrail.export import formats, program
from vitrail.export.export import export
from vitrail.export.padded_lstm import PaddedLSTM
from vitrail.export.stored_sizes import store_sizes
from vitrail.export.traced_sizes import compare_by_traced_sizes
from vitrail.models import create_model
from vitrail.parts.recurrent import LSTM

pytestmark = pytest.mark.filterwarnings("ignore")
TINY_SWIN = {"dim": 8, "depths": (2, 1), "num_heads": (2, 2), "window_size": 4, "image_size": 32, "num_classes": 3}
ALONE = """
import sys, torch
program = torch.export.load(sys.argv[1]).module()
for inputs, wanted in torch.load(sys.argv[2]):
    torch.testing.assert_close(program(*inputs), wanted, rtol=1e-4, atol=1e-5)
assert "vitrail" not in sys.modules
"""


def run_alone(file, cases):
    """Run a file in a process that does not know this library."""
    torch.save(cases, file.with_suffix(".cases"))
    command = [sys.executable, "-I", "-c", ALONE, str(file), str(file.with_suffix(".cases"))]
    done = subprocess.run(command, capture_output=True, text=True, cwd=file.parent, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_file_of_windows_runs_in_pytorch_alone_at_any_size(tmp_path):
    model = create_model("swin_tiny_patch4_window7_224", **TINY_SWIN).eval()
    done = export(model, "pt2", tmp_path / "swin.pt2", sizes="any")
    assert done.sizes == {"height": "any", "width": "any"} and max(each.error for each in done.compared) < 1e-5
    images = [torch.randn(shape) for shape in ((1, 3, 32, 32), (3, 3, 50, 23), (2, 3, 5, 70))]
    with torch.no_grad():
        run_alone(done.files[0], [((each,), model(each)) for each in images])


def test_a_file_of_an_lstm_has_operations_of_pytorch_only(tmp_path):
    model = small("bilstm").eval()
    model.task = "sentiment"
    done = export(model, "pt2", tmp_path / "texts.pt2", sizes="any")
    nodes = torch.export.load(done.files[0]).graph.nodes
    assert {node.target.namespace for node in nodes if hasattr(node.target, "namespace")} == {"aten"}
    assert done.sizes == {"length": "any"} and max(each.error for each in done.compared) < 1e-5


def test_every_size_of_a_saved_program_is_a_symbol_with_a_range():
    with compare_by_traced_sizes():
        free = dict.fromkeys((0, 2, 3), Dim.DYNAMIC)
        exported = torch.export.export(Conv2d(3, 4, 3, stride=2), (torch.zeros(2, 3, 31, 37),), dynamic_shapes=(free,))
    store_sizes(exported)
    *_, node, _ = exported.graph.nodes
    symbols = [size.node.expr for size in node.meta["val"].shape if isinstance(size, torch.SymInt)]
    assert len(symbols) == 3 and all(each.is_Symbol and each in exported.range_constraints for each in symbols)


def test_operations_of_a_library_are_refused_by_name(tmp_path, monkeypatch):
    model = small("bilstm").eval()
    model.task = "sentiment"
    monkeypatch.setitem(program._PLAIN_FORMS, LSTM, PaddedLSTM)
    with pytest.raises(VitrailError, match=r"no vitrail::padded_lstm.\nExport it with --to onnx"):
        export(model, "pt2", tmp_path / "texts.pt2", sizes="any")
    assert not list(tmp_path.iterdir())


def test_a_file_that_pytorch_does_not_load_is_removed(tmp_path, monkeypatch):
    model = create_model("vit_tiny_patch16_224", depth=1, dim=8, num_heads=1, image_size=32, num_classes=3).eval()
    monkeypatch.setattr(formats, "store_sizes", lambda exported: None)
    with pytest.raises(VitrailError, match="cannot be opened by pt2"):
        export(model, "pt2", tmp_path / "vit.pt2", sizes="any")
    assert not list(tmp_path.iterdir())
