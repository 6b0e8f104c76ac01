"""Evaluations that an earlier run with the same fingerprint has left, so that they aren't made again."""

import json
from pathlib import Path

from .run_fingerprint import RunFingerprint


def cached_results(
    path: Path, fingerprint: RunFingerprint, key: str = 'metrics'
) -> dict[str, dict]:
    """Rows that an earlier run with the same fingerprint has measured, by digest; ``''`` is dense.

    Args:
        path: A JSON file with ``settings``, ``dense`` and ``rows``; it may be missing.
        fingerprint: Of this run.
        key: What is None in a row that hasn't been measured.
    """
    try:
        report = json.loads(path.read_text(encoding='utf-8'))
        if not fingerprint.matches(report['settings']) or not report['dense']:
            return {}
        done = {row['digest']: row for row in report['rows'] if row[key] is not None}
        return {'': report['dense'], **done}
    except (OSError, ValueError, KeyError, TypeError):  # none yet, or a file of another program
        return {}
