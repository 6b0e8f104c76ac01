"""What a model is made of, and what of it stays: units, prune states, slimming and masking."""

from . import units
