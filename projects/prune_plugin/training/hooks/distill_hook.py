"""Trains a pruned model beside the dense one that it comes from."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, DefaultScope
from torch import nn

from ...checkpoints.model_loading import load_model
from ...common.errors import UserError
from ...common.model_interface import distill_shared_of, prune_state_on
from ...common.model_wrappers import unwrapped
from ...common.random_state import kept_random_state
from ..distillation import Target, kept_entries, targets_for


class Catcher:
    """What named modules of a model returned last.

    Args:
        model: The model.
        names: Names of its modules.

    Attributes:
        caught: ``{module name: output of its last call}``.
    """

    def __init__(self, model: nn.Module, names: Sequence[str]):
        self.caught: dict[str, Any] = {}
        self.handles = [
            self.watch(name, model.get_submodule(name)) for name in dict.fromkeys(names)
        ]

    def watch(self, name: str, module: nn.Module):
        """Keep the module's output from now on."""

        def keep(module: nn.Module, args: tuple, output: Any) -> None:
            self.caught[name] = output

        return module.register_forward_hook(keep)

    def take(self) -> dict[str, Any]:
        """What was caught; nothing stays behind."""
        taken, self.caught = self.caught, {}
        return taken


@HOOKS.register_module()
class DistillHook(Hook):
    """Adds to the training loss how far the student's tensors are from the dense teacher's.

    The teacher runs on the student's very inputs, in evaluation mode and without gradients; it is
    no part of the student, its optimizer or its checkpoints. Of a module that is called several
    times in a step the last call counts. The losses are entries ``loss_distill_<name>`` of what
    the model returns.

    Modules that the model's class lists in ``distill_shared`` (random augmentation of the inputs
    inside the model) don't run anew in the teacher: it gets what the student's last call returned.

    Args:
        checkpoint: The teacher's weights; a slim one is built slim.
        model: Config of the dense model.
        targets: See ``prune_cfg.recovery.distill``; None: ``distill_targets`` of the model's class.

    Example:
        >>> custom_hooks = [dict(type='DistillHook', checkpoint='dense.pth', model=model)]
    """

    def __init__(self, checkpoint: str, model: Mapping, targets: Sequence[Mapping] | None = None):
        self.checkpoint, self.model, self.given = checkpoint, model, targets
        self.teacher: nn.Module | None = None
        self.targets: list[Target] = []
        self.handles: list = []

    def before_train(self, runner) -> None:
        """Build the teacher, and listen to both."""
        student = unwrapped(runner)
        device = next(student.parameters()).device
        scope = DefaultScope.get_current_instance()
        cfg = Config(
            dict(model=self.model, default_scope=scope.scope_name if scope else 'mmengine')
        )
        with kept_random_state():
            self.teacher = load_model(cfg, self.checkpoint, device).model
        self.teacher.requires_grad_(False)
        self.targets = targets_for(student, self.given)
        targets_for(self.teacher, self.given)
        states = [prune_state_on(model) for model in (student, self.teacher)]
        self.kept = {target.label: kept_entries(target, *states) for target in self.targets}
        present = dict(student.named_modules()).keys() & dict(self.teacher.named_modules()).keys()
        self.shared = [n for n in distill_shared_of(student) if n in present]
        names = [target.module for target in self.targets]
        inside = [name for name in names if name]
        self.ours = Catcher(student, inside + self.shared)
        self.theirs = Catcher(self.teacher, inside)
        self.given_inputs: dict[str, Any] = {}
        self.handles = [
            *self.ours.handles,
            *(self.teacher.get_submodule(name).register_forward_hook(self.replace(name))
              for name in self.shared),
            student.register_forward_pre_hook(self.begin),
            student.register_forward_hook(self.add_losses, with_kwargs=True),
        ]  # fmt: skip

    def after_train(self, runner) -> None:
        """Leave the student as it was, and forget the teacher."""
        for handle in self.handles:
            handle.remove()
        self.handles, self.teacher = [], None

    def replace(self, name: str):
        """A hook that has the teacher's module return what the student's did."""

        def swap(module: nn.Module, args: tuple, output: Any) -> Any:
            return self.given_inputs.get(name, output)

        return swap

    def begin(self, student: nn.Module, args: tuple) -> None:
        """Forget what an earlier step, or gradient checkpointing, has left."""
        self.ours.take()

    def add_losses(self, student: nn.Module, args: tuple, kwargs: dict, losses: Any) -> Any:
        """Run the teacher and add the losses to those of the student, when it trains."""
        ours = self.ours.take()
        if not student.training or kwargs.get('mode') != 'loss':
            return None
        if not isinstance(losses, dict):
            raise UserError(f"distill: {type(student).__name__} returns no dict with mode='loss'")
        self.given_inputs = {n: detached(ours[n]) for n in self.shared if n in ours}
        with torch.no_grad(), kept_random_state():
            result = self.teacher(*args, **kwargs)
        theirs, self.given_inputs = self.theirs.take(), {}
        ours[''], theirs[''] = losses, result
        added = {}
        for target in self.targets:
            for caught, who in ((ours, 'student'), (theirs, 'teacher')):
                if target.module not in caught:
                    raise UserError(
                        f'distill: {target.module!r} is never called in training of the {who}'
                    )
            student_tensor = target.of(ours[target.module])
            teacher_tensor = target.of(theirs[target.module])
            kept = self.kept[target.label]
            added[target.label] = target.distance(student_tensor, teacher_tensor, kept)
        return {**losses, **added}


def detached(value: Any) -> Any:
    """A tensor without its graph; anything else as it is."""
    return value.detach() if isinstance(value, torch.Tensor) else value
