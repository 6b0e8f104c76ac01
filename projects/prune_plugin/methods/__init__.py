"""The methods of pruning, one folder per key of prune_cfg."""
