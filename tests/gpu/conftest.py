"""Models small enough to run on the pretended GPU."""

import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
# The tiny VAD and its truths lie with the tests of that family.
sys.path[:0] = [str(TESTS / 'vad'), str(TESTS / 'vad/models')]
