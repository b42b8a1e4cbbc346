"""Masked pretraining of a small BERT on the user's text, then SST-2 from its folder and from random weights.

The two runs on SST-2 have the same model, vocabulary, updates and learning rate; only the start differs. Both read the
mean of the tokens: masked words teach the first token nothing about a sentence. The gain on the test sentences has
a paired 95 % interval.

    command   python recipes/pretrain.py data/sst2 [TEXT...]
    data      SST-2 as in recipes/sentiment.py; TEXT are files that are added to its training sentences (without labels)
    result    the table that is printed, runs/pretrain/{bert,tuned,random}/report.html
"""

import sys
from pathlib import Path
from shlex import split

import numpy as np

import vitrail
from vitrail.cli import main
from vitrail.data.text_tables import open_texts
from vitrail.tasks.confidence_interval import paired_difference, wilson

RUNS = Path("runs/pretrain")
SIZES = ("--model", "bert_tiny", "--set", "max_length=128", "head=mean")
# One thread: segments of small models leave a second one nothing but waiting.
PRETRAINING = split(
    "--task pretrain --minutes 8 --batch 32 --lr 1e-3 --vocab-size 4000 --val-share 0.04 --mask 0.2 --threads 1"
)
TUNING = split(
    "--task sentiment --epochs 6 --batch 32 --lr 5e-4 --layer-decay 1 --warmup 0.1 --eval-every 2 --threads 1"
)


def run(*words: str) -> None:
    """Run a command of vitrail, and stop if it fails."""
    print("$ vitrail", *words, flush=True)
    if main(list(words)):
        sys.exit(1)


def write_text(data: str, more: list[str]) -> Path:
    """Write the training sentences and the other texts as one text, a sentence or paragraph a line."""
    RUNS.mkdir(parents=True, exist_ok=True)
    lines = [*open_texts(data).require("train").texts, *(Path(path).read_text() for path in more)]
    (RUNS / "text.txt").write_text("\n".join(reversed(lines)))  # the end is held out: sentences of the task
    return RUNS / "text.txt"


def right_answers(folder: Path, data: str) -> np.ndarray:
    """Return whether each test sentence is named right."""
    test = open_texts(data).require("test")
    found = vitrail.predict(folder, list(test.texts), batch=64)
    return np.array([result.indices[0] for result in found]) == test.labels.numpy()


if __name__ == "__main__":
    data, text = sys.argv[1], write_text(sys.argv[1], sys.argv[2:])
    bert = RUNS / "bert"
    run("train", str(text), *PRETRAINING, *SIZES, "--out", str(bert))
    start, tokenizer = str(bert / "weights" / "best"), str(bert / "weights" / "best" / "tokenizer.json")
    common = ("train", data, *TUNING)
    run(*common, "--weights", start, "--set", "head=mean", "--out", str(RUNS / "tuned"))  # with their sizes
    run(*common, *SIZES, "--tokenizer", tokenizer, "--out", str(RUNS / "random"))
    right = {name: right_answers(RUNS / name, data) for name in ("tuned", "random")}
    for name, hits in right.items():
        rate = wilson(int(hits.sum()), len(hits))
        print(f"{name:8} test {100 * (rate.value or 0):.2f} %  [{100 * rate.low:.1f}, {100 * rate.high:.1f}]")
    gain = paired_difference(right["tuned"].tolist(), right["random"].tolist())
    print(f"gain {100 * (gain.value or 0):+.2f} points  [{100 * gain.low:+.2f}, {100 * gain.high:+.2f}]")
