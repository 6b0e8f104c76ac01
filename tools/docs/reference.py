"""Write docs/reference.md from the registries: every registered name, its arguments, its docstring."""

import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import mmengine.registry  # noqa: E402
from docstrings import Docstring, parse  # noqa: E402
from mmengine.registry import Registry  # noqa: E402

import projects.prune_plugin as plugin  # noqa: E402
from projects.prune_plugin.calibration.settings import CalibrationSettings  # noqa: E402
from projects.prune_plugin.evaluation.settings import ProfileSettings  # noqa: E402
from projects.prune_plugin.methods.allocators import Allocator  # noqa: E402
from projects.prune_plugin.methods.budgets import Budget  # noqa: E402
from projects.prune_plugin.methods.compensation import Compensation  # noqa: E402
from projects.prune_plugin.methods.criteria import Criterion  # noqa: E402
from projects.prune_plugin.methods.penalties import Penalty  # noqa: E402
from projects.prune_plugin.methods.pruners import Pruner  # noqa: E402
from projects.prune_plugin.methods.reconstruction import Reconstruction  # noqa: E402
from projects.prune_plugin.methods.schedules import Schedule  # noqa: E402
from projects.prune_plugin.methods.sparsifiers import Sparsifier  # noqa: E402
from projects.prune_plugin.structure.units import UnitFinder  # noqa: E402
from projects.prune_plugin.training.settings import RecoverySettings  # noqa: E402

PAGE = ROOT / 'docs' / 'reference.md'
FAMILIES = ('projects.vit', 'projects.llm', 'projects.vad')
HEADER = """# Reference

Written by `make docs` from the docstrings; don't edit it. Every name that may stand behind `type`, with
the arguments that its dict takes. What to choose, and how the keys work together, is said in
[prune_cfg.md](prune_cfg.md).
"""
#: Of the plugin's own registries: title, where in a config its dicts stand, registry, what all have.
PARTS = (
    ('Pruners', '`prune_cfg`', plugin.PRUNERS, Pruner),
    ('Units', '`prune_cfg.units`, a list', plugin.UNITS, UnitFinder),
    ('Criteria', '`prune_cfg.criterion`', plugin.CRITERIA, Criterion),
    ('Budgets', '`prune_cfg.budget`', plugin.BUDGETS, Budget),
    ('Allocators', '`prune_cfg.allocator`', plugin.ALLOCATORS, Allocator),
    ('Schedules', '`prune_cfg.schedule`', plugin.SCHEDULES, Schedule),
    ('Penalties', '`prune_cfg.penalty`', plugin.PENALTIES, Penalty),
    ('Compensations', '`prune_cfg.compensation`', plugin.COMPENSATIONS, Compensation),
    ('Reconstructions', '`prune_cfg.reconstruction`', plugin.RECONSTRUCTIONS, Reconstruction),
    ('Sparsifiers', '`prune_cfg.sparsifier`', plugin.SPARSIFIERS, Sparsifier),
)
#: Blocks of `prune_cfg` without a type.
SETTINGS = {
    'calibration': CalibrationSettings,
    'recovery': RecoverySettings,
    'profile': ProfileSettings,
}
#: What is registered with MMEngine, by the registries' names; of the engine, and for some of the families.
MMENGINE = (
    ('Hooks', '`custom_hooks`', 'HOOKS', False),
    ('Loops', '`train_cfg`, `test_cfg`', 'LOOPS', False),
    ('Runners', '`runner_type`', 'RUNNERS', False),
    ('Optimizer wrappers', '`optim_wrapper`', 'OPTIM_WRAPPERS', False),
    ('Parameter schedulers', '`param_scheduler`', 'PARAM_SCHEDULERS', False),
    ('Model wrappers', '`model_wrapper_cfg`', 'MODEL_WRAPPERS', False),
    ('Data sets', '`train_dataloader.dataset`', 'DATASETS', True),
    ('Samplers', '`train_dataloader.sampler`', 'DATA_SAMPLERS', True),
    ('Metrics', '`test_evaluator`', 'METRICS', True),
)


def import_all() -> None:
    """Import every module of the plugin: some of what is registered is imported only when it is needed."""
    for module in pkgutil.walk_packages(plugin.__path__, f'{plugin.__name__}.'):
        importlib.import_module(module.name)


def registered(registry: Registry, packages: tuple[str, ...]) -> dict[str, type]:
    """What these packages have registered, in a registry or in its children of other scopes; by name."""
    registries = [registry, *registry.children.values()]
    return {
        name: found
        for one in registries
        for name, found in sorted(one.module_dict.items())
        if found.__module__.startswith(packages)
    }


def arguments(cls: type, said: Docstring) -> Iterator[tuple[str, str, str]]:
    """Name, default and meaning of every argument that a config may give.

    Raises:
        ValueError: an argument that the docstring says nothing about.
    """
    above = inherited(cls)
    meanings = above | {k: resolved(v, above.get(k)) for k, v in said.arguments.items()}
    for name, parameter in inspect.signature(cls).parameters.items():
        if parameter.kind is parameter.VAR_POSITIONAL:
            continue
        if parameter.kind is parameter.VAR_KEYWORD:
            default = ''
        elif parameter.default is parameter.empty:
            default = 'required'
        else:
            default = f'`{written(parameter.default)}`'
        if name not in meanings:
            raise ValueError(f'the docstring of {cls.__name__} does not tell of {name}')
        yield f'`{name}`', default, meanings[name]


def resolved(meaning: str, above: str | None) -> str:
    """What an argument means; "See `Base`; more" becomes what the base says, and more."""
    if above is None or not (found := re.match(r'See `\w+`(?:\.|; )', meaning)):
        return meaning
    more = meaning[found.end() :].strip()
    return f'{above} {more[:1].upper()}{more[1:]}'.strip()


def inherited(cls: type) -> dict[str, str]:
    """What the docstrings of a class's bases say about arguments."""
    bases = [base for base in cls.__mro__[1:] if base.__module__.startswith('projects.')]
    return {k: v for base in reversed(bases) for k, v in parse(base.__doc__).arguments.items()}


def written(default: object) -> str:
    """A default as a config would have it."""
    if default.__class__.__name__ == '_HAS_DEFAULT_FACTORY_CLASS':  # of a dataclass
        return '{}'
    return repr(default)


def table(rows: list[tuple[str, str, str]]) -> list[str]:
    """Rows as a Markdown table."""
    lines = ['| argument | default | meaning |', '|---|---|---|']
    return [*lines, *('| ' + ' | '.join(c.replace('|', r'\|') for c in row) + ' |' for row in rows)]


def entry(name: str, cls: type) -> list[str]:
    """The paragraphs of one name."""
    said = parse(cls.__doc__)
    parts = [f'### `{name}`', *said.text]
    maker = next(c for c in cls.__mro__ if '__init__' in vars(c))
    if maker.__module__.startswith('mmengine') and not said.arguments:
        parts.append(f"Arguments: those of MMEngine's `{maker.__name__}`.")
    elif rows := list(arguments(cls, said)):
        parts.append('\n'.join(table(rows)))
    for title, text in said.sections.items():
        if title in ('Source', 'Raises'):
            parts.append(f'{title}: {text}' if title == 'Source' else f'Errors: {text}')
    if said.example:
        parts.append(f'```text\n{said.example}\n```')
    return parts


def section(title: str, where: str, names: dict[str, type], base: type | None = None) -> list[str]:
    """The paragraphs of a registry."""
    parts = [f'## {title}', f'In a config: {where}.']
    if base is not None:
        parts += parse(base.__doc__).text
    return [*parts, *(part for name, cls in names.items() for part in entry(name, cls))]


def page() -> str:
    """The whole page."""
    import_all()
    for family in FAMILIES:
        importlib.import_module(family)
    every = ('projects.',)
    parts = [HEADER.rstrip()]
    for title, where, registry, base in PARTS:
        parts += section(title, where, registered(registry, every), base)
    parts += section('Settings', 'blocks of `prune_cfg` that have no `type`', SETTINGS)
    for title, where, name, families in MMENGINE:
        packages = every if families else ('projects.prune_plugin',)
        parts += section(title, where, registered(getattr(mmengine.registry, name), packages))
    return '\n\n'.join(parts) + '\n'


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding='utf-8')
    print(f'{PAGE.relative_to(ROOT)}: {len(re.findall("^### ", PAGE.read_text(), re.M))} names')


if __name__ == '__main__':
    main()
