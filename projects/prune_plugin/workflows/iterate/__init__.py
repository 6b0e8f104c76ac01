"""Iterative pruning: prune, train, and again. One machine; lottery tickets are settings of it."""
