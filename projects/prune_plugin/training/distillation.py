"""Distillation: what a student is to copy from its teacher, and how far it is from it."""

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
    """Mean squared difference in units of the teacher's variance: 1 is no better than its mean."""
    return F.mse_loss(student, teacher) / teacher.var(correction=0).clamp_min(1e-12)


def l1(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean absolute difference, in the tensors' own unit."""
    return F.l1_loss(student, teacher)


def bce(student: Tensor, teacher: Tensor) -> Tensor:
    """Divergence of sigmoid logits: binary cross-entropy less the teacher's entropy, per entry.

    The mean over all entries, in nats; 0 where the two agree.
    """
    p = teacher.sigmoid()
    yes = p * (F.logsigmoid(teacher) - F.logsigmoid(student))
    no = (1 - p) * (F.logsigmoid(-teacher) - F.logsigmoid(-student))
    return (yes + no).mean()


def kl(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Kullback-Leibler divergence of softmax logits (last dimension), times temperature squared.

    The mean over all other dimensions, in nats; see https://arxiv.org/abs/1503.02531.
    """
    ours = F.log_softmax(student / temperature, -1)
    theirs = F.log_softmax(teacher / temperature, -1)
    return (theirs.exp() * (theirs - ours)).sum(-1).mean() * temperature**2


#: (student, teacher) -> scalar, both float32 and of one shape, no gradient in the teacher.
LOSSES: dict[str, Callable[..., Tensor]] = dict(mse=mse, l1=l1, bce=bce, kl=kl)


@dataclass(frozen=True)
class Target:
    """A tensor that the student is to copy.

    Attributes:
        module: Name of the module that returns it; ``''`` is the model.
        loss: A name in :data:`LOSSES`.
        key: Its place in what the module returns, if that is a dict, list or tuple.
        weight: Factor on the loss.
        temperature: Of ``'kl'``.
        name: The loss is called ``loss_distill_<name>``; the key, or the end of the module's name.
        align: ``dict(dim=2, group='head.queries')``: along ``dim`` the tensor has one entry per
            unit of that group, so a pruned student is compared with what it has kept.
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
            raise UserError(f'key is {self.key!r}; it must be a word or a number')
        check_number('weight', self.weight, 0, inf)
        if self.temperature is not None:
            check_number('temperature', self.temperature, 0, inf)
            if self.loss != 'kl':
                raise UserError(f"temperature goes with loss='kl', not with {self.loss!r}")
        if self.name is not None and (not isinstance(self.name, str) or not self.name):
            raise UserError(f'name is {self.name!r}; it must be a word')
        if self.align is not None:
            fits = isinstance(self.align, Mapping) and set(self.align) == {'dim', 'group'}
            if not fits or (type(self.align['dim']), type(self.align['group'])) != (int, str):
                raise UserError(f"align is {self.align!r}; it must be dict(dim=2, group='...')")

    @property
    def label(self) -> str:
        """The key of the loss."""
        own = self.key if self.key is not None else self.module.rpartition('.')[2] or 'output'
        return f'loss_distill_{own if self.name is None else self.name}'

    @property
    def place(self) -> str:
        """The tensor, for messages."""
        return f'{self.module or "model"}{"" if self.key is None else f"[{self.key!r}]"}'

    def of(self, output: Any) -> Tensor:
        """The tensor in what the module returned.

        Raises:
            UserError: there is none.
        """
        found = output
        if self.key is not None:
            try:
                found = output[self.key]
            except (KeyError, IndexError, TypeError) as error:
                valid = (
                    f'; valid are {", ".join(map(str, output))}' if hasattr(output, 'keys') else ''
                )
                raise UserError(
                    f'distill: {self.module!r} returns no {self.key!r}{valid}'
                ) from error
        if not isinstance(found, Tensor):
            raise UserError(
                f'distill: {self.place} is a {type(found).__name__}; key must name a tensor'
            )
        return found

    def distance(self, student: Tensor, teacher: Tensor, kept: Tensor | None) -> Tensor:
        """The weighted loss.

        Args:
            student: The student's tensor.
            teacher: The teacher's.
            kept: Which of the teacher's entries along ``align['dim']`` the student has; None: all.

        Raises:
            UserError: the shapes differ.
        """
        teacher = teacher.detach()
        if kept is not None:
            teacher = select(teacher, self.align, kept, self.place)
        if student.shape != teacher.shape:
            hint = (
                '' if self.align else '; align=dict(dim=..., group=...) would select what is kept'
            )
            raise UserError(
                f'distill: {self.place} is {tuple(student.shape)} in the student and '
                f'{tuple(teacher.shape)} in the teacher{hint}'
            )
        extra = {} if self.temperature is None else {'temperature': self.temperature}
        return self.weight * LOSSES[self.loss](student.float(), teacher.float(), **extra)


def select(teacher: Tensor, align: Mapping[str, Any], kept: Tensor, place: str) -> Tensor:
    """The entries ``kept`` of ``teacher`` along ``align['dim']``."""
    dim = align['dim']
    if not -teacher.dim() <= dim < teacher.dim() or (
        len(kept) and int(kept[-1]) >= teacher.shape[dim]
    ):
        raise UserError(
            f'distill: align={dict(align)} does not fit {place} of shape {tuple(teacher.shape)}'
        )
    return teacher.index_select(dim, kept.to(teacher.device))


def read_targets(targets: Any, key: str) -> list[Target]:
    """Targets from a config, checked; ``key`` names them in messages.

    Raises:
        UserError: unknown keys, values that aren't valid, two losses of one name.
    """
    if isinstance(targets, str | Mapping) or not isinstance(targets, Sequence) or not targets:
        raise UserError(f'{key} is {targets!r}; it must be a list of dicts')
    found: list[Target] = []
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
            found.append(Target(**target))
        except UserError as error:
            raise UserError(f'{where}.{error}') from error
    labels = [target.label for target in found]
    for i, label in enumerate(labels):
        if label in labels[:i]:
            raise UserError(f"{key}[{i}]: there are two losses '{label}'; give it another name")
    return found


def check_distill(distill: Any) -> None:
    """Raise :class:`UserError` unless ``distill`` may stand in ``prune_cfg.recovery``."""
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
    """The targets given, or those the model's class names; all their modules are in the model.

    Args:
        model: The student or the teacher.
        targets: As in a config; None: ``model.distill_targets``.

    Raises:
        UserError: there are none, or the model has no such module.
    """
    key = 'prune_cfg.recovery.distill.targets'
    if targets is None:
        targets = distill_targets_of(model)
        if not targets:
            raise UserError(f'{key} is missing, and {type(model).__name__} names none itself')
    found = read_targets(targets, key)
    modules = dict(model.named_modules())
    for i, target in enumerate(found):
        if target.module not in modules:
            raise UserError(f'{key}[{i}].module: the model has no module {target.module!r}')
    return found


def kept_entries(
    target: Target, student: PruneState | None, teacher: PruneState | None
) -> Tensor | None:
    """Which entries of the teacher's tensor the student has along the target's ``align``.

    Args:
        target: The target.
        student: Prune state of the student, or None.
        teacher: Likewise, if the teacher is slim itself.

    Returns:
        Ascending indices into the teacher's tensor, or None for all.

    Raises:
        UserError: the student has units that the teacher has lost.
    """
    group = target.align['group'] if target.align else None
    if group is None or student is None or group not in student.kept:
        return None
    ours = student.kept[group]
    if teacher is None or group not in teacher.kept:
        return ours
    theirs = teacher.kept[group]
    places = torch.searchsorted(theirs, ours)
    if len(ours) and (int(places[-1]) >= len(theirs) or not torch.equal(theirs[places], ours)):
        raise UserError(f'distill: the student has units of {group!r} that its teacher has not')
    return places
