"""Pruning in rounds: prune a little, train, evaluate, and again, until the target is reached.

Every round has a folder of its own, and ``history.json`` says which are over. Whatever moment a run is
killed at, what lies there is complete files, and the run goes on from the newest of them.
"""

import gc
import os
import shutil
from collections.abc import Callable
from copy import copy
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from mmengine import dist
from mmengine.config import Config
from mmengine.logging import print_log
from torch import Tensor, nn

from ..checkpoints.checkpoint_file import load_file, newest_checkpoint, save_file
from ..checkpoints.model_loading import Loaded, load_model
from ..common.distributed import assert_ranks_agree, from_rank_0, on_rank_0, weights_digest
from ..common.fileio import atomic_write, replace_symlink
from ..common.timing import timed
from ..evaluation.profiling import profile
from ..evaluation.test_set import TestSet, headline
from ..methods.pruners import WeightPruner
from ..methods.pruners.sparsify import Progress
from ..methods.schedules import Round
from ..training.hooks.mask_hook import unpack_masks, zero_share
from ..training.settings import RecoverySettings
from .history import History, Row, plain
from .options import PruneOptions, PruneResult
from .prune import check_before, data_factory, progress_in, renew_batch_norms
from .reports.history import write_history
from .run_report import start_report, zeros_in
from .save_results import file_stem, save_weight_level, write_report

#: Trains: (settings, pruned checkpoint, work directory, checkpoint to resume from or None).
Train = Callable[[RecoverySettings, Path, Path, Path | None], None]
#: What an earlier run's training leaves in the folder of a round.
LEFTOVERS = ('*.pth', '.*.pth.*', 'last_checkpoint')


def prune_in_rounds(
    cfg: Config, pruner: WeightPruner, options: PruneOptions, train: Train | None = None
) -> PruneResult:
    """Prune as the schedule says, with training in between, and write everything down.

    All ranks call it; rank 0 alone writes.

    Args:
        cfg: The config.
        pruner: Its ``rounds`` say what happens.
        options: See :class:`PruneOptions`. With ``resume`` a killed run in ``output_dir`` is gone on with.
        train: Trains what a round has pruned; None: no training, the next round prunes what the
            last one left.

    Returns:
        The report, with the stages dense, pruned (the last round's pruning) and recovered; the last
        round's pruned checkpoint; its history is in ``report['rounds']``.

    Raises:
        UserError: bad input; nothing has been written then.
        RuntimeError: training has not kept the zeros.
    """
    pruner.check_without_loop()
    return Rounds(cfg, pruner, options, train).run()


def scaled_lr(settings: RecoverySettings, factor: float) -> RecoverySettings:
    """The settings with ``factor`` times the learning rate."""
    if settings.fixed_lr is None:
        return replace(settings, lr_factor=settings.lr_factor * factor)
    if settings.lr is not None:
        return replace(settings, lr=settings.lr * factor)
    return replace(settings, lora={**settings.lora, 'lr': settings.lora['lr'] * factor})


@torch.no_grad()
def rewind(model: nn.Module, initial: nn.Module, masks: dict[str, Tensor]) -> None:
    """Give ``model`` the weights of ``initial``, as far as masks keep them; the others are zero."""
    model.load_state_dict(initial.state_dict())
    for name, keep in masks.items():
        parameter = model.get_parameter(name)
        parameter.masked_fill_(~keep.to(parameter.device), 0)


def check_zeros(trained: dict, pruned: dict, where: Path) -> None:
    """Raise :class:`RuntimeError` unless training has kept the masks, and zeros where they say."""
    zero_share(trained)
    before, after = (unpack_masks(c.get('masks') or {}) for c in (pruned, trained))
    if before.keys() != after.keys() or any(not m.equal(after[n]) for n, m in before.items()):
        raise RuntimeError(f'{where}: training has changed the masks')


def clear(folder: Path, *patterns: str) -> None:
    """Remove files of an earlier run."""
    for pattern in patterns:
        for path in folder.glob(pattern):
            path.unlink()


def link(path: Path, target: str) -> None:
    """Point ``path`` to ``target``, a path relative to its folder, in one step (on rank 0)."""
    if dist.is_main_process():
        replace_symlink(path, target)


class Rounds:
    """One run of :func:`prune_in_rounds`.

    Args:
        cfg: As there.
        pruner: As there.
        options: As there.
        train: As there.
    """

    def __init__(
        self, cfg: Config, pruner: WeightPruner, options: PruneOptions, train: Train | None
    ):
        self.cfg, self.pruner, self.options, self.train = cfg, pruner, options, train
        self.folder = options.output_dir
        self.file_name = f'{file_stem(cfg, pruner)}_pruned.pth'
        self.device = 'cuda' if torch.cuda.is_available() else 'cpu'
        self.seconds: dict[str, float] = {}
        self.dense: Loaded | None = None
        self.data = data_factory(cfg, pruner)

    def run(self) -> PruneResult:
        """See :func:`prune_in_rounds`."""
        self.dense = self.load(self.options.checkpoint)
        report = self.check(self.dense.model)
        self.test_set = TestSet(self.cfg)
        self.history = self.begin(self.dense.model)
        if self.history.rows:
            self.dense = None
        for number in self.pruner.rounds:
            self.one_round(number)
            gc.collect()  # what the Runner leaves holds itself in a circle
        return self.finish(report)

    def check(self, dense: nn.Module) -> dict[str, Any]:
        """The report's beginning, after a look at everything that may be wrong with the input."""
        for number in self.pruner.rounds:
            own = copy(self.pruner)
            own.calibration, own.recovery = number.calibration, number.recovery
            check_before(self.cfg, own, dense)
        first = copy(self.pruner)
        first.calibration = self.pruner.rounds[0].calibration
        first.check(dense, self.data)
        with timed(self.seconds, 'profile'):
            profiles = on_rank_0(lambda: profile([dense], self.pruner.profile))
        return start_report(self.cfg, self.pruner, self.options, dense, None, profiles, {})

    def load(self, path: str | os.PathLike | None) -> Loaded:
        """The config's model with a checkpoint's weights."""
        with timed(self.seconds, 'load'):
            return load_model(self.cfg, None if path is None else str(path), self.device)

    def evaluate(self, model: nn.Module, label: str) -> dict[str, float] | None:
        """Metrics of a model."""
        with timed(self.seconds, 'evaluate'):
            return self.test_set.evaluate(model, label)

    def folder_of(self, number: int) -> Path:
        """Where a round's files lie."""
        return self.folder / f'round_{number:02d}'

    def begin(self, dense: nn.Module) -> History:
        """The history of the run to go on with, or a new one; then no old round is left."""
        path, rounds = self.folder / 'history.json', self.pruner.rounds
        key = {
            'prune_cfg': self.cfg.prune_cfg.to_dict(),
            'checkpoint': self.options.checkpoint,
            'model': self.cfg.model.to_dict(),
            'rounds': [asdict(number) for number in rounds],
            'training': self.train is not None,
        }
        if self.options.resume:
            found = on_rank_0(lambda: History.load(path, key) if path.is_file() else None)
            if found is not None:
                print_log(f'going on after {len(found.rows)} of {len(rounds)} rounds', 'current')
                return found
            print_log(f'nothing to resume in {self.folder}: starting anew', 'current')
        if dist.is_main_process():
            path.unlink(missing_ok=True)
            for folder in self.folder.glob('round_[0-9]*'):
                clear(folder, 'progress/*.pth', *LEFTOVERS)
        history = History(plain(key), len(rounds), self.evaluate(dense, 'dense'))
        history.headline = headline(self.test_set.metrics, history.dense or {})
        self.write(history)
        return history

    def write(self, history: History) -> None:
        """Write the history (on rank 0)."""
        if dist.is_main_process():
            history.save(self.folder / 'history.json')
            write_history(history, self.folder)

    def one_round(self, number: Round) -> None:
        """Do what is left to do of a round."""
        rows = self.history.rows
        if len(rows) >= number.number and rows[number.number - 1].complete:
            return
        if len(rows) < number.number:
            rows.append(self.prune(number))
            self.write(self.history)
            if dist.is_main_process():
                Progress(self.folder_of(number.number) / 'progress', {}).clear()
        row = rows[-1]
        if self.train is None:
            row.checkpoint = f'{self.folder_of(number.number).name}/{self.file_name}'
        else:
            self.recover(number, row)
            link(self.folder / 'latest.pth', row.checkpoint)
        row.complete = True
        self.write(self.history)
        self.tell(row)

    def prune(self, number: Round) -> Row:
        """Prune what the round before left, and save it in this round's folder."""
        folder, rows = self.folder_of(number.number), self.history.rows
        if dist.is_main_process():
            folder.mkdir(exist_ok=True)
            clear(folder, *LEFTOVERS)
            self.drop_optimizer(rows)
        dist.barrier()
        print_log(
            f'pruning state {number.number} of {len(self.pruner.rounds)}: ratio {number.ratio:.4g}',
            'current',
        )
        loaded = self.load(self.folder / rows[-1].checkpoint) if rows else self.dense
        self.dense = None  # so that it isn't in memory while training
        before = unpack_masks(loaded.checkpoint['masks']) if rows else None
        pruner = copy(self.pruner)
        pruner.calibration = number.calibration
        progress = None
        if pruner.sparsifier.reads_inputs:
            progress = progress_in(
                folder / 'progress', self.cfg, pruner, self.options, round=asdict(number)
            )
        with timed(self.seconds, 'sparsify'):
            masks = pruner.sparsify(
                loaded.model, self.data, ratio=number.ratio, progress=progress, before=before
            )
        if pruner.schedule.rewind:
            rewind(loaded.model, self.load(self.options.checkpoint).model, masks)
        if pruner.calibration.recalibrate_bn:
            renew_batch_norms(self.cfg, pruner, [loaded.model])
        if dist.get_world_size() > 1:
            assert_ranks_agree(weights_digest(loaded.model), 'the pruned weights')
        loaded.checkpoint.pop('optimizer', None)  # every round begins with a fresh one
        with timed(self.seconds, 'save'):
            save_weight_level(
                self.cfg, pruner, loaded, loaded.model, masks, PruneResult({}),
                replace(self.options, output_dir=folder),
            )  # fmt: skip
        dist.barrier()
        metrics = self.evaluate(loaded.model, f'after pruning {number.number}')
        return Row(number.number, number.ratio, zeros_in(masks), metrics)

    def recover(self, number: Round, row: Row) -> None:
        """Train what this round has pruned, and see that its zeros are still there."""
        folder = self.folder_of(number.number)
        origin, settings = folder / self.file_name, scaled_lr(number.recovery, number.lr_scale)
        found = newest_checkpoint(folder) if dist.is_main_process() else None
        with timed(self.seconds, 'train'):
            self.train(settings, origin, folder, from_rank_0(found))
        if dist.is_main_process() and (newest := newest_checkpoint(folder)):
            link(folder / 'latest.pth', newest.name)
        dist.barrier()
        loaded = self.load(folder / 'latest.pth')
        check_zeros(loaded.checkpoint, load_file(origin), folder)
        row.after_training = self.evaluate(loaded.model, f'after training {number.number}')
        row.checkpoint = f'{folder.name}/latest.pth'

    def drop_optimizer(self, rows: list[Row]) -> None:
        """Take the optimizer's state out of the last round's checkpoint: nothing will read it."""
        if not rows or self.train is None:
            return
        path = (self.folder / rows[-1].checkpoint).resolve()
        content = load_file(path)
        if content.pop('optimizer', None) is not None:
            save_file(content, path)

    def tell(self, row: Row) -> None:
        """Sum a round up in the log."""
        parts = [f'sparsity {100 * row.sparsity:.2f} %']
        for name in self.history.headline:
            values = [m[name] for m in (row.after_prune, row.after_training) if m and name in m]
            parts.append(f'{name} ' + ' -> '.join(f'{value:.4g}' for value in values))
        print_log(f'pruning state {row.round} done: {", ".join(parts)}', 'current')

    def finish(self, report: dict[str, Any]) -> PruneResult:
        """Put the last round's checkpoint where any run leaves it, and write the report."""
        last, rows = self.pruner.rounds[-1], self.history.rows
        pruned = self.folder / self.file_name
        if dist.is_main_process():
            write_history(self.history, self.folder)  # a kill may have come before them
            with (
                open(self.folder_of(last.number) / self.file_name, 'rb') as source,
                atomic_write(pruned, 'wb') as target,
            ):
                shutil.copyfileobj(source, target)
        report['headline'] = self.history.headline
        report['dense']['metrics'] = self.history.dense
        report['pruned']['metrics'] = rows[-1].after_prune
        report['achieved']['zeros'] = rows[-1].sparsity
        report['rounds'] = [asdict(row) for row in rows]
        report['seconds'] = self.seconds
        if self.train is not None:
            link(self.folder / 'latest.pth', rows[-1].checkpoint)
            report['recovered'] = {
                **report['dense'],
                'metrics': rows[-1].after_training,
                'mode': last.recovery.mode,
                'epochs': sum(number.recovery.epochs for number in self.pruner.rounds),
                'checkpoint': str(self.folder / 'latest.pth'),
                'trained': 'unstructured',
                'zeros': rows[-1].sparsity,
            }
        outcome = PruneResult(report, weight_level=pruned, test_set=self.test_set)
        if dist.is_main_process():
            write_report(outcome, self.folder)
        dist.barrier()
        return outcome
