"""Where models run."""

import torch


def best_device() -> str:
    """The device that the tools take: a GPU if there is one."""
    return 'cuda' if torch.cuda.is_available() else 'cpu'
