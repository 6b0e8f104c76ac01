"""Access to the model inside MMEngine's distributed wrappers."""

from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn


def unwrapped(runner: Runner) -> nn.Module:
    """The runner's model without its distributed wrapper (DDP, FSDP), if it has one."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model
