"""Any causal language model of transformers as an MMEngine model."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from torch import Tensor
from transformers import AttentionInterface, PreTrainedModel
from transformers.initialization import no_init_weights
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from projects.prune_plugin.common.errors import UserError

from ..slim_folder import auto_class
from .gguf_network import GgufNetwork
from .pretrained import (
    config_from,
    load_weights_into,
    names_of_files,
    read_config,
    read_generation_config,
)
from .sources import find_source, reason, safetensors_folder
from .tokenizer import load_tokenizer

DTYPES = {name: getattr(torch, name) for name in ('float32', 'bfloat16', 'float16', 'float64')}
IGNORED = -100  # the target of positions that don't count
#: Attention on the meta device: transformers looks at values when it makes a mask, and makes none
#: for an attention that it doesn't know.
UNMASKED = 'unmasked_sdpa'
AttentionInterface.register(UNMASKED, sdpa_attention_forward)


@MODELS.register_module()
class HFCausalLM(BaseModel):
    """A transformers causal language model (attribute ``lm``) with next-token losses around it.

    State-dict keys are transformers' own behind ``lm.``, such as
    ``lm.model.layers.0.self_attn.q_proj.weight``. Building reads the config alone; pretrained
    weights are read by ``init_weights``, so that a model for a checkpoint needs no weight files.

    Args:
        path: A folder written by ``save_pretrained``, a ``.gguf`` file,
            ``package://PACKAGE/FILE.gguf`` for one in an installed Python package, or a name on the
            Hugging Face hub.
        architecture: The config as a dict with ``model_type`` and whatever differs from that type's
            defaults. With it nothing is read when building, and ``path`` only gives weights and
            tokenizer; without ``path`` the weights are random.
        dtype: Of the weights: 'float32', 'bfloat16', 'float16' or 'float64'.
        window: Tokens of the example that FLOPs and latency are measured with; None: 512, or as
            many as the model takes.
        gradient_checkpointing: Keep only the layers' inputs when training, and compute the rest
            again in the backward pass.
        attn_implementation: 'sdpa', 'eager' or another that transformers knows.
        trust_remote_code: Whether code that lies with the model may run.
        data_preprocessor: Config of the preprocessor; a ``TokenPreprocessor`` by default.
        init_cfg: Not used: transformers initialises its models itself.

    Raises:
        UserError: there is no such model, or it can't be built.

    Example::

        model = dict(type='HFCausalLM', path='HuggingFaceTB/SmolLM2-135M', window=512)
    """

    #: What a pruned model copies from the dense one unless ``recovery.distill.targets`` says more.
    distill_targets = (dict(module='lm', key='logits', loss='kl', temperature=1.0),)
    profile_batch_size = 1
    engine_files = ('.gguf',)

    def __init__(
        self,
        path: str | None = None,
        architecture: Mapping[str, Any] | None = None,
        dtype: str = 'float32',
        window: int | None = None,
        gradient_checkpointing: bool = False,
        attn_implementation: str = 'sdpa',
        trust_remote_code: bool = False,
        data_preprocessor: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(data_preprocessor or dict(type='TokenPreprocessor'), init_cfg)
        if path is None and architecture is None:
            raise UserError('model.path is missing; give it, or model.architecture')
        if dtype not in DTYPES:
            raise UserError(f'model.dtype={dtype!r} is unknown; valid are {", ".join(DTYPES)}')
        self.path, self.dtype, self.trust_remote_code = path, dtype, trust_remote_code
        source = None
        if architecture is None:
            source = find_source(path)
            config = read_config(source, trust_remote_code)
        else:
            config = config_from(architecture)
        if torch.get_default_device().type == 'meta':
            attn_implementation = UNMASKED
        # Random initialisation takes longer than reading the weights that would replace it.
        with no_init_weights() if path else nullcontext():
            self.lm = build_lm(config, DTYPES[dtype], attn_implementation, trust_remote_code)
        self.lm.tie_weights()  # initialising would have done it
        generation = read_generation_config(source) if source else None
        if generation is not None:
            self.lm.generation_config = generation
        if gradient_checkpointing:
            checkpoint_activations(self.lm)
        self.window = checked_window(window, self.max_window)
        self.data_preprocessor.vocabulary = getattr(config, 'vocab_size', None)

    @property
    def max_window(self) -> int | None:
        """Most tokens that the model takes at once; None: any number."""
        return getattr(self.lm.config, 'max_position_embeddings', None)

    @property
    def tokenizer(self):
        """The tokenizer that lies with the weights.

        Raises:
            UserError: the model has no ``path``, or there is none.
        """
        if self.path is None:
            raise UserError('model.path is missing: it names the folder that holds the tokenizer')
        return load_tokenizer(self.path, self.trust_remote_code, 'model.path')

    @property
    def evaluators(self) -> dict[str, Any]:
        """Evaluations by other packages, by the name that ``--eval NAME:...`` calls them by.

        None of a network that another engine runs.
        """
        if self.engine is not None:
            return {}
        from ..evaluation.lm_eval import LMEval

        return {'lm_eval': LMEval(self)}

    @property
    def weights_source(self) -> str | None:
        """Where ``init_weights`` takes weights from; None: they are random."""
        return self.path

    def init_weights(self) -> None:
        """Load the pretrained weights, once; without ``path`` the random ones stay.

        The Runner calls this before training. Building a model for a checkpoint doesn't.

        Raises:
            UserError: unusable pretrained weights.
        """
        if self._is_init:
            return
        if self.path is not None:
            load_weights_into(
                self.lm, find_source(self.path), DTYPES[self.dtype], self.trust_remote_code
            )
        self._is_init = True

    def save_hf(self, folder: str) -> None:
        """Write model and tokenizer as a Hugging Face folder: see :mod:`projects.llm.saving`."""
        from ..saving import save_with_tokenizer

        save_with_tokenizer(self, folder)

    def weight_folder(self) -> tuple[Path, Callable[[str], str]]:
        """The folder with the weights as safetensors, and what gives this model's names of them.

        Raises:
            UserError: there is none.
        """
        own_name = names_of_files(self.lm)
        return safetensors_folder(self.path), lambda name: f'lm.{own_name(name)}'

    def saved_names(self) -> dict[str, str]:
        """Names of tensors in the folder of ``save_hf``, by those in this model."""
        from ..saving import saved_names

        return {f'lm.{name}': saved for name, saved in saved_names(self.lm).items()}

    def save_description(self, folder: str, zeros: int) -> None:
        """Write what the folder of ``save_hf`` has beside weights, of which so many are zero."""
        from ..saving import save_description, tokenizer_for

        save_description(self.lm, folder, zeros, tokenizer_for(self, folder))

    @staticmethod
    def check_gguf(model: Mapping[str, Any], kind: str) -> None:
        """Raise :class:`UserError` if a model config is of an architecture that no GGUF file can hold."""
        from ..gguf_export import check_gguf

        check_gguf(model, kind)

    def save_gguf(self, path: str, kind: str = 'f16') -> None:
        """Write model and tokenizer as a GGUF file: see :mod:`projects.llm.gguf_export`."""
        from ..gguf_export import save_gguf

        save_gguf(self.lm, path, kind, self.path)

    @property
    def engine(self) -> GgufNetwork | None:
        """The network that another engine runs in the place of transformers'; None: it is transformers'."""
        return self.lm if isinstance(self.lm, GgufNetwork) else None

    def use_network(self, network: GgufNetwork) -> None:
        """Have llama.cpp compute probabilities, for evaluating a GGUF file."""
        self.lm = network

    def tokens_per_second(self) -> float | None:
        """How many tokens a second are written, see :func:`.generation.writing_speed`."""
        from .generation import writing_speed

        return writing_speed(self)

    def checkpoint_meta(self) -> dict[str, Any]:
        """Where tokenizer and dense weights came from."""
        return {'causal_lm': {'path': self.path, 'model_type': self.lm.config.model_type}}

    def dummy_inputs(self, batch_size: int = 1) -> dict[str, Tensor]:
        """Return what ``forward`` takes: ``inputs`` of zeros, ``(batch_size, window)``."""
        return {'inputs': torch.zeros(batch_size, self.window, dtype=torch.long)}

    def forward(
        self, inputs: Tensor, scored: Tensor | Sequence[int] | None = None, mode: str = 'tensor'
    ) -> Tensor | dict[str, Tensor] | list[dict]:
        """Run the model on windows of tokens.

        Args:
            inputs: ``(N, L)`` token ids.
            scored: For 'predict': how many tokens at the end of each window count; without, all
                but the first one, of which nothing is known.
            mode: 'tensor' for logits ``(N, L, vocabulary)``; 'loss' for ``dict(loss=...)``, the
                mean cross entropy of all next tokens in nats; 'predict' for one
                ``dict(nll=float, tokens=int)`` per window, the summed cross entropy of its tokens
                that count, computed in float32 and added up in float64.

        Raises:
            UserError: the windows are longer than the model takes.
        """
        if self.max_window and inputs.shape[1] > self.max_window:
            raise UserError(window_too_long(inputs.shape[1], self.max_window))
        lengths = [inputs.shape[1] - 1] * len(inputs) if scored is None else list(map(int, scored))
        if self.engine is not None:
            return self.engine.run(inputs, lengths, mode)
        logits = self.lm(input_ids=inputs, use_cache=False).logits
        if mode == 'tensor':
            return logits
        targets = F.pad(inputs[:, 1:], (0, 1), value=IGNORED)
        if mode == 'loss':
            return {'loss': F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())}
        if mode == 'predict':
            found = [window_nll(*window) for window in zip(logits, targets, lengths, strict=True)]
            sums = torch.stack([nll for nll, _ in found]).tolist()  # a GPU is waited for once
            counts = [count for _, count in found]
            return [dict(nll=n, tokens=c) for n, c in zip(sums, counts, strict=True)]
        raise ValueError(f"mode={mode!r} is unknown; 'tensor', 'loss' and 'predict' are valid")


def window_nll(logits: Tensor, targets: Tensor, scored: int) -> tuple[Tensor, int]:
    """The cross entropy of the last ``scored`` targets before the final ignored one, and how many.

    Returns:
        The sum, float64 (), in nats; the number of targets.
    """
    end = len(targets) - 1
    start = max(end - scored, 0)
    losses = F.cross_entropy(logits[start:end].float(), targets[start:end], reduction='none')
    return losses.double().sum(), end - start


def build_lm(
    config: Any, dtype: torch.dtype, attn_implementation: str, trust_remote_code: bool
) -> PreTrainedModel:
    """Build a causal language model from its config.

    Raises:
        UserError: transformers refuses the config.
    """
    try:
        return auto_class(config).from_config(
            config,
            dtype=dtype,
            attn_implementation=attn_implementation,
            trust_remote_code=trust_remote_code,
        )
    except (
        ImportError, TypeError, ValueError, AttributeError, RuntimeError, ZeroDivisionError,
        AssertionError,
    ) as err:  # fmt: skip
        raise UserError(
            f'transformers cannot build the {config.model_type} that model.path or '
            f'model.architecture describes: {reason(err)}'
        ) from err


def checkpoint_activations(lm: PreTrainedModel) -> None:
    """Compute the layers' insides again in the backward pass instead of keeping them."""
    enable = getattr(lm, 'activation_checkpointing_enable', lm.gradient_checkpointing_enable)
    enable(dict(use_reentrant=False))  # the first is the name since transformers 5.20


def checked_window(window: int | None, limit: int | None) -> int:
    """``window``, or 512 if the model takes so many.

    Raises:
        UserError: it is no positive integer, or beyond ``limit``.
    """
    if window is None:
        return min(512, limit or 512)
    if type(window) is not int or window < 2:
        raise UserError(f'model.window={window!r} must be an integer of at least 2')
    if limit and window > limit:
        raise UserError(f'model.window: {window_too_long(window, limit)}')
    return window


def window_too_long(window: int, limit: int) -> str:
    """Message for a window beyond what the model takes."""
    return (
        f'windows of {window} tokens are longer than the {limit} that this model takes '
        f'(max_position_embeddings); set window to {limit} at most'
    )
