"""Pruning a model block by block into a Hugging Face folder: ``prune_cfg.execution.mode='streamed'``."""

import os
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from mmengine import dist
from mmengine.config import Config
from mmengine.model import BaseDataPreprocessor
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from ..checkpoints.export.formats import Exports
from ..checkpoints.shards import ShardedWeights, ShardWriter, plan_shards
from ..common.device import best_device
from ..common.errors import UserError
from ..common.meta_parameters import parameters_on_meta
from ..common.model_interface import (
    save_description_of,
    saved_names_of,
    weight_folder_of,
)
from ..common.timing import timed
from ..evaluation.example_inputs import Example
from ..evaluation.profiling import profile
from ..evaluation.test_set import TestSet, headline
from ..methods.pruners import Pruner
from ..streaming.chain import BlockChain
from ..streaming.estimate import Counts, Estimate, estimate, peak_memory, relative_length
from ..streaming.progress import StreamProgress
from ..streaming.skeleton import Skeleton
from ..streaming.sweep import Sweep, Swept, writing
from ..training.dry_build import try_metrics
from .finished_layers import progress_key
from .options import PruneOptions, PruneResult
from .plan_on_meta import build_on_meta
from .prune import check_config, data_factory
from .report_building import start_report
from .run_log import open_log
from .run_report import WeightRow
from .save_results import file_stem, write_report
from .streamed_estimate import chain_of, streamed_run
from .streamed_methods import method_for


@dataclass
class Target:
    """What a streamed run is about.

    Attributes:
        meta: The dense model on the meta device.
        example: A call of it.
        chain: Its blocks.
        skeleton: The model and its files.
    """

    meta: nn.Module
    example: Example
    chain: BlockChain
    skeleton: Skeleton


def prune_streamed(cfg: Config, pruner: Pruner, options: PruneOptions) -> PruneResult:
    """Prune the config's model block by block, evaluate before and after, and write a folder and a report.

    Args:
        cfg: The config.
        pruner: One with ``execution.mode='streamed'``.
        options: See :class:`PruneOptions`.

    Raises:
        UserError: bad input, or a model that can't be streamed; nothing has been written then. Or a disk
            that is full.
    """
    return StreamedRunner(cfg, pruner, options).run()


class StreamedRunner:
    """A streamed run: everything is checked and planned when it is made, and nothing written.

    Args:
        cfg: As for :func:`prune_streamed`.
        pruner: As there.
        options: As there.

    Attributes:
        target: The model, its blocks and its files.
        method: What is done to each block.
        plan: What is to be removed.
        slimmed: On the meta device, the model as it will be.
        batches: Calibration batches; None for a method without any.
        test_set: Test data.
    """

    def __init__(self, cfg: Config, pruner: Pruner, options: PruneOptions):
        check_streamed(cfg, pruner, options)
        self.cfg, self.pruner, self.options = cfg, pruner, options
        self.seconds: dict[str, float] = {}
        with timed(self.seconds, 'load'):
            self.target = read_target(cfg, pruner)
        scored = bool(options.from_table)
        check_config(cfg, pruner, self.target.meta, scored)
        data = data_factory(cfg, pruner)
        with timed(self.seconds, 'evaluate'):
            self.test_set = TestSet(cfg)
            try_metrics('test_evaluator', self.test_set.metrics)
        users = pruner.data_users(scored)
        self.batches = pruner.batches(data, users[-1]) if users else None
        self.estimate = self.estimated()
        self.estimate.check(pruner.execution)
        with timed(self.seconds, 'score'):
            self.method, self.plan = method_for(
                pruner, self.target.meta, self.target.skeleton, data, options
            )
        self.slimmed = deepcopy(self.target.meta)
        self.method.shrink_all(self.slimmed)
        self.names = saved_names_of(self.slimmed)

    def estimated(self) -> Estimate:
        """What the run will take."""
        target = self.target
        test = None if self.test_set.missing else self.test_set.loader
        samples = [self.batches.first_sample()] if self.batches else []
        samples += [test.dataset[0]] if test is not None and len(test.dataset) else []
        counts = Counts(
            len(self.batches.batches) if self.batches else 0,
            self.pruner.calibration.batch_size,
            len(test) if test is not None else 0,
            (getattr(test, 'batch_size', None) or 1) if test is not None else 1,
            relative_length(target.example, samples),
        )
        return estimate(target.meta, target.chain, target.example, self.pruner, counts)

    @cached_property
    def progress(self) -> StreamProgress:
        """What is finished; the first that is written."""
        path = saved_folder(self.cfg, self.pruner, self.options)
        key = streamed_key(self.cfg, self.pruner, self.options, self.target)
        folder = self.options.output_dir / 'progress'
        return StreamProgress(folder, path.name, key, self.options.resume)

    @cached_property
    def writer(self) -> ShardWriter:
        """The files to write; their space is taken when it is made."""
        tensors = self.slimmed.state_dict()
        kinds = {
            saved: (tensors[n].dtype, tuple(tensors[n].shape)) for n, saved in self.names.items()
        }
        with writing(self.progress):
            self.progress.weights.mkdir(parents=True, exist_ok=True)
            shards = plan_shards(kinds, self.pruner.execution.shard_size)
            return ShardWriter(self.progress.weights, shards)

    @cached_property
    def sweep(self) -> Sweep:
        """The pass over all blocks."""
        in_memory = self.pruner.execution.offload == 'cpu'
        skeleton = self.target.skeleton
        return Sweep(skeleton, self.method, self.writer, self.names, self.progress, in_memory)

    def run(self) -> PruneResult:
        """Prune all blocks that aren't finished, evaluate, and write folder and report."""
        folder = self.options.output_dir
        open_log(folder, self.cfg)
        with timed(self.seconds, 'prune'):
            swept = self.sweep.run(self.batches, self.test_set)
        result = self.result(swept)
        zeros = sum(block.zeros for block in swept.results)
        save_description_of(self.target.skeleton.model, self.progress.weights, zeros)
        write_report(result, folder)
        path = saved_folder(self.cfg, self.pruner, self.options)
        os.replace(self.progress.weights, path)
        self.progress.clear()
        result.add(path)
        return result

    def result(self, swept: Swept) -> PruneResult:
        """The report, and what was planned."""
        pruner, dense, slimmed = self.pruner, self.target.meta, self.slimmed
        models = [dense, slimmed] if pruner.removes_units else [dense]
        profiles = profile(models, pruner.profile, latency=False)
        rows = [WeightRow(*row) for block in swept.results for row in block.weights]
        total, zeros = sum(r.size for r in rows), sum(r.zeros for r in rows)
        achieved = pruner.budget.achieved(total, total - zeros) if rows else None
        share = zeros / total if total else None
        report = start_report(
            self.cfg, pruner, self.options, dense, self.plan, profiles, share, achieved
        )
        report.weights = rows
        report.dense.metrics, report.pruned.metrics = swept.dense, swept.pruned
        if swept.dense:
            report.headline = headline(self.test_set.metrics, swept.dense)
        read = self.target.skeleton.weights.bytes_read
        report.streamed = streamed_run(
            self.target.chain, self.estimate, read, self.writer.bytes_written, peak_memory()
        )
        report.seconds = self.seconds
        return PruneResult(report, plan=self.plan, test_set=self.test_set)


def saved_folder(cfg: Config, pruner: Pruner, options: PruneOptions) -> Path:
    """The folder that the pruned model is written into."""
    kind = '_structured' if pruner.removes_units else ''
    return options.output_dir / f'{file_stem(cfg, pruner)}{kind}_pruned'


def check_streamed(cfg: Config, pruner: Pruner, options: PruneOptions) -> None:
    """Raise :class:`UserError` for what doesn't go with ``execution.mode='streamed'``."""
    said = "prune_cfg.execution.mode 'streamed'"
    if dist.get_world_size() > 1:
        raise UserError(
            f'{said} runs in one process, but there are {dist.get_world_size()}; start it without launcher'
        )
    if options.checkpoint:
        raise UserError(
            f'{said} reads the weights of model.path, but the checkpoint {options.checkpoint} is given; '
            'leave it (or load_from) out'
        )
    if pruner.in_rounds or pruner.searched:
        key, value = (
            ('schedule', pruner.schedule) if pruner.in_rounds else ('budget', pruner.budget)
        )
        raise UserError(
            f'{said} prunes once, at a given ratio, but prune_cfg.{key}.type is {type(value).__name__!r}; '
            "take schedule=dict(type='OneShot') and a budget with a ratio"
        )
    if pruner.calibration.recalibrate_bn:
        raise UserError(f'{said} recalibrates no batch norms; leave calibration.recalibrate_bn out')
    path = saved_folder(cfg, pruner, options)
    if path.exists():
        raise UserError(
            f'--output-dir {options.output_dir} holds {path.name} already; name another directory'
        )


def check_exports(exports: Exports) -> None:
    """Raise :class:`UserError` for files that a streamed run can't write."""
    for name, value in vars(exports).items():
        if value and name.startswith('save_'):
            raise UserError(
                f"--{name.replace('_', '-')} {value}: prune_cfg.execution.mode 'streamed' writes a Hugging "
                'Face folder and nothing else; leave it out'
            )


def read_target(cfg: Config, pruner: Pruner) -> Target:
    """The config's model with shapes alone, its blocks, and the files that its weights are in.

    Raises:
        UserError: it can't be streamed, or the files don't fit it.
    """
    meta = build_on_meta(cfg)
    example, chain = chain_of(meta, pruner)
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    with parameters_on_meta():
        model = MODELS.build(deepcopy(cfg.model)).eval()
    folder, own_name = weight_folder_of(model)
    device = best_device()
    for module in model.modules():
        if isinstance(module, BaseDataPreprocessor):
            module.to(device)  # where it puts batches
        for name, buffer in module._buffers.items():
            if buffer is not None and not buffer.is_meta:
                module._buffers[name] = buffer.to(device)
    return Target(
        meta, example, chain, Skeleton(model, chain, ShardedWeights(folder), own_name, device)
    )


def streamed_key(
    cfg: Config, pruner: Pruner, options: PruneOptions, target: Target
) -> Mapping[str, Any]:
    """What must be the same for a killed run to be gone on with."""
    table = options.from_table and Path(options.from_table).read_text(encoding='utf-8')
    files = target.skeleton.weights.stamp()
    test = cfg.get('test_dataloader')
    more = dict(files=files, table=table, test=test and dict(test), torch=torch.__version__)
    return progress_key(cfg, pruner, options, **more, shard_size=pruner.execution.shard_size).parts
