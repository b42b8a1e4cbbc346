"""Names of options in other libraries, for the command line, config files and `vitrail.train`."""

# From Ultralytics, timm, Hugging Face and torchvision, only with exactly the same meaning:
# `per_device_train_batch_size` is not the global batch, and `warmup_steps` are not epochs.
ALIASES = {
    "data-dir": "data",
    "data-path": "data",
    "dataset": "data",
    "b": "batch",
    "batch-size": "batch",
    "img-size": "imgsz",
    "image-size": "imgsz",
    "input-size": "imgsz",
    "num-train-epochs": "epochs",
    "lr0": "lr",
    "learning-rate": "lr",
    "wd": "weight-decay",
    "warmup-epochs": "warmup",
    "lr-warmup-epochs": "warmup",
    "opt": "optimizer",
    "optim": "optimizer",
    "sched": "scheduler",
    "lr-scheduler": "scheduler",
    "lr-scheduler-type": "scheduler",
    "grad-accum-steps": "grad-accum",
    "gradient-accumulation-steps": "grad-accum",
    "accumulate": "grad-accum",
    "model-ema": "ema",
    "label-smoothing": "smoothing",
    "label-smoothing-factor": "smoothing",
    "mixup-alpha": "mixup",
    "cutmix-alpha": "cutmix",
    "torchcompile": "compile",
    "torch-compile": "compile",
    "model-name-or-path": "model",
    "resume-from-checkpoint": "resume",
    "output": "out",
    "output-dir": "out",
    "j": "workers",
    "num-workers": "workers",
}


def field_of(name: str) -> str:
    """Return the field that another library's name means; any other name is returned unchanged.

    Example:
        >>> field_of("learning_rate"), field_of("epochs")
        ('lr', 'epochs')
    """
    return ALIASES.get(name.replace("_", "-"), name).replace("-", "_")
