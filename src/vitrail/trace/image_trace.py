"""Trace of an image model: the recorded pass as frames, with lens and twins."""

from collections.abc import Iterator, Sequence

import torch
from PIL import Image
from torch import Tensor, nn

from vitrail.data.transform import EvalTransform
from vitrail.explain.blocks import name_of
from vitrail.explain.overlay import seen
from vitrail.parts.attend import Attend
from vitrail.parts.backbone import Classifier
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.embeddings import OverlappingPatchEmbedding, PatchEmbedding, PrefixTokens
from vitrail.parts.merging import NoMerging, PatchMerging, PostNormPatchMerging
from vitrail.parts.mixture_of_experts import MixtureOfExperts
from vitrail.parts.model import Model
from vitrail.parts.positions import LearnedPosition
from vitrail.parts.token_mixers.neighborhood_attention import NeighborhoodAttention
from vitrail.parts.token_mixers.pooling import Pooling
from vitrail.parts.token_mixers.self_attention import SelfAttention
from vitrail.parts.token_mixers.spatial_reduction_attention import SpatialReductionAttention
from vitrail.parts.token_mixers.token_mlp import TokenMLP
from vitrail.parts.token_mixers.window_attention import WindowAttention
from vitrail.preprocess import Preprocess
from vitrail.tasks.data_url import encode
from vitrail.trace import embedding, mixers
from vitrail.trace.attention import self_attention
from vitrail.trace.counts import Counts
from vitrail.trace.frame import ModelTrace, TraceFrame
from vitrail.trace.lens import logit_lens
from vitrail.trace.output import final_norm, head, known_names
from vitrail.trace.record import Call, record
from vitrail.trace.twins import twins
from vitrail.trace.views import top_classes
from vitrail.trace.walk import Describer, Walk, millions
from vitrail.trace.windows import window_attention

DESCRIBERS: dict[type, Describer] = {
    PatchEmbedding: embedding.patches,
    OverlappingPatchEmbedding: embedding.overlapping,
    PrefixTokens: embedding.prefix,
    LearnedPosition: embedding.learned_position,
    PatchMerging: embedding.merging,
    PostNormPatchMerging: embedding.merging,
    NoMerging: embedding.coarser,
    WindowAttention: window_attention,
    NeighborhoodAttention: mixers.neighborhood,
    SelfAttention: self_attention,
    SpatialReductionAttention: self_attention,
    TokenMLP: mixers.token_mlp,
    Pooling: mixers.pooling,
    MLP: mixers.mlp,
    MixtureOfExperts: mixers.experts,
}
"""Description by type of module; modules in the seats of a backbone have one by their place."""

RESTORER_SIDE = 96
"""Side of the image for models that take every size and have no preprocessing of their own."""


class ImageWalk(Walk):
    """A walk that knows the seats of this library: embedding, stages, blocks, mixers, norm, head.

    Args:
        names: of the classes.
        root, image, counts, describers: as in `Walk`.
    """

    def __init__(
        self,
        names: Sequence[str],
        root: Call,
        image: tuple[int, int],
        counts: Counts,
        describers: dict[type, Describer],
    ):
        super().__init__(root, image, counts, describers)
        self.names = list(names)

    def frames(self, call: Call) -> Iterator[TraceFrame]:
        """Describe by type, then by seat, then by layer."""
        parts = call.path.split(".")
        seat = parts[-1]
        if isinstance(call.module, nn.ModuleList | nn.Sequential) or self._find(call.module):
            yield from super().frames(call)
        elif call.path == "head" and call.module is not self.root.module:
            yield head(self, call, self.names)
        elif call.path == "backbone.norm":
            yield from final_norm(self, call)
        elif seat in ("token_mixer", "channel_mixer"):
            yield from (mixers.mixer if seat == "token_mixer" else mixers.mlp)(self, call)
        elif hasattr(call.module, "token_mixer") and hasattr(call.module, "channel_mixer"):
            yield from mixers.block(self, call)
        elif len(parts) > 1 and parts[-2] == "blocks" and not _has_blocks(call):
            yield from mixers.whole_block(self, call)
        elif seat in ("entry", "exit") and call.grid is not None:
            yield from embedding.coarser(self, call)
        elif seat in ("patches", "stem") or call.path == "backbone.embedding":
            yield from self._embedding(call)
        else:
            yield from super().frames(call)

    def _embedding(self, call: Call) -> Iterator[TraceFrame]:
        deeper = call.child("patches") is not None or any(self._find(each.module) for each in call.walk())
        attends = any(isinstance(each.module, Attend) for each in call.walk())
        yield from self.children(call) if deeper or attends else embedding.stem(self, call)


def _has_blocks(call: Call) -> bool:
    """Return whether a block holds blocks with mixers of their own, as in a model of two streams."""
    return any(hasattr(each.module, "channel_mixer") for each in call.walk() if each is not call)


def model_input(model: Model, image: Image.Image) -> Tensor:
    """Return the `(1, C, Y, X)` input of a model for an image.

    A model without preprocessing, such as a restorer or a module of one's own, gets the image's central square in the
    range 0 to 1.
    """
    first = next(model.parameters(), torch.zeros(()))
    preprocess = getattr(model, "preprocess", None)
    if not isinstance(preprocess, Preprocess):
        channels = getattr(getattr(model, "config", None), "in_channels", 3)
        flat = (0.0,) * channels if channels in (1, 3) else (0.0,) * 3
        preprocess = Preprocess(size=RESTORER_SIDE, mean=flat, std=tuple(1.0 for _ in flat))
    return EvalTransform(preprocess)(image)[None].to(first.device)


@torch.no_grad()
def trace_image(model: Model, image: Image.Image | Tensor, names: Sequence[str] = (), command: str = "") -> ModelTrace:
    """Walk one image through a model.

    Args:
        model: an image model of the catalogue, or any module that takes `(1, C, Y, X)` images.
        image: an image, or a prepared input `(1, C, Y, X)`.
        names: of the classes; by default those of the model.
        command: command line that makes the page again.

    Example:
        >>> from vitrail.models import create_model
        >>> model = create_model("vit_tiny_patch16_224", depth=1, image_size=64)
        >>> [frame.title for frame in trace_image(model, torch.zeros(1, 3, 64, 64)).frames]
        ['Patch embedding', 'Class token', 'Learned positions', 'Self attention', 'MLP', 'Final norm', 'Head']
    """
    names = names or known_names(model)
    images = image if isinstance(image, Tensor) else model_input(model, image)
    root = record(model, images)
    counts = Counts(model, root)
    size = (images.shape[-2], images.shape[-1])
    walk = ImageWalk(names, root, size, counts, DESCRIBERS)
    frames = list(walk.frames(root))
    rest = walk.frame(root, "Weights that this pass did not use", sorted(counts.parameters)[:8])
    frames += [rest] if rest.parameters else []
    preprocess = getattr(model, "preprocess", None)
    [shown] = seen(images, preprocess if isinstance(preprocess, Preprocess) else _plain(images), least=1)
    return ModelTrace(
        model=name_of(model) if hasattr(model, "config") else type(model).__name__,
        facts=_facts(root, counts, size, names),
        frames=frames,
        image=encode(shown),
        size=size,
        lens=logit_lens(model, root, names) if isinstance(model, Classifier) else {},
        twins=twins(root),
        notes=[f"Multiply-adds are not counted: {counts.reason}"] if counts.reason else [],
        command=command,
        calls=root,
    )


def _plain(images: Tensor) -> Preprocess:
    channels = 3 if images.shape[1] >= 3 else 1
    return Preprocess(mean=(0.0,) * channels, std=(1.0,) * channels)


def _facts(root: Call, counts: Counts, size: tuple[int, int], names: Sequence[str]) -> list[tuple[str, str, str]]:
    macs = "?" if counts.total_macs is None else f"{millions(counts.total_macs)}"
    facts = [
        ("Input", f"{size[1]} × {size[0]}", "pixels"),
        ("Parameters", millions(counts.total_parameters), f"{counts.total_parameters:,}"),
        ("Multiply-adds", macs, "of one image"),
    ]
    y = root.y
    if isinstance(root.output, Tensor) and root.output.ndim == 2 and root.output.shape[1] > 1 and y is not None:
        [label], value = top_classes(y[0], names, 1)
        facts.append(("Answer", label, f"probability {value.item():.3f}"))
    elif y is not None:
        facts.append(("Output", " × ".join(str(n) for n in y.shape[1:]), "shape"))
    return facts
