"""A tar is read in place: nothing it contains can write, lead out or fill the disk."""

import bz2
import gzip
import io
import lzma
import os
import tarfile
from pathlib import Path

import pytest
from drawn_images import encoded, smooth_image

from vitrail.data.datasets import open_dataset
from vitrail.errors import DataError, VitrailError


def pack_tar(path: Path, members: dict[str, bytes], extra: list[tarfile.TarInfo] | None = None) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for info in extra or []:
            archive.addfile(info)
    return path


def members(count: int = 4, size: tuple[int, int] = (40, 30)) -> dict[str, bytes]:
    folders = [f"{split}/{label}" for split in ("train", "test") for label in ("cat", "dog")]
    names = [f"{folder}/{number}.png" for folder in folders for number in range(count)]
    return {name: encoded(smooth_image(seed, size)) for seed, name in enumerate(names)}


@pytest.mark.parametrize("press", [None, gzip.compress, bz2.compress, lzma.compress])
def test_a_tar_is_the_folder_that_it_holds(tmp_path, press):
    content = members()
    tar = pack_tar(tmp_path / "pets.tar", content)
    if press:
        suffix = {gzip.compress: "tar.gz", bz2.compress: "tar.bz2", lzma.compress: "tar.xz"}[press]
        (tmp_path / f"pets.{suffix}").write_bytes(press(tar.read_bytes()))
        tar = tmp_path / f"pets.{suffix}"
    before = sorted(os.listdir(tmp_path))
    for name, data in content.items():
        (tmp_path / "pets" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "pets" / name).write_bytes(data)
    from_tar, from_folder = open_dataset(tar), open_dataset(tmp_path / "pets")
    for (split, ours), (_, theirs) in zip(from_tar, from_folder, strict=True):
        assert ours.ids == theirs.ids and ours.labels.tolist() == theirs.labels.tolist()
        assert [ours.image(n).tobytes() for n in range(len(ours))] == [
            theirs.image(n).tobytes() for n in range(len(theirs))
        ], split
    assert sorted(os.listdir(tmp_path)) == sorted([*before, "pets"])


def test_the_index_is_made_once_and_again_when_the_tar_changes(tmp_path, cache):
    tar = pack_tar(tmp_path / "pets.tar", members())
    open_dataset(tar)
    first = sorted(cache.glob("tar/*.json"))
    open_dataset(tar)
    assert sorted(cache.glob("tar/*.json")) == first and len(first) == 1
    pack_tar(tar, members(5))
    assert len(open_dataset(tar).require("test")) == 10


@pytest.mark.parametrize("name", ["../../evil/x.png", "/etc/x.png", "train/cat/../../../x.png"])
def test_path_traversal_is_refused(tmp_path, name):
    tar = pack_tar(tmp_path / "a.tar", {**members(), name: b"x"})
    with pytest.raises(DataError, match="leaves the archive"):
        open_dataset(tar)


def test_links_and_devices_are_never_followed(tmp_path):
    secret = tmp_path / "secret.png"
    secret.write_bytes(encoded(smooth_image(1)))
    extra = []
    for name, kind, target in (
        ("train/cat/link.png", tarfile.SYMTYPE, str(secret)),
        ("train/cat/hard.png", tarfile.LNKTYPE, "train/cat/0.png"),
        ("train/cat/pipe.png", tarfile.FIFOTYPE, ""),
        ("train/cat/device.png", tarfile.CHRTYPE, ""),
    ):
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, target
        extra.append(info)
    data = open_dataset(pack_tar(tmp_path / "a.tar", members(), extra), val_share=0)
    assert len(data.require("train")) == 8
    assert data.ignored == {"links and devices in the archive": 4}


def test_a_tar_that_is_cut_off_or_no_tar_is_reported(tmp_path):
    tar = pack_tar(tmp_path / "a.tar", members())
    (tmp_path / "cut.tar").write_bytes(tar.read_bytes()[: tar.stat().st_size // 3 + 300])
    (tmp_path / "text.tar").write_bytes(b"hello " * 300)
    pressed = gzip.compress(tar.read_bytes())
    (tmp_path / "cut.tar.gz").write_bytes(pressed[: len(pressed) // 2])
    flipped = bytearray(pressed)
    flipped[len(flipped) // 2] ^= 255
    (tmp_path / "flipped.tar.gz").write_bytes(flipped)
    for name in ("cut.tar", "text.tar", "cut.tar.gz", "flipped.tar.gz"):
        with pytest.raises(VitrailError, match="Download it again"):
            open_dataset(tmp_path / name)


def test_a_tar_that_grows_beyond_reason_is_refused(tmp_path, cache):
    with gzip.open(tmp_path / "bomb.tar.gz", "wb") as file:
        for _ in range(72):
            file.write(bytes(2**20))
    with pytest.raises(DataError, match="grows more than"):
        open_dataset(tmp_path / "bomb.tar.gz")
    assert [path for path in cache.rglob("*") if path.is_file()] == []
