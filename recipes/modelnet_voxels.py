"""Voxel shapes: two classes of ModelNet10 and four analytic ones, all as 32^3 occupancy, by three models of points.

Chairs and monitors are real (ModelNet10, training part; these files have no official test part). Cones, spheres, tori
and lamps are drawn by `vitrail.data.points.shapes`, 150 of each, sampled and voxelised in the same way, so that the
cells of a grid do not tell them apart; they are easy, and the report has the accuracy of each class. A fifth of each
class is held out, by hashes of names, and the last epoch counts: no epoch is chosen on the held-out shapes.

    command   python recipes/modelnet_voxels.py data/modelnet10_voxel32 [pointnet set_transformer point_transformer]
    data      chair.npy.gz and monitor.npy.gz, one occupancy grid a row (SomTambe/ModelNet10-dataset)
    result    runs/points/NAME/report.html, and the lines that are printed
"""

import gzip
import io
import json
import sys
from pathlib import Path
from shlex import split

import numpy as np

from vitrail.cli import main
from vitrail.data.points.shapes import SHAPES, varied
from vitrail.data.points.surface import sample_points
from vitrail.data.points.voxels import voxelize
from vitrail.data.stateless_rng import BatchRng

RUNS, DRAWN = Path("runs/points"), ("cone", "lamp", "sphere", "torus")
EACH, SIDE, SAMPLES = 150, 32, 8000
COMMON = "--task points --precision fp32 --val-share 0.2 --eval-every 4 --points 256 --jitter 0.015"
MODELS = {
    "pointnet": "--model pointnet --set dim=32 global_dim=128 --lr 2e-3 --batch 32 --epochs 8",
    "set_transformer": "--model set_transformer_modelnet40 --set dim=64 dropout=0.1 --lr 1e-3 --batch 32 --epochs 40",
    "point_transformer": "--model point_transformer_engel --lr 1e-3 --batch 16 --epochs 12 "
    "--set dim=64 picks=16 centers=64,32 num_heads=4 radius=0.2 dropout=0.1",
}
"""Small variants: each takes up to six minutes on one core."""


def draw_classes(folder: Path) -> None:
    """Write the analytic classes as files of occupancy grids."""
    for name in DRAWN:
        path = folder / f"{name}.npy.gz"
        if path.exists():
            continue
        grids = np.zeros((EACH, 1, SIDE, SIDE, SIDE), dtype=np.uint8)
        for number in range(EACH):
            points, _ = sample_points(varied(SHAPES[name](), number), SAMPLES, BatchRng(0, 0, np.array([number])))
            grids[number, 0] = voxelize(points, SIDE)
        file = io.BytesIO()
        np.save(file, grids)
        path.write_bytes(gzip.compress(file.getvalue()))


def run(source: Path, names: list[str]) -> None:
    """Train the models and print their figures."""
    data = RUNS / "voxels"
    data.mkdir(parents=True, exist_ok=True)
    for path in source.glob("*.npy.gz"):
        if not (data / path.name).exists():
            (data / path.name).symlink_to(path.resolve())
    draw_classes(data)
    for name in names:
        out = RUNS / name
        if not (out / "summary.json").exists():
            words = ["train", str(data), *split(MODELS[name]), *split(COMMON), "--out", str(out), "--resume", "auto"]
            print("$ vitrail", *words, flush=True)
            if main(words):
                sys.exit(1)
        last = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        found = [row["top1"] for row in last if row.get("top1") is not None]
        summary = json.loads((out / "summary.json").read_text())
        print(
            f"{name:18} last epoch {100 * found[-1]:.2f} %  best {100 * max(found):.2f} %  "
            f"{summary['parameters']:,} parameters  {summary['seconds']:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    run(Path(sys.argv[1]), sys.argv[2:] or list(MODELS))
