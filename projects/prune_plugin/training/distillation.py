"""Distillation: targets (tensors that a student matches to its teacher's) and their losses."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..common.errors import UserError
from ..common.model_interface import distill_targets_of
from ..common.validation import check_number, one_of
from ..structure.prune_state import PruneState


def mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared error divided by the teacher's variance: 1 for a student that outputs the mean."""
    return F.mse_loss(student, teacher) / teacher.var(correction=0).clamp_min(1e-12)


def l1(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean absolute error, in the tensors' unit."""
    return F.l1_loss(student, teacher)


def bce(student: Tensor, teacher: Tensor) -> Tensor:
    """Kullback-Leibler divergence of sigmoid logits: binary cross-entropy minus the teacher's entropy.

    The mean over all entries, in nats; 0 if student and teacher agree.
    """
    p = teacher.sigmoid()
    yes = p * (F.logsigmoid(teacher) - F.logsigmoid(student))
    no = (1 - p) * (F.logsigmoid(-teacher) - F.logsigmoid(-student))
    return (yes + no).mean()


def kl(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Kullback-Leibler divergence of softmax logits (last dimension), times temperature squared.

    The mean over all other dimensions, in nats; see https://arxiv.org/abs/1503.02531.
    """
    log_q = F.log_softmax(student / temperature, -1)
    log_p = F.log_softmax(teacher / temperature, -1)
    return (log_p.exp() * (log_p - log_q)).sum(-1).mean() * temperature**2


#: By name: (student, teacher) -> scalar; both are float32 of equal shape, the teacher without gradient.
LOSSES: dict[str, Callable[..., Tensor]] = dict(mse=mse, l1=l1, bce=bce, kl=kl)


@dataclass(frozen=True)
class Target:
    """A tensor of the model whose distance between student and teacher is a loss.

    Attributes:
        module: Name of the module that returns it; ``''`` is the model.
        loss: A name in :data:`LOSSES`.
        key: Key or index in the module's output, if that is a dict, list or tuple.
        weight: Factor on the loss.
        temperature: Temperature of the ``'kl'`` loss; None: 1.
        name: The loss is named ``loss_distill_<name>``; None: the key, or the last part of the module's
            name.
        align: ``dict(dim=2, group='head.queries')``: along ``dim`` the tensor has one entry per unit of
            that group, and a pruned student is compared with the teacher's entries for the units kept.

    Raises:
        UserError: a value isn't valid.
    """

    module: str
    loss: str = 'mse'
    key: str | int | None = None
    weight: float = 1.0
    temperature: float | None = None
    name: str | None = None
    align: Mapping[str, Any] | None = None

    def __post_init__(self):
        if not isinstance(self.module, str):
            raise UserError(f'module is {self.module!r}; it must be the name of a module')
        one_of('loss', self.loss, LOSSES)
        if isinstance(self.key, bool) or not isinstance(self.key, str | int | None):
            raise UserError(f'key is {self.key!r}; it must be a string or a whole number')
        check_number('weight', self.weight, 0, inf)
        if self.temperature is not None:
            check_number('temperature', self.temperature, 0, inf)
            if self.loss != 'kl':
                raise UserError(f"temperature is only for loss='kl', not for {self.loss!r}")
        if self.name is not None and (not isinstance(self.name, str) or not self.name):
            raise UserError(f'name is {self.name!r}; it must be a word')
        if self.align is not None:
            fits = isinstance(self.align, Mapping) and set(self.align) == {'dim', 'group'}
            if not fits or (type(self.align['dim']), type(self.align['group'])) != (int, str):
                raise UserError(f"align is {self.align!r}; it must be dict(dim=2, group='...')")

    @property
    def label(self) -> str:
        """Name of the loss."""
        default = self.key if self.key is not None else self.module.rpartition('.')[2] or 'output'
        return f'loss_distill_{default if self.name is None else self.name}'

    @property
    def tensor_name(self) -> str:
        """Module and key of the tensor, for messages."""
        return f'{self.module or "model"}{"" if self.key is None else f"[{self.key!r}]"}'

    def select_from(self, output: Any) -> Tensor:
        """The tensor in the module's output.

        Raises:
            UserError: the output has no such key, or that isn't a tensor.
        """
        tensor = output
        if self.key is not None:
            try:
                tensor = output[self.key]
            except (KeyError, IndexError, TypeError) as error:
                valid = (
                    f'; valid are {", ".join(map(str, output))}' if hasattr(output, 'keys') else ''
                )
                raise UserError(
                    f'distill: {self.module!r} returns no {self.key!r}{valid}'
                ) from error
        if not isinstance(tensor, Tensor):
            raise UserError(
                f'distill: {self.tensor_name} is a {type(tensor).__name__}; key must name a tensor'
            )
        return tensor

    def distance(self, student: Tensor, teacher: Tensor, kept: Tensor | None) -> Tensor:
        """The weighted loss, a scalar.

        Args:
            student: The student's tensor.
            teacher: The teacher's tensor.
            kept: Indices of the teacher's entries along ``align['dim']`` that the student has; None: all.

        Raises:
            UserError: the shapes differ.
        """
        teacher = teacher.detach()
        if kept is not None and self.align:
            teacher = select(teacher, self.align, kept, self.tensor_name)
        if student.shape != teacher.shape:
            hint = (
                '' if self.align else '; align=dict(dim=..., group=...) would select what is kept'
            )
            raise UserError(
                f'distill: {self.tensor_name} is {tuple(student.shape)} in the student and '
                f'{tuple(teacher.shape)} in the teacher{hint}'
            )
        extra = {} if self.temperature is None else {'temperature': self.temperature}
        return self.weight * LOSSES[self.loss](student.float(), teacher.float(), **extra)


def select(teacher: Tensor, align: Mapping[str, Any], kept: Tensor, name: str) -> Tensor:
    """The entries ``kept`` of ``teacher`` along ``align['dim']``; ``name`` names it in messages.

    Raises:
        UserError: there is no such dimension, or it is too short.
    """
    dim = align['dim']
    if not -teacher.dim() <= dim < teacher.dim() or (
        len(kept) and int(kept[-1]) >= teacher.shape[dim]
    ):
        raise UserError(
            f'distill: align={dict(align)} does not fit {name} of shape {tuple(teacher.shape)}'
        )
    return teacher.index_select(dim, kept.to(teacher.device))


def read_targets(targets: Any, key: str) -> list[Target]:
    """Build targets from a config.

    Args:
        targets: A list of dicts.
        key: Key of the list in the config, for messages.

    Raises:
        UserError: unknown keys, invalid values, or two losses with one name.
    """
    if isinstance(targets, str | Mapping) or not isinstance(targets, Sequence) or not targets:
        raise UserError(f'{key} is {targets!r}; it must be a list of dicts')
    result: list[Target] = []
    valid = list(Target.__dataclass_fields__)
    for i, target in enumerate(targets):
        where = f'{key}[{i}]'
        if not isinstance(target, Mapping):
            raise UserError(f'{where} is {target!r}; it must be a dict')
        for name in target:
            if name not in valid:
                raise UserError(f'{where}.{name} is not a key; valid are {", ".join(valid)}')
        if 'module' not in target:
            raise UserError(f'{where}.module is missing; it names a module of the model')
        try:
            result.append(Target(**target))
        except UserError as error:
            raise UserError(f'{where}.{error}') from error
    labels = [target.label for target in result]
    for i, label in enumerate(labels):
        if label in labels[:i]:
            raise UserError(f"{key}[{i}]: there are two losses '{label}'; give it another name")
    return result


def check_distill(distill: Any) -> None:
    """Raise :class:`UserError` unless ``distill`` is a valid ``prune_cfg.recovery.distill``."""
    if not isinstance(distill, Mapping):
        raise UserError(
            f"distill is {distill!r}; it must be a dict, dict() for the model's targets"
        )
    for name in distill:
        if name != 'targets':
            raise UserError(f'distill.{name} is not a key; valid is targets')
    if distill.get('targets') is not None:
        read_targets(distill['targets'], 'distill.targets')


def targets_for(model: nn.Module, targets: Sequence[Mapping] | None) -> list[Target]:
    """Build the targets of a config, or the default ones of the model's class.

    Args:
        model: The student or the teacher.
        targets: A list of dicts, as in a config; None: ``model.distill_targets``.

    Raises:
        UserError: there are none, they aren't valid, or the model lacks one of the modules.
    """
    key = 'prune_cfg.recovery.distill.targets'
    if targets is None:
        targets = distill_targets_of(model)
        if not targets:
            raise UserError(f'{key} is missing, and {type(model).__name__} names none itself')
    result = read_targets(targets, key)
    modules = dict(model.named_modules())
    for i, target in enumerate(result):
        if target.module not in modules:
            raise UserError(f'{key}[{i}].module: the model has no module {target.module!r}')
    return result


def kept_entries(
    target: Target, student: PruneState | None, teacher: PruneState | None
) -> Tensor | None:
    """Indices of the entries of the teacher's tensor that the student has, along ``align['dim']``.

    Args:
        target: The target.
        student: Prune state of the student; None if it is dense.
        teacher: Prune state of the teacher; None if it is dense.

    Returns:
        Ascending indices, or None for all entries.

    Raises:
        UserError: the student has units that were removed from the teacher.
    """
    group = target.align['group'] if target.align else None
    if group is None or student is None or group not in student.kept:
        return None
    kept = student.kept[group]
    if teacher is None or group not in teacher.kept:
        return kept
    in_teacher = teacher.kept[group]
    indices = torch.searchsorted(in_teacher, kept)
    if len(kept) and (
        int(indices[-1]) >= len(in_teacher) or not torch.equal(in_teacher[indices], kept)
    ):
        raise UserError(f'distill: the student has units of {group!r} that its teacher lacks')
    return indices
