"""`vitrail study`: questions about architectures, answered by an experiment on this machine."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from shlex import join
from typing import Any

import tyro

from vitrail.cli.table import print_table
from vitrail.errors import VitrailError

EXAMPLES = """
vitrail study                                        # the questions
vitrail study windows --out runs/studies/windows     # one, with its page; stopped and started at will
vitrail study positions --seeds 5 --minutes 20
vitrail study mixers --steps 600 --minutes 60        # train four times as long
vitrail study mixers --data photos --seeds 5         # on your own images
vitrail study attention --model vit_tiny_patch16_224 --weights vit_tiny.pt --data photos
"""


@dataclass(frozen=True)
class Study:
    """Answer a question by an experiment: conditions, paired seeds, intervals, and a verdict in one sentence.

    Without a name, list the questions. Finished cells are kept: after a stop, a kill or the end of --minutes the same
    command goes on. The verdict is computed from the intervals and ranks nothing that they do not separate. --out
    receives index.html (works offline), answer.json and cells.jsonl.
    """

    name: tyro.conf.Positional[str | None] = None
    """Name of the study; the list by default."""
    seeds: int = 3
    """Seeds of each condition; intervals need at least 2, and shrink quickly up to about 5."""
    minutes: float = 10.0
    """Time after which no further cell starts."""
    out: Path | None = None
    """Output folder; runs/studies/NAME by default."""
    data: str = "digits"
    """digits, or data of your own as for `vitrail train`."""
    model: str | None = None
    """Model to examine, for studies of given weights: a model folder, or a name in the catalogue with --weights."""
    weights: str | None = None
    """Checkpoint of that name."""
    steps: int | None = None
    """Updates of each training, if the study trains models; 100 to 150 by default."""
    set: tuple[str, ...] = ()
    """Choices of a study as name=value, such as --set budget=latency of mixers."""
    quick: bool = False
    """Sizes of seconds, to try the command; the verdict then means nothing."""
    json: bool = False
    """Print JSON instead of text."""

    def run(self) -> int:
        """List the studies, or run one."""
        from vitrail.study import STUDIES, find_study

        if self.name is None:
            print_table(("study", "question"), list(STUDIES.items()))
            print("\nvitrail study NAME runs one and writes a page.")
            return 0
        if self.weights is not None and self.model is None:
            raise VitrailError("--weights is the checkpoint of a --model; give its name in the catalogue too.")
        return self._answer(find_study(self.name))

    def _answer(self, plan: Any) -> int:
        from vitrail.study.plan import StudyOptions
        from vitrail.study.run import run_study, to_dict

        chosen = tuple(_pair(word) for word in self.set)
        options = StudyOptions(
            self.seeds, self.minutes, self.quick, self.data, self.model, self.weights, chosen, self.steps
        )
        folder = self.out or Path("runs") / "studies" / plan.name
        command = join(["vitrail", *sys.argv[1:]])
        answer = run_study(plan, options, folder, command, on_message=lambda line: print(line, file=sys.stderr))
        if self.json:
            print(json.dumps(to_dict(answer, options), indent=2))
            return 0
        for table in answer.conclusion.tables:
            print(f"\n{table.title}")
            print_table(table.columns, table.rows, right=table.right)
        print(f"\nquestion      {plan.question}")
        print(f"verdict       {answer.conclusion.verdict}")
        print(f"would change  {answer.conclusion.changes}")
        print(f"cells         {answer.done} of {answer.total}, {answer.seconds:.0f} s")
        print(f"page          {answer.page}")
        return 0


def _pair(word: str) -> tuple[str, str]:
    """Split name=value.

    Example:
        >>> _pair("budget=latency")
        ('budget', 'latency')
    """
    name, equals, value = word.partition("=")
    if not equals:
        raise VitrailError(f"--set takes name=value, such as budget=latency; got '{word}'.")
    return name, value
