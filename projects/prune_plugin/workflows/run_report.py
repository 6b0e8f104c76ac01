"""The report of a pruning run: what ``report.json`` holds, as a record.

A field is a key of the file; ``docs/report.md`` says the same for its readers.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from ..methods.budgets import BudgetResult
from ..methods.pruners.selection import totals_by_kind
from .round_record import Record, Row


def known(cls: type, data: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of ``data`` that are fields of a dataclass: files of other versions have others."""
    return {entry.name: data[entry.name] for entry in fields(cls) if entry.name in data}


@dataclass
class Stage:
    """A model on its way from dense to recovered.

    Attributes:
        params: Number of parameters, tied ones counted once.
        flops: FLOPs of one sample, two per multiply-accumulate; None where there was no example input.
        latency_ms: Milliseconds of one batch; None where it wasn't timed.
        metrics: Metrics on the test data; None without any.
    """

    params: int | None = None
    flops: int | None = None
    latency_ms: float | None = None
    metrics: dict[str, float] | None = None

    @property
    def size(self) -> dict[str, Any]:
        """Parameters, FLOPs and latency, as for another stage of the same shapes."""
        return {'params': self.params, 'flops': self.flops, 'latency_ms': self.latency_ms}


@dataclass
class MaskedStage(Stage):
    """The weight-level pruned model before its training.

    Attributes:
        zeros: Fraction of zeros in the tensors that have masks.
    """

    zeros: float | None = None


@dataclass
class RecoveredStage(Stage):
    """A pruned model after training.

    Attributes:
        mode: How it was trained, ``'fine_tune'`` or ``'retrain'``.
        epochs: Epochs trained, those of all rounds together.
        checkpoint: Path of the trained checkpoint.
        trained: Which pruned model it was, ``'structured'`` or ``'unstructured'``.
        zeros: Fraction of zeros in the tensors that have masks; None of a structured model.
    """

    mode: str = ''
    epochs: int = 0
    checkpoint: str = ''
    trained: str = 'structured'
    zeros: float | None = None


@dataclass
class GroupRow:
    """A unit group.

    Attributes:
        name: The group's name.
        kind: Kind of unit, such as ``'attention'``.
        layer_idx: Number of the layer.
        size: Units of the model as given.
        kept: Units that are left.
    """

    name: str
    kind: str
    layer_idx: int
    size: int
    kept: int


@dataclass
class WeightRow:
    """A weight of ``<name>_pruned.pth``.

    Attributes:
        name: The parameter's name.
        shape: Its shape.
        size: Number of elements.
        zeros: How many of them are zero.
    """

    name: str
    shape: list[int]
    size: int
    zeros: int


@dataclass
class MemoryRow:
    """GiB that the fullest rank holds in training, without activations.

    Attributes:
        model: ``'dense'`` or ``'pruned'``.
        strategy: ``'DDP'`` or ``'FSDP2'``.
        ranks: Number of ranks.
        weights: GiB of the weights.
        gradients: GiB of their gradients.
        adamw: GiB of the two moments of AdamW.
        total: Their sum.
    """

    model: str
    strategy: str
    ranks: int
    weights: float
    gradients: float
    adamw: float
    total: float


@dataclass
class StreamedRun:
    """What a run block by block took, or in a plan by shapes alone an estimate of it.

    Attributes:
        blocks: Number of blocks.
        bytes_read: Bytes of weights read from files, by the last sitting of a resumed run.
        bytes_written: Bytes of weights written, likewise.
        peak_memory: Most bytes of resident memory of the process; in a plan of private memory.
        estimated_memory: What was estimated for it before the run.
        disk: Most bytes of files that the run has at once, by the estimate: weights and hidden states.
    """

    blocks: int
    bytes_read: int
    bytes_written: int
    peak_memory: int | None
    estimated_memory: int
    disk: int


#: Stages in the order of their columns; a report has some of them.
STAGES = ('dense', 'pruned', 'masked', 'recovered')
#: Keys that only some runs have: without a value they are not in the file.
OPTIONAL = ('masked', 'recovered', 'rounds', 'search', 'scores', 'memory', 'budget', 'streamed')


@dataclass
class RunReport:
    """The content of ``report.json``.

    Attributes:
        asked: What was asked: ``budget``, the budget's quantity, and ``ratio``, the fraction to remove.
        dense: The model as given, even if that was slim.
        pruned: What pruning left of it.
        masked: With ``--train unstructured``, ``<name>_pruned.pth`` before its training. Then ``pruned``
            still is the slim model, which isn't trained.
        recovered: The trained model, if there was a training.
        rounds: The rounds of iterative pruning. Then ``pruned`` is the last round before its training.
        achieved: Fractions removed by quantity: of ``params``, ``flops`` and ``latency`` as counted and
            timed, of the budget's quantity by its own cost where it is none of these; ``zeros``: the
            fraction of zeros among the weights of ``<name>_pruned.pth``.
        budget: What came of the budget by its own cost; of a latency budget that is a prediction, unless
            its engine isn't PyTorch: then it is measured in that engine.
        search: What was looked for and found with a budget of type ``metric``.
        headline: The metrics worth looking at first, each with its better direction, ``max`` or ``min``.
        groups: The unit groups.
        weights: The weights that have masks, each with its zeros.
        removed_layers: Names of the layers, attentions and MLPs removed as a whole.
        not_prunable: Why modules can't be cut, by name.
        not_prunable_share: The share of the parameters in such modules.
        proofs: How each unit group was found, by the name of its class or by what it computes, and whether
            it was tried on a copy, by name.
        uncovered: Why no unit owns anything of these modules, by name: no finder knows them, or their
            widths are shared.
        uncovered_share: The share of the parameters in such modules.
        seconds: Seconds of ``load``, ``discover``, ``calibrate``, ``score``, ``allocate``, ``slim``,
            ``save``, ``evaluate``, ``profile``, ``compensate``, ``recalibrate``; of ``search`` that of all
            its trials; of a WeightPruner ``sparsify``, and in rounds ``train``.
        config: Path of the config.
        checkpoint: Path of the checkpoint that was pruned; None: the weights that the config builds.
        prune_cfg: The ``prune_cfg`` that was pruned by, with the ratio that was pruned at.
        command: The command line.
        scores: Where scores come from, in a plan by shapes alone.
        memory: What each rank would hold in training, in a plan by shapes alone.
        streamed: What a run with ``execution.mode='streamed'`` read and wrote.
        notes: What the figures mean, by key.
        environment: Versions and devices behind the figures.
    """

    asked: dict[str, Any] = field(default_factory=dict)
    dense: Stage = field(default_factory=Stage)
    pruned: Stage = field(default_factory=Stage)
    masked: MaskedStage | None = None
    recovered: RecoveredStage | None = None
    rounds: list[Row] | None = None
    achieved: dict[str, float | None] = field(default_factory=dict)
    budget: BudgetResult | None = None
    search: dict[str, Any] | None = None
    headline: dict[str, str] = field(default_factory=dict)
    groups: list[GroupRow] = field(default_factory=list)
    weights: list[WeightRow] = field(default_factory=list)
    removed_layers: list[str] = field(default_factory=list)
    not_prunable: dict[str, str] = field(default_factory=dict)
    not_prunable_share: float | None = None
    proofs: dict[str, str] = field(default_factory=dict)
    uncovered: dict[str, str] = field(default_factory=dict)
    uncovered_share: float | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    config: str | None = None
    checkpoint: str | None = None
    prune_cfg: dict[str, Any] | None = None
    command: list[str] = field(default_factory=list)
    scores: str | None = None
    memory: list[MemoryRow] | None = None
    streamed: StreamedRun | None = None
    notes: dict[str, str] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)

    def record(self) -> Record:
        """The rounds of iterative pruning."""
        rows = self.rounds or []
        return Record({}, len(rows), self.dense.metrics, self.headline, rows)

    def stages(self) -> dict[str, Stage]:
        """The stages that this report has, dense first."""
        found = (self.dense, self.pruned, self.masked, self.recovered)
        return {name: stage for name, stage in zip(STAGES, found, strict=True) if stage is not None}

    def to_dict(self) -> dict[str, Any]:
        """As in ``report.json``."""
        data = asdict(self)
        return {key: data[key] for key in data if key not in OPTIONAL or data[key] is not None}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`.

        Args:
            data: Of this version or another: keys that are missing get their defaults, unknown ones are
                left out.
        """
        given = known(cls, data)
        for key, record in RECORDS.items():
            if given.get(key) is not None:
                given[key] = record(**known(record, given[key]))
        for key, record in LISTS.items():
            if given.get(key) is not None:
                given[key] = [record(**known(record, entry)) for entry in given[key]]
        return cls(**given)

    def kind_totals(self) -> dict[str, tuple[int, int]]:
        """Units before and after, by kind."""
        return totals_by_kind((group.kind, group.size, group.kept) for group in self.groups)


#: Keys of the report that hold a record, or a list of them.
RECORDS: dict[str, type] = {
    'dense': Stage, 'pruned': Stage, 'masked': MaskedStage, 'recovered': RecoveredStage,
    'budget': BudgetResult, 'streamed': StreamedRun,
}  # fmt: skip
LISTS: dict[str, type] = {
    'rounds': Row, 'groups': GroupRow, 'weights': WeightRow, 'memory': MemoryRow,
}  # fmt: skip
