"""Exported models of points: farthest points, balls and sorted picks in operators of ONNX, for any number of points."""

import pytest
import torch
from torch import nn
from torch.export import Dim

from vitrail.export.export import export
from vitrail.export.looped_points import looped_farthest_points
from vitrail.export.onnx_operations import onnx_translations
from vitrail.export.program import export_program, program_spec
from vitrail.export.runtime import open_exported
from vitrail.kernels.points import reference
from vitrail.models import create_model
from vitrail.models import task_of as published_task
from vitrail.tasks.point_program import CLEAR, smallest_gap

pytestmark = pytest.mark.filterwarnings("ignore")
SAMPLED = {"dim": 32, "sort_nets": 1, "picks": 6, "centers": (12, 8), "num_heads": 2}
MODELS = {
    "set_transformer_modelnet40": {"dim": 16, "inducing_points": 3, "num_heads": 2},
    "point_transformer_engel": SAMPLED,
    "point_transformer_engel_parts": SAMPLED,
}


@pytest.fixture
def runtime():
    pytest.importorskip("onnxscript")
    return pytest.importorskip("onnxruntime")


class Sorted(nn.Module):
    """Both orders of rows with many equal values."""

    def forward(self, x):
        """Return indices, smallest and largest first."""
        return tuple(x.sort(dim=1, stable=True, descending=each).indices for each in (False, True))


def test_equal_values_keep_their_order_in_a_file(runtime, tmp_path):
    """What lexicographic order, balls and SortNets rest on; 200 values of three kinds."""
    x = torch.randint(0, 3, (2, 200), generator=torch.Generator().manual_seed(0))
    shapes = ({0: Dim.DYNAMIC, 1: Dim.DYNAMIC},)
    program = torch.export.export(Sorted(), (x.float(),), dynamic_shapes=shapes)
    file = tmp_path / "sort.onnx"
    table = onnx_translations()
    written = torch.onnx.export(program, (), dynamo=True, verbose=False, custom_translation_table=table)
    assert written is not None
    written.save(file)
    session = runtime.InferenceSession(str(file))
    for given in (x, x[:1, :77], x[:, :1]):
        found = session.run(None, {session.get_inputs()[0].name: given.float().numpy()})
        assert all(torch.equal(torch.from_numpy(a), b) for a, b in zip(found, Sorted()(given), strict=True))


def test_farthest_points_of_a_program_take_any_batch():
    class Chosen(nn.Module):
        def forward(self, points):
            return reference.farthest_points(points, 4, 0)

    shapes = ({0: Dim.DYNAMIC, 1: Dim.DYNAMIC},)
    program = torch.export.export(Chosen(), (torch.rand(2, 9, 3),), dynamic_shapes=shapes).module()
    for shape in ((1, 9, 3), (3, 5, 3)):
        points = torch.rand(shape)
        assert torch.equal(program(points), Chosen()(points))


def test_farthest_points_are_one_loop_of_a_program_of_any_number_of_points():
    """With the same indices, of equal points the first."""

    class Chosen(nn.Module):
        def forward(self, points):
            return looped_farthest_points(points, 40)

    shapes = ({0: Dim.DYNAMIC, 1: Dim.DYNAMIC},)
    program = torch.export.export(Chosen(), (torch.rand(2, 90, 3),), dynamic_shapes=shapes)
    names = [str(node.target) for node in program.graph.nodes]
    assert len(names) < 30 and names.count("while_loop") == 1
    for shape in ((1, 90, 3), (3, 41, 3)):
        points = torch.rand(shape)
        for given in (points, torch.cat([points[:, :25], points[:, :25]], dim=1)):
            assert torch.equal(program.module()(given), reference.farthest_points(given, 40, 0))


def test_clouds_that_a_file_is_compared_on_have_clear_picks():
    """Between neighbouring scores of each SortNet lie several rounding errors; the same seed gives the same cloud."""
    model = create_model("point_transformer_engel", num_classes=5, **SAMPLED).eval()
    spec = program_spec(model)
    points, again = (spec.example({"batch": 3, "points": 100}, seed=1)[0] for _ in range(2))
    assert torch.equal(points, again) and points.norm(dim=2).amax(1) == pytest.approx([1.0] * 3)
    backbone = model.backbone
    with torch.no_grad():
        scores = backbone.local.sort_nets[0].score(backbone.point_features(points))[..., 0]
        wide = backbone.double()
        exact = wide.local.sort_nets[0].score(wide.point_features(points.double()))[..., 0]
    gaps = [smallest_gap(one[None], other[None], 6) for one, other in zip(scores, exact, strict=True)]
    assert min(gaps) > CLEAR / 2, gaps  # rounding of a batch differs a little from that of one cloud


@pytest.mark.slow
def test_the_published_size_is_a_short_program():
    """256 and 128 farthest points: unrolled, each of them is some twenty operations."""
    program = export_program(create_model("point_transformer_engel").eval(), "any")
    names = [str(node.target) for node in program.exported.graph.nodes]
    assert names.count("while_loop") == 2 and len(names) < 1500


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_a_file_reads_clouds_of_any_number_of_points_in_any_order(runtime, tmp_path, name):
    """The verified file, on a cloud of which many points are equal, and on the same in another order."""
    torch.manual_seed(0)
    model = create_model(name, num_classes=5, **MODELS[name]).eval()
    model.task = model.task or published_task(name)
    done = export(model, "onnx", tmp_path / "model.onnx")
    assert done.sizes == {"points": "any"} and max(each.error for each in done.compared) < 1e-5
    opened = open_exported(tmp_path / "model.onnx")
    points = torch.rand(2, 150, 3)
    points[:, 100:] = points[:, :50]
    order = torch.randperm(150)
    with torch.no_grad():
        want, found, moved = model(points), opened(points), opened(points[:, order])
    assert torch.allclose(found, want, atol=1e-4)
    assert torch.allclose(moved, found[:, order] if found.ndim == 3 else found, atol=1e-4)
