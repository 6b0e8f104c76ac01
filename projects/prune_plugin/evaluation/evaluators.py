"""Evaluators defined by the model, selected by name: ``--eval lm_eval:arc_easy``."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.evaluator import Evaluator
from mmengine.registry import LOOPS
from mmengine.runner import Runner, TestLoop
from torch import nn
from torch.utils.data import DataLoader

from ..common.distributed import from_rank_0
from ..common.errors import UserError
from ..common.model_interface import evaluators_of
from ..common.model_wrappers import unwrapped


def split_names(names: Sequence[str] | None) -> tuple[list[str] | None, dict[str, str]]:
    """Split the values of ``--eval`` into metrics and evaluators (``NAME:ARGUMENT``).

    Returns:
        Names of metrics: None (all) without ``--eval``, empty if only evaluators are given; and
        ``{evaluator: argument}``.
    """
    if not names:
        return None, {}
    metrics = [name for name in names if ':' not in name]
    return metrics, dict(name.split(':', 1) for name in names if ':' in name)


def check_evaluators(model: nn.Module, wanted: Mapping[str, str]) -> None:
    """Raise :class:`UserError` unless ``model.evaluators`` holds all names and accepts the arguments.

    Args:
        model: The model; ``evaluators`` maps names to callables with a method ``check(argument)``.
        wanted: ``{evaluator: argument}``.
    """
    evaluators = evaluators_of(model)
    for name, argument in wanted.items():
        if name not in evaluators:
            raise UserError(
                f'--eval {name}:{argument}: the model has no evaluator {name!r}; '
                f'valid are {", ".join(evaluators) or "none"}'
            )
        evaluators[name].check(argument)


@LOOPS.register_module()
class EvaluatorTestLoop(TestLoop):
    """MMEngine's ``TestLoop``, which afterwards runs evaluators that the model defines.

    Args:
        runner: See MMEngine's ``TestLoop``.
        dataloader: See ``TestLoop``.
        evaluator: See ``TestLoop``. If it holds no metrics, the data isn't read.
        evaluators: Names in ``model.evaluators``, each with its argument.
        fp16: See ``TestLoop``.
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: DataLoader | dict,
        evaluator: Evaluator | dict | list,
        evaluators: Mapping[str, str],
        fp16: bool = False,
    ):
        super().__init__(runner, dataloader, evaluator, fp16)
        self.evaluators = dict(evaluators)

    def run(self) -> dict[str, Any]:
        """Run the test; results of the metrics, and those of the evaluators as ``NAME/...``."""
        self.runner.call_hook('before_test')
        self.runner.call_hook('before_test_epoch')
        self.runner.model.eval()
        metrics = {}
        if self.evaluator.metrics:
            for number, batch in enumerate(self.dataloader):
                self.run_iter(number, batch)
            metrics = self.evaluator.evaluate(len(self.dataloader.dataset))
        evaluators = evaluators_of(unwrapped(self.runner))
        for name, argument in self.evaluators.items():
            results = from_rank_0(evaluators[name](argument))
            metrics |= {f'{name}/{key}': value for key, value in results.items()}
        self.runner.call_hook('after_test_epoch', metrics=metrics)
        self.runner.call_hook('after_test')
        return metrics
