"""Benchmarks are started as files, so their folder comes first on the path: no name may hide a package."""

import importlib.metadata
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parents[2] / 'tools' / 'benchmarks'


def test_no_benchmark_is_called_like_a_package():
    names = {path.stem for path in BENCHMARKS.iterdir() if path.suffix == '.py' or path.is_dir()}
    packages = set(importlib.metadata.packages_distributions()) | set(sys.stdlib_module_names)
    assert len(names) > 20 and not names & packages
