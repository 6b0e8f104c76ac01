"""The wheel beside torch and MMEngine alone."""

from pathlib import Path

import bare_environment


def test_prunes_plain_models_without_anything_else(bare_python, installed, tmp_path):
    """Without matplotlib, too: MMEngine asks for it, but only its Runner needs it."""
    python = bare_python('matplotlib')
    script = Path(__file__).parent / 'bare_check.py'
    bare_environment.run(python, script, installed, tmp_path, path=[installed], cwd=tmp_path)
