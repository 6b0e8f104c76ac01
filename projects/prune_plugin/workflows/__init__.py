"""What the tools do: prune, train, evaluate, search, compare, report."""

from . import prune_runner
from .iterate import train_loop
