"""Environment of a measurement: hardware, system and versions."""

import platform
from importlib import metadata
from typing import Any

from vitrail.machine.system_info import gpus, memory, processor

PACKAGES = ("vitrail", "torch", "torchvision", "timm", "transformers", "openvino", "onnxruntime")


def place() -> dict[str, Any]:
    """Return processor, memory, GPUs, system and versions: plain values without a path or a name of this machine.

    Example:
        >>> sorted(place())
        ['gpus', 'memory', 'processor', 'system', 'versions']
    """
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": processor(),
        "memory": memory()["total"],
        "gpus": gpus(),
        "versions": {"python": platform.python_version(), **_versions()},
    }


def in_lines(facts: dict[str, Any]) -> list[str]:
    """Format the facts as lines of a report."""
    cpu = facts["processor"]
    gpus = [f"- GPU: {gpu['name']}, {gpu['memory'] / 2**30:.0f} GiB" for gpu in facts["gpus"]]
    return [
        f"- Processor: {cpu['name']}, {cpu['usable_cores']:g} cores, {' '.join(cpu['instructions'])}",
        f"- Memory: {facts['memory'] / 2**30:.0f} GiB; {facts['system']}",
        *gpus,
        "- Versions: " + ", ".join(f"{name} {version}" for name, version in facts["versions"].items()),
    ]


def _versions() -> dict[str, str]:
    installed = {each.metadata["Name"].lower(): each.version for each in metadata.distributions()}
    return {name: installed[name] for name in PACKAGES if name in installed}
