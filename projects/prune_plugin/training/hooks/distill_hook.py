"""Distillation: trains a pruned model with the dense model as teacher."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, DefaultScope
from torch import nn
from torch.utils.hooks import RemovableHandle

from ...checkpoints.model_loading import load_model
from ...common.errors import UserError
from ...common.model_interface import distill_shared_of, prune_state_on
from ...common.model_wrappers import unwrapped
from ...common.random_state import kept_random_state
from ..distillation import Target, kept_entries, targets_for


class OutputRecorder:
    """Records the outputs of named modules by forward hooks.

    Args:
        model: The model.
        names: Names of its modules.

    Attributes:
        outputs: By module name, the output of its last call.
        handles: The hooks' handles.
    """

    def __init__(self, model: nn.Module, names: Sequence[str]):
        self.outputs: dict[str, Any] = {}
        self.handles = [
            self.register(name, model.get_submodule(name)) for name in dict.fromkeys(names)
        ]

    def register(self, name: str, module: nn.Module) -> RemovableHandle:
        """Record the module's output under ``name`` from now on, until the handle is removed."""

        def record(module: nn.Module, args: tuple, output: Any) -> None:
            self.outputs[name] = output

        return module.register_forward_hook(record)

    def pop(self) -> dict[str, Any]:
        """The recorded outputs, which are cleared."""
        outputs, self.outputs = self.outputs, {}
        return outputs


@HOOKS.register_module()
class DistillHook(Hook):
    """Adds the distances between tensors of the student and of the dense teacher to the training loss.

    The teacher gets the same inputs as the student and runs in evaluation mode without gradients. It is
    not part of the student, its optimizer or its checkpoints. If a module is called several times in a
    step, its last call counts. The losses are entries ``loss_distill_<name>`` of the model's output.

    For modules that the model's class lists in ``distill_shared`` (random augmentation inside the model),
    the teacher uses the output of the student's last call instead of its own.

    Args:
        checkpoint: The teacher's checkpoint; for a slim one, the slim model is built.
        model: Config of the dense model.
        targets: See ``prune_cfg.recovery.distill``; None: ``distill_targets`` of the model's class.

    Example:
        >>> custom_hooks = [dict(type='DistillHook', checkpoint='dense.pth', model=model)]
    """

    def __init__(self, checkpoint: str, model: Mapping, targets: Sequence[Mapping] | None = None):
        self.checkpoint, self.model, self.target_cfgs = checkpoint, model, targets
        self.teacher: nn.Module | None = None
        self.targets: list[Target] = []
        self.handles: list[RemovableHandle] = []

    def before_train(self, runner) -> None:
        """Build the teacher and register hooks on both models."""
        student = unwrapped(runner)
        device = next(student.parameters()).device
        scope = DefaultScope.get_current_instance()
        cfg = Config(
            dict(model=self.model, default_scope=scope.scope_name if scope else 'mmengine')
        )
        with kept_random_state():
            teacher = load_model(cfg, self.checkpoint, device).model
        self.teacher = teacher.requires_grad_(False)
        self.targets = targets_for(student, self.target_cfgs)
        targets_for(teacher, self.target_cfgs)
        states = [prune_state_on(model) for model in (student, teacher)]
        self.kept = {target.label: kept_entries(target, *states) for target in self.targets}
        present = dict(student.named_modules()).keys() & dict(teacher.named_modules()).keys()
        self.shared = [n for n in distill_shared_of(student) if n in present]
        names = [target.module for target in self.targets if target.module]
        self.student_recorder = OutputRecorder(student, names + self.shared)
        self.teacher_recorder = OutputRecorder(teacher, names)
        self.shared_outputs: dict[str, Any] = {}
        self.handles = [
            *self.student_recorder.handles,
            *(teacher.get_submodule(name).register_forward_hook(self.replacing_hook(name))
              for name in self.shared),
            student.register_forward_pre_hook(self.clear_recorded),
            student.register_forward_hook(self.add_losses, with_kwargs=True),
        ]  # fmt: skip

    def after_train(self, runner) -> None:
        """Remove the hooks from the student, and free the teacher."""
        for handle in self.handles:
            handle.remove()
        self.handles, self.teacher = [], None

    def replacing_hook(self, name: str) -> Callable[[nn.Module, tuple, Any], Any]:
        """A forward hook that replaces the output of the teacher's module by that of the student's."""

        def replace(module: nn.Module, args: tuple, output: Any) -> Any:
            return self.shared_outputs.get(name, output)

        return replace

    def clear_recorded(self, student: nn.Module, args: tuple) -> None:
        """Forget outputs of the previous step, or of a recomputation (gradient checkpointing)."""
        self.student_recorder.pop()

    def add_losses(self, student: nn.Module, args: tuple, kwargs: dict, losses: Any) -> Any:
        """Forward hook of the student: in training, run the teacher and add the distillation losses."""
        student_outputs = self.student_recorder.pop()
        if self.teacher is None or not student.training or kwargs.get('mode') != 'loss':
            return None
        if not isinstance(losses, dict):
            raise UserError(f"distill: {type(student).__name__} returns no dict with mode='loss'")
        self.shared_outputs = {
            n: detached(student_outputs[n]) for n in self.shared if n in student_outputs
        }
        with torch.no_grad(), kept_random_state():
            teacher_losses = self.teacher(*args, **kwargs)
        teacher_outputs, self.shared_outputs = self.teacher_recorder.pop(), {}
        student_outputs[''], teacher_outputs[''] = losses, teacher_losses
        added = {}
        for target in self.targets:
            for outputs, who in ((student_outputs, 'student'), (teacher_outputs, 'teacher')):
                if target.module not in outputs:
                    raise UserError(
                        f'distill: {target.module!r} is never called in training of the {who}'
                    )
            student_tensor = target.select_from(student_outputs[target.module])
            teacher_tensor = target.select_from(teacher_outputs[target.module])
            kept = self.kept[target.label]
            added[target.label] = target.distance(student_tensor, teacher_tensor, kept)
        return {**losses, **added}


def detached(value: Any) -> Any:
    """A tensor without its graph; other values unchanged."""
    return value.detach() if isinstance(value, torch.Tensor) else value
