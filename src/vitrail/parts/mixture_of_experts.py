"""Channel mixer of several MLPs, of which each token uses a few."""

import torch
from torch import Tensor, einsum, nn

from vitrail.layouts import Layout
from vitrail.parts.routing import TopExpertsRouter
from vitrail.shapes import Tokens


class MixtureOfExperts(nn.Module):
    """Sparse mixture of MLPs: `y = sum_{e chosen} g_e(x) MLP_e(x)`; a token that gets no place gives 0.

    "Scaling Vision with Sparse Mixture of Experts", section 2. Dispatch is a product with a one-hot tensor of fixed
    shape, as in the authors' code, so the layer is exported and compiled as any other.

    Args:
        router: `x -> (routing, losses)`.
        dim: channels C.
        hidden: channels between the two layers of each expert.
        act: activation; GELU by default.
        loss_weight: weight of each balance loss in `auxiliary_loss`.

    Example:
        >>> from vitrail.grid import Grid
        >>> mixer = MixtureOfExperts(TopExpertsRouter(8, num_experts=4), 8, hidden=16)
        >>> mixer(torch.randn(2, 6, 8), Grid(2, 3)).shape, mixer.auxiliary_loss().shape
        (torch.Size([2, 6, 8]), torch.Size([]))
    """

    def __init__(
        self, router: TopExpertsRouter, dim: int, hidden: int, act: nn.Module | None = None, loss_weight: float = 0.005
    ):
        super().__init__()
        experts = router.num_experts
        self.router, self.act, self.loss_weight = router, act or nn.GELU(), loss_weight
        self.weight1, self.bias1 = (
            nn.Parameter(torch.empty(experts, hidden, dim)),
            nn.Parameter(torch.zeros(experts, hidden)),
        )
        self.weight2, self.bias2 = (
            nn.Parameter(torch.empty(experts, dim, hidden)),
            nn.Parameter(torch.zeros(experts, dim)),
        )
        self._losses: list[Tensor] = []
        for weight in (self.weight1, self.weight2):
            for expert in weight.detach():
                nn.init.xavier_uniform_(expert)

    def forward(self, x: Tokens, grid: Layout) -> Tokens:
        """Route, run the experts, and add their outputs."""
        routing, losses = self.router(x)
        self._losses = list(losses.values())
        inputs = einsum("bnep,bnc->bepc", routing.dispatch.to(x.dtype), x)
        hidden = self.act(einsum("bepc,ehc->beph", inputs, self.weight1) + self.bias1[:, None])
        outputs = einsum("beph,ech->bepc", hidden, self.weight2) + self.bias2[:, None]
        return einsum("bnep,bepc->bnc", routing.combine.to(outputs.dtype), outputs)

    def auxiliary_loss(self) -> Tensor:
        """Return the weighted balance losses of the latest training forward pass, and forget them; 0 without any."""
        losses, self._losses = self._losses, []
        return self.loss_weight * torch.stack(losses).sum() if losses else self.weight1.new_zeros(())
