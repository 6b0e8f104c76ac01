"""Utilities of all other packages: errors, validation, files, ranks, registries. Imports none of them."""
