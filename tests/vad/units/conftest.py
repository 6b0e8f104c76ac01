"""Puts the matrix of invariants and VAD's loss samples within reach."""

import sys
from pathlib import Path

TESTS = Path(__file__).parents[2]
sys.path[:0] = [str(TESTS / 'prune_plugin'), str(TESTS / 'vad' / 'models')]
