"""The program of an encoder of texts: token ids and the mask of real tokens in."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vitrail.layouts import TokenSequence
from vitrail.parts.model import Model
from vitrail.tasks.program import NamedAxis, ProgramSpec, Sizes, TensorSpec
from vitrail.tasks.text_inputs import most_tokens

_LENGTHS = (16, 7, 1, 29, 12, 3, 31, 24)


class MaskedTextModel(nn.Module):
    """A model of texts whose padding is a mask, as other libraries give it: `(ids, mask)`, each `(B, N)`.

    Args:
        model: `(ids, layout) -> output`; padding is on the right.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, mask: Tensor) -> Any:
        """Return the output; a tuple of several becomes a plain one."""
        found = self.model(ids, TokenSequence(ids.shape[1], lengths=mask.sum(1)))
        return tuple(found) if isinstance(found, tuple) else found


def text_program(
    model: Model, outputs: tuple[TensorSpec, ...], decode: Callable[[tuple[Tensor, ...]], object] | None = None
) -> ProgramSpec:
    """Return the program of a model of texts; its length is dynamic, up to the positions of the model.

    Args:
        model: `(ids, layout) -> output`.
        outputs: output tensors.
        decode: from output tensors to the value that the model returns; by default the first one.

    Example:
        >>> from vitrail.models import create_model
        >>> from vitrail.tasks.program import TensorSpec
        >>> model = create_model("lstm_sst", dim=4, hidden=4, vocab_size=9, num_classes=2)
        >>> [each.name for each in text_program(model, (TensorSpec("logits", ("batch", 2)),)).inputs]
        ['ids', 'mask']
    """
    longest = most_tokens(model.config, model.metadata.get("max_length"))
    tried = tuple(min(length, longest) for length in _LENGTHS)
    length = NamedAxis("length", tried[0], min(48, longest), (tried[0], min(5, longest)), tried)
    words = model.config.vocab_size

    def draw(sizes: Sizes, generator: torch.Generator) -> tuple[Tensor, ...]:
        shape = sizes["batch"], sizes["length"]
        real = torch.randint(1, shape[1] + 1, (shape[0],), generator=generator)
        real[0] = shape[1]
        mask = (torch.arange(shape[1]) < real[:, None]).long()
        return torch.randint(0, words, shape, generator=generator) * mask, mask

    inputs = tuple(TensorSpec(name, ("batch", "length"), dtype="int64") for name in ("ids", "mask"))
    more: dict[str, Any] = {} if decode is None else {"decode": decode}
    return ProgramSpec(MaskedTextModel(model), inputs, outputs, (length,), draw, encode, **more)


def encode(ids: Tensor, layout: TokenSequence | None = None) -> tuple[Tensor, Tensor]:
    """Return ids and mask of a call of the model.

    Example:
        >>> encode(torch.zeros(1, 3).long(), TokenSequence(3, lengths=torch.tensor([2])))[1].tolist()
        [[1, 1, 0]]
    """
    lengths = None if layout is None else layout.lengths
    if lengths is None:
        return ids, torch.ones_like(ids)
    return ids, (torch.arange(ids.shape[1]) < lengths[:, None]).long()
