"""Gates with an L0 penalty on heads or hidden channels: what stays is learned instead of scored."""

from collections.abc import Mapping, Sequence
from math import log

import torch
from torch import Tensor, nn

from vitrail.compress.calibration_data import CalibrationBatch, reference_outputs
from vitrail.compress.gates import changed_inputs, flat_outputs, scale_groups
from vitrail.errors import VitrailError
from vitrail.tasks.inference import evaluating

TEMPERATURE, LOW, HIGH = 2 / 3, -0.1, 1.1
"""Temperature of the concrete distribution, and the interval that it is stretched to (section 2.2)."""

BEGIN = 2.0
"""Log-odds of every gate at first: open in 98 % of the draws."""

RATE, PULL = 0.1, 10.0
"""Learning rates of the log-odds, and of the multipliers that hold the share of open gates."""


def hard_concrete(log_odds: Tensor, uniform: Tensor) -> Tensor:
    """Return gates in [0, 1] that are exactly 0 or 1 with a probability above zero, differentiable in their log-odds.

    s = sigmoid((log u - log(1 - u) + log a) / b);  z = min(1, max(0, s (high - low) + low))

    "Learning Sparse Neural Networks through L0 Regularization", equations 10 and 11; on heads: "Analyzing Multi-Head
    Self-Attention: Specialized Heads Do the Heavy Lifting, the Rest Can Be Pruned", section 6.1.

    Args:
        log_odds: log a, `(..., groups)`.
        uniform: u in (0, 1), of a shape that broadcasts with it.

    Example:
        >>> hard_concrete(torch.tensor([9.0, 0.0, -9.0]), torch.tensor(0.5)).tolist()
        [1.0, 0.5, 0.0]
    """
    s = ((uniform.log() - (-uniform).log1p() + log_odds) / TEMPERATURE).sigmoid()
    return (s * (HIGH - LOW) + LOW).clamp(0, 1)


def open_probability(log_odds: Tensor) -> Tensor:
    """Return the probability that a gate is not 0: the expected L0 norm of one gate.

    P(z > 0) = sigmoid(log a - b log(-low / high)), equation 12

    Example:
        >>> round(float(open_probability(torch.zeros(()))), 3)
        0.832
    """
    return (log_odds - TEMPERATURE * log(-LOW / HIGH)).sigmoid()


def l0_scores(
    model: nn.Module, inputs: Mapping[str, int], probes: Sequence[CalibrationBatch], share: float, steps: int, seed: int
) -> dict[str, Tensor]:
    """Learn gates on groups of the input channels of layers, with the weights frozen, and return their log-odds.

    min over a of E L(z) + m1 (p - s) + m2 (p - s)^2, with m1 and m2 climbing: p is the expected share of open gates
    and s the share that is to stay ("Structured Pruning of Large Language Models", section 3.2). L is the loss of the
    labels, or without labels the squared relative distance to the outputs of the whole model.

    Args:
        model: the model.
        inputs: number of groups of each layer's input, by the layer's name.
        probes: batches of data, taken in turns.
        share: share s of the groups that stay.
        steps: updates.
        seed: seed of the draws.

    Raises:
        VitrailError: there is no data.
    """
    if not probes:
        raise VitrailError("score=l0 is learned on data. Give --data, or take magnitude or random.")
    device = next(model.parameters()).device
    odds = {name: torch.full((count,), BEGIN, device=device, requires_grad=True) for name, count in inputs.items()}
    pull = torch.zeros(2, device=device, requires_grad=True)
    optimizer = torch.optim.Adam([{"params": list(odds.values()), "lr": RATE}])
    draw = torch.Generator().manual_seed(seed)
    targets = reference_outputs(model, probes)
    total = sum(inputs.values())

    def gate(name: str, x: Tensor) -> Tensor:
        shape = (len(x), *[1] * (x.ndim - 2), inputs[name])
        uniform = torch.rand(shape, generator=draw).clamp(1e-6, 1 - 1e-6).to(device)
        return scale_groups(x, hard_concrete(odds[name], uniform).to(x.dtype))

    with evaluating(model), torch.enable_grad(), changed_inputs(model, inputs, gate):
        for step in range(steps):
            probe, target = probes[step % len(probes)], targets[step % len(probes)]
            off = torch.stack([open_probability(one).sum() for one in odds.values()]).sum() / total - share
            objective = _loss(probe, model, target) + pull[0] * off + pull[1] * off.square()
            gradients = torch.autograd.grad(objective, [*odds.values(), pull])
            for value, gradient in zip(odds.values(), gradients, strict=False):
                value.grad = gradient
            optimizer.step()
            with torch.no_grad():
                pull += PULL / steps * gradients[-1].sign() * torch.tensor([1.0, PULL], device=device)
    return {name: value.detach().double().cpu() for name, value in odds.items()}


def _loss(probe: CalibrationBatch, model: nn.Module, target: Tensor) -> Tensor:
    outputs = probe.run(model)
    if probe.loss is not None:
        return probe.loss(outputs)
    return (flat_outputs(outputs) - target).square().sum() / target.square().sum().clamp(min=1e-12)
