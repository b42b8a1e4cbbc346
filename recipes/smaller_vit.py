"""A fine-tuned ViT-Ti made smaller: edited and trained on, at any depth, with fewer tokens and bits, and as a teacher.

    python recipes/smaller_vit.py FOLDER --weights vit_tiny_patch16_224.pt --minutes 6 --parts depth tokens bits teach
    python recipes/smaller_vit.py FOLDER --tuned RUN --parts edits --edits tokens_keep=0.7 mlp=0.25 --minutes 3
    python recipes/smaller_vit.py FOLDER --tuned RUN --parts edits --edits tokens_learn=0.7 --minutes 3

FOLDER has `train/CLASS` and `test/CLASS` images, such as a fifth of CIFAR-10:
`tar xzf cifar10_images_jpg.tar.gz --wildcards '*[05].jpg'` ; for `teach` alone take fewer to train on,
`--wildcards 'train/*[05]0.jpg' 'test/*[05].jpg'`. `--minutes` is the time of one training.

tune    fine-tunes the ViT, with LayerDrop, so that every depth of it works
edits   makes edits (`--edits`, settings of `vitrail compress`), trains on with the whole model as the teacher, and says
        what is lost (paired) and whether it is faster (in turns, optimized); the aim is 1.5x for at most one point
depth   one training, a curve of depths, even and greedy, nothing trained after it
tokens  accuracy and speed of merging (ToMe) and pruning (EViT), nothing trained after it
bits    accuracy of weights in 8 and 4 bits, in codebooks, and of int8 products
rounded accuracy of weights in 4 bits, at once and after training with rounded weights (`--round-weights`)
teach   a small Swin with and without the ViT as its teacher, the same seeds: gain and its interval over the seeds
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import vitrail
from vitrail.cli import main
from vitrail.compress.calibration_data import open_probes
from vitrail.compress.compress import compress
from vitrail.compress.measure import figures, measure_latency
from vitrail.compress.settings import CompressSettings
from vitrail.data.transform import EvalTransform
from vitrail.preprocess import Preprocess
from vitrail.study.intervals import mean_interval
from vitrail.tasks import find_task
from vitrail.tasks.confidence_interval import paired_difference, wilson
from vitrail.training.config import parse_overrides

VIT, SAMPLES = "vit_tiny_patch16_224", 128
SWIN = ("swin_tiny_patch4_window7_224", "dim=24", "depths=1,2,1", "num_heads=1,2,4", "window_size=4")
TOKENS: list[dict[str, Any]] = [{"tokens_merge": r} for r in (1, 2)] + [
    {"tokens_keep": share} for share in (0.9, 0.7, 0.5)
]
BITS: list[dict[str, Any]] = [{"weights_bits": bits} for bits in ("8", "4", "codebook")]


def run(*words: str) -> None:
    """Run a command of vitrail, and stop if it fails."""
    print("$ vitrail", *words, flush=True)
    if main(list(words)):
        sys.exit(1)


class Test:
    """The test images, prepared as each model does: their mean and deviation differ."""

    def __init__(self, data: str):
        self.split = find_task("classify").open_split(data, "test")
        self.labels = torch.as_tensor(self.split.labels)
        self.pixels: dict[Preprocess, Tensor] = {}

    def hits(self, model: Any) -> np.ndarray:
        """Return whether each image is classified right."""
        prepare = EvalTransform(model.preprocess)
        if model.preprocess not in self.pixels:
            images = (self.split.image(number, prepare.mode) for number in range(len(self.split)))
            self.pixels[model.preprocess] = torch.stack([prepare.to_pixels(image) for image in images])
        with torch.inference_mode():
            told = [model(prepare.batch(part)).argmax(1) for part in self.pixels[model.preprocess].split(64)]
        return (torch.cat(told) == self.labels).numpy()


def rate(hits: np.ndarray) -> str:
    """Return the share that is right with its interval."""
    found = wilson(int(hits.sum()), len(hits))
    return f"{100 * hits.mean():.1f} % [{100 * found.low:.1f}, {100 * found.high:.1f}]"


def change(hits: np.ndarray, before: np.ndarray) -> str:
    """Return the change in points with its paired interval."""
    found = paired_difference(hits.tolist(), before.tolist())
    return f"{100 * (found.value or 0):+.1f} points [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"


def tell_speed(whole: Any, small: Any, *batches: int) -> None:
    """Print whether a model is faster, both as optimized models, in turns."""
    for batch in batches:
        time = measure_latency(whole, small, batch)
        ratio = time.speedup
        words = f"{ratio.median:.2f}x [{ratio.low:.2f}, {ratio.high:.2f}] ({time.how})"
        print(f"    batch {batch}: {time.verdict}, {words}", flush=True)


def tune(given: Any) -> Path:
    """Fine-tune the released ViT."""
    out = given.runs / "tuned"
    words = ("--model", VIT, "--weights", given.weights, "--imgsz", given.imgsz, "--batch", "64")
    run("train", given.data, *words, "--minutes", given.minutes, "--layer-drop", "0.1", "--out", str(out))
    return out


def edits(given: Any, whole: Any, test: Test, before: np.ndarray) -> None:
    """Compress, train on, and compare."""
    settings = CompressSettings(**parse_overrides(tuple(given.edits)))
    name = "-".join(given.edits)
    small = compress(whole, settings, open_probes(whole, given.data, SAMPLES))
    print(f"{settings.words()}, not trained: {change(test.hits(small), before)}", flush=True)
    small = trained_on(given, small, name)
    hits = test.hits(small)
    print(f"{settings.words()}, trained on: {rate(hits)}, {change(hits, before)}; {figures(small)}", flush=True)
    tell_speed(whole, small, 1, 16)


def trained_on(given: Any, small: Any, name: str) -> Any:
    """Train an edited model on, with the whole model as its teacher."""
    place, out = given.runs / name, given.runs / f"{name}-trained"
    vitrail.save_model(small, place)
    words = ("--model", VIT, "--weights", str(place), "--imgsz", given.imgsz, "--batch", "64")
    taught = ("--teacher", str(given.tuned / "weights" / "best"), "--distill", "soft")
    pace = ("--lr", "3e-4", "--layer-decay", "1", "--minutes", given.minutes)
    run("train", given.data, *words, *taught, *pace, "--out", str(out))
    return vitrail.load_model(out / "weights" / "best")


def depth(given: Any, whole: Any, test: Test, before: np.ndarray) -> None:
    """Print the accuracy at each depth."""
    probes = open_probes(whole, given.data, SAMPLES)
    for left in given.depths:
        for blocks in ("even", "greedy"):
            hits = test.hits(compress(whole, CompressSettings(depth=left, blocks=blocks), probes))
            print(f"{left} blocks, {blocks}: {rate(hits)}, {change(hits, before)}", flush=True)


def tokens(given: Any, whole: Any, test: Test, before: np.ndarray) -> None:
    """Print accuracy and speed with fewer tokens."""
    for one in TOKENS:
        settings = CompressSettings(**one)
        small = compress(whole, settings)
        hits = test.hits(small)
        print(f"{settings.words()}: {rate(hits)}, {change(hits, before)}", flush=True)
        tell_speed(whole, small, 32)


def bits(given: Any, whole: Any, test: Test, before: np.ndarray) -> None:
    """Print accuracy and bytes with fewer bits."""
    probes = open_probes(whole, given.data, SAMPLES)
    for one in BITS:
        small = compress(whole, CompressSettings(**one), probes)
        size = figures(small, count=False).size
        print(f"{one}: {size / 1e6:.2f} MB, {change(test.hits(small), before)}", flush=True)
    for precision in ("int8", "bf16"):
        print(f"optimized, {precision}: {change(test.hits(vitrail.optimize(whole, precision)), before)}", flush=True)


def rounded(given: Any, whole: Any, test: Test, before: np.ndarray) -> None:
    """Print accuracy with weights of 4 bits: rounded at once, and trained on with rounded weights before."""
    probes, four = open_probes(whole, given.data, SAMPLES), CompressSettings(weights_bits="4")
    print(f"4 bits at once: {change(test.hits(compress(whole, four, probes)), before)}", flush=True)
    small = trained_on(given, compress(whole, CompressSettings(round_weights="4")), "rounded")
    print(f"4 bits, trained on: {change(test.hits(compress(small, four, probes)), before)}", flush=True)


def teach(given: Any, whole: Any, test: Test, before: np.ndarray) -> None:
    """Train a small Swin with and without the teacher."""
    variant, *fields = SWIN
    common = ("train", given.data, "--model", variant, "--set", *fields, "--imgsz", given.imgsz)
    teacher = ("--teacher", str(given.tuned / "weights" / "best"), "--distill", "soft", "--distill-alpha", "0.9")
    gains = []
    for seed in range(given.seeds):
        shares = []
        for name, words in (("alone", ()), ("taught", teacher)):
            out = str(given.runs / f"swin-{name}-{seed}")
            run(*common, *words, "--epochs", given.epochs, "--seed", str(seed), "--out", out)
            shares.append(float(test.hits(vitrail.load_model(Path(out) / "weights" / "best")).mean()))
        gains.append(100 * (shares[1] - shares[0]))
        print(f"seed {seed}: alone {shares[0]:.1%}, taught {shares[1]:.1%}", flush=True)
    gain = mean_interval(gains)
    print(f"gain {gain.mean:+.1f} points [{gain.low:+.1f}, {gain.high:+.1f}] over {len(gains)} seeds")


PARTS = {"edits": edits, "depth": depth, "tokens": tokens, "bits": bits, "rounded": rounded, "teach": teach}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="folder of train/CLASS and test/CLASS images")
    parser.add_argument("--weights", help="checkpoint of the ViT-Ti")
    parser.add_argument("--tuned", type=Path, help="run folder of a ViT that is fine-tuned already")
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS), help="default: all")
    parser.add_argument("--minutes", default="6", help="time of a training (default: 6)")
    parser.add_argument("--imgsz", default="64", help="side of the images in pixels (default: 64)")
    parser.add_argument("--edits", nargs="+", default=["width=0.75", "mlp=0.25"], help="settings of vitrail compress")
    parser.add_argument("--depths", type=int, nargs="+", default=[11, 10, 9, 8, 6], help="depths of the curve")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of the Swin with and without a teacher")
    parser.add_argument("--epochs", default="10", help="epochs of the Swin (default: 10)")
    parser.add_argument("--runs", type=Path, default=Path("runs/smaller_vit"), help="folder of the runs")
    options = parser.parse_args()
    options.tuned = options.tuned or tune(options)
    tuned = vitrail.load_model(options.tuned / "weights" / "best")
    images = Test(options.data)
    right = images.hits(tuned)
    print(f"whole: {rate(right)}, {figures(tuned)}", flush=True)
    for part in options.parts:
        PARTS[part](options, tuned, images, right)
