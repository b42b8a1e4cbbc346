"""Specification of the benchmarked model, from which another process builds the same model."""

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vitrail.inference.model_loading import find_model
from vitrail.models import catalogue, create_model
from vitrail.parts.exported_file import check_layers
from vitrail.parts.model import Model
from vitrail.training.config import parse_overrides
from vitrail.weights.folder import model_folder
from vitrail.weights.load import load_weights


@dataclass(frozen=True)
class ModelSpec:
    """Specification of a model.

    Args:
        model: a name in the catalogue, a model folder or a run folder.
        weights: a checkpoint for a name; random weights if None.
        imgsz: side of the images; the model's own if None.
        set: fields of a name's config to replace, as `name=value`.
        device: `cpu` or `cuda`.
        seed: seed of the random weights.

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
        """Whether the model is a name in the catalogue, not a folder."""
        return self.model in catalogue() and not Path(self.model).exists()

    @property
    def trained(self) -> bool:
        """Whether the weights are trained."""
        return self.weights is not None or not self.named

    def build(self) -> Model:
        """Build the model in fp32, in evaluation mode; deterministic.

        Raises:
            VitrailError: there is no such model, or it does not support this size.
        """
        if not self.named:
            model = find_model(model_folder(self.model), self.weights, "cpu")
            check_layers(model, "its weights are needed to compare it with its peers")
            return (model if self.imgsz is None else _resized(model, self.imgsz)).to(self.device)
        size: dict[str, Any] = {} if self.imgsz is None else {"image_size": self.imgsz}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            model = create_model(self.model, self.weights, **parse_overrides(self.set), **size)
            if not self.trained:
                randomize_(model)
        return model.to(self.device).eval()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return asdict(self)


@torch.no_grad()
def randomize_(model: nn.Module) -> None:
    """Perturb every parameter, so that errors are not hidden by zeros and ones.

    At initialisation norms have unit weight, biases are zero, and the layer scales of a PoolFormer are so small that
    errors of its blocks would not show.
    """
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter), alpha=0.02 if parameter.ndim > 1 else 0.1)


def _resized(model: Model, imgsz: int) -> Model:
    """Return the model for another image size, with adapted weights."""
    published = {field.name: getattr(model.config, field.name) for field in fields(model.config)}
    other = create_model(model.variant, **published, image_size=imgsz)
    load_weights(other, model.state_dict())
    return other.eval()
