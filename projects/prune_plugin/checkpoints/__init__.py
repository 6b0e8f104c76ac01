"""Checkpoints: reading, checking, writing; the slim models that they describe; other programs' formats."""
