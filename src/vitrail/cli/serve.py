"""`vitrail serve`: models over HTTP."""

import os
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from vitrail.errors import VitrailError, nearest

TOKEN = "VITRAIL_TOKEN"
"""Environment variable of the token: a flag is visible in the list of processes."""

_LONGEST_WINDOW = 1000
EXAMPLES = """
vitrail serve runs/classify/flowers                      # then open http://127.0.0.1:8000
vitrail serve runs/classify/flowers runs/detect/cells    # several models in one process
vitrail serve cats=models/a dogs=models/b --set cats.top=3   # names of your choice, as NAME=SOURCE or NAME:SOURCE
vitrail serve MODEL --host 0.0.0.0                        # with VITRAIL_TOKEN set: clients need it
"""


@dataclass(frozen=True)
class Serve:
    """Serve models over HTTP: JSON, forms and files, batches formed while others compute, limits, health and metrics.

    Models are optimized and warm before /readyz is 200. The queue is bounded: a request that does not fit gets 429 with
    Retry-After. On SIGTERM accepted requests finish. Inputs are never stored or logged. Addresses other than loopback
    need a token.
    """

    models: Positional[tuple[str, ...]] = ()
    """Model folders, run folders, exported files or hf:org/name@revision: SOURCE, NAME=SOURCE or NAME:SOURCE."""
    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = 8000
    """Port to listen on; 0 takes a free one."""
    token: str | None = None
    """Token that clients send; better set the environment variable VITRAIL_TOKEN."""
    weights: str | None = None
    """A checkpoint, if the model is a name in the catalogue."""
    device: str = "auto"
    """auto, cpu, cuda, ..."""
    batch: int = 8
    """Most inputs of a batch."""
    window: float = 5.0
    """Most milliseconds that an input waits for others of its batch that are being decoded."""
    precision: Literal["auto", "fp32", "bf16", "int8"] = "fp32"
    """Compute precision."""
    optimize: bool = True
    """Allow the optimized model if it is faster here and agrees on a first batch."""
    set: tuple[str, ...] = ()
    """Options of one model, as MODEL.option=value, such as cells.threshold=0.3; see vitrail predict MODEL --help."""
    queue: int = 4
    """Most waiting inputs of a model, in batches."""
    wait: float = 1.0
    """Most seconds of work ahead of an input, by the measured speed; one batch may always wait."""
    timeout: float = 30.0
    """Seconds of a request: body, queue and compute."""
    drain: float = 30.0
    """Seconds that accepted requests get after SIGTERM."""
    body: int = 20_000_000
    """Most bytes of a request."""
    pixels: int = 25_000_000
    """Most pixels of an image."""
    runs: Path | None = None
    """Folder of runs whose reports the web page shows."""
    quiet: bool = False
    """Log no line per request."""

    @staticmethod
    def is_value(word: str) -> bool:
        """Return whether a word is a model, `NAME=SOURCE`, and not a flag with a typing mistake."""
        name, _, source = word.partition("=")
        return Path(source).exists() or ("/" in source and not nearest(name, (field.name for field in fields(Serve))))

    def run(self) -> int:
        """Serve until a signal ends it; 0 if every accepted request was answered, else 143."""
        _require()
        from vitrail.serving.access import access_rules
        from vitrail.serving.logs import log_to_stderr
        from vitrail.serving.server import fit_open_files, limits_from, listen, make_server, run_server
        from vitrail.serving.service import Service
        from vitrail.serving.startup import name_sources, open_models, split_settings

        names = ("queue", "wait", "timeout", "drain", "body", "pixels")
        limits = fit_open_files(limits_from(**{name: getattr(self, name) for name in names}))
        sources = name_sources(self.models)
        rules = access_rules(self.host, self.token or os.environ.get(TOKEN) or None, limits, sessions := set())
        settings = {
            "common": {"batch": self.batch, "precision": self.precision, "optimize": self.optimize},
            "own": split_settings(self.set, [source.name for source in sources]),
        }
        self._check()
        log_to_stderr(quiet=self.quiet)
        sys.setswitchinterval(1e-3)  # threads that decode and compute must not delay the event loop by 5 ms each
        with listen(self.host, self.port) as listening:
            models = open_models(sources, self.weights, self.device, settings, limits)
            service = Service(models, limits, self.window / 1e3)
            service.runs, service.sessions = self.runs, sessions
            host, port = listening.getsockname()[:2]
            place = f"http://{f'[{host}]' if ':' in host else host}:{port}"
            server = make_server(service, rules, lambda: print(f"ready: {place}", file=sys.stderr, flush=True))
            return 143 if run_server(server, listening) else 0

    def _check(self) -> None:
        if self.batch < 1:
            raise VitrailError(f"batch is {self.batch}; it must be at least 1.")
        if not 0 <= self.window <= _LONGEST_WINDOW:
            raise VitrailError(f"window is {self.window}; it must be between 0 and {_LONGEST_WINDOW} milliseconds.")
        if self.runs is not None and not self.runs.is_dir():
            raise VitrailError(f"--runs {self.runs} is no folder. Give the folder of your runs, such as runs.")


def _require() -> None:
    from importlib.util import find_spec

    missing = [name for name in ("fastapi", "uvicorn", "python_multipart", "prometheus_client") if not find_spec(name)]
    if missing:
        raise VitrailError(
            f"vitrail serve needs {', '.join(missing)}: pip install {' '.join(missing).replace('_', '-')}"
        )
