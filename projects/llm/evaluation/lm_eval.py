"""Zero-shot tasks through the package ``lm-eval``."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from projects.prune_plugin.common.errors import UserError

if TYPE_CHECKING:
    from ..models.causal_lm import HFCausalLM


class LMEval:
    """Evaluates a model on tasks of EleutherAI's evaluation harness.

    Args:
        model: The model, dense, masked or slim.
        include_path: A folder with task files of the user's own.
        batch_size: Requests per forward pass.
        limit: Use the first so many documents of each task; None: all.
    """

    def __init__(
        self,
        model: HFCausalLM,
        include_path: str | None = None,
        batch_size: int = 8,
        limit: int | None = None,
    ) -> None:
        self.model, self.include_path = model, include_path
        self.batch_size, self.limit = batch_size, limit

    def check(self, tasks: str) -> None:
        """Raise :class:`UserError` unless the package is there and knows all tasks."""
        self._manager(tasks)

    def __call__(self, tasks: str) -> dict[str, float]:
        """Evaluate.

        Args:
            tasks: Names of tasks, joined by commas.

        Returns:
            ``{'arc_easy/acc': 0.42, 'arc_easy/acc_stderr': 0.01, ...}``.

        Raises:
            UserError: the package is missing, it knows no such task, or there is no network.
        """
        manager = self._manager(tasks)
        import lm_eval
        from lm_eval.models.huggingface import HFLM

        training = self.model.training
        self.model.eval()
        wrapped = HFLM(
            pretrained=self.model.lm,
            tokenizer=self.model.tokenizer,
            batch_size=self.batch_size,
            max_length=self.model.max_window,
        )
        try:
            found = lm_eval.simple_evaluate(
                wrapped,
                tasks=split_tasks(tasks),
                task_manager=manager,
                limit=self.limit,
                bootstrap_iters=0,
            )
        except ConnectionError as err:
            raise UserError(
                f'--eval lm_eval:{tasks}: its data cannot be had from the Hugging Face hub ({err})'
            ) from err
        self.model.train(training)
        return flatten(found['results'])

    def _manager(self, tasks: str) -> Any:
        try:
            manager = task_manager(self.include_path)
        except ImportError as err:
            raise UserError(
                f'--eval lm_eval:{tasks} needs the package lm-eval: pip install lm-eval ({err})'
            ) from err
        unknown = [task for task in split_tasks(tasks) if not manager.match_tasks([task])]
        if unknown or not split_tasks(tasks):
            raise UserError(
                f'--eval lm_eval:{tasks}: lm-eval knows no task {(unknown or [""])[0]!r}; '
                '"lm_eval ls tasks" lists them'
            )
        return manager


@lru_cache(maxsize=2)
def task_manager(include_path: str | None) -> Any:
    """lm-eval's list of tasks, which takes many seconds to gather."""
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=include_path)


def split_tasks(tasks: str) -> list[str]:
    """The names in a comma-separated list."""
    return [task.strip() for task in tasks.split(',') if task.strip()]


def flatten(results: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Numbers of lm-eval's results by ``task/metric``; its filter 'none' isn't named."""
    flat = {}
    for task, metrics in results.items():
        for name, value in metrics.items():
            metric, _, chosen = name.partition(',')
            if isinstance(value, int | float) and metric != 'alias':
                label = metric if chosen in ('', 'none') else f'{metric}_{chosen}'
                flat[f'{task}/{label}'] = float(value)
    return flat
