"""Images: where they come from, how they are read, changed, put in order and checked.

Stages of the input pipeline, one file each::

    datasets.py   open_dataset(spec) -> Splits(train, val, test, classes)  a folder, a table, a tar, digits, ...
    dataset.py    ImageSet: .classes .ids .labels .pixels, len(), [i] -> Sample(image, label, id)
    image_io.py   open_image(path | bytes | file, mode="RGB") -> PIL.Image      the one way an image is read
    transform.py  EvalTransform(preprocess), TrainTransform(preprocess, augment): to_pixels, vary, finish
    pixels.py     Pixels: resize, move, normalize; native/image_resize.py has them compiled
    view.py       View(crop, size, flip): geometry of a sample, the same for image, mask and boxes
    augment.py    Augment(crop, flip, policy, jitter, erase, ...): training augmentation
    mixup.py      Mix(num_classes, mixup, cutmix)(images, labels, seed, step) -> (images, soft targets)
    sampler.py    ResumableSampler(length, batch_size, seed, rank, world): samples of a step, a pure function
    loading.py    train_loader(...), eval_loader(...) -> Loader; Loader.epoch(epoch, start_step) -> Batch, Batch, ...
    check.py      check_dataset(splits) -> CheckReport: every bad file with its reason, duplicates, leakage

Signatures::

    open_dataset(spec, *, val_share=0.1, test_share=0.0, classes=None, columns=Columns(), download=False,
                 bad="fail", packed=True) -> Splits
    Splits.train / .val / .test: ImageSet | None;  Splits.require("val") -> ImageSet or an error that teaches
    check_dataset(open_dataset(spec, bad="list"), *, decode=True, workers=None) -> CheckReport
    train_loader(dataset, transform, batch_size, *, seed=0, rank=0, world=1, workers=0, bad="fail",
                 device="cpu") -> Loader
    eval_loader(dataset, transform, batch_size, *, rank=0, world=1, workers=0, bad="fail", device="cpu") -> Loader
    Loader.epoch(epoch=0, start_step=0) -> Iterator[Batch(images, labels, index)]
    Loader.steps: batches an epoch, the same on every rank;  Loader.skipped: {id: reason} under bad="skip"

`batch_size` is always the global batch: each rank gets its share. Randomness is a pure function of `(seed, epoch,
index)` for a sample and `(seed, step)` for a batch, independent of workers, ranks and earlier draws.
"""
