"""`benchmarks/finetune.py`: both sides get the same folders, and the table is that of their runs."""

import io
import tarfile
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from PIL import Image


def test_sets_have_splits_and_classes(benchmarks, tmp_path):
    sets = benchmarks("finetune_sets")
    for name in ("photos", "digits"):
        folder = sets.build_set(name, tmp_path, scale=0.05)
        counts = {split: [len(list(c.iterdir())) for c in (folder / split).iterdir()] for split in sets.SPLITS}
        assert all(len(set(values)) == 1 for values in counts.values())
        assert len(counts["train"]) == len(counts["test"]) == (2 if name == "photos" else 10)


def test_the_archive_is_cut_without_overlap(benchmarks, tmp_path):
    sets = benchmarks("finetune_sets")
    with tarfile.open(tmp_path / "c.tar.gz", "w:gz") as tar:
        for number in range(12):
            file = io.BytesIO()
            Image.new("RGB", (8, 8), (number * 20, 0, 0)).save(file, "PNG")
            for split in ("train", "test"):
                member = tarfile.TarInfo(f"c/{split}/cat/{number}.jpg")
                member.size = len(file.getvalue())
                tar.addfile(member, io.BytesIO(file.getvalue()))
    counts = sets.Counts(5, 3, 4)
    folder = sets.write_set(tmp_path / "c", sets.cifar10(tmp_path / "c.tar.gz", counts), counts)
    images = {split: (folder / split / "cat").iterdir() for split in sets.SPLITS}
    reds = {split: sorted(Image.open(path).getpixel((0, 0))[0] // 20 for path in images[split]) for split in images}
    assert reds == {"train": [0, 1, 2, 3, 4], "val": [5, 6, 7], "test": [0, 1, 2, 3]}


def test_a_path_without_images_is_reported(benchmarks, tmp_path):
    sets = benchmarks("finetune_sets")
    with pytest.raises(ValueError, match="got no images for train, val, test"):
        sets.write_set(tmp_path / "x", iter(()), sets.Counts(1, 1, 1))


def test_timm_side_learns_and_reports(benchmarks, tmp_path):
    import timm

    finetune = benchmarks("finetune")
    folder = benchmarks("finetune_sets").build_set("photos", tmp_path, scale=0.05)
    torch.save(timm.create_model(finetune.MODEL).state_dict(), tmp_path / "w.pt")
    finetune.child(str(folder), str(tmp_path / "w.pt"), finetune.MODEL, 32, 1, 0, 0, str(tmp_path / "out"))
    assert '"top1"' in (tmp_path / "out" / "summary.json").read_text()


def test_rows_are_means_over_seeds(benchmarks, monkeypatch):
    finetune = benchmarks("finetune")
    monkeypatch.setattr(finetune, "run", lambda command, out: finetune.Run(0.9, 2.0, 3.0, 2**20 * 100))
    options = Namespace(seeds=2, imgsz=64, epochs=3, weights="w.pt", model=finetune.MODEL, threads=0)
    rows = finetune.compare("digits", Path("digits"), options, Path("place"))
    assert rows[0] == ["digits", "vitrail", "90.0 ± 0.0", "2.0", "3.0", "100"]
    command = finetune.vitrail_command(Path("d"), options, 0, Path("o"))
    assert " ".join(command[3:]) == "train d --weights w.pt --imgsz 64 --epochs 3 --seed 0 --out o"
