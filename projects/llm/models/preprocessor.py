"""Batch preparation for token windows: stacking, device, and a look at the tokens."""

import torch
from mmengine.model import BaseDataPreprocessor
from mmengine.registry import MODELS

from projects.prune_plugin.common.errors import UserError


@MODELS.register_module()
class TokenPreprocessor(BaseDataPreprocessor):
    """Put a batch of windows of equal length on the model's device.

    ``inputs`` is an ``(N, L)`` tensor of token ids or a list of ``(L,)`` tensors; ``scored``, if
    there, an ``(N,)`` tensor or a list of integers. Both become tensors.

    Args:
        vocabulary: Number of the model's tokens, which ``HFCausalLM`` fills in; None: not checked.
    """

    def __init__(self, vocabulary: int | None = None) -> None:
        super().__init__()
        self.vocabulary = vocabulary

    def forward(self, data: dict, training: bool = False) -> dict:
        """Return ``data`` with tensors ``inputs`` ``(N, L)`` and, if given, ``scored`` ``(N,)``.

        Raises:
            UserError: a token that the model doesn't know; its text has another model's tokenizer.
        """
        data = dict(data)
        if not isinstance(data['inputs'], torch.Tensor):
            data['inputs'] = torch.stack(list(data['inputs']))
        if data.get('scored') is not None:
            data['scored'] = torch.as_tensor(data['scored'])
        if self.vocabulary is not None and int(data['inputs'].max()) >= self.vocabulary:
            raise UserError(
                f'the data has token {int(data["inputs"].max())}, but the model has a vocabulary '
                f"of {self.vocabulary}; dataset.tokenizer must be the model's own"
            )
        return self.cast_data(data)
