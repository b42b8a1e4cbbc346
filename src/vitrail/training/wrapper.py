"""The module that DDP and FSDP wrap."""

from typing import Any

from torch import nn

from vitrail.tasks.task import TrainingTask


class TrainingWrapper(nn.Module):
    """The model of a task with the task's forward pass.

    Args:
        task: the task to train.
    """

    def __init__(self, task: TrainingTask):
        super().__init__()
        self.model = task.model
        self._forward = task.forward

    def forward(self, batch: Any) -> Any:
        """Return the outputs of a batch."""
        return self._forward(self.model, batch)
