"""Ways to prune, this plugin's and torch-pruning's: a task, a model and shares in, the model cut."""

from functools import partial
from typing import Any

from torch import nn

from projects.prune_plugin import build_pruner, slim


def here(
    task: Any,
    model: nn.Module,
    share: float,
    heads: float,
    seed: int,
    budget: str = 'params',
    **blocks,
) -> nn.Module:
    """Prune with the plugin.

    Args:
        task: What the model is good for; see :mod:`sides.tasks`.
        model: Cut in place.
        share: Fraction of what the budget counts to remove.
        heads: Not used: heads and neurons are one table.
        seed: Of the calibration samples, and of random scores.
        budget: Its type.
        blocks: What prune_cfg says beside the budget.
    """
    if blocks.get('criterion', {}).get('type') == 'Random':
        blocks = {**blocks, 'criterion': dict(type='Random', seed=seed)}
    settings = dict(num_samples=task.samples, batch_size=task.batch, seed=seed)
    blocks |= dict(calibration=settings, profile=task.profile)
    pruner = build_pruner({**blocks, 'budget': dict(type=budget, ratio=share)})
    return slim(model, pruner.plan(model, task.data, loss=task.loss).state)


def peer(
    task: Any,
    model: nn.Module,
    share: float,
    heads: float,
    seed: int,
    importance: str = 'l1',
    widths: str = 'all',
    normalizer: str | None = 'mean',
) -> nn.Module:
    """Prune with torch-pruning, globally and in one step, as its examples do.

    Args:
        task: See :func:`here`; its ``peer_options`` are what torch-pruning must be told of the model.
        model: Cut in place.
        share: Fraction of channels to remove (torch-pruning has no budget of parameters).
        heads: Fraction of attention heads to remove.
        seed: Of the calibration samples.
        importance: 'l1' or 'taylor', both means over a group.
        normalizer: 'mean', which is its default, divides scores by the layer's mean; None doesn't.
        widths: 'all', 'inner' for the widths that the plugin's default units have, or what else the task
            knows.
    """
    import torch_pruning

    scores = torch_pruning.importance
    taylor = importance == 'taylor'
    chosen = (
        scores.GroupTaylorImportance(normalizer=normalizer)
        if taylor
        else scores.GroupMagnitudeImportance(p=1, normalizer=normalizer)
    )
    pruner = torch_pruning.pruner.BasePruner(
        importance=chosen,
        global_pruning=True,
        pruning_ratio=share,
        in_channel_groups={},  # the defaults are shared by all pruners, and keep old models alive
        out_channel_groups={},
        **task.peer_options(model, widths, heads),
    )
    if taylor and all(parameter.grad is None for parameter in model.parameters()):
        add_gradients(task, model, seed)
    pruner.step()
    model.zero_grad(set_to_none=True)
    task.peer_done(model, pruner)
    return model


def add_gradients(task: Any, model: nn.Module, seed: int) -> None:
    """Backward passes over the calibration samples."""
    for _, _, batch in task.samples_of(seed):
        task.loss(model, batch).backward()


def prepared(task: Any, model: nn.Module, method: str, seed: int) -> nn.Module:
    """The model with what torch-pruning's scores need, so that a search over ratios has it once."""
    if is_peer(method) and 'taylor' in method:
        add_gradients(task, model, seed)
    return model


TAYLOR = dict(type='Taylor', order=1)
UNIFORM = dict(type='Uniform')
#: All widths of a convolutional net, those of its stages, too.
COUPLED = dict(type='CoupledChannels', input_shape=(3, 32, 32))
#: All methods by name; a task says which of them are worth trying.
METHODS = dict(
    here=here,
    here_taylor=partial(here, criterion=TAYLOR),
    here_uniform=partial(here, allocator=UNIFORM),
    here_flops=partial(here, budget='flops'),
    here_taylor_flops=partial(here, budget='flops', criterion=TAYLOR),
    here_taylor_coupled=partial(here, units=[COUPLED], criterion=TAYLOR),
    here_random=partial(here, criterion=dict(type='Random'), allocator=UNIFORM),
    peer=peer,
    peer_inner=partial(peer, widths='inner'),
    peer_taylor=partial(peer, importance='taylor'),
    peer_taylor_inner=partial(peer, importance='taylor', widths='inner'),
    peer_taylor_raw=partial(peer, importance='taylor', widths='inner', normalizer=None),
    peer_images=partial(peer, widths='images'),
    peer_images_taylor=partial(peer, importance='taylor', widths='images'),
)


def is_peer(method: str) -> bool:
    """Whether a method is torch-pruning's."""
    return method.startswith('peer')


def first_share(method: str, ratio: float) -> float:
    """What to remove for a fraction of parameters: that, but channels count on both sides of a layer."""
    return 1 - (1 - ratio) ** 0.5 if is_peer(method) else ratio
