"""Configs and weights of pretrained language models, checked before anything runs."""

import io
import json
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from copy import deepcopy
from functools import lru_cache
from typing import Any

import torch
import transformers
from mmengine.logging import print_log
from torch import Tensor
from transformers import AutoConfig, GenerationConfig, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightRenaming, rename_source_key
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from projects.prune_plugin import check_finite
from projects.prune_plugin.common.errors import UserError

from ..slim_folder import auto_class, slim_config
from .sources import Source, reason, with_weights

#: What damaged or foreign files make the readers raise.
UNREADABLE = (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError)


def config_from(architecture: Mapping[str, Any]) -> transformers.PretrainedConfig:
    """The config of an architecture given as a dict with ``model_type``.

    Raises:
        UserError: no such ``model_type``, or values that its config refuses.
    """
    values = dict(architecture)
    model_type = values.pop('model_type', None)
    check_model_type(model_type, 'model.architecture.model_type')
    try:
        return AutoConfig.for_model(model_type, **values)
    except Exception as err:  # each config class has its own ways of refusing
        raise UserError(
            f'model.architecture={dict(architecture)} is refused by transformers: {reason(err)}'
        ) from err


def check_model_type(model_type: Any, key: str) -> None:
    """Raise :class:`UserError` unless transformers has a causal language model of that type."""
    if model_type in CONFIG_MAPPING and model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return
    raise UserError(
        f'{key}={model_type!r} is no causal language model that transformers '
        f'{transformers.__version__} knows; llama, qwen2, qwen3, mistral, opt and gpt_neox are '
        'among the valid ones'
    )


def read_config(source: Source, trust_remote_code: bool) -> transformers.PretrainedConfig:
    """The config of a pretrained model.

    Raises:
        UserError: it can't be read, or isn't that of a causal language model.
    """
    if source.gguf:
        return gguf_config(source, (source.folder / source.gguf).stat().st_mtime_ns)
    file = source.folder / 'config.json'
    try:
        content = json.loads(file.read_text(encoding='utf-8'))
        model_type = content.get('model_type')
    except (OSError, ValueError, AttributeError) as err:
        raise UserError(f'{file} cannot be read as a config ({reason(err)})') from err
    if not trust_remote_code and 'slim_widths' in content:
        return slim_config(content, file)
    if not trust_remote_code and 'AutoModelForCausalLM' in (content.get('auto_map') or {}):
        raise UserError(
            f'model.path={source.path!r} brings code of its own; set model.trust_remote_code=True '
            'to run it'
        )
    if not trust_remote_code:
        check_model_type(model_type, f'model.path={source.path!r}: model_type')
    try:
        return AutoConfig.from_pretrained(
            source.folder, local_files_only=True, trust_remote_code=trust_remote_code
        )
    except Exception as err:  # each config class has its own ways of refusing
        raise UserError(f'{file} is refused by transformers: {reason(err)}') from err


def gguf_config(source: Source, changed: int) -> transformers.PretrainedConfig:
    """The config in a GGUF file; ``changed`` is the file's time."""
    return deepcopy(_gguf_config(source, changed))


@lru_cache(maxsize=8)
def _gguf_config(source: Source, changed: int) -> transformers.PretrainedConfig:
    """Reading the head of a GGUF file takes seconds: its vocabulary is in it."""
    with refusals(source, 'config'):
        config = AutoConfig.from_pretrained(
            source.folder, gguf_file=source.gguf, local_files_only=True
        )
    check_model_type(config.model_type, f'model.path={source.path!r}: model_type')
    return config


def read_generation_config(source: Source) -> GenerationConfig | None:
    """What ``generation_config.json`` holds, or None without that file."""
    if source.gguf or not (source.folder / 'generation_config.json').is_file():
        return None
    with refusals(source, 'generation_config.json'):
        return GenerationConfig.from_pretrained(source.folder, local_files_only=True)


def load_weights_into(
    lm: PreTrainedModel, source: Source, dtype: torch.dtype, trust_remote_code: bool
) -> None:
    """Fill a model with pretrained weights; its parameters stay the same objects.

    The model's own memory is freed first, so that the weights are held once.

    Args:
        lm: The model; ties between its tensors stay.
        source: Where the weights are.
        dtype: Of the weights.
        trust_remote_code: Whether code in the source may run.

    Raises:
        UserError: they aren't there, can't be read, don't fit, or aren't finite.
    """
    source = with_weights(source)
    device = {name: tensor.device for name, tensor in named_tensors(lm).items()}
    for parameter in lm.parameters():
        parameter.data = parameter.data.new_empty(0)
    with refusals(source, 'weights'), quiet():
        loaded, found = auto_class(lm.config).from_pretrained(
            source.folder,
            config=deepcopy(lm.config),
            gguf_file=source.gguf,
            dtype=dtype,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            local_files_only=True,
            trust_remote_code=trust_remote_code,
            weights_only=True,
        )
    check_complete(source, found)
    theirs = named_tensors(loaded)
    for name, tensor in named_tensors(lm).items():
        tensor.data = theirs[name].data.to(device[name], copy=True)
        theirs[name].data = theirs[name].data.new_empty(0)
    check_finite(named_tensors(lm), f'model.path={source.path!r}: ')
    if read_generation_config(source) is None:
        lm.generation_config = loaded.generation_config
    print_log(f'weights of {source.path} loaded: {len(theirs)} tensors', 'current')


def names_of_files(lm: PreTrainedModel) -> Callable[[str], str]:
    """A function that gives a model's name of a tensor by its name in a file of weights.

    It renames as transformers does. What transformers computes from several tensors, such as the stacked
    experts of some models, keeps its name, which the model doesn't have.
    """
    renamings = [r for r in get_model_conversion_mapping(lm) if isinstance(r, WeightRenaming)]
    own = lm.state_dict()
    prefix = lm.base_model_prefix
    return lambda name: rename_source_key(name, renamings, [], prefix, own)[0]


def named_tensors(lm: PreTrainedModel) -> dict[str, Tensor]:
    """Parameters and buffers, tied ones once."""
    return dict((*lm.named_parameters(), *lm.named_buffers()))


def check_complete(source: Source, found: Mapping[str, Any]) -> None:
    """Raise :class:`UserError` if weights are missing or misshapen; log what isn't used."""
    wrong = [f'{name} {tuple(a)} instead of {tuple(b)}' for name, a, b in found['mismatched_keys']]
    for names, word in ((found['missing_keys'], 'lacks'), (wrong, 'has another shape of')):
        if names:
            raise UserError(
                f'model.path={source.path!r} {word} {len(names)} tensors of the model: '
                f'{some(names)}'
            )
    if found['unexpected_keys']:
        print_log(f'{source.path}: not used: {some(found["unexpected_keys"])}', 'current')


@contextmanager
def refusals(source: Source, what: str) -> Iterator[None]:
    """Turn what transformers raises over unreadable files into a :class:`UserError`."""
    try:
        yield
    except ImportError as err:
        raise UserError(
            f'model.path={source.path!r} needs another package ({reason(err)}); '
            'pip install -e ".[llm]" brings all'
        ) from err
    except UNREADABLE as err:
        raise damaged(source, what, err) from err
    except Exception as err:
        if type(err).__name__ != 'SafetensorError':
            raise
        raise damaged(source, what, err) from err


def damaged(source: Source, what: str, error: Exception) -> UserError:
    """The error to raise for files that can't be read."""
    return UserError(
        f'model.path={source.path!r}: its {what} cannot be read (truncated, or of a kind that '
        f'transformers does not know?): {reason(error)}'
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Without progress bars, neither transformers' nor those of the GGUF reader."""
    logging = transformers.utils.logging
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with redirect_stderr(io.StringIO()):  # log handlers keep the stream they began with
            yield
    finally:
        if shown:
            logging.enable_progress_bar()


def some(names: Iterable[str], limit: int = 4) -> str:
    """A few names, and how many there are beyond them."""
    names = sorted(names)
    more = f' and {len(names) - limit} more' if len(names) > limit else ''
    return ', '.join(names[:limit]) + more
