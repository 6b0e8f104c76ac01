"""What is pruned, among the scalars that the visualizer's backends draw: TensorBoard, WandB, MLflow..."""

from collections.abc import Mapping
from typing import Any

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.visualization import Visualizer

from ...checkpoints.packed_masks import unpack_masks
from ...common.model_interface import prune_state_on
from ...common.model_wrappers import unwrapped


@HOOKS.register_module()
class PruningScalarsHook(Hook):
    """Logs ``pruning/kept/<kind>``, the share of units kept, and ``pruning/zeros``, that of masked weights.

    At the beginning and after every epoch, on the axis of iterations. Every training of a pruned model has
    it; a run in rounds adds what :func:`log_round` says of each. Losses, penalty and metrics are logged by
    MMEngine and :class:`PenaltyHook`.

    Example:
        >>> visualizer = dict(type='Visualizer', vis_backends=[dict(type='TensorboardVisBackend')])
    """

    priority = 'LOW'

    def __init__(self):
        self.masks: dict[str, Any] = {}

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Take the checkpoint's masks."""
        self.masks = unpack_masks(checkpoint.get('masks') or {})

    def before_train(self, runner) -> None:
        """Log once, so that a curve begins where the training does."""
        self.log(runner)

    def after_train_epoch(self, runner) -> None:
        """Log."""
        self.log(runner)

    def log(self, runner) -> None:
        """Log what is known of the model."""
        model, values = unwrapped(runner), {}
        state = prune_state_on(model)
        if state is not None:
            totals: dict[str, list[int]] = {}
            for name, group in state.groups.items():
                kept, size = totals.setdefault(group.kind, [0, 0])
                totals[group.kind] = [kept + len(state.kept[name]), size + group.size]
            values = {f'pruning/kept/{kind}': kept / size for kind, (kept, size) in totals.items()}
        if self.masks:
            weights = dict(model.named_parameters())
            known = [weights[name] for name in self.masks if name in weights]
            total = sum(weight.numel() for weight in known)
            if total:
                zeros = sum(int((weight == 0).sum()) for weight in known)
                values['pruning/zeros'] = zeros / total
        if values:
            runner.visualizer.add_scalars(values, step=runner.iter)


def log_round(visualizer: Visualizer, row: Mapping[str, Any], step: int) -> None:
    """Log a round of iterative pruning.

    Args:
        visualizer: Where to.
        row: Of the run's history: ``round``, ``ratio``, ``sparsity``, ``kept`` by kind as (kept, of how
            many), ``params``, ``flops`` and metrics by moment.
        step: Place on the axis.
    """
    values = {f'pruning/{key}': row[key] for key in ('round', 'ratio', 'sparsity')}
    for key in ('params', 'flops'):
        if row[key] is not None:
            values[f'pruning/{key}'] = row[key]
    for kind, (kept, size) in row['kept'].items():
        values[f'pruning/kept/{kind}'] = kept / size
    for moment in ('after_prune', 'before_removal', 'after_training'):
        for name, value in (row[moment] or {}).items():
            values[f'pruning/{moment}/{name}'] = value
    visualizer.add_scalars(values, step=step)
