"""Finished layers of a pruning, kept in files, so that a killed run can go on."""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any

from mmengine import dist
from mmengine.logging import print_log
from torch import Tensor

from ...checkpoints.checkpoint_file import load_file, save_file
from ...common.distributed import from_rank_0
from ...common.errors import UserError


class LayerProgress:
    """Finished layers in a folder, a file for those that share an input: a killed run can go on.

    Args:
        folder: Where; made when the first layer is done.
        key: What the run is about (settings, checkpoint); another run's files are not used.
        older: The keys that older versions wrote for the same run; their files are used.
    """

    def __init__(
        self, folder: Path, key: Mapping[str, Any], older: Sequence[Mapping[str, Any]] = ()
    ):
        keys = [json.dumps(form, sort_keys=True, default=str) for form in (key, *older)]
        self.folder, self.key, self.accepted = folder, keys[0], keys

    def below(self, name: str) -> 'LayerProgress':
        """That of another step of the same run, in a folder in this one."""
        other = copy(self)
        other.folder = self.folder / name
        return other

    def load(self, number: int) -> dict[str, dict[str, Tensor]] | None:
        """``{layer: dict(weight=..., keep=...)}`` of the ``number``-th input; None if they aren't done."""
        found = from_rank_0(self.read(number) if dist.is_main_process() else None)
        if found is None:
            return None
        return {
            name: dict(weight=weight, keep=found['keep'][name])
            for name, weight in found['state_dict'].items()
        }

    def read(self, number: int) -> dict[str, Any] | None:
        """The file of the ``number``-th input; None if it is missing, damaged or of another run."""
        path = self.folder / f'{number:04d}.pth'
        if not path.is_file():
            return None
        try:
            found = load_file(path)
        except UserError as error:
            print_log(f'{error}; its layers are pruned again', 'current', logging.WARNING)
            return None
        return found if found.get('key') in self.accepted else None

    def save(self, number: int, layers: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Keep the layers of the ``number``-th input (on rank 0)."""
        if not dist.is_main_process():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        data = dict(
            key=self.key,
            state_dict={name: weight.cpu() for name, (weight, _) in layers.items()},
            keep={name: keep.cpu() for name, (_, keep) in layers.items()},
        )
        save_file(data, self.folder / f'{number:04d}.pth')

    def clear(self) -> None:
        """Remove the folder's files (on rank 0)."""
        if dist.is_main_process() and self.folder.is_dir():
            for path in self.folder.rglob('*.pth'):
                path.unlink()
            inner = [path for path in self.folder.rglob('*') if path.is_dir()]
            for folder in (*sorted(inner, reverse=True), self.folder):
                if not any(folder.iterdir()):
                    os.rmdir(folder)
