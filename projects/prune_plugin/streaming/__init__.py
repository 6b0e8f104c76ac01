"""Models larger than the machine: their blocks are read, pruned and written one after the other."""
