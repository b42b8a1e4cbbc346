"""Warnings while training: signs of a rate or initial weights that are too large, and of learning nothing."""

from collections.abc import Mapping
from dataclasses import dataclass, field

FAR = 3.0  # first loss over that of guessing
CLIPPED, MANY = 20.0, 50  # norm of the gradient over the limit, and updates in a row
EARLY = 0.3  # share of the run after which a validation should beat the baseline


@dataclass
class TrainingWatch:
    """Watches a run; each warning is given once.

    Args:
        chance: loss of guessing, or None if the task has none.
        baseline: values that the metrics reach without learning, such as always naming the most frequent class; a
            validation sets those of its own samples.
        clip: largest norm of the gradient; 0 does not clip.

    Example:
        >>> watch = TrainingWatch(chance=0.69, baseline={"top1": 0.5}, clip=1.0)
        >>> watch.step(1, 0.7, 2.0), watch.validation({"top1": 0.9}, 0.5)
        (None, None)
    """

    chance: float | None = None
    baseline: Mapping[str, float] = field(default_factory=dict)
    clip: float = 0.0
    _row: int = 0
    _told: set[str] = field(default_factory=set)

    def step(self, step: int, loss: float, norm: float) -> str | None:
        """Return a warning about an update, if there is one."""
        if step == 1 and self.chance is not None and loss > FAR * self.chance:
            return (
                f"warning: the first loss is {loss:.2f}, and guessing has {self.chance:.2f}: the weights of the head "
                "are large, or the data is not normalised as the model expects."
            )
        self._row = self._row + 1 if self.clip and norm > CLIPPED * self.clip else 0
        if self._row == MANY and "clip" not in self._told:
            self._told.add("clip")
            return (
                f"warning: the gradient was clipped by more than {CLIPPED:g} times in {MANY} updates: try a lower "
                "--lr, a longer --warmup, or a larger --clip-grad."
            )
        return None

    def validation(self, metrics: Mapping[str, float], share: float) -> str | None:
        """Return a warning about a validation at a share of the run, if it does not beat the baseline."""
        for name, value in self.baseline.items():
            if share >= EARLY and metrics.get(name, 1.0) <= value and name not in self._told:
                self._told.add(name)
                return (
                    f"warning: the validation {name} of {metrics[name]:.3f} is not above {value:.3f}, which is reached "
                    "without learning. Look at the labels (vitrail data check) and the learning rate; start from "
                    "weights."
                )
        return None
