"""`vitrail bench`: throughput and latency of a model against its peers."""

import sys
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import Positional

from vitrail.cli.table import print_table
from vitrail.errors import VitrailError

if TYPE_CHECKING:
    from vitrail.bench.result import BenchResult

EXAMPLES = """
vitrail bench swin_tiny_patch4_window7_224
vitrail bench vit_base_patch16_224 --batch 8 --precision fp32 --peers timm-eager,timm-compiled
vitrail bench runs/classify/flowers --data flowers/test --out benchmarks/results/
vitrail bench vit_tiny_patch16_224 --imgsz 384 --batch 1,32 --no-starts --rounds 15
vitrail bench vit_tiny_patch16_224 --weights vit_tiny.pt --data photos/ --precision int8
"""

_DEFAULT_PEERS = ("timm-eager", "timm-compiled", "torchvision", "huggingface", "openvino", "onnxruntime")


@dataclass(frozen=True)
class Bench:
    """Measure the throughput of a model on this machine, against other libraries and engines with the same weights.

    All run interleaved in one process, and their outputs are compared; missing libraries are listed with the package to
    install. Prints images per second, ratios, and GEU: the share of the machine's measured GEMM rate that the model
    reaches. The exit code is 1 if our outputs are not within tolerance.
    """

    model: Positional[str]
    """A name in the catalogue (random weights unless --weights), a model folder or a run folder."""
    batch: tuple[str, ...] = ("1", "8", "32")
    """Sizes of batches, a table each: --batch 1,8,32."""
    precision: Literal["bf16", "fp32", "int8"] = "bf16"
    """Compute precision. int8 applies to our optimized model only; all others then run in bf16."""
    imgsz: int | None = None
    """Side of the images; the model's own by default."""
    peers: tuple[str, ...] = _DEFAULT_PEERS
    """Peers to measure against, also vitrail-compiled (our model through torch.compile); none for no peers."""
    rounds: int = 7
    """Rounds of interleaved timing; use at least 7 for a measurement."""
    seconds: float = 0.5
    """Minimum seconds per turn."""
    threads: int = 0
    """Threads of each candidate; 0 for PyTorch's default."""
    weights: str | None = None
    """A checkpoint, if the model is a name in the catalogue."""
    set: tuple[str, ...] = ()
    """Fields of the model's config to replace, as name=value: --set pooling=timm."""
    data: str | None = None
    """Real images to compare the outputs on, such as a folder; synthetic ones by default."""
    check: int = 128
    """Number of images to compare the outputs on."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Device."""
    starts: bool = True
    """Measure cold start and memory, each candidate in its own processes."""
    warm: bool = False
    """Let those processes use the compile caches of this user."""
    out: Path | None = None
    """Markdown file to write, with a JSON of every time beside it; in a folder it is named for model and date."""

    def run(self) -> int:
        """Measure, print, write."""
        from vitrail.bench.model_spec import ModelSpec
        from vitrail.bench.registry import find_candidates
        from vitrail.bench.runner import BenchPlan, run_bench
        from vitrail.inference.model_loading import pick_device

        peers = _listed(self.peers)
        candidates = find_candidates(() if peers == ("none",) else peers)
        plan = BenchPlan(
            batches=_sizes(self.batch),
            precision=self.precision,
            rounds=self.rounds,
            seconds=self.seconds,
            threads=self.threads,
            check=self.check,
            data=self.data,
            starts=self.starts,
            warm=self.warm,
        )
        self._check_out()
        subject = ModelSpec(self.model, self.weights, self.imgsz, self.set, pick_device(self.device).type)
        result = run_bench(subject, candidates, plan, _command(), on_message=lambda line: print(line, file=sys.stderr))
        self._show(result)
        return 0 if result.sound else 1

    def _check_out(self) -> None:
        """Check that the output path can be written, before minutes of measuring."""
        from vitrail.atomic_io import check_writable

        if self.out is None or self.out.is_dir():
            return
        if self.out.suffix != ".md":
            raise VitrailError(f"--out {self.out} is neither a folder that exists nor a file that ends in .md.")
        check_writable(self.out)

    def _show(self, result: "BenchResult") -> None:
        from vitrail.atomic_io import write_file
        from vitrail.bench.report import facts, page, tables, verdict

        print("\n".join(facts(result)))
        for table in tables(result):
            print(f"\n{table.title}")
            print_table(table.columns, table.rows, right=table.right)
            print("\n".join(table.notes))
        print("\n" + "\n".join(verdict(result)))
        if self.out is not None:
            name = f"{result.name}-{result.precision}-{date.today().isoformat()}.md"
            path = self.out / name if self.out.is_dir() else self.out
            write_file(path, page(result).encode())
            result.save(path.with_suffix(".json"))
            print(f"written {path} and {path.with_suffix('.json').name}", file=sys.stderr)


def _listed(words: tuple[str, ...]) -> tuple[str, ...]:
    """Split arguments at commas.

    Example:
        >>> _listed(("1,8", "32"))
        ('1', '8', '32')
    """
    return tuple(part for word in words for part in word.split(",") if part)


def _sizes(words: tuple[str, ...]) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in _listed(words))
    except ValueError:
        raise VitrailError(f"--batch takes whole numbers such as 1,8,32; got '{' '.join(words)}'.") from None


def _command() -> str:
    from shlex import join

    return join(["vitrail", *sys.argv[1:]])
