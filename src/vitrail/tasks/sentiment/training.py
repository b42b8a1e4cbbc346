"""A training run that classifies texts: its vocabulary, batches, loss and metric."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from vitrail.data.bucketed_sampler import BucketedSampler
from vitrail.data.stateless_rng import BatchRng
from vitrail.data.texts import TextSet, TextSplits
from vitrail.models import make_config
from vitrail.parts.model import Model
from vitrail.tasks.classes.loss import classification_loss
from vitrail.tasks.classes.metric import ClassificationMetric
from vitrail.tasks.sentiment.options import TrainOptions
from vitrail.tasks.task import RunSpec, Share
from vitrail.tasks.text_inputs import TextBatch, encode_texts, most_tokens, pad_ids, vocabulary_of
from vitrail.tasks.text_models import build_text_model, meta_copy
from vitrail.text.learning import UNKNOWN, learn_vocabulary, learn_words
from vitrail.text.vocabulary import Vocabulary


class TextLoader:
    """Batches of labelled texts, epoch by epoch.

    Args:
        dataset: the texts.
        ids: token ids of each text.
        order: sampler of the steps.
    """

    def __init__(self, dataset: TextSet, ids: Sequence[Sequence[int]], order: BucketedSampler):
        self.dataset, self.ids, self.order = dataset, ids, order

    @property
    def steps(self) -> int:
        """Steps an epoch, the same on every rank."""
        return self.order.steps

    def epoch(self, epoch: int = 0, start_step: int = 0) -> Iterator[TextBatch]:
        """Yield this rank's batches from `start_step` to the end of the epoch."""
        for index in self.order.batches(epoch, start_step):
            ids, lengths = pad_ids([self.ids[number] for number in index])
            yield TextBatch(ids, lengths, self.dataset.labels[index], torch.from_numpy(index))


class SentimentTraining:
    """A classifier of texts bound to a data set with its options.

    Args:
        options: vocabulary, word dropout and smoothing.
        run: data and model of the run.
        splits: the data set.
    """

    unit = "sentences"

    def __init__(self, options: TrainOptions, run: RunSpec, splits: TextSplits):
        self.options, self.splits = options, splits
        self.vocabulary = vocabulary_of(run.weights, options.tokenizer) or learn(options, splits.require("train").texts)
        self.model: Model = build_text_model(run, self.vocabulary, "sentiment", **_needed(run, len(splits.classes)))
        self.longest = most_tokens(self.model.config, options.max_length)
        self.encoded = {split: encode_texts(self.vocabulary, texts.texts, self.longest) for split, texts in splits}
        self.unknown = _unknown_id(self.vocabulary)

    def describe(self) -> str:
        """Return the numbers of texts, classes and tokens, and of texts that were cut."""
        train = self.splits.require("train")
        faults = str(self.encoded["train"])
        size = f"{len(train):,} sentences, {len(self.splits.classes)} classes, {len(self.vocabulary):,} tokens"
        return f"{size} ({faults})" if faults else size

    def to(self, device: torch.device) -> None:
        """Move the model."""
        self.model.to(device)

    def loaders(self, share: Share, batch: int, eval_batch: int) -> tuple[TextLoader, TextLoader]:
        """Return the loaders of training and validation batches."""
        train, val = self._loader("train", share, batch, True), self._loader("val", share, eval_batch, False)
        return train, val

    def _loader(self, split: Any, share: Share, batch: int, shuffle: bool) -> TextLoader:
        ids = self.encoded[split].ids
        order = BucketedSampler([len(text) for text in ids], batch, share.seed, shuffle, share.rank, share.size)
        return TextLoader(self.splits.require(split), ids, order)

    def transform_batch(self, batch: TextBatch, seed: int, step: int) -> TextBatch:
        """Replace tokens by the unknown one."""
        if not self.options.word_dropout:
            return batch
        draws = BatchRng(seed, step, batch.index.numpy()).uniform("word", count=batch.ids.shape[1])
        dropped = torch.from_numpy(draws < self.options.word_dropout).to(batch.ids.device)
        dropped[:, 0] = False  # the start token, or [CLS]
        return batch._replace(ids=batch.ids.masked_fill(dropped, self.unknown))

    def forward(self, model: Model, batch: TextBatch) -> tuple[Tensor]:
        """Return class logits."""
        return (model(batch.ids, batch.layout),)

    def loss(self, outputs: tuple[Tensor], batch: TextBatch) -> Tensor:
        """Return the mean loss of the texts."""
        return classification_loss(outputs[0], batch.labels, self.options.smoothing)

    def metric(self, device: torch.device) -> ClassificationMetric:
        """Return an empty accumulator."""
        return ClassificationMetric(len(self.splits.classes), device)

    def dummy_batch(self, size: int) -> TextBatch:
        """Return random texts as long as the longest of the data, with random labels."""
        length = max(map(len, self.encoded["train"].ids))
        ids = torch.randint(len(self.vocabulary), (size, length))
        labels = torch.randint(len(self.splits.classes), (size,))
        return TextBatch(ids, torch.full((size,), length), labels, torch.arange(size))

    def metadata(self) -> dict[str, Any]:
        """Return the class names and the most tokens of a text."""
        return {"labels": self.splits.classes, "max_length": self.longest}

    def meta_model(self) -> Model:
        """Return the classifier on the meta device."""
        return meta_copy(self.model)


def learn(options: TrainOptions, texts: Sequence[str]) -> Vocabulary:
    """Learn the vocabulary of a run on its training texts."""
    if options.vocab == "words":
        return learn_words(texts, options.vocab_size, lowercase=options.lowercase, start=True)
    return learn_vocabulary(texts, options.vocab_size, lowercase=options.lowercase, start=True)


def _needed(run: RunSpec, classes: int) -> dict[str, Any]:
    """Return the fields that classification fixes: the number of classes, and the kind of head if there are several.

    An encoder of sentences was trained on the mean of its tokens, so its classifier reads that too; `--set head=mean`
    does the same for others.
    """
    usual = run.overrides.get("head", getattr(make_config(run.variant), "head", None))
    head = {} if usual is None else {"head": "mean" if usual in ("vector", "mean") else "classes"}
    return {"num_classes": classes, **head}


def _unknown_id(vocabulary: Vocabulary) -> int:
    """Return the id of an unknown token: `<unk>`, `[UNK]`, `[MASK]`, or the first."""
    for token in (UNKNOWN, "[UNK]", "[MASK]", "<pad>"):
        if vocabulary.has(token):
            return vocabulary.id_of(token)
    return 0
