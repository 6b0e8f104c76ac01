"""One block of a model as a model of its own, whose modules keep their names."""

from typing import Any

from torch import Tensor, nn

from .chain import BlockChain, hidden_of


class BlockView(nn.Module):
    """A block with the names that its modules have in the whole model.

    What works on a model and is given batches works on a view: it is called with windows, see
    :class:`.windows.Window`, and gives the block's hidden states.

    Args:
        chain: The model's blocks.
        number: Which of them.
        block: The module.
    """

    def __init__(self, chain: BlockChain, number: int, block: nn.Module):
        super().__init__()
        self.path = chain.blocks[number]
        self.number = number
        *containers, last = self.path.split('.')
        holder: nn.Module = self
        for name in containers:
            holder.add_module(name, nn.Module())
            holder = holder.get_submodule(name)
        holder.add_module(last, block)

    @property
    def block(self) -> nn.Module:
        """The block; another module once it was slimmed as a whole."""
        return self.get_submodule(self.path)

    def forward(self, window: Any) -> Tensor:
        """The hidden states that the block gives for a window."""
        args, kwargs = window.arguments(self.number)
        hidden = hidden_of(self.block(*args, **kwargs))
        assert hidden is not None  # find_chain looked
        return hidden


def run_view(view: nn.Module, window: Any) -> Tensor:
    """A "loss" of a view on a window, as methods take it: the hidden states."""
    return view(window)
