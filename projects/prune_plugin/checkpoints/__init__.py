"""Checkpoints: reading, validation, writing, building the slim model they describe, and export."""
