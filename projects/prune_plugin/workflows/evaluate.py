"""Evaluating a checkpoint, dense or slim, through MMEngine's Runner."""

from copy import deepcopy
from typing import Any

from mmengine.config import Config
from torch import nn

from ..checkpoints.engines.files import check_engine, is_engine_file, load_engine
from ..checkpoints.model_loading import Loaded, load_model
from ..common.errors import UserError
from ..common.model_interface import weights_source_of
from ..common.model_wrappers import unwrapped
from ..evaluation.evaluators import check_evaluators, split_names
from ..evaluation.test_set import select_metrics
from ..training.config_edits import check_data, fit_to_device, use_slim_model
from ..training.runner_building import build_runner


def evaluate(
    cfg: Config,
    checkpoint: str | None,
    names: list[str] | None,
    launcher: str,
    tmpdir: str | None = None,
) -> dict[str, Any]:
    """What ``tools/test.py`` does: evaluate a checkpoint, dense or slim, with the dense config.

    The file is read once, and one model is built.

    Args:
        cfg: The config.
        checkpoint: The file; None: the weights that the config's model begins with.
        names: Metrics to compute, and evaluators of the model as ``NAME:argument``; all of the
            config's metrics if None.
        launcher: As on the command line.
        tmpdir: Folder in which ranks exchange results.

    Returns:
        The metrics.

    Raises:
        UserError: unknown metric or evaluator, missing data, or a checkpoint that doesn't fit.
    """
    return evaluated(cfg, checkpoint, names, launcher, tmpdir)[0]


def evaluated(
    cfg: Config,
    checkpoint: str | None,
    names: list[str] | None,
    launcher: str,
    tmpdir: str | None = None,
) -> tuple[dict[str, Any], nn.Module]:
    """The metrics, see :func:`evaluate`, and the model, where the evaluation has left it."""
    metrics, evaluators = split_names(names)
    engine = checkpoint if is_engine_file(checkpoint) else None
    if engine:
        check_engine(cfg, engine)
    cfg = evaluation_config(cfg, metrics, evaluators)
    loaded = load_engine(cfg, engine) if engine else load_model(cfg, checkpoint)
    # Everything is checked before the Runner writes its first file.
    check_weights(cfg, checkpoint, loaded.model)
    check_evaluators(loaded.model, evaluators)
    adapt_config(cfg, checkpoint, loaded, launcher)
    runner = build_runner(cfg, loaded.model)
    del loaded  # the checkpoint's content, beside the model
    for metric in runner.test_loop.evaluator.metrics:
        if tmpdir and metric.collect_device == 'cpu':
            metric.collect_dir = tmpdir
    return runner.test(), unwrapped(runner)


def evaluation_config(cfg: Config, metrics: list[str] | None, evaluators: dict[str, str]) -> Config:
    """A copy of a config that evaluates these metrics (None: all) and these evaluators.

    Raises:
        UserError: there is nothing to evaluate with, an unknown metric, or missing data.
    """
    if not cfg.get('test_dataloader') or not cfg.get('test_evaluator'):
        raise UserError(f'{cfg.filename} has no test_dataloader and test_evaluator')
    cfg = deepcopy(cfg)
    add_preprocessor(cfg)
    cfg.test_evaluator = [] if metrics == [] else select_metrics(cfg.test_evaluator, metrics)
    cfg.test_cfg = cfg.get('test_cfg') or {}
    if evaluators:
        cfg.test_cfg = dict(cfg.test_cfg, type='EvaluatorTestLoop', evaluators=evaluators)
    if cfg.test_evaluator:
        check_data(cfg, 'test_dataloader')
    else:
        cfg.test_dataloader.dataset = []
    return cfg


def add_preprocessor(cfg: Config) -> None:
    """Put a ``data_preprocessor`` beside the model into the model's config, as a Runner does."""
    model = cfg.get('model') or {}
    while model.get('type') in ('SlimModel', 'LoraModel'):
        model = model['model']
    if cfg.get('data_preprocessor') and model:
        model.setdefault('data_preprocessor', cfg.pop('data_preprocessor'))


def check_weights(cfg: Config, checkpoint: str | None, model: nn.Module) -> None:
    """Raise :class:`UserError` if neither a checkpoint nor the model says where weights come from."""
    if checkpoint is None and not weights_source_of(model):
        raise UserError(
            f'checkpoint is missing: the {type(model).__name__} of {cfg.filename} names no pretrained '
            'weights; give a .pth file'
        )


def adapt_config(cfg: Config, checkpoint: str | None, loaded: Loaded, launcher: str) -> None:
    """Have a config say, in the log too, what is evaluated where."""
    if checkpoint and loaded.prior_state:
        use_slim_model(cfg, str(checkpoint))
    cfg.load_from, cfg.resume = None, False
    fit_to_device(cfg, launcher)
