"""What viewers of point clouds get beside a result."""

import numpy as np
import pytest

from vitrail.models import create_model
from vitrail.tasks import find_options, find_task
from vitrail.tasks.results import Viewer


@pytest.mark.parametrize(
    ("task", "name", "sizes"),
    [
        ("points", "pointnet", {"dim": 16, "global_dim": 32}),
        ("parts", "pointnet_parts", {"dim": 16, "global_dim": 32}),
    ],
)
def test_a_viewer_of_clouds_gets_the_points_of_the_result(task: str, name: str, sizes: dict) -> None:
    model = create_model(name, **sizes, num_classes=3).eval()
    predictor = find_task(task).predictor(model, find_options(task).PredictOptions(), 1)
    [item] = find_task(task).collect(np.random.default_rng(0).normal(size=(80, 3)))
    [result] = predictor.predict([(item, predictor.load(item))])
    assert isinstance(predictor, Viewer)
    shown = predictor.view(result)
    points = np.array(shown["points"]).reshape(-1, 3) / 1000
    assert np.abs(points - result.points).max() < 1e-3
    assert shown.get("picks", []) == [] and len(shown.get("parts", points)) == len(points)
