"""A training run of a language model: its vocabulary, windows, loss and metric."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vitrail.data.text_streams import TextStream, TextStreams
from vitrail.data.token_windows import EvalWindows, TrainWindows, WindowBatch
from vitrail.errors import VitrailError
from vitrail.models import task_of
from vitrail.parts.model import Model
from vitrail.tasks.language.metric import LanguageMetric, TextSize, language_loss
from vitrail.tasks.language.options import TrainOptions
from vitrail.tasks.task import RunSpec, Share
from vitrail.tasks.text_inputs import vocabulary_of
from vitrail.tasks.text_models import build_text_model, meta_copy
from vitrail.text.learning import learn_characters, learn_vocabulary
from vitrail.text.vocabulary import Vocabulary


class WindowSet:
    """Names of the windows of a text.

    Args:
        name: name of the text.
        count: windows.
    """

    def __init__(self, name: str, count: int):
        self.name, self.count = name, count

    @property
    def ids(self) -> Sequence[str]:
        """Name of each window."""
        return [f"window {number}" for number in range(self.count)]

    def __len__(self) -> int:
        return self.count


class WindowLoader:
    """Batches of windows of a text.

    Args:
        windows: the windows.
        name: name of the text.
    """

    def __init__(self, windows: TrainWindows | EvalWindows, name: str):
        self.dataset, self.epoch, self.steps = WindowSet(name, windows.count), windows.epoch, windows.steps


class LanguageTraining:
    """A language model bound to a text with its options.

    Args:
        options: vocabulary and context.
        run: data and model of the run.
        splits: the text.
    """

    unit = "tokens"

    def __init__(self, options: TrainOptions, run: RunSpec, splits: TextStreams):
        self.options, self.splits = options, splits
        known = vocabulary_of(run.weights, options.tokenizer)
        self.vocabulary = known or learn(options, splits.require("train").text)
        check_language(run.variant)
        self.model: Model = build_text_model(run, self.vocabulary, "language")
        longest = getattr(self.model.config, "max_length", None)
        if longest is not None and options.context > longest:
            raise VitrailError(f"context is {options.context}, and {run.variant} has positions for {longest}.")
        self.streams = {split: encode_stream(self.vocabulary, text) for split, text in splits if split != "test"}

    def describe(self) -> str:
        """Return the sizes of text and vocabulary."""
        text, tokens = self.splits.require("train"), len(self.streams["train"])
        return f"{tokens:,} tokens of {len(text):,} characters, vocabulary {len(self.vocabulary):,}"

    def to(self, device: torch.device) -> None:
        """Move the model."""
        self.model.to(device)

    def loaders(self, share: Share, batch: int, eval_batch: int) -> tuple[WindowLoader, WindowLoader]:
        """Return the loaders of training windows and of validation windows, which do not overlap."""
        context, ranks = self.options.context, {"rank": share.rank, "world": share.size}
        train = TrainWindows(self.streams["train"], context, batch, share.seed, **ranks)
        val = EvalWindows(self.streams["val"], context, context, eval_batch, **ranks)
        return WindowLoader(train, self.splits.require("train").name), WindowLoader(
            val, self.splits.require("val").name
        )

    def transform_batch(self, batch: WindowBatch, seed: int, step: int) -> WindowBatch:
        """Return the batch as it is."""
        return batch

    def forward(self, model: Model, batch: WindowBatch) -> Tensor:
        """Return the scores of the next token at each position."""
        return model(batch.ids)

    def loss(self, outputs: Tensor, batch: WindowBatch) -> Tensor:
        """Return the mean loss of the predicted tokens."""
        return language_loss(outputs, batch.targets)

    def metric(self, device: torch.device) -> LanguageMetric:
        """Return an empty accumulator."""
        return LanguageMetric(TextSize.of(self.splits.require("val")), device)

    def dummy_batch(self, size: int) -> WindowBatch:
        """Return random windows."""
        ids = torch.randint(len(self.vocabulary), (size, self.options.context))
        return WindowBatch(ids, ids, torch.arange(size))

    def metadata(self) -> dict[str, Any]:
        """Return the tokens of a window."""
        return {"context": self.options.context}

    def meta_model(self) -> Model:
        """Return the model on the meta device."""
        return meta_copy(self.model)


def learn(options: TrainOptions, text: str) -> Vocabulary:
    """Learn the vocabulary of a run on its training text."""
    if options.vocab == "characters":
        return learn_characters(text)
    return learn_vocabulary(text.split("\n"), options.vocab_size)


def encode_stream(vocabulary: Vocabulary, stream: TextStream) -> Tensor:
    """Return the token ids of a whole text, without special tokens.

    In one piece: cut at its lines, GPT-2's vocabulary would read an empty line as another token.
    """
    return torch.tensor(vocabulary.encode([stream.text], special=False).ids[0], dtype=torch.int32)


def check_language(variant: str) -> None:
    """Check that a variant predicts the next token.

    Raises:
        VitrailError: it does not.

    Example:
        >>> check_language("gpt2") is None
        True
    """
    if task_of(variant) != "language":
        raise VitrailError(
            f"{variant} is no language model that reads from left to right; see them: vitrail models --task language"
        )
