"""The socket of text: token ids and their layout in, features or logits out."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from vitrail.inputs import ModelInputs
from vitrail.layouts import TokenSequence
from vitrail.parts.backbone import Backbone, Features
from vitrail.parts.model import Model, ModelKind
from vitrail.shapes import TokenIds
from vitrail.text.vocabulary import Vocabulary


class SequenceBackbone(Backbone):
    """Token ids in, features out: the `Backbone` of sequences.

    Args:
        embedding: `(ids, layout) -> (x, layout)`.
        stages: each `(x, layout) -> (x, layout)`.
        norm: after the last stage, `x -> x`.
    """

    def forward(self, images: TokenIds, layout: TokenSequence | None = None) -> Features:
        """Embed, pass the stages, normalise; without a layout no sequence is padded."""
        grid: Any = layout or TokenSequence(images.shape[1])
        x, grid = self.embedding(images, grid)
        pyramid = []
        for stage in self.stages:
            x, grid = stage(x, grid)
            pyramid.append(grid.cells(x))
        return Features(self.norm(x), grid, tuple(pyramid))


class SequenceModel(Model):
    """A backbone of sequences and a head: token ids in, the head's output out.

    Args:
        backbone: `(ids, layout) -> Features`.
        head: `Features -> output`, such as one score a class.
    """

    kinds: ClassVar[Mapping[str, ModelKind]] = {
        "language": ModelKind("A language model", "text-generation"),
        "masked": ModelKind("A masked language model", "fill-mask"),
        "pretrain": ModelKind("A pretrained encoder of text", "fill-mask"),
        "sentiment": ModelKind("A classifier of text", "text-classification", titles={"labels": "classes"}),
        "vector": ModelKind("An encoder of sentences", "sentence-similarity"),
    }
    inputs_type: ClassVar[type[ModelInputs] | None] = Vocabulary

    def __init__(self, backbone: SequenceBackbone, head: nn.Module):
        super().__init__()
        self.backbone = backbone
        self.head = head

    def features(self, ids: TokenIds, layout: TokenSequence | None = None) -> Features:
        """Return tokens and layout."""
        return self.backbone(ids, layout)

    def forward(self, ids: TokenIds, layout: TokenSequence | None = None) -> Any:
        """Return the head's output."""
        return self.head(self.backbone(ids, layout))


class TiedModel(SequenceModel):
    """A sequence model whose head shares the word table of the embedding.

    "Using the Output Embedding to Improve Language Models". The table is stored once.

    Args:
        backbone: `(ids, layout) -> Features`.
        head: `(features, table) -> output`, such as one score a word.
    """

    def forward(self, ids: TokenIds, layout: TokenSequence | None = None) -> Any:
        """Return the head's output, by default logits `(B, N, V)`."""
        return self.head(self.backbone(ids, layout), self.table)

    @property
    def table(self) -> Tensor:
        """The word table `(V, C)`."""
        return self.backbone.embedding.words.weight  # pyright: ignore[reportReturnType, reportAttributeAccessIssue]
