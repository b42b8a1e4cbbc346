"""The module that DDP and FSDP wrap."""

from typing import Any

import torch
from torch import Tensor, nn

from vitrail.tasks.task import TaskBatch, TrainingTask


class TrainingWrapper(nn.Module):
    """The model of a task with the task's forward pass.

    Args:
        task: the task to train.
    """

    def __init__(self, task: TrainingTask):
        super().__init__()
        self.model = task.model
        self.companions: nn.Module | None = getattr(task, "companions", None)  # trained with it, no part of the model
        self._forward = task.forward
        self._regularised: list[Any] = [part for part in task.model.modules() if hasattr(part, "auxiliary_loss")]

    def forward(self, batch: TaskBatch) -> tuple[Any, Tensor | None]:
        """Return the outputs of a batch, and in training the sum of the auxiliary losses; None if there are none.

        A module has one if it has a method `auxiliary_loss()`, such as the balance losses of experts.
        """
        outputs = self._forward(self.model, batch)
        losses = [module.auxiliary_loss() for module in self._regularised if module.training]
        return outputs, torch.stack(losses).sum() if losses else None
