"""Peak memory of training: predicted from small updates, and measured in a child process for each configuration.

    python benchmarks/memory.py                 # 12 configurations
    python benchmarks/memory.py swin            # those whose model contains the word
    python benchmarks/memory.py --json memory.json

The prediction counts tensors (`inference/training_memory.py`). The measurement is the high-water mark of the resident
memory of a process that makes two updates, less its resident memory before the model is built, with freed memory
returned to the system (fragmentation is not part of the prediction).
"""

import argparse
import json
import subprocess
import sys
from dataclasses import asdict

from vitrail.inference.training_memory import (
    TrainingSetup,
    make_probe_optimizer,
    probe_inputs,
    training_memory,
    update,
)

CONFIGURATIONS = [
    ("vit_tiny_patch16_224", TrainingSetup(16)),
    ("vit_tiny_patch16_224", TrainingSetup(32, checkpointing=True)),
    ("vit_tiny_patch16_224", TrainingSetup(16, precision="bf16")),
    ("vit_tiny_patch16_224", TrainingSetup(12, fused=False)),
    ("deit_small_patch16_224", TrainingSetup(8, optimizer="sgd")),
    ("swin_tiny_patch4_window7_224", TrainingSetup(6)),
    ("swin_tiny_patch4_window7_224", TrainingSetup(8, checkpointing=True)),
    ("nat_mini", TrainingSetup(6)),
    ("pvt_tiny", TrainingSetup(8)),
    ("resnet50", TrainingSetup(8, optimizer="sgd")),
    ("convnext_tiny", TrainingSetup(6)),
    ("mixer_s16_224", TrainingSetup(16)),
]


def measure(name: str, setup: TrainingSetup) -> int:
    """Return the peak of two updates above the memory of this process before the model, in bytes."""
    import torch

    from vitrail.fused.train_blocks import fuse_for_training
    from vitrail.machine.host_memory import peak_of, resident, trim_on_free
    from vitrail.models import create_model
    from vitrail.parts.recomputation import recompute_blocks

    def train(model, batch: int) -> None:
        if setup.fused:
            fuse_for_training(model)
        if setup.checkpointing:
            recompute_blocks(model)
        inputs = probe_inputs(model, batch)
        optimizer = make_probe_optimizer(setup.optimizer, model)
        for _ in range(2):  # the first one makes the states of the optimizer
            update(model, inputs, optimizer, setup.precision)

    with trim_on_free():
        train(create_model("vit_tiny_patch16_224", depth=1).train(), 2)  # libraries, threads
        before = resident()
        return peak_of(lambda: train(create_model(name).train(), setup.batch), torch.device("cpu")) - before


def main() -> int:
    """Predict and measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--child", type=int)
    parser.add_argument("--number", type=int, help="one configuration, counted from 0")
    parser.add_argument("--json")
    given = parser.parse_args()
    if given.child is not None:
        print(measure(*CONFIGURATIONS[given.child]))
        return 0
    from vitrail.models import create_model

    rows = []
    print(f"{'model':32}{'batch':>6} {'setup':34}{'predicted':>10}{'measured':>10}{'error':>8}")
    for number, (name, setup) in enumerate(CONFIGURATIONS):
        if given.words and not any(word in name for word in given.words):
            continue
        if given.number not in (None, number):
            continue
        predicted = training_memory(create_model(name), setup).total
        command = [sys.executable, __file__, "--child", str(number)]
        measured = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])
        error = predicted / measured - 1
        rows.append({"model": name, **asdict(setup), "predicted": predicted, "measured": measured})
        options = f"{setup.precision} {setup.optimizer}" + " checkpointing" * setup.checkpointing
        options += "" if setup.fused else " unfused"
        print(
            f"{name:32}{setup.batch:6} {options:34}{predicted / 2**20:9.0f}M{measured / 2**20:9.0f}M{error:+8.1%}",
            flush=True,
        )
    if given.json:
        with open(given.json, "w") as file:
            json.dump(rows, file, indent=2)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
