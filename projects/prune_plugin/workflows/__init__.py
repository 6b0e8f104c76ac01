"""What the tools do: prune, train, evaluate, search, compare, report."""
