"""A run so small that a test can make many of them: ten updates an epoch."""

from vitrail.training.config import TrainConfig

TINY = TrainConfig(
    data="digits",
    model="vit_tiny_patch16_224",
    set=("dim=16", "depth=2", "num_heads=2", "patch_size=4"),
    imgsz=8,
    epochs=2,
    batch=120,
    drop_path=0.1,
    precision="fp32",  # tests compare runs more closely than bf16 can
    save_seconds=0,
)
