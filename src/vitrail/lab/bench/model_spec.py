"""The model that is measured, described so shortly that another process can build the very same one."""

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vitrail.lab.model_loading import find_model, model_folder
from vitrail.models import catalogue, create_model
from vitrail.training.config import TrainConfig
from vitrail.weights.load import load_weights


@dataclass(frozen=True)
class ModelSpec:
    """What to build.

    Args:
        model: a name in the catalogue, a model folder or a run folder.
        weights: a checkpoint for a name; random weights when None.
        imgsz: side of the images; the model's own when None.
        set: fields of a name's config to replace, as `name=value`.
        device: `cpu` or `cuda`.
        seed: of the random weights.

    Example:
        >>> subject = ModelSpec("vit_tiny_patch16_224", imgsz=32, set=("depth=1",))
        >>> subject.build().preprocess.size, ModelSpec(**subject.to_dict()) == subject
        (32, True)
    """

    model: str
    weights: str | None = None
    imgsz: int | None = None
    set: tuple[str, ...] = ()
    device: str = "cpu"
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "set", tuple(self.set))

    @property
    def named(self) -> bool:
        """Whether the model is a name in the catalogue and no folder."""
        return self.model in catalogue() and not Path(self.model).exists()

    @property
    def trained(self) -> bool:
        """Whether the weights were learnt."""
        return self.weights is not None or not self.named

    def build(self) -> Any:
        """Return the model in fp32, in evaluation mode; the same one each time.

        Raises:
            VitrailError: there is no such model, or it cannot have this size.
        """
        if not self.named:
            model = find_model(model_folder(self.model), self.weights, "cpu")
            return (model if self.imgsz is None else _resized(model, self.imgsz)).to(self.device)
        size = {} if self.imgsz is None else {"image_size": self.imgsz}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            model = create_model(self.model, self.weights, **TrainConfig(set=self.set).model_overrides(), **size)
            if not self.trained:
                stir(model)
        return model.to(self.device).eval()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return asdict(self)


@torch.no_grad()
def stir(model: nn.Module) -> None:
    """Move every parameter, so that nothing agrees by being zero or one.

    As they are created, norms pass their input through, biases add nothing, and the scales of a PoolFormer's blocks are
    so small that the blocks could compute anything.
    """
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter), alpha=0.02 if parameter.ndim > 1 else 0.1)


def _resized(model: Any, imgsz: int) -> Any:
    """Return a model for images of another side, with its weights adapted."""
    published = {field.name: getattr(model.config, field.name) for field in fields(model.config)}
    other = create_model(model.variant, **published, image_size=imgsz)
    load_weights(other, model.state_dict())
    return other.eval()
