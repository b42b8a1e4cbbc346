"""Registry of candidates by name; one line per candidate."""

from copy import deepcopy
from typing import Any

from torch import Tensor, nn

import vitrail
from vitrail.bench.candidate import Answer, Candidate, CandidateUnavailable, Variant
from vitrail.bench.engines import onnxruntime_ways, openvino_ways
from vitrail.bench.libraries import PEERS
from vitrail.bench.torch_runners import Build, compiled_ways, eager_ways, unchanged
from vitrail.errors import unknown


def find_candidates(peers: tuple[str, ...]) -> list[Candidate]:
    """Return our candidates and the named peers.

    Raises:
        VitrailError: a name is unknown.

    Example:
        >>> [candidate.name for candidate in find_candidates(("openvino",))]
        ['vitrail', 'vitrail-optimized', 'openvino']
    """
    named = {candidate.name: candidate for candidate in CANDIDATES}
    theirs = [name for name in named if not named[name].ours]
    for name in peers:
        if name not in theirs:
            raise unknown("peer", name, theirs)
    return [candidate for candidate in CANDIDATES if candidate.ours or candidate.name in peers]


def _copy(model: nn.Module, example: Tensor) -> nn.Module:
    return deepcopy(model)


def _built_by(library: str) -> Build:
    return lambda model, example: PEERS[library](model, example.shape[-1])


def _eager(build: Build) -> Any:
    return lambda model, example, precision: eager_ways(build, model, precision)


def _compiled(build: Build) -> Any:
    return lambda model, example, precision: compiled_ways(build, precision)


def _optimized(model: nn.Module, example: Tensor, precision: Any) -> list[Variant]:
    def start(module: Any, example: Tensor) -> Answer:
        fast: Any = vitrail.optimize(module, precision=precision)
        reason = next((text for text in fast.unconverted if text.startswith("everything")), None)
        if reason is not None:
            raise CandidateUnavailable(f"It keeps {reason}.")
        return unchanged(fast, example)

    return [Variant("optimized in int8" if precision == "int8" else "optimized", _copy, start)]


CANDIDATES = (
    Candidate("vitrail", _eager(_copy), ours=True),
    Candidate("vitrail-optimized", _optimized, ours=True, int8=True),
    Candidate("vitrail-compiled", _compiled(_copy)),
    Candidate("timm-eager", _eager(_built_by("timm")), needs=("timm",)),
    Candidate("timm-compiled", _compiled(_built_by("timm")), needs=("timm",)),
    Candidate("torchvision", _eager(_built_by("torchvision"))),
    Candidate("huggingface", _eager(_built_by("huggingface")), needs=("transformers",)),
    Candidate("openvino", openvino_ways, needs=("openvino",), fragile=True),
    Candidate("onnxruntime", onnxruntime_ways, needs=("onnxruntime", "onnx", "onnxscript"), fragile=True),
)
