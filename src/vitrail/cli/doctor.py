"""`vitrail doctor`: system information and diagnostics."""

import json
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

    def run(self) -> int:
        """Detect, measure, print."""
        from vitrail.machine.diagnostics import problems
        from vitrail.machine.kernels import kernel_table
        from vitrail.machine.matmul_peak import matmul_rates
        from vitrail.machine.system_info import look

        facts = look()
        facts["kernels"] = kernel_table()
        facts["speed"] = matmul_rates() if self.speed else {}
        facts["problems"] = [problem._asdict() for problem in problems(facts)]
        if self.json:
            print(json.dumps(facts, indent=2))
        else:
            _print(facts)
        return 0


def _print(facts: dict[str, Any]) -> None:
    for title, lines in _sections(facts):
        print(f"{title:<14}{lines[0] if lines else 'none'}")
        for line in lines[1:]:
            print(f"{'':<14}{line}")
    print("\nkernels")
    columns = ["kernel", "device", "precision", "backend", "says"]
    print_table(columns, [[row[name] for name in columns] for row in facts["kernels"]])
    print()
    for problem in facts["problems"]:
        print(f"problem: {problem['what']}\n   cure: {problem['cure']}")
    if not facts["problems"]:
        print("No problems found.")


def _sections(facts: dict[str, Any]) -> list[tuple[str, list[str]]]:
    cpu, memory = facts["processor"], facts["memory"]
    return [
        ("system", [facts["system"]]),
        ("versions", [f"{name} {version}" for name, version in facts["versions"].items()]),
        ("processor", [cpu["name"], f"{cpu['cores']} cores, {cpu['usable_cores']:g} usable, {cpu['threads']} threads"]),
        ("instructions", [" ".join(cpu["instructions"]) or "none known", f"torch uses {cpu['torch_capability']}"]),
        ("memory", [f"{memory['available'] / _GIB:.1f} GiB free of {memory['total'] / _GIB:.1f} GiB"]),
        ("GPU", [f"{gpu['name']}, {gpu['memory'] / _GIB:.1f} GiB" for gpu in facts["gpus"]]),
        ("compiler", [facts["compiler"]] if facts["compiler"] else []),
        ("disk", [f"{disk['free'] / _GIB:.1f} GiB free for {disk['what']}: {disk['path']}" for disk in facts["disks"]]),
        ("extras", [_extra(name, packages) for name, packages in facts["extras"].items()]),
        ("speed", [f"{what}: {rate:,.0f} Gflop/s" for what, rate in facts["speed"].items()] or ["not measured"]),
    ]


def _extra(name: str, packages: dict[str, str | None]) -> str:
    missing = [package for package, version in packages.items() if version is None]
    have = ", ".join(f"{package} {version}" for package, version in packages.items() if version)
    return f"{name}: pip install 'vitrail[{name}]' adds {', '.join(missing)}" if missing else f"{name}: {have}"
