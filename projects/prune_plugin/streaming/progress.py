"""What a streamed run has finished, kept in a folder: a killed run goes on behind its last block."""

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from ..common.json_csv import plain, write_json
from .block_methods import BlockResult
from .hidden_states import HiddenStates
from .stream import Stream


class StreamProgress:
    """Finished blocks, and the hidden states behind the last of them.

    Args:
        folder: Where files are kept.
        name: Of the folder with the weights, once they are finished.
        key: What the run is about; what another run has left isn't used.
        resume: Whether to go on with what is there.

    Attributes:
        done: How many blocks are finished.
        blocks: What is known of each of them.
        seconds: How long each took, by step.
    """

    def __init__(self, folder: Path, name: str, key: Mapping[str, Any], resume: bool):
        self.folder, self.key = folder, plain(dict(key))
        #: Where finished weights are.
        self.weights = folder / name
        self.done = 0
        self.blocks: list[BlockResult] = []
        self.seconds: list[dict[str, float]] = []
        self.streams: dict[str, Any] = {}
        found = self._read() if resume else None
        if found is None:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            self.done, self.streams = found['done'], found['streams']
            self.blocks = [BlockResult(**block) for block in found['blocks']]
            self.seconds = found['seconds']
            print_log(f'resuming behind block {self.done}', 'current')

    @property
    def record(self) -> Path:
        """The file that says what is finished."""
        return self.folder / 'record.json'

    @property
    def states(self) -> Path:
        """Where hidden states are."""
        return self.folder / 'states'

    def _read(self) -> dict[str, Any] | None:
        if not self.record.is_file():
            return None
        try:
            found = json.loads(self.record.read_text(encoding='utf-8'))
            if found['key'] == self.key:
                for data in found['streams'].values():
                    HiddenStates.from_dict(data, self.states, False)
                return found
            why = 'is of another run'
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            why = f'cannot be used ({error})'
        print_log(f'{self.record} {why}; all blocks are pruned again', 'current', logging.WARNING)
        return None

    def restore(self, streams: Sequence[Stream]) -> None:
        """Put streams behind the last finished block."""
        for stream in streams if self.done else ():
            states = HiddenStates.from_dict(
                self.streams[stream.name], self.states, stream.in_memory
            )
            stream.states.remove()
            stream.states = states

    def commit(
        self, result: BlockResult, seconds: dict[str, float], streams: Sequence[Stream]
    ) -> None:
        """Note that a block is finished; its weights and all hidden states must be in their files."""
        for stream in streams:
            stream.states.sync()
        self.done += 1
        self.blocks.append(result)
        self.seconds.append(seconds)
        data = dict(
            key=self.key,
            done=self.done,
            streams={stream.name: stream.states.to_dict() for stream in streams},
            blocks=[asdict(block) for block in self.blocks],
            seconds=self.seconds,
        )
        write_json(data, self.record)
        for stream in streams:
            stream.clean()

    def clear(self) -> None:
        """Remove everything."""
        shutil.rmtree(self.folder, ignore_errors=True)
