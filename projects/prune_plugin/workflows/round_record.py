"""The record of an iterative pruning, from which a killed run resumes."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..common.errors import UserError
from ..common.json_csv import write_json
from ..methods.pruners.selection import totals_by_kind
from .run_fingerprint import RunFingerprint

Metrics = dict[str, float] | None
#: What parts of a run's key are called in messages, where that is another word.
LABELS = {'rounds': 'ratio or schedule'}


@dataclass
class Row:
    """One round.

    Attributes:
        round: Its number; 0 trains the dense model.
        ratio: The fraction removed that was asked for.
        sparsity: The fraction of weights or units removed.
        after_prune: Metrics after its pruning; None: not evaluated then.
        after_training: Metrics after its training, units scheduled for removal really removed; None without
            test data or training.
        checkpoint: What the next round starts from, relative to the run's folder.
        complete: Whether the round is finished.
        before_removal: Metrics after its training, before units scheduled for removal were removed.
        groups: Of each unit group or weight its kind, how many are kept, and of how many.
        params: Parameters of the slim model.
        flops: FLOPs of the slim model for one sample.
    """

    round: int
    ratio: float
    sparsity: float
    after_prune: Metrics = None
    after_training: Metrics = None
    checkpoint: str = ''
    complete: bool = False
    before_removal: Metrics = None
    groups: dict[str, list[Any]] = field(default_factory=dict)
    params: int | None = None
    flops: int | None = None

    @property
    def kept(self) -> dict[str, tuple[int, int]]:
        """By kind: how many are kept, and of how many."""
        return totals_by_kind(self.groups.values())


@dataclass
class Record:
    """All rounds so far.

    Attributes:
        key: Identifies the run; a run with another key can't resume from it.
        planned: How many rounds there are to be.
        dense: Metrics of the model that was pruned first.
        headline: The metrics to look at, each with its better direction.
        rows: One per round that has begun.
    """

    key: dict[str, Any]
    planned: int
    dense: Metrics = None
    headline: dict[str, str] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> 'Record':
        """The inverse of ``dataclasses.asdict``."""
        rows = [Row(**row) for row in data['rows']]
        return cls(**{**data, 'rows': rows})

    def check_key(self, key: RunFingerprint, what: str) -> None:
        """Raise :class:`UserError` unless this is the record of a run with the same key.

        Args:
            key: Key of this run.
            what: How to call the record's source in the message.
        """
        for name in key.differing(self.key):
            raise UserError(
                f'{what} is of a run with another {LABELS.get(name, name)}; resume with the one it '
                'had, or leave --resume out to begin anew'
            )

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        write_json(asdict(self), path)

    @classmethod
    def load(cls, path: Path, key: RunFingerprint) -> 'Record':
        """Read it.

        Args:
            path: The file.
            key: Key of this run.

        Raises:
            UserError: the file is damaged or belongs to another run.
        """
        try:
            record = cls.from_dict(json.loads(path.read_text(encoding='utf-8')))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f'--resume: {path} cannot be read as a history: {error}') from error
        record.check_key(key, f'--resume: {path}')
        return record

    def recovered(self, row: Row, metric: str) -> float | None:
        """How much better a metric is after a round's training, as a fraction of its value before.

        Returns:
            0.117 for a perplexity that goes from 32.45 down to 28.67; None where the value before is 0
            or unknown.
        """
        before, after = ((m or {}).get(metric) for m in (row.after_prune, row.after_training))
        if not before or after is None:
            return None
        gain = after - before if self.headline[metric] == 'max' else before - after
        return gain / abs(before)
