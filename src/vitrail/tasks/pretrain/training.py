"""A pretraining run: its vocabulary, segments, loss and metric."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from vitrail.data.bucketed_sampler import BucketedSampler
from vitrail.data.text_streams import TextStreams
from vitrail.data.token_windows import IGNORED
from vitrail.errors import VitrailError
from vitrail.models import make_config
from vitrail.parts.exported_file import exported_file
from vitrail.parts.model import Model
from vitrail.parts.text_heads import PretrainingHead, SentenceVector, TiedHead, UntiedHead
from vitrail.tasks.language.metric import language_loss
from vitrail.tasks.pretrain.masking import MaskedBatch, MaskRule
from vitrail.tasks.pretrain.options import TrainOptions
from vitrail.tasks.pretrain.segments import Frame, MaskedLineLoader, SegmentSet
from vitrail.tasks.task import RunSpec, Share
from vitrail.tasks.text_inputs import most_tokens, vocabulary_of
from vitrail.tasks.text_models import build_text_model, meta_copy
from vitrail.text.learning import learn_framed
from vitrail.text.vocabulary import Vocabulary

FIRST, END, MASK = "[CLS]", "[SEP]", "[MASK]"


class PretrainMetric:
    """Loss of masked words, share of them named right, share of next lines named right.

    Args:
        device: device of the sums.

    Attributes:
        sums: masked words, their loss, hits; pairs, hits among them; float64.
    """

    def __init__(self, device: torch.device | str = "cpu"):
        self.sums = torch.zeros(5, dtype=torch.float64, device=device)

    def update(self, outputs: tuple[Tensor, Tensor], batch: MaskedBatch) -> None:
        """Add a batch."""
        words, following = outputs
        count = batch.weight
        loss = language_loss(words, batch.words).double() * count
        hits = (words.argmax(-1) == batch.words).sum()
        pairs = batch.follows != IGNORED
        right = (following.argmax(-1) == batch.follows)[pairs].sum()
        self.sums += torch.stack([torch.tensor(count, device=loss.device).double(), loss, hits.double(),
                                  pairs.sum().double(), right.double()])  # fmt: skip

    def sync(self, all_reduce_sum: Callable[[Tensor], Tensor]) -> None:
        """All-reduce the sums."""
        self.sums = all_reduce_sum(self.sums)

    def compute(self) -> dict[str, float]:
        """Return the loss in nats per masked word, and the shares."""
        count, loss, hits, pairs, right = self.sums.tolist()
        found = {"loss": loss / count, "masked_nats": loss / count, "masked_accuracy": hits / count}
        return found | ({"next_accuracy": right / pairs} if pairs else {})


class PretrainTraining:
    """A BERT bound to unlabelled text.

    Args:
        options: vocabulary, masking, next sentence.
        run: data and model of the run.
        splits: the text.
    """

    unit = "masked words"

    def __init__(self, options: TrainOptions, run: RunSpec, splits: TextStreams):
        self.options, self.splits = options, splits
        lines = splits.require("train").text.split("\n")
        known = vocabulary_of(run.weights, options.tokenizer)
        self.vocabulary = known or learn_framed(lines, options.vocab_size, (FIRST, END, MASK), options.lowercase)
        if not hasattr(make_config(run.variant), "head"):
            raise VitrailError(f"{run.variant} cannot predict masked words; use a BERT, such as bert_tiny.")
        head = "pretraining" if options.next_sentence else "masked"
        self.model: Model = build_text_model(run, self.vocabulary, "pretrain", head=head)
        self.longest = most_tokens(self.model.config, options.max_length)
        self.frame, self.rule = frame_of(self.vocabulary), rule_of(self.vocabulary, options.mask)
        room = (self.longest - 3) // 2 if options.next_sentence else self.longest - 2
        self.sets = {s: SegmentSet(text, self.vocabulary, room) for s, text in splits if s != "test"}

    def describe(self) -> str:
        """Return the sizes of text and vocabulary."""
        train = self.sets["train"]
        tokens = sum(map(len, train.segments))
        return f"{len(train):,} segments of {tokens:,} tokens, vocabulary {len(self.vocabulary):,}"

    def to(self, device: torch.device) -> None:
        """Move the model."""
        self.model.to(device)

    def loaders(self, share: Share, batch: int, eval_batch: int) -> tuple[MaskedLineLoader, MaskedLineLoader]:
        """Return the loaders of training and validation batches."""
        return self._loader("train", share, batch), self._loader("val", share, eval_batch)

    def _loader(self, split: Any, share: Share, batch: int) -> MaskedLineLoader:
        dataset, train, pairs = self.sets[split], split == "train", self.options.next_sentence
        lengths = [len(segment) for segment in dataset.segments]
        if pairs:
            lengths = [a + b for a, b in zip(lengths, [*lengths[1:], lengths[0]], strict=True)]
        order = BucketedSampler(lengths, batch, share.seed if train else 0, train, share.rank, share.size)
        return MaskedLineLoader(dataset, self.frame, self.rule, order, pairs, fixed=not train)

    def transform_batch(self, batch: MaskedBatch, seed: int, step: int) -> MaskedBatch:
        """Return the batch as it is: words are masked by the loader."""
        return batch

    def forward(self, model: Model, batch: MaskedBatch) -> tuple[Tensor, Tensor]:
        """Return the scores of the masked words and of the next line."""
        return masked_scores(model, batch)

    def loss(self, outputs: tuple[Tensor, Tensor], batch: MaskedBatch) -> Tensor:
        """Return the mean loss of masked words plus that of next lines ("BERT", section 3.1)."""
        loss = language_loss(outputs[0], batch.words)
        if not self.options.next_sentence:
            return loss
        count = (batch.follows != IGNORED).sum().clamp(min=1)
        return loss + cross_entropy(outputs[1].float(), batch.follows, ignore_index=IGNORED, reduction="sum") / count

    def metric(self, device: torch.device) -> PretrainMetric:
        """Return an empty accumulator."""
        return PretrainMetric(device)

    def dummy_batch(self, size: int) -> MaskedBatch:
        """Return random segments."""
        ids = torch.randint(len(self.vocabulary), (size, self.longest))
        zero = torch.zeros(size, dtype=torch.long)
        return MaskedBatch(ids, zero + self.longest, ids * 0, ids, zero, torch.arange(size))

    def metadata(self) -> dict[str, Any]:
        """Return the most tokens of a text and the share of masked words."""
        return {"max_length": self.longest, "mask": self.options.mask, "next_sentence": self.options.next_sentence}

    def meta_model(self) -> Model:
        """Return the model on the meta device."""
        return meta_copy(self.model)


def check_word_head(model: Model) -> None:
    """Check that a model scores words.

    Raises:
        VitrailError: it gives a vector of a sentence, or has the head of another task.
    """
    if isinstance(model.head, SentenceVector):
        raise VitrailError(
            f"{model.variant} gives a vector of each sentence, and no words.\n"
            "Write the vectors of a model folder with: vitrail embed MODEL TEXTS"
        )
    if not isinstance(model.head, PretrainingHead | TiedHead | UntiedHead):
        raise VitrailError(
            f"{model.variant} has a head of another task: set model.task, such as sentiment for classes of texts."
        )


def masked_scores(model: Model, batch: MaskedBatch) -> tuple[Tensor, Tensor]:
    """Return scores `(1, M, V)` of the masked words alone, and `(B, 2)` of the next line, zeros without such a head.

    The word table is the largest product of a small model, and one token in seven is masked; an exported file scores
    all words.
    """
    if exported_file(model):
        found = model(batch.ids, batch.layout)
        words = found[0] if isinstance(found, tuple) else found
        return words[batch.targets != IGNORED][None], words.new_zeros(len(batch.ids), 2)
    features = model.features(batch.ids, batch.layout)
    chosen = features._replace(tokens=features.tokens[batch.targets != IGNORED][None])
    if isinstance(model.head, PretrainingHead):
        return model.head.words(chosen, model.table), model.head.next(features)
    return model.head(chosen, model.table), features.tokens.new_zeros(len(batch.ids), 2)


def frame_of(vocabulary: Vocabulary) -> Frame:
    """Return the ids around a segment."""
    return Frame(vocabulary.id_of(FIRST), vocabulary.id_of(END))


def rule_of(vocabulary: Vocabulary, share: float) -> MaskRule:
    """Return how words of a vocabulary are masked."""
    names = (FIRST, END, MASK, "[PAD]", "<pad>")
    special = frozenset(vocabulary.id_of(name) for name in names if vocabulary.has(name))
    return MaskRule(share, vocabulary.id_of(MASK), len(vocabulary), special)
