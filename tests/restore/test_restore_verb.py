"""`vitrail restore`: files, folders and patterns; odd images; faults from outside."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from restore_sets import photo

import vitrail
from vitrail.cli import main
from vitrail.data.png_file import png_bytes
from vitrail.data.stored_image import StoredImage, read_stored
from vitrail.errors import VitrailError
from vitrail.models import create_model
from vitrail.tasks.restore.result import Restored


def opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image.load()
        return image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    photo(0).save(tmp_path / "in" / "a.png")
    photo(1, 30, 50).save(tmp_path / "in" / "deep" / "b.png")
    return tmp_path / "in"


def restore(run: Path, *words: object) -> int:
    return main(["restore", *map(str, words), "--model", str(run), "--no-optimize"])


def test_a_folder_keeps_its_subfolders(run: Path, folder: Path, tmp_path: Path) -> None:
    assert restore(run, folder, "--out", tmp_path / "out") == 0
    assert opened(tmp_path / "out" / "a_restored.png").size == (72, 80)
    assert opened(tmp_path / "out" / "deep" / "b_restored.png").size == (100, 60)
    lines = [json.loads(line) for line in (tmp_path / "out" / "restored.jsonl").read_text().splitlines()]
    assert [Path(line["path"]).name for line in lines] == ["a.png", "b.png"] and lines[0]["width"] == 72


def test_the_image_is_that_of_the_model(run: Path, folder: Path) -> None:
    import torch

    model = vitrail.load_model(run / "weights" / "best")
    [result] = vitrail.predict(model, folder / "a.png")
    pixels = np.asarray(opened(folder / "a.png"))
    with torch.no_grad():
        plain = model(torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255)[0]
    expected = (plain.permute(1, 2, 0).numpy() * 255).round().clip(0, 255)
    assert np.abs(result.pixels - expected).max() <= 1  # rounding of .5
    assert result.draw().size[0] == 960 and result.to_dict()["scale"] == 2
    [memory] = vitrail.predict(model, opened(folder / "a.png"))
    assert np.array_equal(memory.pixels, result.pixels)


def test_a_restarted_job_restores_missing_images(run: Path, folder: Path, tmp_path: Path) -> None:
    assert restore(run, folder / "a.png", folder / "deep", "--out", tmp_path / "out") == 0
    first = (tmp_path / "out" / "a_restored.png").stat().st_mtime_ns
    photo(5).save(folder / "c.png")
    assert restore(run, folder, "--out", tmp_path / "out") == 0
    assert (tmp_path / "out" / "a_restored.png").stat().st_mtime_ns == first
    assert (tmp_path / "out" / "c_restored.png").exists()
    with pytest.raises(VitrailError):  # another job into the same folder
        from vitrail.cli.restore import bind

        bind([])(inputs=(str(folder),), model=str(run), out=tmp_path / "out", suffix="_x").run()


def test_killed_in_the_middle_of_a_folder(run: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(12):
        photo(number, 90, 90).save(tmp_path / "in" / f"{number:02}.png")
    words = ["restore", str(tmp_path / "in"), "--model", str(run), "--out", str(tmp_path / "out"), "--no-optimize"]
    process = subprocess.Popen([sys.executable, "-m", "vitrail", *words], stderr=subprocess.DEVNULL)
    while process.poll() is None and len(list((tmp_path / "out").glob("*.png"))) < 3:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    for each in (tmp_path / "out").glob("*.png"):
        opened(each)  # whole files only
    assert main(words) == 0
    assert len(list((tmp_path / "out").glob("*_restored.png"))) == 12
    assert len((tmp_path / "out" / "restored.jsonl").read_text().splitlines()) == 12


def test_a_full_disk_is_reported_and_leaves_whole_files(
    run: Path, folder: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    save = Restored.save

    def full(self: Restored, place: Path) -> list[Path]:
        if self.path.endswith("b.png"):
            from vitrail.atomic_io import full_disk

            with full_disk(place.parent):
                raise OSError(errno.ENOSPC, "No space left on device")
        return save(self, place)

    monkeypatch.setattr(Restored, "save", full)
    assert restore(run, folder, "--out", tmp_path / "out") == 4
    assert "disk" in capsys.readouterr().err
    assert {path.name for path in (tmp_path / "out").rglob("*.png")} == {"a_restored.png"}
    monkeypatch.undo()
    assert restore(run, folder, "--out", tmp_path / "out") == 0
    assert (tmp_path / "out" / "deep" / "b_restored.png").exists()


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (5, 7)])
@pytest.mark.parametrize("tiling", ["exact", "fast", "none"])
def test_odd_sizes(run: Path, tmp_path: Path, size: tuple[int, int], tiling: str) -> None:
    Image.new("RGB", size, (200, 30, 60)).save(tmp_path / "x.png")
    assert restore(run, tmp_path / "x.png", "--out", tmp_path / "out", "--tiling", tiling, "--memory", "0.01") == 0
    assert opened(tmp_path / "out" / "x_restored.png").size == (2 * size[0], 2 * size[1])


def test_one_row_of_ten_thousand_pixels(run: Path, tmp_path: Path) -> None:
    photo(3, 1, 10_000).save(tmp_path / "x.png")
    assert restore(run, tmp_path / "x.png", "--out", tmp_path / "out") == 0
    assert opened(tmp_path / "out" / "x_restored.png").size == (20_000, 2)


def test_bits_alpha_profile_and_metadata_are_kept_or_stripped(run: Path, tmp_path: Path) -> None:
    draw, exif = np.random.default_rng(0), Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Camera"
    pixels = draw.integers(0, 65536, (12, 9, 3)).astype(np.uint16)
    alpha = np.full((12, 9), 40000, np.uint16)
    source = StoredImage(pixels, alpha, b"profile", exif.tobytes(), (300.0, 300.0), {"Author": "Zoë"})
    (tmp_path / "x.png").write_bytes(png_bytes(source))
    assert restore(run, tmp_path / "x.png", "--out", tmp_path / "kept") == 0
    kept = read_stored(tmp_path / "kept" / "x_restored.png")
    assert kept.pixels.dtype == np.uint16 and (kept.pixels % 257 != 0).any()
    assert kept.alpha is not None and (kept.alpha == 40000).all()
    assert kept.profile == b"profile" and kept.text == {"Author": "Zoë"} and b"Camera" in (kept.exif or b"")
    assert restore(run, tmp_path / "x.png", "--out", tmp_path / "stripped", "--metadata", "strip") == 0
    bare = read_stored(tmp_path / "stripped" / "x_restored.png")
    assert (bare.exif, bare.text, bare.dpi, bare.profile) == (None, {}, None, b"profile")
    assert np.array_equal(bare.pixels, np.rot90(kept.pixels, -1))  # upright, as EXIF said


def test_unreadable_images_are_named_and_the_others_restored(run: Path, folder: Path, tmp_path: Path, capsys) -> None:
    (folder / "broken.png").write_bytes(b"\x89PNG nothing")
    (folder / "cut.png").write_bytes((folder / "a.png").read_bytes()[:-60])
    assert restore(run, folder, "--out", tmp_path / "out") == 3
    said = capsys.readouterr().err
    assert "broken.png" in said and "cut.png" in said and "2 of 4" in said
    assert (tmp_path / "out" / "a_restored.png").exists()


def test_mistakes_are_explained(run: Path, folder: Path, tmp_path: Path, capsys) -> None:
    assert main(["restore", str(folder)]) == 2 and "No model" in capsys.readouterr().err
    assert main(["restore"]) == 2
    assert main(["restore", str(folder), "--model", "vit_tiny_patch16_224"]) == 2
    assert restore(run, folder, "--out", folder / "deep") == 2 and "output folder" in capsys.readouterr().err
    assert restore(run, folder, "--out", tmp_path / "out", "--suffix", "/x") == 2
    assert "suffix" in capsys.readouterr().err
    photo(0).save(folder / "a.jpg")
    assert restore(run, folder, "--out", tmp_path / "out") == 2 and "the same file" in capsys.readouterr().err


def test_links_to_one_image_are_restored_under_their_own_names(run: Path, folder: Path, tmp_path: Path) -> None:
    (folder / "link.png").symlink_to("a.png")
    assert restore(run, folder, "--out", tmp_path / "out") == 0
    one, other = (Image.open(tmp_path / "out" / f"{name}_restored.png") for name in ("a", "link"))
    assert one.tobytes() == other.tobytes()


def test_a_grey_model_and_a_checkpoint_of_the_authors(tmp_path: Path, folder: Path) -> None:
    import torch

    from vitrail.weights.formats.swinir import FORMATS

    model = create_model("swinir_gray_jpeg", dim=12, depths=(2, 1), num_heads=2)
    torch.save({"params_ema": FORMATS[0].write(model.state_dict(), None).tensors}, tmp_path / "theirs.pth")
    weights = ["--weights", str(tmp_path / "theirs.pth"), "--no-optimize"]
    assert main(["restore", str(folder / "a.png"), *weights, "--out", str(tmp_path / "out")]) == 0
    restored = opened(tmp_path / "out" / "a_restored.png")
    assert (restored.mode, restored.size) == ("L", (36, 40))
    line = json.loads((tmp_path / "out" / "restored.jsonl").read_text())
    assert "colour was made grey" in line["notes"][0]


@pytest.mark.slow
def test_twelve_megapixels_in_two_gibibytes(run: Path, tmp_path: Path) -> None:
    photo(1, 3000, 4000).save(tmp_path / "x.png")
    code = "import sys, resource; from vitrail.cli import main; assert main(sys.argv[1:]) == 0;"
    code += "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
    words = ["restore", str(tmp_path / "x.png"), "--model", str(run), "--out", str(tmp_path / "out")]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    assert int(done.stdout.split()[-1]) < 2048
    assert opened(tmp_path / "out" / "x_restored.png").size == (8000, 6000)
