"""Writing a language model as a Hugging Face folder; ``slim_folder.py`` reads it back."""

import json
import logging
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from huggingface_hub import split_torch_state_dict_into_shards
from mmengine.logging import print_log
from safetensors.torch import save_file
from transformers import PreTrainedModel

from projects.prune_plugin.common.errors import UserError
from projects.prune_plugin.common.fileio import check_new_folder

from . import modeling_slim
from .plain_norms import with_plain_norms
from .saved_config import Described, describe, renumbered_state, renumbering

CODE = Path(modeling_slim.__file__)
README = """# {name}

A language model ({architecture}), saved with mm-prune {version}.

{kind}

{counts}
"""
PLAIN = """It is a plain Hugging Face folder: transformers, vLLM and what else reads such folders load it as
any other model.

    from transformers import AutoModelForCausalLM
    model = AutoModelForCausalLM.from_pretrained('{name}')"""
SLIM = """Its layers differ in width, which no config of {architecture} can say. So the folder brings a
small modelling file, `modeling_slim.py`, that reads the widths from `config.json` (`slim_widths`), and
transformers has to be allowed to run it:

    from transformers import AutoModelForCausalLM, AutoTokenizer
    model = AutoModelForCausalLM.from_pretrained('{name}', trust_remote_code=True)
    tokenizer = AutoTokenizer.from_pretrained('{name}', trust_remote_code=True)

With mm-prune installed, no code of the folder is run:

    from projects.llm import load_slim
    model = load_slim('{name}')

Programs that know {architecture} alone (vLLM, llama.cpp) can't load it. For these, prune with
`allocator=dict(type='Uniform')`."""


def save_hf(lm: PreTrainedModel, folder: str | os.PathLike, tokenizer: Any = None) -> bool:
    """Write ``lm`` as a Hugging Face folder, which appears whole or not at all.

    Args:
        lm: The model, dense or pruned.
        folder: Folder to write: new, or empty.
        tokenizer: The tokenizer to put beside it; None: without.

    Returns:
        Whether it is a plain folder, that stock transformers loads without code of its own.

    Raises:
        UserError: the folder holds something, or the model can't be described.
    """
    folder = check_new_folder(folder)
    lm = with_plain_norms(lm)
    described = describe(lm)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f'.{folder.name}.'))
    try:
        write_weights(lm, described, temporary)
        write_config(lm, described, temporary)
        if tokenizer is not None:
            tokenizer.save_pretrained(temporary)
        zeros = sum(int((p == 0).sum()) for p in lm.parameters())
        write_readme(lm, described, folder.name, temporary, zeros)
        temporary.chmod(0o755)
        os.replace(temporary, folder)  # over an empty folder, too
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    kind = 'a plain Hugging Face folder' if described.plain else 'needs trust_remote_code=True'
    print_log(f'saved {folder}: {kind}', 'current')
    return described.plain


def save_with_tokenizer(model: Any, folder: str | os.PathLike) -> None:
    """:func:`save_hf` of an ``HFCausalLM``, with the tokenizer of its ``path``, if it has one."""
    save_hf(model.lm, folder, tokenizer_for(model, folder))


def tokenizer_for(model: Any, folder: str | os.PathLike) -> Any:
    """The tokenizer to put into a folder of an ``HFCausalLM``; None, with a warning, if it has none."""
    if model.path is None:
        return None
    try:
        return model.tokenizer
    except UserError as error:
        print_log(f'{folder} gets no tokenizer: {error}', 'current', logging.WARNING)
        return None


def save_description(
    lm: PreTrainedModel, folder: str | os.PathLike, zeros: int, tokenizer: Any = None
) -> None:
    """Write a Hugging Face folder without its weights.

    Args:
        lm: The model; meta tensors will do.
        folder: An existing folder.
        zeros: How many weights are zero.
        tokenizer: The tokenizer to put beside it; None: without.
    """
    folder, described = Path(folder), describe(lm)
    write_config(lm, described, folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    write_readme(lm, described, folder.name, folder, zeros)


def saved_names(lm: PreTrainedModel) -> dict[str, str]:
    """The names that tensors have in the folder of :func:`save_hf`, by those in the model; tied ones once.

    Args:
        lm: The model; meta tensors will do.

    Raises:
        UserError: the model can't be described.
    """
    rename = renumbering(lm, describe(lm).layers)
    first: dict[int, str] = {}
    for name, tensor in lm.state_dict(keep_vars=True).items():
        first.setdefault(id(tensor), name)
    return {name: rename(name) for name in first.values()}


def write_weights(lm: PreTrainedModel, described: Described, folder: Path) -> None:
    """Write the weights as safetensors, tied ones once, in files of at most 5 GB."""
    first: dict[tuple, str] = {}
    kept = {}
    for name, tensor in renumbered_state(lm, described.layers).items():
        place = (tensor.data_ptr(), tensor.shape, tensor.stride())
        if first.setdefault(place, name) == name or not tensor.numel():
            kept[name] = tensor
    split = split_torch_state_dict_into_shards(kept)
    for file, names in split.filename_to_tensors.items():
        shard = {name: kept[name].detach().cpu().contiguous() for name in names}
        save_file(shard, folder / file, metadata={'format': 'pt'})
        (folder / file).chmod(0o644)
    if split.is_sharded:
        index = {'metadata': split.metadata, 'weight_map': split.tensor_to_filename}
        write_text(folder / 'model.safetensors.index.json', json.dumps(index, indent=2))


def write_config(lm: PreTrainedModel, described: Described, folder: Path) -> None:
    """Write ``config.json``, ``generation_config.json`` and, where it takes one, the modelling file."""
    config = described.config
    config.architectures = [described.architecture.__name__]
    config.dtype = lm.dtype
    data = json.loads(config.to_json_string())
    data.pop('_name_or_path', None)  # a path of this machine
    if not described.plain:
        base = type(config)
        own = described.architecture.__name__.removesuffix('ForCausalLM')
        data |= {
            'model_type': f'slim_{base.model_type}',
            'architectures': [f'Slim{own}ForCausalLM'],
            'auto_map': {
                'AutoConfig': f'{CODE.stem}.Slim{own}Config',
                'AutoModelForCausalLM': f'{CODE.stem}.Slim{own}ForCausalLM',
            },
            'slim_base': base.model_type,
            'slim_widths': described.widths,
            'slim_attributes': described.attributes,
        }
        write_text(folder / CODE.name, modelling_code(described.architecture, base))
    text = json.dumps(data, indent=2, sort_keys=True)
    # Lists of numbers on one line each: there is one entry per layer.
    text = re.sub(r'\[\s+([-\d.,\se]+?)\s+\]', lambda m: f'[{" ".join(m[1].split())}]', text)
    write_text(folder / 'config.json', text)
    if getattr(lm, 'generation_config', None) is not None:
        lm.generation_config.to_json_file(folder / 'generation_config.json')


def modelling_code(model: type, config: type) -> str:
    """``modeling_slim.py`` for an architecture: its classes in the place of Llama's."""
    own = model.__name__.removesuffix('ForCausalLM')
    text = CODE.read_text(encoding='utf-8')
    text = text.replace('SlimLlama', f'Slim{own}')
    text = text.replace('slim_llama', f'slim_{config.model_type}')
    text = re.sub(r'\bLlamaForCausalLM\b', model.__name__, text)
    return re.sub(r'\bLlamaConfig\b', config.__name__, text)


def write_readme(
    lm: PreTrainedModel, described: Described, name: str, folder: Path, zeros: int
) -> None:
    """Write down what the folder is and how it is loaded."""
    from projects.prune_plugin.common.version import __version__

    architecture = described.architecture.__name__
    total = sum(p.numel() for p in lm.parameters())
    kind = (PLAIN if described.plain else SLIM).format(name=name, architecture=architecture)
    counts = f'Parameters: {total:,}, of which {zeros:,} are zero. Layers: {len(described.layers)}.'
    text = README.format(
        name=name, architecture=architecture, version=__version__, kind=kind, counts=counts
    )
    write_text(folder / 'README.md', text)


def write_text(path: Path, text: str) -> None:
    """Write a text file that ends with a newline."""
    path.write_text(text.rstrip('\n') + '\n', encoding='utf-8')
