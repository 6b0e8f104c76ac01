"""A model whose weights are read when their turn comes, and freed behind it."""

from collections.abc import Callable, Iterable, Sequence

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from ..checkpoints.shards import ShardedWeights
from ..common.errors import UserError
from ..structure.prunable_weights import check_finite
from .chain import BlockChain
from .view import BlockView


class Skeleton:
    """A model with parameters on the meta device, and the files that hold their values.

    Args:
        model: The model; its buffers have values.
        chain: Its blocks.
        weights: The files.
        own_name: Gives the model's name of a tensor by its name in the files.
        device: Where weights go.

    Raises:
        UserError: a tensor is missing or has another shape, a buffer has no value, or blocks share weights.
    """

    def __init__(
        self,
        model: nn.Module,
        chain: BlockChain,
        weights: ShardedWeights,
        own_name: Callable[[str], str] = str,
        device: str = 'cpu',
    ):
        self.model, self.chain, self.weights, self.device = model, chain, weights, device
        tensors = dict(model.state_dict(keep_vars=True))
        self.tied = tied_names(tensors)
        self.types = {name: tensor.dtype for name, tensor in tensors.items()}
        self.sources = self._sources(tensors, own_name)
        self.inside: list[list[str]] = [[] for _ in chain.blocks]
        self.outside: list[str] = []
        for name in tensors:
            owner = chain.owner(name)
            (self.outside if owner is None else self.inside[owner]).append(name)
        for name, names in self.tied.items():
            if len({chain.owner(n) for n in names}) > 1:
                raise UserError(
                    f"prune_cfg.execution.mode is 'streamed', but {name} is shared by {' and '.join(names)}"
                    ', which are not in one block; take mode="memory"'
                )
        for name, buffer in model.named_buffers():
            if buffer.is_meta and name not in tensors:
                raise UserError(
                    f"prune_cfg.execution.mode is 'streamed', but the buffer {name} gets no value when the "
                    'model is built without weights; take mode="memory"'
                )

    def _sources(
        self, tensors: dict[str, Tensor], own_name: Callable[[str], str]
    ) -> dict[str, str]:
        """The name in the files of each tensor."""
        in_files = {own_name(name): name for name in self.weights}
        found: dict[str, str] = {}
        for name in tensors:
            names = [n for n in (name, *self.tied.get(name, ())) if n in in_files]
            if names:
                found[name] = in_files[names[0]]
        self._check_names(tensors, found)
        wrong = [
            f'{n} {self.weights[s].shape} instead of {tuple(tensors[n].shape)}'
            for n, s in found.items()
            if self.weights[s].shape != tuple(tensors[n].shape)
        ]
        if wrong:
            raise UserError(
                f'{self.weights.folder} has another shape of {len(wrong)} tensors of the model: {wrong[0]}'
            )
        return found

    def _check_names(self, tensors: Iterable[str], found: dict[str, str]) -> None:
        """Raise :class:`UserError` for tensors that no file has; log what isn't used."""
        missing = [name for name in tensors if name not in found]
        if missing:
            raise UserError(
                f'{self.weights.folder} lacks {len(missing)} tensors of the model, such as {missing[0]}: '
                'streamed, files must have the names that the model has; load and save the model once '
                'with transformers where it converts them'
            )
        unused = sorted(set(self.weights) - set(found.values()))
        if unused:
            print_log(f'{self.weights.folder}: not used: {", ".join(unused[:4])}', 'current')

    def load(self, names: Sequence[str], dtype: torch.dtype | None = None) -> None:
        """Give tensors their values.

        Args:
            names: Of parameters and buffers.
            dtype: Of floating-point ones; None: as the model has them.

        Raises:
            UserError: a file can't be read, or holds NaN or infinite numbers.
        """
        for name in names:
            module, own = self._place(name)
            old = module._parameters.get(own)
            if old is not None and not old.is_meta:
                continue  # tied to one that was read
            kind = self.types[name]
            kind = dtype if dtype is not None and kind.is_floating_point else kind
            value = self.weights.read(self.sources[name])
            check_finite({name: value}, f'{self.weights.folder}: ')
            self._install(name, value.to(self.device, kind))

    def free(self, names: Sequence[str]) -> None:
        """Take the values of parameters; shapes stay, also those of slimmed ones."""
        for name in names:
            module, own = self._place(name)
            old = module._parameters.get(own)
            if old is not None and not old.is_meta:
                empty = torch.empty(old.shape, dtype=self.types[name], device='meta')
                self._install(name, empty)

    def _place(self, name: str) -> tuple[nn.Module, str]:
        path, _, own = name.rpartition('.')
        return self.model.get_submodule(path), own

    def _install(self, name: str, value: Tensor) -> None:
        """Put a tensor into its place, and into those that it is tied to."""
        module, own = self._place(name)
        if own not in module._parameters:
            module._buffers[own] = value
            return
        old = module._parameters[own]
        assert old is not None
        parameter = nn.Parameter(value, old.requires_grad)
        for tied in self.tied.get(name, (name,)):
            module, own = self._place(tied)
            module._parameters[own] = parameter

    def early(self) -> list[str]:
        """Names of what is outside of the blocks and runs before them."""
        return [name for name in self.outside if name not in self.chain.late]

    def block(self, number: int, dtype: torch.dtype | None = None) -> BlockView:
        """A block with its weights; the next one's are being read ahead.

        Args:
            number: Position of the block.
            dtype: See :meth:`load`.
        """
        self.load(self.inside[number], dtype)
        if number + 1 < len(self.inside):
            self.weights.prefetch(self.sources[name] for name in self.inside[number + 1])
        return self.view(number)

    def view(self, number: int) -> BlockView:
        """A block as a model, with or without its weights."""
        return BlockView(self.chain, number, self.model.get_submodule(self.chain.blocks[number]))

    def take(self, view: BlockView) -> None:
        """Put back what has become of a block, without its weights."""
        path, _, own = view.path.rpartition('.')
        block = view.block
        self.model.get_submodule(path)._modules[own] = block
        names = [f'{view.path}.{name}' for name, _ in block.named_parameters()]
        self.free(names)


def tied_names(tensors: dict[str, Tensor]) -> dict[str, tuple[str, ...]]:
    """For each tensor that has several names all of them."""
    by_id: dict[int, list[str]] = {}
    for name, tensor in tensors.items():
        by_id.setdefault(id(tensor), []).append(name)
    return {name: tuple(names) for names in by_id.values() if len(names) > 1 for name in names}
