"""Training a pruned model under MMEngine's Runner: settings, hooks, loops, adapters, sharding."""
