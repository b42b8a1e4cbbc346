"""Parts of analytic shapes by the Point Transformer of Engel et al. and by PointNet, the baseline.

Cones, cylinders and lamps of `vitrail.data.points.shapes`, 120 of each in random proportions, turned about the vertical
axis; they are drawn, not scanned. The bases of a cone and of a cylinder, the foot of a lamp and the caps share their
part numbers, so a point needs the shape that it is on. A fifth of each shape is held out, by hashes of names, and the
last epoch counts: no epoch is chosen on the held-out shapes.

    command   python recipes/point_parts.py [point_transformer pointnet]
    result    mean IoU over the three parts and accuracy of points, on the held-out shapes; runs/parts/NAME/report.html
"""

import json
import sys
from pathlib import Path
from shlex import split

import numpy as np

from vitrail.cli import main
from vitrail.data.points.shapes import SHAPES, varied

RUNS, DRAWN, EACH = Path("runs/parts"), ("cone", "cylinder", "lamp"), 120
COMMON = "--task parts --precision fp32 --val-share 0.2 --eval-every 4 --points 256 --jitter 0.01 --batch 16"
MODELS = {
    "point_transformer": "--model point_transformer_engel_parts --lr 2e-3 --epochs 16 "
    "--set dim=64 picks=16 centers=64,32 ball_size=16 num_heads=4 dropout=0.1",
    "pointnet": "--model pointnet_parts --set dim=32 global_dim=128 --lr 2e-3 --epochs 16",
}


def draw(folder: Path) -> None:
    """Write the shapes as meshes with the part of each face."""
    for name in DRAWN:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(EACH):
            mesh = varied(SHAPES[name](), number)
            assert mesh.faces is not None and mesh.parts is not None
            np.savez(folder / name / f"{number:03}.npz", points=mesh.points, faces=mesh.faces, parts=mesh.parts)


def run(names: list[str]) -> None:
    """Train the models and print their figures."""
    data = RUNS / "shapes"
    draw(data)
    for name in names:
        out = RUNS / name
        if not (out / "summary.json").exists():
            words = ["train", str(data), *split(MODELS[name]), *split(COMMON), "--out", str(out), "--resume", "auto"]
            print("$ vitrail", *words, flush=True)
            if main(words):
                sys.exit(1)
        rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        last = [row for row in rows if row.get("miou") is not None][-1]
        summary = json.loads((out / "summary.json").read_text())
        print(
            f"{name:18} last epoch: mean IoU {100 * last['miou']:.2f} %  accuracy {100 * last['accuracy']:.2f} %  "
            f"{summary['parameters']:,} parameters  {summary['seconds']:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    run(sys.argv[1:] or list(MODELS))
