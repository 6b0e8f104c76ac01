"""Mixed precision in bfloat16, also on CPUs."""

from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from mmengine.runner.amp import autocast


@OPTIM_WRAPPERS.register_module()
class Bf16OptimWrapper(OptimWrapper):
    """Runs the forward pass under bfloat16 autocast on any device; no loss scaling is needed.

    MMEngine's ``AmpOptimWrapper`` requires a GPU.
    """

    @contextmanager
    def optim_context(self, model):
        """Adds autocast to MMEngine's context."""
        with super().optim_context(model), autocast(dtype=torch.bfloat16):
            yield
