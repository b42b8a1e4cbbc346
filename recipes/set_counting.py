"""Counting unique characters: a Set Transformer sees 6 to 10 images of characters and says how many differ.

The task of "Set Transformer", Lee et al., 2019, section 5.2, with characters of the font that Pillow ships in place of
Omniglot: each image is turned, scaled, moved and blurred at random. The characters of the test were never trained on,
so the network must compare images and cannot name them. As in the paper, convolutions read each image, two blocks of
attention relate the images, pooling by attention gives the rate of a Poisson distribution, and the log-likelihood of
the number is maximised. The baseline has the same convolutions and a mean in place of attention (rFFp-mean).

    command   python recipes/set_counting.py [--steps 2500]
    result    share of sets whose number is right (the nearest number to the rate; the paper's mode beside it), for
              characters that were trained on and for others, and that of always giving the commonest number
"""

import argparse
import string
from itertools import pairwise
from time import process_time
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from torch import Tensor, nn

import vitrail

CHARACTERS = string.ascii_uppercase + "abdefghijmnqrty" + "234679" + "&@#%$?+=*<"
"""Characters of different shapes: of c and C, 1 and l, 0 and O only one."""
HELD_OUT, DRAWN, SIDE, LARGEST, BATCH = 17, 60, 20, 10, 48


def glyphs(character: str, draw: np.random.Generator) -> np.ndarray:
    """Return images of a character, `(DRAWN, SIDE, SIDE)` in [0, 1]."""
    found = []
    for _ in range(DRAWN):
        image = Image.new("L", (64, 64))
        size = float(draw.uniform(30, 46))
        place = tuple(32 + draw.uniform(-5, 5, 2))
        ImageDraw.Draw(image).text(place, character, fill=255, font=ImageFont.load_default(size), anchor="mm")
        image = image.rotate(float(draw.uniform(-20, 20)), Image.Resampling.BILINEAR)
        image = image.filter(ImageFilter.GaussianBlur(float(draw.uniform(0.5, 2))))
        found.append(np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float32) / 255)
    return np.stack(found)


def sets(bank: Tensor, batch: int, draw: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Return images `(B, LARGEST, 1, SIDE, SIDE)`, lengths, and numbers of different characters.

    Lengths are uniform in 6..10 and numbers uniform in 1..length, as in the paper.
    """
    lengths = torch.randint(6, LARGEST + 1, (batch,), generator=draw)
    numbers = (torch.rand(batch, generator=draw) * lengths).long() + 1
    images = torch.zeros(batch, LARGEST, SIDE, SIDE)
    for i, (length, number) in enumerate(zip(lengths.tolist(), numbers.tolist(), strict=True)):
        kinds = torch.randperm(len(bank), generator=draw)[:number]
        more = kinds[torch.randint(number, (length - number,), generator=draw)]
        chosen = torch.cat([kinds, more])[torch.randperm(length, generator=draw)]
        images[i, :length] = bank[chosen, torch.randint(DRAWN, (length,), generator=draw)]
    return images[:, :, None], lengths, numbers


class Counter(nn.Module):
    """Convolutions of each image, a network of the set, and the rate of a Poisson distribution.

    Args:
        network: `((B, N, dim), lengths) -> (B, 1)`.
        dim: channels of an image.
    """

    def __init__(self, network: nn.Module, dim: int):
        super().__init__()
        widths = (1, dim // 4, dim // 2, dim)
        layers = [
            nn.Sequential(nn.Conv2d(a, b, 3, stride=2, padding=1), nn.BatchNorm2d(b), nn.ReLU())
            for a, b in pairwise(widths)
        ]
        self.images = nn.Sequential(*layers, nn.Flatten(), nn.Linear(9 * dim, dim))
        self.network = network

    def forward(self, images: Tensor, lengths: Tensor) -> Tensor:
        """Return the rates `(B,)`."""
        features = self.images(images.flatten(0, 1)).unflatten(0, images.shape[:2])
        return nn.functional.softplus(self.network(features, lengths)[:, 0]) + 1e-3


class MeanOfSet(nn.Module):
    """A shared MLP, the mean over the set, and an MLP (rFFp-mean)."""

    def __init__(self, dim: int):
        super().__init__()
        self.before = nn.Sequential(nn.Linear(dim, 2 * dim), nn.ReLU(), nn.Linear(2 * dim, 2 * dim), nn.ReLU())
        self.after = nn.Sequential(nn.Linear(2 * dim, 2 * dim), nn.ReLU(), nn.Linear(2 * dim, 1))

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Return `(B, 1)`."""
        there = (torch.arange(features.shape[1]) < lengths[:, None])[..., None]
        return self.after((self.before(features) * there).sum(1) / lengths[:, None])


def train(model: Counter, bank: Tensor, steps: int) -> float:
    """Maximise the likelihood of the numbers; return the seconds of processor time."""
    draw, started = torch.Generator().manual_seed(1), process_time()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(1.0, 2 * (1 - step / steps) + 0.02)
        images, lengths, numbers = sets(bank, BATCH, draw)
        rates = model(images, lengths)
        loss = (rates - numbers * rates.log()).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        if step % 250 == 249:
            print(f"step {step + 1}  loss {loss.item():.3f}  {process_time() - started:.0f} s", flush=True)
    return process_time() - started


@torch.inference_mode()
def accuracy(model: Counter, bank: Tensor) -> tuple[float, float]:
    """Return the share of 2,000 sets with the right number: nearest number, and mode of the distribution."""
    model.eval()
    draw, right = torch.Generator().manual_seed(2), torch.zeros(2)
    for _ in range(20):
        images, lengths, numbers = sets(bank, 100, draw)
        rates = model(images, lengths)
        right += torch.stack([(rates.round() == numbers).sum(), (rates.floor() == numbers).sum()])
    return right[0].item() / 2000, right[1].item() / 2000


def main() -> None:
    """Train both networks and print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2500, help="of training, for each network")
    steps = parser.parse_args().steps
    random = np.random.default_rng(0)
    order = random.permutation(len(CHARACTERS))
    bank = torch.from_numpy(np.stack([glyphs(CHARACTERS[i], random) for i in order]))
    known, others = bank[HELD_OUT:], bank[:HELD_OUT]
    sizes: Any = {"dim": 64, "encoder_depth": 2, "num_heads": 4, "inducing_points": 10, "dropout": 0.0}
    torch.manual_seed(0)
    attention = vitrail.create_model("set_transformer_modelnet40", **sizes, in_channels=64, num_classes=1)
    networks = {"Set Transformer": attention, "mean of the set": MeanOfSet(64)}
    _, _, numbers = sets(others, 2000, torch.Generator().manual_seed(2))
    usual = numbers.bincount().max().item() / len(numbers)
    print(f"{len(known)} characters to train on, {len(others)} others; the commonest number is right for {usual:.1%}")
    for name, network in networks.items():
        model = Counter(network, 64)
        seconds = train(model, known, steps)
        (near, mode), (new_near, new_mode) = accuracy(model, known), accuracy(model, others)
        figures = f"known {near:.1%} (mode {mode:.1%})  others {new_near:.1%} (mode {new_mode:.1%})"
        print(f"{name:16} {figures}  {seconds:.0f} s of processor time", flush=True)


if __name__ == "__main__":
    main()
