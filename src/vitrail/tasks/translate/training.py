"""A training run that translates: its vocabulary, batches, loss and metric."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from vitrail.data.pairs import ParallelSplits, SentencePairs
from vitrail.data.token_batches import TokenBatches
from vitrail.errors import DataError, VitrailError
from vitrail.kernels.word_loss import word_loss
from vitrail.layouts import TokenSequence
from vitrail.parts.encoder_decoder import EncoderDecoder
from vitrail.parts.exported_file import exported_file
from vitrail.parts.model import Model
from vitrail.tasks.task import RunSpec, Share
from vitrail.tasks.text_inputs import pad_ids, padded_layout, vocabulary_of
from vitrail.tasks.text_models import build_text_model, meta_copy
from vitrail.tasks.translate.batch import PairBatch, PairLoader, most_new
from vitrail.tasks.translate.bleu import bleu_score, bleu_sums, tokenize_13a
from vitrail.tasks.translate.decoding import END, START, greedy
from vitrail.tasks.translate.options import TrainOptions
from vitrail.text.learning import learn_vocabulary
from vitrail.text.vocabulary import Vocabulary


class TranslationTraining:
    """A translation model bound to sentence pairs with its options.

    Args:
        options: languages, vocabulary and smoothing.
        run: data and model of the run.
        splits: the data set.
    """

    unit = "target tokens"

    def __init__(self, options: TrainOptions, run: RunSpec, splits: ParallelSplits):
        self.options = options
        self.pairs = {name: splits.require(name).pairs(options.source, options.target) for name in ("train", "val")}
        self.languages = splits.require("train").direction(options.source, options.target)
        self.vocabulary = vocabulary_of(run.weights, options.tokenizer) or learn(options, self.pairs["train"])
        self.model: Any = build_text_model(run, self.vocabulary, "translate")
        if not isinstance(self.model, EncoderDecoder):
            raise VitrailError(f"{run.variant} is no encoder-decoder. Try --model transformer_tiny_multi30k.")
        self.start, self.end = (self.vocabulary.id_of(token) for token in (START, END))
        self.ids = {name: encode_pairs(self.vocabulary, pairs) for name, pairs in self.pairs.items()}
        self.kept = {name: [max(map(len, pair)) <= options.max_length for pair in self.ids[name]] for name in self.ids}
        for name, kept in self.kept.items():
            if not any(kept):
                raise DataError(f"Every pair of {name} is longer than {options.max_length} tokens; see --max-length.")

    def describe(self) -> str:
        """Return the numbers of pairs and tokens, and what was left out."""
        kept, languages = self.kept["train"], " to ".join(self.languages)
        left = f" ({kept.count(False):,} longer than {self.options.max_length} tokens left out)" * (not all(kept))
        return f"{sum(kept):,} pairs {languages}{left}, {len(self.vocabulary):,} tokens"

    def to(self, device: torch.device) -> None:
        """Move the model."""
        self.model.to(device)

    def loaders(self, share: Share, batch: int, eval_batch: int) -> tuple[PairLoader, PairLoader]:
        """Return the loaders of training and validation batches; both sizes are tokens."""
        return self._loader("train", share, batch, True), self._loader("val", share, eval_batch, False)

    def _loader(self, split: str, share: Share, budget: int, shuffle: bool) -> PairLoader:
        numbers = np.flatnonzero(self.kept[split]).tolist()
        pairs = [self.ids[split][number] for number in numbers]
        texts = self.pairs[split]
        kept = SentencePairs(
            texts.name, *([each[number] for number in numbers] for each in (texts.ids, texts.sources, texts.targets))
        )
        sources, targets = zip(*pairs, strict=True)
        lengths = np.array([[len(target) - 1, len(source)] for source, target in pairs])
        order = TokenBatches(lengths, budget, share.seed, shuffle, rank=share.rank, world=share.size)
        return PairLoader(kept, sources, targets, order, fixed=share.size > 1)

    def transform_batch(self, batch: PairBatch, seed: int, step: int) -> PairBatch:
        """Return the batch unchanged."""
        return batch

    def forward(self, model: Model, batch: PairBatch) -> tuple[Tensor, ...]:
        """Return the loss of the target tokens, smoothed and not; in evaluation also the greedy translations."""
        smoothing = self.options.smoothing if model.training else 0.0
        losses = pair_loss(model, batch, smoothing)
        if model.training:
            return losses
        rows = zip(batch.source.tolist(), batch.source_lengths.tolist(), strict=True)
        sources = [row[:length] for row, length in rows]
        most = batch.steps or most_new(batch.source.shape[1])
        found = greedy(model, sources, self.start, self.end, most, batch.steps)
        return *losses, pad_ids(found)[0]

    def loss(self, outputs: tuple[Tensor, ...], batch: PairBatch) -> Tensor:
        """Return the mean loss of the target tokens."""
        return outputs[0] / max(batch.weight, 1.0)

    def metric(self, device: torch.device) -> "TranslationMetric":
        """Return an empty accumulator."""
        return TranslationMetric(self.vocabulary.decode, device)

    def dummy_batch(self, size: int) -> PairBatch:
        """Return random pairs of typical length with `size` tokens a side."""
        length = min(32, max(size, 2))
        count = max(size // length, 1)
        ids = torch.randint(len(self.vocabulary), (2, count, length))
        lengths = torch.full((count,), length)
        return PairBatch(ids[0], lengths, ids[1], lengths, torch.arange(count))

    def metadata(self) -> dict[str, Any]:
        """Return the languages and the most tokens of a sentence."""
        source, target = self.languages
        return {"source": source, "target": target, "max_length": self.options.max_length}

    def meta_model(self) -> Model:
        """Return the model on the meta device."""
        return meta_copy(self.model)


def learn(options: TrainOptions, pairs: SentencePairs) -> Vocabulary:
    """Learn the vocabulary of a run on both languages of its training pairs."""
    return learn_vocabulary([*pairs.sources, *pairs.targets], options.vocab_size, lowercase=options.lowercase)


def encode_pairs(vocabulary: Vocabulary, pairs: SentencePairs) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Return the token ids of sources, with the end token, and of targets, with start and end token."""
    start, end = (vocabulary.id_of(token) for token in (START, END))
    sources, targets = (vocabulary.encode(list(side), special=False).ids for side in (pairs.sources, pairs.targets))
    return [((*s, end), (start, *t, end)) for s, t in zip(sources, targets, strict=True)]


def pair_loss(model: Model, batch: PairBatch, smoothing: float) -> tuple[Tensor, Tensor]:
    """Return the smoothed loss and the negative log-likelihood, summed over the target tokens without padding."""
    source = padded_layout(batch.source, batch.source_lengths)
    if exported_file(model):
        return _file_loss(model, batch, source, smoothing)
    memory = model.encode(batch.source, source)
    length = max(batch.target.shape[1] - 1, 1)
    layout = TokenSequence(length, memory=memory, memory_lengths=source.lengths)
    x = model.decode_features(batch.target[:, :length], layout)
    real = torch.arange(length, device=x.device) < batch.target_lengths[:, None] - 1  # (B, N)
    x, targets = x[real], batch.target[:, 1:][real[:, : batch.target.shape[1] - 1]]
    head: Any = model.head
    return tuple(word_loss(head.transform(x), model.embedding.words.weight, targets, smoothing, head.bias))


def _file_loss(model: Model, batch: PairBatch, source: TokenSequence, smoothing: float) -> tuple[Tensor, Tensor]:
    """Return the losses of an exported file, from the scores of all words."""
    length = max(batch.target.shape[1] - 1, 1)
    scores = model(batch.source, batch.target[:, :length], source)
    real = torch.arange(length) < batch.target_lengths[:, None] - 1  # (B, N)
    scores, targets = scores[real], batch.target[:, 1:][real[:, : batch.target.shape[1] - 1]]
    smoothed, plain = (cross_entropy(scores, targets, label_smoothing=e, reduction="sum") for e in (smoothing, 0.0))
    return smoothed, plain


class TranslationMetric:
    """Loss and BLEU of a validation, as sums that ranks can all-reduce.

    Args:
        decode: token ids to text.
        device: device of the losses.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], device: torch.device | str = "cpu"):
        self.decode = decode
        self.sums = torch.zeros(12, dtype=torch.float64, device=device)

    def update(self, outputs: tuple[Tensor, ...], batch: PairBatch) -> None:
        """Add a batch; special tokens, which also pad the translations, are not text."""
        rows = [[batch.weight, float(outputs[1])] + [0.0] * 10]
        for found, wanted in zip(outputs[2].tolist(), batch.target.tolist(), strict=True):
            words = (tokenize_13a(self.decode(ids).lower()) for ids in (found, wanted))
            rows.append([0.0, 0.0, *bleu_sums(*words)])
        self.sums += torch.tensor(rows, dtype=torch.float64).sum(dim=0).to(self.sums.device)

    def sync(self, all_reduce_sum: Callable[[Tensor], Tensor]) -> None:
        """All-reduce the sums."""
        self.sums = all_reduce_sum(self.sums)

    def compute(self) -> dict[str, float]:
        """Return `loss` in nats a token, and `bleu` in 0..1."""
        tokens, nll, *rest = self.sums.tolist()
        return {"loss": nll / max(tokens, 1.0), "bleu": bleu_score(rest)}
