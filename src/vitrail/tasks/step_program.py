"""The program of one step of decoding: new tokens and the cache in, scores and the grown cache out.

The first step reads the whole prompt with an empty cache, each later one a token. A translation has its encoder in the
same program: the first step is given the source, later ones an empty source and the keys of the memory, so the encoder
costs them nothing.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vitrail.errors import VitrailError
from vitrail.layouts import TokenSequence
from vitrail.parts.model import Model
from vitrail.parts.rereading import RereadingBackbone
from vitrail.tasks.program import NamedAxis, ProgramSpec, Sizes, TensorSpec
from vitrail.tasks.step_cache import CacheEntry, StepCache, StepLayout, described_entries
from vitrail.tasks.step_decoding import FileLanguageDecoding, FileTranslationDecoding, RunTensors

_LENGTHS = (6, 1, 9, 1, 2, 1, 5, 1)
_PAST = (0, 6, 0, 7, 3, 1, 0, 11)
_SOURCES = (6, 0, 9, 0, 7, 0, 1, 0)
_MEMORY = (0, 6, 0, 9, 0, 1, 0, 5)


class LanguageStep(nn.Module):
    """One step of a language model: `(ids, *cache) -> (logits, *cache)`.

    Args:
        model: `(ids, layout) -> logits (B, N, V)`.
        counted: whether the number of earlier tokens is an input, since no entry of the cache grows with it.
    """

    def __init__(self, model: Model, counted: bool):
        super().__init__()
        self.model, self.counted = model, counted

    def forward(self, ids: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
        """Return logits of the word after each new token, and the cache."""
        start: Any = given[0][0, 0] if self.counted else given[0].shape[2]
        cache = StepCache(given[1:] if self.counted else given)
        logits = self.model(ids, TokenSequence(ids.shape[1], start=start, cache=cache))
        return (logits, *cache.found)


class TranslationStep(nn.Module):
    """One step of a translation model: `(ids, source, lengths, *cache) -> (logits, *cache)`.

    Args:
        model: the encoder-decoder.
        entries: of its cache.
    """

    def __init__(self, model: Model, entries: tuple[CacheEntry, ...]):
        super().__init__()
        self.model = model
        self.first = next(number for number, each in enumerate(entries) if each.grows == "past")

    def forward(self, ids: Tensor, source: Tensor, lengths: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
        """Return logits of the word after each new target token, and the cache."""
        memory = self.model.encode(source, TokenSequence(source.shape[1], lengths=lengths))
        cache, start = StepCache(given), given[self.first].shape[2]
        layout = StepLayout(ids.shape[1], start=start, memory=memory, memory_lengths=lengths, cache=cache)
        logits = self.model.decode(ids, layout)
        return (logits, *cache.found)


def language_program(model: Model) -> ProgramSpec:
    """Return the step program of a language model, also of one whose words are colours.

    Raises:
        VitrailError: tokens of the model change places as the text grows, so no step can use the work of earlier ones.

    Example:
        >>> from vitrail.models import create_model
        >>> model = create_model("gpt2", dim=8, depth=1, num_heads=1, vocab_size=9, max_length=8)
        >>> [each.name for each in language_program(model).inputs]
        ['ids', 'past_keys_0', 'past_values_0']
    """
    if isinstance(model.backbone, RereadingBackbone):
        raise VitrailError(
            f"{model.variant} sorts all tokens again for each new one, so there is no step that a program could hold.\n"
            "Run it with vitrail generate, or vitrail serve."
        )
    entries = _recorded(model, lambda ids, cache: model(ids, TokenSequence(2, cache=cache)))
    counted = all(each.grows is None for each in entries)
    positions = (TensorSpec("position", ("batch", 1), dtype="int64"),) if counted else ()
    words = model.table.shape[0]

    def draw(sizes: Sizes, generator: torch.Generator) -> tuple[Tensor, ...]:
        ids = torch.randint(0, words, (sizes["batch"], sizes["length"]), generator=generator)
        past = (torch.full((sizes["batch"], 1), sizes["past"]),) if counted else ()
        return (ids, *past, *(each.drawn(sizes, generator) for each in entries))

    def encode(ids: Tensor, layout: TokenSequence | None = None) -> tuple[Tensor, ...]:
        past = (torch.zeros(len(ids), 1, dtype=torch.long),) if counted else ()
        return (ids, *past, *(each.empty(len(ids)) for each in entries))

    def attach(shell: Any, run: RunTensors) -> None:
        shell.decoding = lambda rows, capacity: FileLanguageDecoding(shell, run, entries, rows, capacity, counted)

    inputs = (TensorSpec("ids", ("batch", "length"), dtype="int64"), *positions, *_inputs(entries))
    logits = TensorSpec("logits", ("batch", "length", _words(model)), classes=2)
    return ProgramSpec(
        LanguageStep(model, counted),
        inputs,
        (logits, *_outputs(entries)),
        _axes(model, ("length", _LENGTHS, 3), ("past", _PAST, 5)),
        draw,
        encode,
        attach=attach,
        grows=True,
    )


def translation_program(model: Model) -> ProgramSpec:
    """Return the step program of a translation model, its encoder included.

    Example:
        >>> from vitrail.models import create_model
        >>> model = create_model("transformer_base_wmt_en_de", dim=8, depth=1, num_heads=1, hidden=8, vocab_size=9)
        >>> [each.name for each in translation_program(model).outputs]
        ['logits', 'keys_0', 'values_0', 'memory_keys_0', 'memory_values_0']
    """

    def read(ids: Tensor, cache: StepCache) -> None:
        memory = model.encode(ids, TokenSequence(2))
        model.decode(ids, StepLayout(2, memory=memory, memory_lengths=None, cache=cache))

    entries = _recorded(model, read)
    words = model.embedding.words.num_embeddings

    def draw(sizes: Sizes, generator: torch.Generator) -> tuple[Tensor, ...]:
        batch, whole = sizes["batch"], sizes["source"] + sizes["memory"]
        ids, source = (
            torch.randint(0, words, (batch, sizes[axis]), generator=generator) for axis in ("length", "source")
        )
        lengths = torch.randint(1, whole + 1, (batch,), generator=generator)
        lengths[0] = whole
        return (ids, source, lengths, *(each.drawn(sizes, generator) for each in entries))

    def encode(
        source: Tensor,
        target: Tensor,
        source_layout: TokenSequence | None = None,
        target_layout: TokenSequence | None = None,
    ) -> tuple[Tensor, ...]:
        lengths = None if source_layout is None else source_layout.lengths
        lengths = torch.full((len(source),), source.shape[1]) if lengths is None else lengths
        return (target, source, lengths, *(each.empty(len(source)) for each in entries))

    def attach(shell: Any, run: RunTensors) -> None:
        shell.decoding = lambda sources, capacity: FileTranslationDecoding(run, entries, sources)

    texts = tuple(TensorSpec(name, ("batch", axis), dtype="int64") for name, axis in _TEXTS)
    inputs = (*texts, TensorSpec("lengths", ("batch",), dtype="int64"), *_inputs(entries))
    logits = TensorSpec("logits", ("batch", "length", words), classes=2)
    return ProgramSpec(
        TranslationStep(model, entries),
        inputs,
        (logits, *_outputs(entries)),
        _axes(model, ("length", _LENGTHS, 3), ("past", _PAST, 5), ("source", _SOURCES, 7), ("memory", _MEMORY, 11)),
        draw,
        encode,
        attach=attach,
        grows=True,
    )


_TEXTS = (("ids", "length"), ("source", "source"))


def _words(model: Model) -> int:
    """Return the number of scores of a token: a table of the head's own may be smaller than that of the embedding."""
    linear = getattr(model.head, "linear", None)
    return model.table.shape[0] if linear is None else linear.out_features


def _recorded(model: Model, read: Callable[[Tensor, StepCache], Any]) -> tuple[CacheEntry, ...]:
    """Return what the model keeps of a text of two tokens; a model without memory for its weights is enough."""
    device = next(model.parameters()).device
    cache = StepCache()
    with torch.no_grad():
        read(torch.zeros(1, 2, dtype=torch.long, device=device), cache)
    return described_entries(cache)


def _inputs(entries: tuple[CacheEntry, ...]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(f"past_{each.name}", each.shape) for each in entries)


def _outputs(entries: tuple[CacheEntry, ...]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(each.name, each.grown()) for each in entries)


def _axes(model: Model, *rows: tuple[str, tuple[int, ...], int]) -> tuple[NamedAxis, ...]:
    """Return the axes; a model with a table of positions is tried up to the size of the table."""
    most = getattr(model.config, "max_length", None) or 64

    def axis(name: str, sizes: tuple[int, ...], traced: int) -> NamedAxis:
        tried = tuple(min(size, most // 2) for size in sizes)
        return NamedAxis(name, tried[0], traced, tried[:2], tried)

    return tuple(axis(*row) for row in rows)
