"""`vitrail doctor`: system information and diagnostics."""

import json
import sys
from dataclasses import dataclass
from typing import Any

from vitrail.cli.table import print_table

EXAMPLES = """
vitrail doctor
vitrail doctor --no-speed           # skip the measurement
vitrail doctor --json > env.json    # to attach to a report
"""

_GIB = 1 << 30


@dataclass(frozen=True)
class Doctor:
    """Show the capabilities of this machine: cores, instruction sets, memory, GPUs, compiler, disks, kernels, speed.

    Ends with the problems found and their cures. The exit code is 0 either way: a problem is advice.
    """

    json: bool = False
    """Print JSON instead of text."""
    speed: bool = True
    """Measure the rate of matrix products, about a second."""
    all: bool = False
    """Print every backend of every kernel, with the reason if it cannot run."""

    def run(self) -> int:
        """Detect, measure, print."""
        from vitrail.machine.diagnostics import problems
        from vitrail.machine.kernels import kernel_table
        from vitrail.machine.matmul_peak import matmul_rates
        from vitrail.machine.system_info import look

        facts = look()
        if not self.json:
            _print_sections(_sections(facts))
            print("\nlooking at the kernels (native code is compiled once)", file=sys.stderr, flush=True)
        facts["kernels"] = kernel_table()
        if not self.json:
            _print_kernels(facts["kernels"], self.all)
        facts["speed"] = matmul_rates() if self.speed else {}
        facts["problems"] = [problem._asdict() for problem in problems(facts)]
        if self.json:
            print(json.dumps(facts, indent=2))
        else:
            _print_sections([_speed(facts)])
            _print_problems(facts["problems"])
        return 0


def _print_sections(sections: list[tuple[str, list[str]]]) -> None:
    for title, lines in sections:
        print(f"{title:<14}{lines[0] if lines else 'none'}", flush=True)
        for line in lines[1:]:
            print(f"{'':<14}{line}", flush=True)


def _print_kernels(rows: list[dict[str, str]], every: bool) -> None:
    """Print one line a kernel: its backend by precision; or one a backend, with its reason."""
    print("kernels")
    if every:
        columns = ["kernel", "device", "precision", "backend", "says"]
        print_table(columns, [[row[name] for name in columns] for row in rows])
        return
    precisions = list(dict.fromkeys(row["precision"] for row in rows))
    running = {
        (row["kernel"], row["device"], row["precision"]): row["backend"] for row in rows if row["says"] == "runs"
    }
    kernels = dict.fromkeys((row["kernel"], row["device"]) for row in rows)
    lines = [[*key, *(running.get((*key, precision), "none") for precision in precisions)] for key in kernels]
    print_table(["kernel", "device", *precisions], lines)
    print("Every backend, and why it cannot run: vitrail doctor --all\n")


def _print_problems(problems: list[dict[str, str]]) -> None:
    print()
    for problem in problems:
        print(f"problem: {problem['what']}\n   cure: {problem['cure']}")
    if not problems:
        print("No problems found.")


def _sections(facts: dict[str, Any]) -> list[tuple[str, list[str]]]:
    cpu, memory = facts["processor"], facts["memory"]
    return [
        ("system", [facts["system"]]),
        ("versions", [f"{name} {version}" for name, version in facts["versions"].items()]),
        (
            "processor",
            [cpu["name"], f"{cpu['cores']} cores, {cpu['usable_cores']:g} usable, threads: {cpu['threads']}"],
        ),
        ("instructions", [" ".join(cpu["instructions"]) or "none known", f"torch uses {cpu['torch_capability']}"]),
        ("memory", [f"{memory['available'] / _GIB:.1f} GiB free of {memory['total'] / _GIB:.1f} GiB"]),
        ("GPU", [f"{gpu['name']}, {gpu['memory'] / _GIB:.1f} GiB" for gpu in facts["gpus"]]),
        ("compiler", [facts["compiler"]] if facts["compiler"] else []),
        ("disk", [f"{disk['free'] / _GIB:.1f} GiB free for {disk['what']}: {disk['path']}" for disk in facts["disks"]]),
        ("extras", [_extra(name, packages) for name, packages in facts["extras"].items()]),
    ]


def _speed(facts: dict[str, Any]) -> tuple[str, list[str]]:
    rates = [f"{what}: {rate:,.0f} Gflop/s" for what, rate in facts["speed"].items()]
    return "speed", rates or ["not measured"]


def _extra(name: str, packages: dict[str, str | None]) -> str:
    missing = [package for package, version in packages.items() if version is None]
    have = ", ".join(f"{package} {version}" for package, version in packages.items() if version)
    return f"{name}: not installed; pip install {' '.join(missing)}" if missing else f"{name}: {have}"
