"""Losses between layers of a student and of its teacher: features, attention maps, relations of values.

Architectures and grids may differ: what the teacher has on its grid is resampled to the student's, and compared within
the groups of tokens (windows) that the student's attention has. Prefix tokens are left out.
"""

from collections.abc import Callable
from math import gcd

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, kl_div, layer_norm, mse_loss

from vitrail.errors import VitrailError
from vitrail.grid import Grid
from vitrail.parts.model import Model
from vitrail.tasks.classify.layer_watch import AttentionOperands, LayerWatch, probabilities
from vitrail.tasks.classify.options import TrainOptions

_LEAST = 1e-20
"""Attention below it is masked: windows keep pairs apart by adding -100 to their score."""


class HintMap(nn.Module):
    """Learned map from the student's tokens to the teacher's: normalise, then a linear layer.

    It starts as the identity if both have equally many channels.

    Args:
        dim: channels of the student.
        out_dim: channels of the teacher.
    """

    def __init__(self, dim: int, out_dim: int):
        super().__init__()
        self.linear = nn.Linear(dim, out_dim)
        if dim == out_dim:
            nn.init.eye_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, cells: Tensor) -> Tensor:
        """Map cells `(B, H, W, C)`."""
        return self.linear(unit(cells))


class Imitation:
    """The layers of a student and a teacher that are compared, and the weighted sum of their losses.

    Args:
        options: weights and depth.
        student: the model that learns.
        teacher: the teacher's model.
        images: images of the student's size, to find the widths of both.
        ask: runs the teacher on images that are preprocessed for the student.
    """

    def __init__(
        self, options: TrainOptions, student: Model, teacher: nn.Module, images: Tensor, ask: Callable[[Tensor], object]
    ):
        self.options, self.ask = options, ask
        depth = options.distill_depth if options.distill_features else None
        attention = options.distill_attention > 0 or options.distill_relations > 0
        self.student = LayerWatch(student, depth, attention)
        self.teacher = LayerWatch(teacher, depth, attention)
        training = student.training
        with torch.no_grad():
            student.eval()(images)
            ask(images)
        student.train(training)
        self.maps = nn.ModuleDict()
        if depth is not None:
            widths = (watch.tokens[0].shape[-1] for watch in (self.student, self.teacher) if watch.tokens is not None)
            self.maps["features"] = HintMap(*widths)
        if options.distill_attention and len(self._attended(self.teacher).slots) > 1:
            raise VitrailError(
                f"The last attention of the teacher {self.teacher.name} is in windows; maps need one over all tokens.\n"
                "Take --distill-relations, which compares values, or --distill-features."
            )
        self._clear()

    def close(self) -> None:
        """Remove the hooks from both models."""
        self.student.close()
        self.teacher.close()

    def outputs(self) -> dict[str, Tensor]:
        """Return what the loss needs of the student's last forward pass; parameters of the maps take part."""
        found: dict[str, Tensor] = {}
        if "features" in self.maps:
            assert self.student.tokens is not None, "the block ran"
            tokens, grid = self.student.tokens
            found["features"] = self.maps["features"](grid.cells(tokens))
        if self.options.distill_attention:
            found["attention"] = probabilities(self.student.leaf, self._attended(self.student))
        if self.options.distill_relations:
            found["values"] = self._attended(self.student).v
        return found

    def loss(self, outputs: dict[str, Tensor], images: Tensor) -> Tensor:
        """Return the weighted sum of the losses; the teacher runs if it did not see these images yet."""
        if self.teacher.tokens is None and self.teacher.attended is None:
            self.ask(images)
        options, total = self.options, torch.zeros((), device=images.device)
        if "features" in outputs:
            assert self.teacher.tokens is not None, "the teacher ran"
            total = total + options.distill_features * feature_loss(outputs["features"], *self.teacher.tokens)
        if "attention" in outputs:
            student, teacher = self._attended(self.student), self._attended(self.teacher)
            loss = attention_loss(
                outputs["attention"], student, probabilities(self.teacher.leaf, teacher), teacher.grid
            )
            total = total + options.distill_attention * loss
        if "values" in outputs:
            loss = relation_loss(outputs["values"], self._attended(self.student), self._attended(self.teacher))
            total = total + options.distill_relations * loss
        self._clear()
        return total

    def _clear(self) -> None:
        for watch in (self.student, self.teacher):
            watch.tokens = watch.attended = None

    @staticmethod
    def _attended(watch: LayerWatch) -> AttentionOperands:
        assert watch.attended is not None, "the attention ran"
        return watch.attended


def feature_loss(mapped: Tensor, tokens: Tensor, grid: Grid) -> Tensor:
    """Return the mean squared distance of mapped features to the teacher's, normalised.

    L = mean (W norm(s) + b - norm(t))^2

    "FitNets: Hints for Thin Deep Nets", section 2.2, equation 3, with a linear map. Both sides are normalised over
    channels, so that the widths and lengths of residual streams do not matter.

    Args:
        mapped: the student's cells after the map, `(B, H, W, C)`.
        tokens: the teacher's tokens, `(B, N, C)`.
        grid: their layout.
    """
    wanted = resample(unit(grid.cells(tokens.float())), mapped.shape[1], mapped.shape[2])
    return mse_loss(mapped.float(), wanted)


def attention_loss(own: Tensor, student: AttentionOperands, wanted: Tensor, grid: Grid) -> Tensor:
    """Return the mean KL divergence of attention maps.

    L = mean over heads and queries of KL(A_teacher || A_student)

    "MiniLM: Deep Self-Attention Distillation for Task-Agnostic Compression of Pre-Trained Transformers", section 3.1.
    The teacher's map is resampled over queries and keys; heads are averaged in as many groups as both can form; the
    keys of both are those that the student's group has.

    Args:
        own: the student's maps, `(B, G, h, n, n)`.
        student: its attention.
        wanted: the teacher's maps, `(B, 1, h, N, N)`.
        grid: the teacher's layout.
    """
    heads = gcd(own.shape[2], wanted.shape[2])
    cells, real = _cells(student)
    own, wanted = (maps.unflatten(2, (heads, -1)).mean(3) for maps in (own.float(), wanted.float()))
    h, w = student.grid.h, student.grid.w
    maps = wanted[:, 0, :, grid.prefix :, grid.prefix :]  # (B, A, N, N)
    if (grid.h, grid.w) != (h, w):
        maps = resample(maps.unflatten(3, (grid.h, grid.w)).flatten(0, 2)[..., None], h, w).reshape(
            *maps.shape[:3], h * w
        )
        by_query = maps.transpose(2, 3).unflatten(3, (grid.h, grid.w)).flatten(0, 2)[..., None]
        maps = resample(by_query, h, w).reshape(*maps.shape[:2], h * w, h * w).transpose(2, 3)
    theirs = maps[:, :, cells[:, :, None], cells[:, None, :]].transpose(1, 2)  # (B, G, A, n, n)
    allowed = (own.detach() > _LEAST) & real[:, None, None, :]
    own, theirs = (_shares(part, allowed) for part in (own, theirs))
    return _divergence(theirs, own, allowed, real)


def relation_loss(values: Tensor, student: AttentionOperands, teacher: AttentionOperands) -> Tensor:
    """Return the mean KL divergence of the relations of values.

    R = softmax(V V^T / sqrt(d)),  L = mean over heads and tokens of KL(R_teacher || R_student)

    "MiniLM", section 3.2, with the heads of "MiniLMv2", section 3.1: all values are put side by side and cut into as
    many relation heads as both models can form, so their numbers of heads may differ.

    Args:
        values: the student's values, `(B, G, h, n, d)`.
        student: its attention.
        teacher: the teacher's attention.
    """
    heads = gcd(values.shape[2], teacher.v.shape[2])
    cells, real = _cells(student)
    grid = teacher.grid
    spread = teacher.v.float().transpose(2, 3).flatten(3).flatten(1, 2)  # (B, G n, C)
    slots = teacher.slots.flatten()
    tokens = spread.new_zeros(len(spread), grid.tokens, spread.shape[-1])
    tokens[:, slots[slots >= 0]] = spread[:, slots >= 0]
    theirs = resample(grid.cells(tokens), student.grid.h, student.grid.w).flatten(1, 2)[:, cells]  # (B, G, n, C)
    own = values.float().transpose(2, 3).flatten(3)
    allowed = real[:, None, None, :].expand(-1, heads, cells.shape[1], -1)
    relations = []
    for side in (own, theirs):
        v = side.unflatten(3, (heads, -1)).transpose(2, 3)  # (B, G, A, n, d)
        scores = v @ v.transpose(-2, -1) * v.shape[-1] ** -0.5
        relations.append(scores.masked_fill(~allowed, -1e9).softmax(-1))
    return _divergence(relations[1], relations[0], allowed.expand_as(relations[0]), real)


def unit(x: Tensor) -> Tensor:
    """Normalise over channels, without weights.

    Example:
        >>> unit(torch.tensor([[1.0, 3.0]])).round(decimals=2).tolist()
        [[-1.0, 1.0]]
    """
    return layer_norm(x, x.shape[-1:])


def resample(cells: Tensor, h: int, w: int) -> Tensor:
    """Resample a map `(B, H, W, C)` to another grid, bilinearly and antialiased.

    Example:
        >>> resample(torch.ones(1, 4, 4, 2), 2, 3).shape
        torch.Size([1, 2, 3, 2])
    """
    if cells.shape[1:3] == (h, w):
        return cells
    moved = interpolate(cells.permute(0, 3, 1, 2), (h, w), mode="bilinear", antialias=True, align_corners=False)
    return moved.permute(0, 2, 3, 1)


def _cells(student: AttentionOperands) -> tuple[Tensor, Tensor]:
    """Return the cell in each place of the student's groups, `(G, n)`, and whether there is one."""
    real = student.slots >= student.grid.prefix
    return (student.slots - student.grid.prefix).where(real, 0), real


def _shares(maps: Tensor, allowed: Tensor) -> Tensor:
    """Scale rows to sum to one over the allowed keys."""
    kept = maps * allowed
    return kept / kept.sum(-1, keepdim=True).clamp_min(_LEAST)


def _divergence(wanted: Tensor, got: Tensor, allowed: Tensor, real: Tensor) -> Tensor:
    """Return the mean over real rows of KL(wanted || got), `(B, G, A, n, n)` each, with masked keys left out."""
    log_got = got.clamp_min(_LEAST).log()
    terms = kl_div(log_got, wanted.detach(), reduction="none").where(allowed, 0.0).sum(-1)
    rows = real[None, :, None].expand_as(terms)
    return (terms * rows).sum() / rows.sum()
