"""Which expert processes which token: top-k routing with a limited capacity."""

from math import ceil
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from vitrail.errors import VitrailError
from vitrail.shapes import Tokens


class Routing(NamedTuple):
    """Assignment of the tokens of each image to the places of the experts, each of which has `P` places.

    Args:
        dispatch: 1 where a token takes a place of an expert, `(B, N, E, P)`; at most one token a place.
        combine: the same, times the gate of the expert.
    """

    dispatch: Tensor
    combine: Tensor


class TokenOrder:
    """Earlier tokens take places first."""

    def order(self, gates: Tensor) -> Tensor | None:
        """Return the order in which tokens take places, `(B, N)`; None for the order of the sequence."""
        return None


class BatchPriority(TokenOrder):
    """Tokens with a larger top gate take places first, so the least important tokens are dropped.

    "Scaling Vision with Sparse Mixture of Experts", section 4.1.
    """

    def order(self, gates: Tensor) -> Tensor | None:
        """Return the tokens by descending top gate, `(B, N)`."""
        return gates.amax(dim=-1).argsort(dim=-1, descending=True, stable=True)


class TopExpertsRouter(nn.Module):
    """Send each token to the `k` experts of the largest gates, as long as they have a place.

    g = softmax(W x + noise), P = capacity * k * N / E rounded up, noise ~ N(0, (noise / E)^2) in training

    "Scaling Vision with Sparse Mixture of Experts", sections 2.1 and A. All first choices take places before all second
    choices. The tokens of one image compete with each other only, so logits do not depend on the batch; the authors
    route larger groups and round the places up to a multiple of 4. Gates are not normalised to the chosen experts.

    Args:
        dim: channels C.
        num_experts: experts E.
        selected: experts k of each token.
        capacity: places of all experts as a multiple of the assignments.
        noise: deviation of the noise in training, as a multiple of 1 / E.
        priority: order in which tokens take places.

    Raises:
        VitrailError: if more experts are selected than there are.

    Example:
        >>> routing, losses = TopExpertsRouter(8, num_experts=4)(torch.randn(2, 6, 8))
        >>> routing.dispatch.shape, list(losses)
        (torch.Size([2, 6, 4, 4]), ['importance', 'load'])
    """

    def __init__(
        self,
        dim: int,
        num_experts: int,
        selected: int = 2,
        capacity: float = 1.05,
        noise: float = 1.0,
        priority: TokenOrder | None = None,
    ):
        super().__init__()
        if not 1 <= selected <= num_experts:
            raise VitrailError(f"Each token selects 1 to {num_experts} experts, got {selected}. Published: 2 of 8.")
        self.num_experts, self.selected, self.capacity, self.noise = num_experts, selected, capacity, noise
        self.priority = priority or TokenOrder()
        self.gate = nn.Linear(dim, num_experts, bias=False)

    def places(self, tokens: int) -> int:
        """Return the places P of each expert for so many tokens."""
        return min(ceil(self.capacity * self.selected * tokens / self.num_experts), tokens)

    def forward(self, x: Tokens) -> tuple[Routing, dict[str, Tensor]]:
        """Return the routing, and in training the balance losses."""
        logits = self.gate(x).float()
        losses, noisy = {}, logits
        if self.training:
            losses["importance"] = importance_loss(logits.softmax(dim=-1))
            deviation = self.noise / self.num_experts
            if deviation:
                noisy = logits + deviation * torch.randn_like(logits)
                losses["load"] = load_loss(logits, noisy, deviation, self.selected)
        return self.assign(noisy.softmax(dim=-1)), losses

    def assign(self, gates: Tensor) -> Routing:
        """Let tokens take places by their gates `(B, N, E)`."""
        order = self.priority.order(gates)
        if order is None:
            return self._in_sequence(gates)
        ordered = gates.gather(1, order[..., None].expand_as(gates))
        back = order.argsort(dim=-1)[..., None, None]
        return Routing(*(x.gather(1, back.expand_as(x)) for x in self._in_sequence(ordered)))

    def _in_sequence(self, gates: Tensor) -> Routing:
        """Let earlier tokens take places first."""
        places = self.places(gates.shape[1])
        value, expert = gates.topk(self.selected, dim=-1)  # (B, N, k)
        chosen = one_hot(expert, self.num_experts).transpose(1, 2)  # (B, k, N, E): first choices come first
        place = (chosen.flatten(1, 2).cumsum(dim=1).view_as(chosen) - 1) * chosen  # earlier takers of the same expert
        place = torch.where(chosen > 0, place, places).clamp_max(places)  # `places` is: no place
        taken = one_hot(place, places + 1)[..., :places]  # (B, k, N, E, P)
        combine = (taken * value.transpose(1, 2)[..., None, None]).sum(1)
        return Routing(taken.sum(1).to(gates.dtype), combine)


def importance_loss(gates: Tensor) -> Tensor:
    """Return the squared coefficient of variation of the experts' summed gates, `(B, N, E) -> ()`.

    "Scaling Vision with Sparse Mixture of Experts", equation 6; the mean over the images.

    Example:
        >>> even = torch.full((1, 6, 3), 1 / 3)
        >>> float(importance_loss(even))
        0.0
    """
    return _variation(gates.sum(dim=1))


def load_loss(logits: Tensor, noisy: Tensor, deviation: float, selected: int) -> Tensor:
    """Return the squared coefficient of variation of the experts' probable loads.

    The load of an expert is the mean probability that its logit, with new noise, is above the `selected`-th largest.
    "Scaling Vision with Sparse Mixture of Experts", equations 8 to 10.
    """
    threshold = noisy.topk(selected, dim=-1).values[..., -1:]
    chance = torch.special.ndtr((logits - threshold) / deviation)
    return _variation(chance.mean(dim=1))


def _variation(load: Tensor) -> Tensor:
    """Return `mean_B (std_E / mean_E)^2` of `(B, E)`."""
    return (load.var(dim=-1, correction=0) / load.mean(dim=-1).square()).mean()
