"""Amortised clustering: a Set Transformer reads points of a mixture of four Gaussians and gives its parameters at once.

The small task of "Set Transformer", Lee et al., 2019, section 5.3: sets of 100 to 500 points in the plane, means
uniform in a square of side 8, deviations near 0.3, Dirichlet weights. The network has three ISABs, PMA with four seeds
and two SABs, and is trained to maximise the likelihood of the points under the mixture that it gives. Sets of one batch
have different lengths and are padded.

    command   python recipes/set_clustering.py [--minutes 8]
    result    mean log-likelihood a point on sets that were not trained on: the network, the true mixture (an upper
              bound up to chance), and EM from ten starts (scikit-learn); an adjusted Rand index of each
"""

import argparse
from time import perf_counter
from typing import Any

import numpy as np
import torch
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture
from torch import Tensor

import vitrail

COMPONENTS, SIDE, BATCH = 4, 4.0, 32


def mixtures(batch: int, draw: torch.Generator) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor, Tensor]]:
    """Return padded points `(B, N, 2)`, lengths, components of the points, and (log weights, means, deviations)."""
    lengths = torch.randint(100, 501, (batch,), generator=draw)
    raw = torch.rand(batch, COMPONENTS, generator=draw).log().neg()  # Dirichlet(1, ..., 1) after division
    weights = raw / raw.sum(1, keepdim=True)
    means = (torch.rand(batch, COMPONENTS, 2, generator=draw) * 2 - 1) * SIDE
    scales = 0.3 * torch.exp(0.1 * torch.randn(batch, COMPONENTS, 2, generator=draw))
    parts = torch.multinomial(weights, int(lengths.max()), replacement=True, generator=draw)
    chosen = parts[..., None].expand(-1, -1, 2)
    noise = torch.randn(*parts.shape, 2, generator=draw)
    points = means.gather(1, chosen) + scales.gather(1, chosen) * noise
    padded = torch.arange(points.shape[1]) >= lengths[:, None]
    return points.masked_fill(padded[..., None], 0.0), lengths, parts, (weights.log(), means, scales)


def joint(points: Tensor, log_weights: Tensor, means: Tensor, scales: Tensor) -> Tensor:
    """Return log p(component, point), `(B, N, K)`."""
    z = (points[:, :, None] - means[:, None]) / scales[:, None]
    logs = -0.5 * z.square() - scales.log()[:, None] - 0.5 * np.log(2 * np.pi)
    return logs.sum(-1) + log_weights[:, None]


def mean_likelihood(logs: Tensor, lengths: Tensor) -> Tensor:
    """Return the mean log-likelihood a point over the sets, padding left out."""
    there = torch.arange(logs.shape[1]) < lengths[:, None]
    return ((logs.logsumexp(-1) * there).sum(1) / lengths).mean()


def read(model: torch.nn.Module, points: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the mixture that the network gives."""
    out = model(points, lengths)
    return out[..., 0].log_softmax(-1), out[..., 1:3], torch.nn.functional.softplus(out[..., 3:]) + 1e-3


def rand_index(logs: Tensor, parts: Tensor, lengths: Tensor) -> float:
    """Return the mean adjusted Rand index of the likeliest components."""
    found = [
        adjusted_rand_score(t[:n], p[:n]) for t, p, n in zip(parts, logs.argmax(-1), lengths.tolist(), strict=True)
    ]
    return float(np.mean(found))


def em(points: Tensor, parts: Tensor, lengths: Tensor) -> tuple[float, float]:
    """Return likelihood and Rand index of EM with diagonal covariances."""
    scores, indices = [], []
    for cloud, truth, length in zip(points.numpy(), parts.numpy(), lengths.tolist(), strict=True):
        fit = GaussianMixture(COMPONENTS, covariance_type="diag", n_init=10, random_state=0).fit(cloud[:length])
        scores.append(fit.score(cloud[:length]))
        indices.append(adjusted_rand_score(truth[:length], fit.predict(cloud[:length])))
    return float(np.mean(scores)), float(np.mean(indices))


def main() -> None:
    """Train for some minutes and print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0)
    minutes = parser.parse_args().minutes
    torch.manual_seed(0)
    sizes: Any = {
        "dim": 64,
        "encoder_depth": 3,
        "num_heads": 4,
        "inducing_points": 16,
        "seeds": COMPONENTS,
        "decoder_depth": 2,
    }
    model = vitrail.create_model("set_transformer_modelnet40", **sizes, dropout=0.0, in_channels=2, num_classes=5)
    draw, started, step = torch.Generator().manual_seed(1), perf_counter(), 0
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    while (done := (perf_counter() - started) / 60 / minutes) < 1:
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(1.0, 2 * (1 - done) + 0.02)
        points, lengths, *_ = mixtures(BATCH, draw)
        loss = -mean_likelihood(joint(points, *read(model, points, lengths)), lengths)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        step += 1
        if step % 200 == 0:
            print(f"step {step}  log-likelihood a point {-loss.item():.3f}", flush=True)
    model.eval()
    points, lengths, parts, truth = mixtures(200, torch.Generator().manual_seed(2))
    with torch.inference_mode():
        ours = joint(points, *read(model, points, lengths))
    true = joint(points, *truth)
    rows = {
        "true mixture": (mean_likelihood(true, lengths).item(), rand_index(true, parts, lengths)),
        "Set Transformer": (mean_likelihood(ours, lengths).item(), rand_index(ours, parts, lengths)),
        "EM, ten starts": em(points, parts, lengths),
    }
    print(f"{step} steps of {BATCH} sets; 200 sets that were not trained on:")
    for name, (likelihood, index) in rows.items():
        print(f"{name:16} log-likelihood a point {likelihood:7.3f}   adjusted Rand index {index:.3f}")


if __name__ == "__main__":
    main()
