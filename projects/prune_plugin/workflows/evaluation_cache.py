"""Evaluations that an earlier run with the same settings has left, so that they aren't made again."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ..common.version import __version__


def settings_of(
    cfg: Config, checkpoint: str | None, num_samples: int | None, *more: Any
) -> dict[str, Any]:
    """What an evaluation depends on beside what is pruned: model, weights, data and metrics.

    Args:
        cfg: The config; its ``prune_cfg`` and ``work_dir`` don't count.
        checkpoint: The model's weights; their file counts by name, size and time.
        num_samples: Samples to evaluate on; None: all.
        more: Plain data that counts too.
    """
    model = {k: v for k, v in cfg.to_dict().items() if k not in ('prune_cfg', 'work_dir')}
    text = json.dumps([model, *more], sort_keys=True, default=str)
    weights = None
    if checkpoint:
        file = os.stat(checkpoint)
        weights = [os.path.abspath(checkpoint), file.st_size, file.st_mtime_ns]
    return {
        'config': hashlib.sha256(text.encode()).hexdigest(),
        'checkpoint': weights,
        'samples': num_samples,
        'version': __version__,
    }


def cached_results(path: Path, settings: Mapping[str, Any]) -> dict[str, dict]:
    """Rows that an earlier run with the same settings has evaluated, by digest; ``''`` is dense.

    Args:
        path: A JSON file with ``settings``, ``dense`` and ``rows``; it may be missing.
        settings: From :func:`settings_of`.
    """
    try:
        report = json.loads(path.read_text(encoding='utf-8'))
        if report['settings'] != settings or not report['dense']:
            return {}
        done = {row['digest']: row for row in report['rows'] if row['metrics'] is not None}
        return {'': report['dense'], **done}
    except (OSError, ValueError, KeyError, TypeError):  # none yet, or a file of another program
        return {}
