"""Neighborhood attention as others compute it, and a whole NAT against them.

    python benchmarks/neighborhood.py                     # NAT-T in bf16, batches of 8
    python benchmarks/neighborhood.py --precision fp32 --batch 1

Peers: gathering each cell's neighbours by `unfold`, written here, and NATTEN's path through PyTorch's Flex Attention
where NATTEN is installed (on a CPU it has no other; it knows no relative bias, so it computes less and its answers
differ). Both run inside our model in the place of our operator, so all else is the same.
"""

import sys
from collections.abc import Sequence
from copy import deepcopy
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from sheet import DTYPES, begin, flags, precision_flag, show, take_turns, tell
from vitrail.bench.candidate import Answer, CandidateUnavailable, foreign
from vitrail.bench.inputs import blotches
from vitrail.bench.model_spec import ModelSpec
from vitrail.bench.prepare import prepare_candidate
from vitrail.bench.registry import find_candidates
from vitrail.bench.report import amount, ratio
from vitrail.bench.statistics import Quantiles
from vitrail.bench.torch_runners import eager, unchanged
from vitrail.fused.accuracy import compare
from vitrail.parts.token_mixers.neighborhood_attention import NeighborhoodAttend
from vitrail.tasks.table import Table


def unfold_attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, kernel_size: int, dilation: int = 1) -> Tensor:
    """Compute neighborhood attention by giving each cell a copy of its neighbours, without dilation.

    Args:
        q: queries `(B, H, W, h, d)`.
        k: keys.
        v: values.
        bias: `((2 k - 1)^2, h)`, as of the operator of `vitrail.kernels.neighborhood`.
        kernel_size: odd side of a neighborhood.
        dilation: must be 1.
    """
    assert dilation == 1, "the peer is for NAT, whose neighbours lie side by side"
    height, width = q.shape[1:3]
    rows, columns = (_starts(length, kernel_size, q.device) for length in (height, width))
    near_k, near_v = (_windows(x, rows, columns, kernel_size) for x in (k, v))  # (B, H, W, h, d, kk)
    down, right = (_offsets(starts, kernel_size) for starts in (rows, columns))  # (L, k)
    index = down[:, None, :, None] * (2 * kernel_size - 1) + right[None, :, None, :]  # (H, W, k, k)
    addend = bias[index.flatten(2)].mT.to(q.dtype)  # (H, W, h, kk)
    scores = ((q * q.shape[-1] ** -0.5)[..., None, :] @ near_k)[..., 0, :] + addend
    return (scores.softmax(-1)[..., None, :] @ near_v.mT)[..., 0, :]


def natten_attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, kernel_size: int, dilation: int = 1) -> Tensor:
    """Compute neighborhood attention by NATTEN's Flex path; it leaves the bias out."""
    return import_module("natten").na2d(q, k, v, kernel_size, dilation=dilation, backend="flex-fna")


def check_natten() -> None:
    """Say why NATTEN cannot take part, if it cannot.

    Raises:
        CandidateUnavailable: it is not installed.
    """
    if find_spec("natten") is None:
        raise CandidateUnavailable("natten is not installed: pip install natten brings it.")


class Instead(nn.Module):
    """Another operator in the place of ours.

    Args:
        ours: the leaf that it replaces.
        attend: `(q, k, v, bias, kernel_size, dilation) -> (B, H, W, h, d)`.
    """

    def __init__(self, ours: NeighborhoodAttend, attend: Any):
        super().__init__()
        self.kernel_size, self.dilation, self.attend = ours.kernel_size, ours.dilation, attend

    def forward(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        """Mix the values of the neighbours of each cell."""
        return self.attend(q, k, v, bias, self.kernel_size, self.dilation)


def with_operator(model: nn.Module, attend: Any) -> nn.Module:
    """Return a copy of a model that computes neighborhood attention by another operator."""
    model = deepcopy(model)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, NeighborhoodAttend):
                setattr(module, name, Instead(child, attend))
    return model


def main(words: Sequence[str] | None = None) -> int:
    """Measure and show."""
    parser = flags(__doc__)
    precision_flag(parser)
    parser.add_argument("--model", default="nat_tiny", help="a NAT of the catalogue (default: nat_tiny)")
    parser.add_argument("--imgsz", type=int, help="side of the images (default: the model's)")
    parser.add_argument("--batch", type=int, default=8, help="images in a batch (default: 8)")
    options = begin(parser, words)
    model = ModelSpec(options.model, imgsz=options.imgsz).build()
    images = blotches(options.batch, 3, model.preprocess.size)
    answers, absent = _candidates(model, images, options.precision)
    expected = unchanged(model, images)(images)
    turns = take_turns({name: partial(answer, images) for name, answer in answers.items()}, options)
    ours = min((name for name in answers if name.startswith("vitrail")), key=lambda name: turns[name].spread.median)
    rows = []
    for name in sorted(turns, key=lambda name: turns[name].spread.median):
        same = compare(answers[name](images), expected, options.precision)
        rate = Quantiles.of(options.batch / seconds for seconds in turns[name].rounds)
        times = "" if name == ours else ratio(turns[ours].times_as_fast(turns[name]))
        rows.append([name, amount(rate), times, "not finite" if same.error is None else f"{same.error:.1e}"])
    columns = ["candidate", "img/s", f"{ours} is × as fast", "error"]
    title = f"{options.model}, {options.precision}, batches of {options.batch}"
    notes = [f"{name} did not take part: {why}" for name, why in absent.items()]
    notes += ["NATTEN leaves the relative bias out."] * any("natten" in name for name in answers)
    show(
        "neighborhood", "Neighborhood attention", [Table(title, columns, rows, right=columns[1:], notes=notes)], options
    )
    return 0


def _candidates(model: nn.Module, images: Tensor, precision: str) -> tuple[dict[str, Answer], dict[str, str]]:
    """Prepare ours, and our model with each peer's operator."""
    answers: dict[str, Answer] = {}
    absent: dict[str, str] = {}
    for one in find_candidates(()):
        tell(f"preparing {one.name}")
        try:
            answers[one.name] = prepare_candidate(one, model, images, precision).answer
        except CandidateUnavailable as error:
            absent[one.name] = str(error)
    for name, check, attend in (("unfold", None, unfold_attend), ("natten flex", check_natten, natten_attend)):
        tell(f"preparing {name}")
        try:
            if check is not None:
                check()
            with foreign(name):
                answers[name] = eager(with_operator(model, attend).to(DTYPES[precision]), images, False)
                answers[name](images)
        except CandidateUnavailable as error:
            answers.pop(name, None)
            absent[name] = str(error)
    return answers, absent


def _starts(length: int, kernel_size: int, device: torch.device) -> Tensor:
    """Return the first neighbour of each cell of an axis; at a border the window is shifted inwards."""
    return (torch.arange(length, device=device) - kernel_size // 2).clamp(0, length - kernel_size)


def _offsets(starts: Tensor, kernel_size: int) -> Tensor:
    """Return cell minus neighbour plus k - 1 for each cell and each of its neighbours, `(L, k)`."""
    cells, steps = (torch.arange(n, device=starts.device) for n in (len(starts), kernel_size))
    return cells[:, None] - starts[:, None] - steps + kernel_size - 1


def _windows(x: Tensor, rows: Tensor, columns: Tensor, kernel_size: int) -> Tensor:
    """Give each cell its neighbours, `(B, H, W, h, d, kk)`."""
    near = x.unfold(1, kernel_size, 1).unfold(2, kernel_size, 1)  # (B, H - k + 1, W - k + 1, h, d, k, k)
    return near.index_select(1, rows).index_select(2, columns).flatten(-2)


if __name__ == "__main__":
    sys.exit(main())
