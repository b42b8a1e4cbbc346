"""A training step of a translation Transformer: ours against torch.nn.Transformer, under autocast.

    python benchmarks/transformer_step.py                             # Transformer-base, 32 pairs of up to 32 tokens
    python benchmarks/transformer_step.py --model transformer_tiny_multi30k --pairs 64
    python benchmarks/transformer_step.py --profile                   # time by operator

Both have the same sizes and weights, positions, one word table for both languages and the scores, dropout, label
smoothing 0.1, and AdamW (fused). Lengths of sentences are drawn from half the longest to the longest; both get the same
padded batch. torch.nn.Transformer runs as its documentation has it: boolean padding masks, a causal mask,
`cross_entropy` over all scores; as it comes, and with the memory of a step kept for the next as in ours. Ours is the
step of `vitrail train --task translate`. "first loss" is that before the first step without dropout; they must agree.
"""

from argparse import Namespace
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from sheet import DTYPES, begin, flags, precision_flag, show, take_turns
from vitrail.fused.train_blocks import fuse_for_training
from vitrail.layouts import TokenSequence
from vitrail.machine.host_memory import disable_malloc_trim, trim_on_free
from vitrail.models import create_model
from vitrail.parts.sequence_positions import SinusoidalPosition
from vitrail.tasks.table import Table
from vitrail.tasks.translate.batch import PairBatch
from vitrail.tasks.translate.training import pair_loss

SMOOTHING = 0.1
PAIRS = {"self_attn.in_proj_": "token_mixer.qkv.", "self_attn.out_proj.": "token_mixer.proj.", "norm1.": "norm1."}
MLP = {"linear1.": "channel_mixer.fc1.", "linear2.": "channel_mixer.fc2."}
CROSS = {"norm2.": "norm_cross.", "norm3.": "norm2.", "multihead_attn.out_proj.": "cross_mixer.proj."}


class TorchTransformer(nn.Module):
    """torch.nn.Transformer with embedding, positions and tied scores.

    Args:
        ours: the model whose sizes and weights it takes; norms come last.
    """

    def __init__(self, ours: Any):
        super().__init__()
        c = ours.config
        self.words, self.position, self.scale = nn.Embedding(c.vocab_size, c.dim), SinusoidalPosition(c.dim), c.dim**0.5
        self.drop = nn.Dropout(c.dropout)
        self.body = nn.Transformer(c.dim, c.num_heads, c.depth, c.depth, c.hidden, c.dropout, batch_first=True)
        self.body.encoder.norm = self.body.decoder.norm = None
        self.words.load_state_dict(ours.embedding.words.state_dict())
        layers = (*self.body.encoder.layers, *self.body.decoder.layers)
        for block, layer in zip((*ours.encoder.blocks, *ours.decoder.blocks), layers, strict=True):
            layer.load_state_dict(torch_names(block))

    def forward(self, batch: PairBatch) -> Tensor:
        """Return the smoothed loss of the target tokens, summed."""
        target, length = batch.target[:, :-1], batch.target.shape[1] - 1
        hidden = torch.arange(batch.source.shape[1]) >= batch.source_lengths[:, None]
        late = torch.ones(length, length, dtype=torch.bool).triu(1)
        x = self.body(
            self.embed(batch.source), self.embed(target), tgt_mask=late, tgt_is_causal=True,
            src_key_padding_mask=hidden, memory_key_padding_mask=hidden,
        )  # fmt: skip
        wanted = batch.target[:, 1:].masked_fill(torch.arange(length) >= batch.target_lengths[:, None] - 1, -100)
        scores = nn.functional.linear(x, self.words.weight).flatten(0, 1)
        return cross_entropy(scores.float(), wanted.flatten(), label_smoothing=SMOOTHING, reduction="sum")

    def embed(self, ids: Tensor) -> Tensor:
        """Look words up and add positions."""
        return self.drop(self.position(self.words(ids) * self.scale, TokenSequence(ids.shape[1]))[0])


def torch_names(block: Any) -> dict[str, Tensor]:
    """Return the weights of a block of ours under the names of PyTorch's layers."""
    cross = hasattr(block, "cross_mixer")
    names = PAIRS | MLP | (CROSS if cross else {"norm2.": "norm2."})
    state = {
        their + kind: block.get_parameter(our + kind) for their, our in names.items() for kind in ("weight", "bias")
    }
    for kind in ("weight", "bias") if cross else ():
        parts = [block.get_parameter(f"cross_mixer.{part}.{kind}") for part in ("q", "kv")]
        state[f"multihead_attn.in_proj_{kind}"] = torch.cat(parts)
    return state


class Step:
    """A model with its optimizer; each call makes one update and returns the loss a token.

    Args:
        model: the module whose weights learn.
        loss: the smoothed loss of a batch, summed.
        batch: the batch.
        precision: `fp32`, or `bf16` for autocast.
    """

    def __init__(self, model: nn.Module, loss: Callable[[PairBatch], Tensor], batch: PairBatch, precision: str):
        self.loss, self.batch, self.precision = loss, batch, precision
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)

    def __call__(self) -> float:
        loss = self.compute()
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()

    def compute(self) -> Tensor:
        """Return the loss a token."""
        with torch.autocast("cpu", DTYPES[self.precision], enabled=self.precision != "fp32"):
            return self.loss(self.batch) / self.batch.weight


def draw_batch(pairs: int, longest: int, words: int) -> PairBatch:
    """Draw a batch of sentences between half the longest and the longest."""
    lengths = torch.randint(longest // 2, longest + 1, (2, pairs))
    lengths[:, 0] = longest
    ids = torch.randint(3, words, (2, pairs, longest))
    return PairBatch(ids[0], lengths[0], ids[1], lengths[1], torch.arange(pairs))


def main() -> None:
    """Measure and print."""
    parser = flags(__doc__)
    parser.add_argument("--model", default="transformer_base_wmt_en_de")
    parser.add_argument("--pairs", type=int, default=32)
    parser.add_argument("--longest", type=int, default=32)
    parser.add_argument("--profile", action="store_true", help="print the time of operators of both")
    precision_flag(parser)
    options: Namespace = begin(parser, None)
    disable_malloc_trim()
    ours: Any = create_model(options.model)
    theirs, batch = TorchTransformer(ours), draw_batch(options.pairs, options.longest, ours.config.vocab_size)
    ours = fuse_for_training(ours)
    steps: dict[str, Any] = {
        "vitrail": Step(ours, lambda given: pair_loss(ours, given, SMOOTHING)[0], batch, options.precision),
        "torch.nn.Transformer": Step(theirs, theirs, batch, options.precision),
    }
    losses = {}
    for name, model in (("vitrail", ours), ("torch.nn.Transformer", theirs)):
        model.eval()
        losses[name] = float(steps[name].compute().detach())
        model.train()
        steps[name]()
    if options.profile:
        for name, step in steps.items():
            with torch.profiler.profile() as found:
                step()
            print(name, found.key_averages().table(sort_by="self_cpu_time_total", row_limit=16), sep="\n")
        return
    kept = steps["torch.nn.Transformer"]

    def as_it_comes() -> float:
        with trim_on_free():
            return kept()

    steps |= {"torch.nn.Transformer": as_it_comes, "torch.nn.Transformer, memory kept": kept}
    losses["torch.nn.Transformer, memory kept"] = losses["torch.nn.Transformer"]
    timings, rows = take_turns(steps, options), []
    for name, times in timings.items():
        ratio = timings["vitrail"].times_as_fast(times).median
        rows.append([name, f"{times.spread.median:.3f}", f"{ratio:.2f}", f"{losses[name]:.4f}"])
    columns = ["candidate", "s a step", "ours is × as fast", "first loss"]
    title = f"{options.model}, {options.pairs} pairs of up to {options.longest} tokens, {options.precision}"
    show(
        "transformer_step", "Training step of a translation model", [Table(title, columns, rows, columns[1:])], options
    )


if __name__ == "__main__":
    main()
