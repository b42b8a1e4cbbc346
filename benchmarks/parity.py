"""Same weights in, same logits out: every published variant against every library that has it, on random weights.

    python benchmarks/parity.py                         # all that fit in memory, a table at the end
    python benchmarks/parity.py 'swin*' --peers timm    # some

For each pair the peer is built with random weights, every parameter is moved so that nothing agrees by being zero or
one, the state dict goes through `load_weights`, and both answer the same two random images in fp32. The error is the
largest difference as a share of the largest logit. Nothing is downloaded.

A deep network with random weights can lose more than five digits to fp32 alone, whoever computes it. So where the error
exceeds 1e-5 both answer again in fp64; the table then also shows that error, and how far the peer's own fp32 answer is
from its fp64 one. Leaves with 1 when an error exceeds 1e-5 and the fp64 one exceeds 1e-10.
"""

import argparse
import gc
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import nn

from vitrail.models import create_model, family_of, list_models, make_config
from vitrail.weights.detect import shapes_of
from vitrail.weights.load import load_weights

LIMIT, EXACT = 1e-5, 1e-10
TORCHVISION = {
    "vit_base_patch16_224": "vit_b_16",
    "vit_base_patch32_224": "vit_b_32",
    "vit_large_patch16_224": "vit_l_16",
    "vit_large_patch32_224": "vit_l_32",
    "vit_huge_patch14_224": "vit_h_14",
    "swin_tiny_patch4_window7_224": "swin_t",
    "swin_small_patch4_window7_224": "swin_s",
    "swin_base_patch4_window7_224": "swin_b",
}


class Row(NamedTuple):
    """One comparison."""

    family: str
    peer: str
    variant: str
    error: float
    exact: float | None = None
    peers_own: float | None = None


def main() -> int:
    """Compare the selected models and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("pattern", nargs="?", default="*", help="which variants, as a shell pattern")
    parser.add_argument("--peers", nargs="+", default=["timm", "torchvision", "huggingface"], help="which libraries")
    parser.add_argument("--max-parameters", type=float, default=float("inf"), help="leave larger variants out")
    options = parser.parse_args()
    rows = []
    for name in list_models(options.pattern):
        if count(name) > options.max_parameters or 4 * 4 * count(name) > free_memory():
            print(f"{name}: left out, {count(name):,} parameters", flush=True)
            continue
        for row in compare(name, options.peers):
            rows.append(row)
    print_table(rows)
    return int(any(not (row.error <= LIMIT or (row.exact is not None and row.exact <= EXACT)) for row in rows))


def compare(name: str, peers: list[str]) -> Iterator[Row]:
    """Yield one row for each peer that has the variant."""
    for peer in peers:
        make = PEERS[peer](name)
        if make is None:
            continue
        start = time.perf_counter()
        error, exact, peers_own = difference(name, peer, make)
        print(f"{name:<36} {peer:<12} {error:.1e}   {time.perf_counter() - start:.0f} s", flush=True)
        gc.collect()
        yield Row(family_of(name), peer, name, error, exact, peers_own)


@torch.inference_mode()
def difference(name: str, peer: str, make: Callable[[], nn.Module]) -> tuple[float, float | None, float | None]:
    """Return the error against a peer; where it is large, that in fp64 and the peer's own rounding as well."""
    torch.manual_seed(0)
    theirs = make().eval()
    for parameter in theirs.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.02)
    ending: dict[str, Any] = {"pooling": "timm"} if (family_of(name), peer) == ("poolformer", "timm") else {}
    ours = create_model(name, **ending).eval()
    load_weights(ours, theirs.state_dict())
    side = 224 if family_of(name) == "bit" else ours.preprocess.size  # a convolutional network takes any size
    images = torch.randn(2, 3, side, side)
    expected = logits(theirs, images)
    error = relative(ours(images), expected)
    if error <= LIMIT:
        return error, None, None
    true = logits(theirs.double(), images.double())
    return error, relative(ours.double()(images.double()), true), relative(expected, true)


def logits(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Return the logits of any library's classifier."""
    answer = model(images)
    return answer.logits if hasattr(answer, "logits") else answer


def relative(got: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the largest difference as a share of the largest expected value."""
    return ((got - expected).abs().max() / expected.abs().max()).item()


def from_timm(name: str) -> Callable[[], nn.Module] | None:
    """Return how to build the variant in timm."""
    import timm

    if not timm.is_model(name):
        return None
    classes = getattr(make_config(name), "num_classes", 1000)  # none in models that were published without a head
    return lambda: timm.create_model(name, pretrained=False, num_classes=classes)


def from_torchvision(name: str) -> Callable[[], nn.Module] | None:
    """Return how to build the variant in torchvision."""
    import torchvision

    return getattr(torchvision.models, TORCHVISION[name]) if name in TORCHVISION else None


def from_huggingface(name: str) -> Callable[[], nn.Module] | None:
    """Return how to build the variant in transformers."""
    import transformers

    found = huggingface_numbers(name)
    if found is None:
        return None
    model, numbers = found
    kind = model.removesuffix("WithTeacher").removesuffix("ForImageClassification")
    config = getattr(transformers, f"{kind}Config")(num_labels=1000, **numbers)
    return lambda: getattr(transformers, model)(config)


def huggingface_numbers(name: str) -> tuple[str, dict[str, Any]] | None:
    """Return the class in transformers and the numbers of its config."""
    c, family = make_config(name), family_of(name)
    if family in {"vit", "deit"}:
        numbers = dict(
            hidden_size=c.dim,
            num_hidden_layers=c.depth,
            num_attention_heads=c.num_heads,
            intermediate_size=int(c.dim * c.mlp_ratio),
            image_size=c.preprocess.size,
            patch_size=c.patch_size,
            layer_norm_eps=1e-6,  # its default, 1e-12, differs from the published training
        )
        distilled = getattr(c, "distilled", False)
        return "DeiTForImageClassificationWithTeacher" if distilled else "ViTForImageClassification", numbers
    if family == "swin":
        heads, size = list(c.num_heads), c.preprocess.size
        numbers = dict(embed_dim=c.dim, depths=list(c.depths), num_heads=heads, window_size=c.window_size)
        return "SwinForImageClassification", {**numbers, "image_size": size}
    if family == "poolformer":
        numbers = dict(hidden_sizes=list(c.dims), depths=list(c.depths), layer_scale_init_value=0.5)
        return "PoolFormerForImageClassification", numbers
    if family == "bit":
        widths = [4 * c.dim * 2**i for i in range(len(c.depths))]  # its width_factor forgets the last norm and the head
        return "BitForImageClassification", dict(depths=list(c.depths), embedding_size=c.dim, hidden_sizes=widths)
    return None


PEERS = {"timm": from_timm, "torchvision": from_torchvision, "huggingface": from_huggingface}


def count(name: str) -> int:
    """Return the number of parameters of a variant."""
    return sum(torch.Size(shape).numel() for shape in shapes_of(name).values())


def free_memory() -> int:
    """Return the free memory in bytes, or a default if it cannot be read."""
    try:
        with open("/proc/meminfo") as file:
            facts = dict(line.split(":") for line in file)
    except OSError:
        return 8 << 30
    return int(facts["MemAvailable"].split()[0]) * 1024


def print_table(rows: list[Row]) -> None:
    """Print one line for each family and peer."""
    print("\n| family | peer | variants | largest relative error | of | in fp64 | peer's own rounding |")
    print("|---|---|---|---|---|---|---|")
    for family, peer in dict.fromkeys((row.family, row.peer) for row in rows):
        these = [row for row in rows if (row.family, row.peer) == (family, peer)]
        worst = max(these, key=lambda row: row.error)
        more = " | ".join("" if value is None else f"{value:.1e}" for value in (worst.exact, worst.peers_own))
        print(f"| {family} | {peer} | {len(these)} | {worst.error:.1e} | {worst.variant} | {more} |")


if __name__ == "__main__":
    sys.exit(main())
