"""What a pruning run is asked for, and what it made."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..evaluation.test_set import TestSet
from ..methods.pruners import Plan
from ..structure.prune_state import PruneState
from .run_report import RunReport


@dataclass
class PruneOptions:
    """What a run is asked for beside the config.

    Attributes:
        checkpoint: File to prune; None: freshly initialised weights.
        output_dir: Where results go, a string or a path; it is made if it isn't there.
        dry_run: Plan and report only; write nothing but ``save_table``.
        save_table: Where to save the scores.
        from_table: Where to read them instead of computing them.
        resume: Go on with what a killed run left in ``output_dir``.
    """

    checkpoint: str | None
    output_dir: Path
    dry_run: bool = False
    save_table: str | None = None
    from_table: str | None = None
    resume: bool = False

    def __post_init__(self):
        self.output_dir = Path(self.output_dir)


@dataclass
class SearchResult:
    """What a search for a ratio has found.

    Attributes:
        ratio: The fraction to remove.
        report: What ``report.json`` says of it under ``search``.
        metrics: Metrics of the stages ``dense`` and ``pruned``, where all test data was evaluated.
        test_set: That data.
    """

    ratio: float
    report: dict[str, Any]
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    test_set: TestSet | None = None


@dataclass
class PruneResult:
    """What a run made.

    Attributes:
        report: What ``report.json`` holds.
        structured: Path of the slim checkpoint, if one was written.
        weight_level: Path of the weight-level pruned one.
        test_set: The test data, for evaluating again after training.
        plan: What was decided.
        prior_state: Prune state of the model given, if it was slim already.
        explorer: What the report's page plans other ratios with.
    """

    report: RunReport
    structured: Path | None = None
    weight_level: Path | None = None
    test_set: TestSet | None = None
    plan: Plan | None = field(default=None, repr=False)
    prior_state: PruneState | None = field(default=None, repr=False)
    explorer: dict[str, Any] | None = field(default=None, repr=False)

    def add(self, path: Path) -> None:
        """Note a checkpoint that was written."""
        if path.name.endswith('_structured_pruned.pth'):
            self.structured = path
        else:
            self.weight_level = path

    def trained(self, which: str | None = None) -> Path:
        """The checkpoint that recovery trains.

        Args:
            which: ``'structured'`` or ``'unstructured'``; None: the structured one if there is one.

        Raises:
            RuntimeError: the run has written no such checkpoint.
        """
        first = None if which == 'unstructured' else self.structured
        found = first or self.weight_level
        if found is None:
            raise RuntimeError(f'the run wrote no {which or "pruned"} checkpoint')
        return found
