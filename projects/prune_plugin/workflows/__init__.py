"""What the tools do: prune, train, evaluate, search, compare, report."""

from . import iterative_prune, prune_runner
