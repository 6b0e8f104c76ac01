"""Mixed precision where there is no GPU."""

from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from mmengine.runner.amp import autocast


@OPTIM_WRAPPERS.register_module()
class Bf16OptimWrapper(OptimWrapper):
    """Runs the forward pass in bfloat16 on any device; no loss scaling is needed.

    MMEngine's ``AmpOptimWrapper`` insists on a GPU.
    """

    @contextmanager
    def optim_context(self, model):
        """Autocast inside MMEngine's own context."""
        with super().optim_context(model), autocast(dtype=torch.bfloat16):
            yield
