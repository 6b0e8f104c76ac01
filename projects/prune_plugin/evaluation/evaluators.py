"""Evaluations that a model brings itself, called by name: ``--eval lm_eval:arc_easy``."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.registry import LOOPS
from mmengine.runner import TestLoop
from torch import nn

from ..common.distributed import from_rank_0
from ..common.errors import UserError
from ..common.model_interface import evaluators_of
from ..common.model_wrappers import unwrapped


def split_names(names: Sequence[str] | None) -> tuple[list[str] | None, dict[str, str]]:
    """What ``--eval`` names, as metrics (None: all) and as evaluators with their argument.

    An evaluator has a colon. With evaluators alone, there are no metrics.
    """
    if not names:
        return None, {}
    metrics = [name for name in names if ':' not in name]
    return metrics, dict(name.split(':', 1) for name in names if ':' in name)


def check_evaluators(model: nn.Module, wanted: Mapping[str, str]) -> None:
    """Raise :class:`UserError` unless ``model.evaluators`` has them all and accepts the arguments."""
    known = evaluators_of(model)
    for name, argument in wanted.items():
        if name not in known:
            raise UserError(
                f'--eval {name}:{argument}: the model has no evaluator {name!r}; '
                f'valid are {", ".join(known) or "none"}'
            )
        known[name].check(argument)


@LOOPS.register_module()
class EvaluatorTestLoop(TestLoop):
    """MMEngine's test loop, after which the model's own evaluators run.

    Args:
        runner: As of MMEngine's ``TestLoop``.
        dataloader: As there.
        evaluator: As there. Without metrics in it the data isn't touched.
        evaluators: Names in ``model.evaluators``, each with its argument.
        fp16: As of ``TestLoop``.
    """

    def __init__(
        self, runner, dataloader, evaluator, evaluators: Mapping[str, str], fp16: bool = False
    ):
        super().__init__(runner, dataloader, evaluator, fp16)
        self.evaluators = dict(evaluators)

    def run(self) -> dict[str, Any]:
        """Results of the metrics, and those of the evaluators as ``NAME/...``."""
        self.runner.call_hook('before_test')
        self.runner.call_hook('before_test_epoch')
        self.runner.model.eval()
        metrics = {}
        if self.evaluator.metrics:
            for number, batch in enumerate(self.dataloader):
                self.run_iter(number, batch)
            metrics = self.evaluator.evaluate(len(self.dataloader.dataset))
        known = evaluators_of(unwrapped(self.runner))
        for name, argument in self.evaluators.items():
            found = from_rank_0(known[name](argument))
            metrics |= {f'{name}/{key}': value for key, value in found.items()}
        self.runner.call_hook('after_test_epoch', metrics=metrics)
        self.runner.call_hook('after_test')
        return metrics
