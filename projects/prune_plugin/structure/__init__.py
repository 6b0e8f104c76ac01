"""Unit groups of a model, the prune state (which units are kept), slimming and masking."""

from . import units
