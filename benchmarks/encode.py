"""Encoding of texts by BERT: ours optimized, PyTorch compiled, and OpenVINO, in turns, with the same weights.

    python benchmarks/encode.py                                   # BERT-base, 8 texts of 128 tokens, bf16
    python benchmarks/encode.py --precision fp32 --model bert_base_uncased
    python benchmarks/encode.py --operators                       # time of each operator of ours

Weights are random (seed 0). All compute the tokens of the last layer. "error" is |y - y_fp32| / |y_fp32| against our
model in fp32 without optimization. bf16 is OpenVINO's `INFERENCE_PRECISION_HINT`, and weights in bf16 for PyTorch.
OpenVINO gets the exported program of our model, which is that of Hugging Face's with other names. Needs the extra
`peers`.
"""

from argparse import Namespace
from collections.abc import Callable, Sequence
from copy import deepcopy
from importlib import import_module
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

import vitrail
from sheet import DTYPES, begin, flags, precision_flag, show, take_turns, tell
from vitrail.tasks.table import Table


class Tokens(nn.Module):
    """Token ids in, tokens of the last layer out.

    Args:
        model: a text model.
    """

    def __init__(self, model: Any):
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor) -> Tensor:
        """Encode."""
        return self.model.features(ids).tokens


def candidates(model: Any, ids: Tensor, precision: str, peers: Sequence[str]) -> dict[str, Callable[[], Tensor]]:
    """Return a call of each candidate."""
    fast = vitrail.optimize(model, precision)  # pyright: ignore[reportArgumentType]
    plain = Tokens(deepcopy(model).to(DTYPES[precision]))
    calls = {"vitrail optimized": lambda: fast.features(ids).tokens, "vitrail": lambda: plain(ids)}
    if "compiled" in peers:
        compiled = torch.compile(plain)
        calls["PyTorch compiled"] = lambda: compiled(ids)
    if "openvino" in peers:
        calls["OpenVINO"] = openvino(model, ids, precision)
    return calls


def openvino(model: Any, ids: Tensor, precision: str) -> Callable[[], Tensor]:
    """Return a call of OpenVINO with the exported program of a model."""
    library = import_module("openvino")
    program = library.convert_model(torch.export.export(Tokens(model), (ids,)))
    options = {
        "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision],
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = library.Core().compile_model(program, "CPU", options).create_infer_request()

    def run() -> Tensor:
        request.infer([ids.numpy()], share_inputs=True)
        return torch.from_numpy(request.get_output_tensor(0).data.copy())

    return run


def operators(fast: Any, ids: Tensor, repeats: int) -> Table:
    """Return the seconds of each operator of the optimized model, the median of some runs."""
    from vitrail.fused import encoder

    spent: dict[str, list[float]] = {}

    def timed(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*given: Any, **named: Any) -> Any:
            began = perf_counter()
            result = call(*given, **named)
            spent[name][-1] += perf_counter() - began
            return result

        return run

    names = ("linear", "attend_groups", "mlp", "layer_norm")
    kept = {name: getattr(encoder, name) for name in names}
    try:
        for name in names:
            spent[name] = []
            setattr(encoder, name, timed(name, kept[name]))
        whole = []
        for _ in range(repeats):
            for times in spent.values():
                times.append(0.0)
            began = perf_counter()
            fast.features(ids)
            whole.append(perf_counter() - began)
    finally:
        for name in names:
            setattr(encoder, name, kept[name])
    rest = {name: sorted(times)[repeats // 2] for name, times in spent.items()}
    total = sorted(whole)[repeats // 2]
    rest["other"] = total - sum(rest.values())
    rows = [[name, f"{1000 * value:.1f}", f"{value / total:.0%}"] for name, value in rest.items()]
    return Table("Operators", ["operator", "ms", "share"], rows, right=["ms", "share"])


def main() -> None:
    """Measure and print."""
    parser = flags(__doc__)
    parser.add_argument("--model", default="bert_base_uncased")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--peers", nargs="*", choices=("compiled", "openvino"), default=("compiled", "openvino"))
    parser.add_argument("--operators", action="store_true", help="time the operators of ours alone")
    precision_flag(parser)
    options: Namespace = begin(parser, None)
    model: Any = vitrail.create_model(options.model).eval().requires_grad_(False)
    ids = torch.randint(1000, model.config.vocab_size, (options.batch, options.tokens))
    with torch.inference_mode():
        if options.operators:
            fast = vitrail.optimize(model, options.precision)
            fast.features(ids)
            print(operators(fast, ids, options.rounds).section())
            return
        want = model.features(ids).tokens
        calls = candidates(model, ids, options.precision, options.peers)
        errors = {}
        for name, call in calls.items():
            tell(f"warm-up of {name}")
            errors[name] = float((call().float() - want).norm() / want.norm())
        timings = take_turns(calls, options)
    ours = timings["vitrail optimized"]
    rows = []
    for name, times in timings.items():
        ratio = ours.times_as_fast(times).median
        rows.append([name, f"{1000 * times.spread.median:.1f}", f"{ratio:.2f}", f"{errors[name]:.1e}"])
    title = f"{options.model}, {options.batch} texts of {options.tokens} tokens, {options.precision}"
    table = Table(
        title, ["candidate", "ms", "ours is × as fast", "error"], rows, right=["ms", "ours is × as fast", "error"]
    )
    show("encode", "Encoding of texts", [table], options)


if __name__ == "__main__":
    main()
