"""Model inputs are a function of seed, epoch and step: not of workers, ranks, or the way the training got there."""

import os
import signal
import subprocess
import sys
from itertools import islice

import numpy as np
import pytest
import torch
from drawn_images import encoded, smooth_image

from vitrail.data.augment import AUGMENTS, Augment
from vitrail.data.datasets import open_dataset
from vitrail.data.loading import Batch, Loader, eval_loader, fitted, train_loader
from vitrail.data.parallel import in_parallel, worker_failure
from vitrail.data.sampler import ResumableSampler
from vitrail.data.transform import EvalTransform, TrainTransform
from vitrail.errors import DataError, ResourceError
from vitrail.preprocess import Preprocess

EVERYTHING = Augment(policy="rand", jitter=0.3, erase=0.5)


def same(one: list[Batch], other: list[Batch]) -> bool:
    pairs = list(zip(one, other, strict=True))
    return len(pairs) > 0 and all(
        torch.equal(a, b) for ours, theirs in pairs for a, b in zip(ours, theirs, strict=True)
    )


@pytest.fixture
def photos(tree):
    """Images of several sizes: they stay files."""
    root = tree({"cat": 12, "dog": 12}, size=(140, 120))
    (root / "dog" / "other.png").write_bytes(encoded(smooth_image(99, (150, 160))))
    return open_dataset(root, val_share=0).require("train")


@pytest.fixture
def small(tree):
    """Images of one small size: they are packed."""
    return open_dataset(tree({"cat": 12, "dog": 12}, size=(16, 16)), val_share=0).require("train")


def loader(images, workers: int = 0, **options) -> Loader:
    augment = Augment(crop="pad", policy="trivial", erase=0.5) if images.pixels is not None else EVERYTHING
    return train_loader(images, TrainTransform(Preprocess(16, 1.0), augment), 6, seed=3, workers=workers, **options)


@pytest.mark.parametrize("source", ["photos", "small"])
def test_workers_change_nothing(source, request):
    images = request.getfixturevalue(source)
    alone, together = loader(images), loader(images, workers=2)
    for epoch in (0, 4):
        assert same(list(alone.epoch(epoch)), list(together.epoch(epoch)))
    assert not same(list(alone.epoch(0)), list(alone.epoch(1)))


@pytest.mark.parametrize("workers", [0, 2])
def test_resuming_is_the_rest_of_the_epoch(photos, workers):
    whole = list(loader(photos).epoch(2))
    resumed = loader(photos, workers=workers)
    list(islice(resumed.epoch(1), 2))  # an abandoned epoch has no effect on later ones
    assert same(list(resumed.epoch(2, start_step=1)), whole[1:])
    assert len(resumed) == resumed.steps == len(whole) == 4


@pytest.mark.parametrize("source", ["photos", "small"])
def test_ranks_share_the_step(source, request):
    images = request.getfixturevalue(source)
    whole = list(loader(images).epoch(1))
    ranks = [list(loader(images, rank=rank, world=3).epoch(1)) for rank in range(3)]
    for step, batch in enumerate(whole):
        for name in Batch._fields:
            assert torch.equal(getattr(batch, name), torch.cat([getattr(rank[step], name) for rank in ranks]))


def test_loading_leaves_the_global_generators_alone(photos):
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    for workers in (0, 1):
        list(loader(photos, workers=workers).epoch())
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002


def test_evaluation_is_the_transform_of_each_image(photos, small):
    for samples in (photos, small):
        for preprocess in (Preprocess(16, 1.0), Preprocess(16, 0.9), Preprocess(24, 0.875)):
            transform = EvalTransform(preprocess)
            batches = list(eval_loader(samples, transform, 7))
            images, index = torch.cat([b.images for b in batches]), torch.cat([b.index for b in batches])
            assert index.tolist() == list(range(len(samples)))
            assert torch.equal(torch.cat([b.labels for b in batches]), samples.labels)
            for row in (0, 5, 20):
                assert torch.equal(images[row], transform(samples.image(row)))


def test_packed_pixels_are_the_files(small, tree, cache):
    root = tree({}, size=(16, 16))
    files = open_dataset(root, val_share=0, packed=False).require("train")
    assert files.pixels is None and small.pixels.shape == (24, 3, 16, 16)
    assert [files.image(n).tobytes() for n in range(24)] == [small.image(n).tobytes() for n in range(24)]
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*")}
    open_dataset(root)
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*")} == before
    (root / "cat" / "000.png").write_bytes(encoded(smooth_image(77, (16, 16))))
    changed = open_dataset(root, val_share=0).require("train")
    assert changed.image(changed.ids.index("cat/000.png")).tobytes() == smooth_image(77, (16, 16)).tobytes()


def test_grey_images_are_packed_in_one_channel(tree):
    root = tree({"cat": 9, "dog": 9}, size=(16, 16))
    for path in root.rglob("*.png"):
        path.write_bytes(encoded(smooth_image(hash(path.name) % 50, (16, 16)).convert("L")))
    data = open_dataset(root, val_share=0).require("train")
    assert data.pixels.shape == (18, 1, 16, 16) and data[0].image.shape == (1, 16, 16)
    assert next(loader(data).epoch()).images.shape == (6, 3, 16, 16)


def test_packed_images_of_another_size_are_resized_once(small):
    transform = TrainTransform(Preprocess(32, 1.0), AUGMENTS["small"])
    once = fitted(small, transform)
    assert once.pixels.shape == (24, 3, 32, 32)
    assert torch.equal(once[3].image, transform.to_pixels(small.image(3)))
    assert fitted(small, TrainTransform(Preprocess(32, 1.0), Augment())) is small


@pytest.fixture(params=[(140, 120), (16, 16)], ids=["files", "packed"])
def damaged(request, tree):
    root = tree({"cat": 6, "dog": 6}, size=request.param)
    (root / "cat" / "001.png").write_bytes(b"")
    (root / "dog" / "004.png").write_bytes((root / "dog" / "004.png").read_bytes()[:200])
    return root


@pytest.mark.parametrize("workers", [0, 2])
def test_a_corrupt_image_stops_the_run_and_is_named(damaged, workers):
    with pytest.raises(DataError, match=r"(?s)(cat/001.png: the file is empty|dog/004.png: the file).*: --bad skip"):
        images = open_dataset(damaged, val_share=0).require("train")
        transform = EvalTransform(Preprocess(16, 1.0))
        list(eval_loader(images, transform, 4, workers=workers))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_corrupt_image_may_be_skipped_and_is_counted(damaged, workers):
    data = open_dataset(damaged, val_share=0, bad="skip")
    images = data.require("train")
    batches = eval_loader(images, EvalTransform(Preprocess(16, 1.0)), 4, workers=workers, bad="skip")
    seen = [images.ids[n] for batch in batches for n in batch.index.tolist()]
    skipped = {problem.id for problem in data.skipped} | set(batches.skipped)
    assert skipped == {"cat/001.png", "dog/004.png"}
    assert len(seen) == len(set(seen)) == 10 and not skipped & set(seen)
    if images.pixels is not None:  # the cache remembers the skipped images
        assert {problem.id for problem in open_dataset(damaged, bad="skip").skipped} == skipped
        with pytest.raises(DataError, match="2 images"):
            open_dataset(damaged)


def test_a_batch_of_corrupt_images_is_empty(tree):
    root = tree({"cat": 2, "dog": 2}, size=(140, 120))
    for path in root.rglob("*.png"):
        path.write_bytes(b"")
    images = open_dataset(root, val_share=0).require("train")
    batch = next(iter(eval_loader(images, EvalTransform(Preprocess(16)), 4, bad="skip")))
    assert batch.images.shape == (0, 3, 16, 16) and len(batch.labels) == 0


class Dies:
    """A store whose reading kills the process, as the kernel does when memory is gone."""

    def __len__(self) -> int:
        return 8

    def open(self, number: int, name: str, mode: str, draft: int | None):
        os.kill(os.getpid(), signal.SIGKILL)

    def take(self, chosen):
        return self


def test_a_killed_worker_is_reported_with_its_cause(photos):
    images = photos.take(range(8))
    images.store = Dies()
    order = ResumableSampler(8, 4, shuffle=False)
    with pytest.raises(ResourceError, match=r"worker .* was killed by signal Killed|worker .* ended"):
        list(Loader(images, EvalTransform(Preprocess(16)), order, workers=1).epoch())


class Hangs(Dies):
    def open(self, number: int, name: str, mode: str, draft: int | None):
        signal.pause()


def test_a_hanging_worker_is_reported(photos):
    images = photos.take(range(8))
    images.store = Hangs()
    order = ResumableSampler(8, 4, shuffle=False)
    with pytest.raises(ResourceError, match="gave nothing"):
        list(Loader(images, EvalTransform(Preprocess(16)), order, workers=1, timeout=1).epoch())


def test_other_errors_propagate():
    assert worker_failure(RuntimeError("shape mismatch")) is None
    assert list(in_parallel(str, range(20), "", workers=2)) == [str(n) for n in range(20)]


@pytest.mark.skipif(sys.platform != "linux", reason="memory-limited file systems need Linux")
def test_a_full_disk_is_reported_and_no_file_is_left(tree, tmp_path):
    root = tree({"cat": 40, "dog": 40}, size=(32, 32))
    program = (
        "import resource, sys, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from vitrail.data.datasets import open_dataset\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "from vitrail.errors import ResourceError\n"
        "try: open_dataset(sys.argv[1])\n"
        "except ResourceError as error: sys.exit(error.exit_code)\n"
    )
    environment = os.environ | {"VITRAIL_CACHE": str(tmp_path / "disk")}
    done = subprocess.run([sys.executable, "-c", program, str(root)], env=environment, check=False)
    assert done.returncode == 4
    assert [path for path in (tmp_path / "disk").rglob("*") if path.is_file()] == []
