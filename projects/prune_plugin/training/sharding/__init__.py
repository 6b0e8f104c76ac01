"""Models whose parameters are divided among ranks."""
