"""LoRA against the package peft: outputs and gradients of the same adapters on the same linear layers.

pip install peft
python benchmarks/lora.py
"""

import sys
from importlib.util import find_spec

import torch
from torch import nn

from vitrail.edits.edit import apply_edits
from vitrail.edits.lora import adapters, lora_of
from vitrail.models import create_model


def differences(variant: str = "vit_tiny_patch16_224", rank: int = 4, alpha: float = 12.0) -> dict[str, float]:
    """Return the largest differences of logits and of adapter gradients, relative to the largest value."""
    from peft import LoraConfig, inject_adapter_in_model  # pyright: ignore[reportMissingImports]

    torch.manual_seed(0)
    ours, theirs = (create_model(variant, depth=2, image_size=64, num_classes=10) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    apply_edits(ours, lora_of(ours, rank, alpha, ["qkv", "proj"]))
    targets = list(adapters(ours))
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets)  # pyright: ignore[reportArgumentType]
    inject_adapter_in_model(config, theirs)
    peer: dict[str, nn.Module] = dict(theirs.named_modules())
    for name, layer in adapters(ours).items():
        nn.init.normal_(layer.b, std=0.1)
        with torch.no_grad():
            peer[f"{name}.lora_A.default"].weight.copy_(layer.a)  # pyright: ignore
            peer[f"{name}.lora_B.default"].weight.copy_(layer.b)  # pyright: ignore
    images = torch.rand(4, 3, 64, 64)
    outputs = ours.eval()(images), theirs.eval()(images)
    for one in outputs:
        one.square().sum().backward()
    found = {"logits": relative(*outputs)}
    for part, key in (("a", "lora_A"), ("b", "lora_B")):
        grads = {name: getattr(layer, part).grad for name, layer in adapters(ours).items()}
        pairs = [(grad, peer[f"{name}.{key}.default"].weight.grad) for name, grad in grads.items()]
        found[f"gradient of {part}"] = max(relative(*pair) for pair in pairs)  # pyright: ignore[reportArgumentType]
    return found


def relative(one: torch.Tensor, other: torch.Tensor) -> float:
    """Return the largest difference as a share of the largest value."""
    return float((one - other).detach().abs().max() / other.detach().abs().max())


if __name__ == "__main__":
    if find_spec("peft") is None:
        sys.exit("peft is missing: pip install peft")
    for name, value in differences().items():
        print(f"{name:<14} {value:.1e}")
