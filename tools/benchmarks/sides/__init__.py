"""What tools/benchmarks/side_by_side.py compares: models, and ways to prune them."""
