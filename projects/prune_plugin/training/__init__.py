"""Training pruned models with MMEngine's Runner: settings, hooks, loops, adapters, sharding."""

from . import bf16_optim_wrapper, hooks, loops, lr_schedulers
from .lora import adapters
from .sharding import runner
