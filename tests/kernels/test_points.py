"""Operations on point clouds: C++ against the textbook, ties, and inputs that break other libraries."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from closeness import with_threads
from vitrail.errors import DataError, VitrailError
from vitrail.kernels.points import ball_query, farthest_points, nearest_points, reference
from vitrail.kernels.points.grouping import gather_points, group_points

COUNTS = [1, 2, 32, 33, 700]
DRAWS: dict[str, Callable[[int], Tensor]] = {
    "normal": lambda n: torch.randn(2, n, 3),
    "integers, so many ties": lambda n: torch.randn(2, n, 3).mul(2).round(),
    "line": lambda n: torch.linspace(0, 1, n)[None, :, None] * torch.tensor([1.0, 2.0, -3.0]),
    "duplicates": lambda n: torch.full((1, n, 3), 0.3),
    "huge": lambda n: torch.randn(1, n, 3) * 1e30,
    "plane": lambda n: torch.randn(2, n, 2),
}


def loop(points: list[list[float]], count: int, start: int) -> list[int]:
    """Choose farthest points by comparing all with all, in Python's double precision."""
    chosen = [start]
    while len(chosen) < count:
        nearest = [min(sum((a - b) ** 2 for a, b in zip(p, points[c], strict=True)) for c in chosen) for p in points]
        chosen.append(nearest.index(max(nearest)))
    return chosen


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("count", COUNTS)
def test_compiled_operations_give_the_indices_of_the_reference(count, draw):
    points = DRAWS[draw](count)
    queries = DRAWS[draw](40)
    assert farthest_points.explain(points, 1, 0)[0] == ("cpp", None)
    wanted, start = min(count, 300), count // 2
    chosen = farthest_points(points, wanted, start)
    assert torch.equal(chosen, reference.farthest_points(points, wanted, start))
    k = min(count, 17)
    for got, want in zip(nearest_points(points, queries, k), reference.nearest_points(points, queries, k), strict=True):
        assert torch.equal(got, want)
    scales = (0.0, 0.3, 2.0), (3, 5, 60)
    (balls, counts), (want, want_counts) = (
        ball_query(points, queries, *scales),
        reference.ball_query(points, queries, *scales),
    )
    assert torch.equal(counts, want_counts)
    assert all(torch.equal(a, b) for a, b in zip(balls, want, strict=True))


def test_reference_is_the_textbook_loop():
    points = torch.randint(-4, 5, (1, 40, 3)).double()
    assert reference.farthest_points(points, 25, 7)[0].tolist() == loop(points[0].tolist(), 25, 7)


def test_threads_do_not_change_indices():
    points = torch.randn(5, 700, 3)
    calls = [
        lambda: farthest_points(points, 90, 3),
        lambda: nearest_points(points, points, 9)[0],
        lambda: ball_query(points, points, (0.4,), (12,))[0][0],
    ]
    for call in calls:
        assert torch.equal(call(), with_threads(call))


def test_permuted_points_are_the_same_points():
    points, order = torch.randn(1, 500, 3), torch.randperm(500)
    places = torch.argsort(order)
    moved = points[:, order]
    assert torch.equal(order[farthest_points(moved, 60, int(places[4]))[0]], farthest_points(points, 60, 4)[0])
    assert torch.equal(nearest_points(moved, points, 8)[1], nearest_points(points, points, 8)[1])


def test_more_choices_than_different_points_repeat_the_first():
    points = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [0, 0, 0], [1, 0, 0]]])
    assert farthest_points(points, 4, 0).tolist() == [[0, 1, 0, 0]]


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("backend", [0, 1])
def test_coordinates_that_are_not_finite_are_named(value, backend):
    points = torch.zeros(2, 50, 3)
    points[1, 33, 2] = value
    for op, others in ((farthest_points, (4, 0)), (nearest_points, (points[:, :2] * 0, 4))):
        with pytest.raises(DataError, match=r"points\[1, 33\] has -?(nan|inf) on axis 2"):
            op.backends[backend].run(points, *others)
    with pytest.raises(DataError, match=r"queries\[1, 33\]"):
        ball_query.backends[backend].run(torch.zeros(2, 5, 3), points, (1.0,), (4,))


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda: farthest_points(torch.zeros(1, 0, 3), 1, 0), "at least one point"),
        (lambda: farthest_points(torch.zeros(1, 4, 3), 5, 0), "Cannot choose 5 farthest points from 4"),
        (lambda: farthest_points(torch.zeros(1, 4, 3), 0, 0), "Cannot choose 0"),
        (lambda: farthest_points(torch.zeros(1, 4, 3), 2, 4), "start is 4"),
        (lambda: farthest_points(torch.zeros(4, 3), 2, 0), "need floats"),
        (lambda: nearest_points(torch.zeros(1, 4, 3), torch.zeros(2, 4, 3), 1), "do not fit"),
        (lambda: nearest_points(torch.zeros(1, 4, 3), torch.zeros(1, 4, 3), 9), "Cannot choose 9 neighbors"),
        (lambda: ball_query(torch.zeros(1, 4, 3), torch.zeros(1, 4, 3), (1.0,), (1, 2)), "Each radius"),
        (lambda: ball_query(torch.zeros(1, 4, 3), torch.zeros(1, 4, 3), (-1.0,), (1,)), "at least 0"),
        (lambda: ball_query(torch.zeros(1, 4, 3), torch.zeros(1, 4, 3), (float("nan"),), (1,)), "at least 0"),
    ],
)
def test_arguments_that_do_not_fit(call, reason):
    with pytest.raises(VitrailError, match=reason):
        call()


def test_other_precisions_and_more_axes_run_in_the_reference():
    assert farthest_points(torch.randn(1, 20, 3).double(), 3, 0).shape == (1, 3)
    assert nearest_points(torch.randn(1, 20, 6), torch.randn(1, 2, 6), 3)[0].shape == (1, 2, 3)
    assert (
        nearest_points(torch.randn(1, 20, 3).bfloat16(), torch.randn(1, 2, 3).bfloat16(), 3)[1].dtype == torch.float32
    )


def test_groups_are_relative_and_carry_gradients():
    points, features = torch.randn(2, 30, 3, requires_grad=True), torch.randn(2, 30, 4, requires_grad=True)
    centres = gather_points(points, farthest_points(points, 5, 0))
    (index,), _ = ball_query(points, centres, (1.0,), (6,))
    groups = group_points(points, features, centres, index)
    assert groups.shape == (2, 5, 6, 7)
    assert torch.equal(groups[1, 2, 3, :3], points[1, index[1, 2, 3]] - centres[1, 2])
    assert torch.equal(groups[1, 2, 3, 3:], features[1, index[1, 2, 3]])
    groups.square().sum().backward()
    assert points.grad is not None and features.grad is not None and features.grad.abs().sum() > 0


@pytest.mark.slow
def test_ten_million_points():
    points = torch.rand(1, 10_000_000, 3)
    chosen = farthest_points(points, 64, 0)[0]
    assert len(chosen.unique()) == 64
    index, distances = nearest_points(points, points[:, chosen], 2)
    assert torch.equal(index[0, :, 0], chosen) and bool((distances[0, :, 1] > 0).all())
