"""Makes ``projects.prune_plugin`` importable where another package ``projects`` hides it."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

#: What the files of this package were installed with.
OURS = Path(__file__).resolve().parents[1] / 'projects'
PLUGIN = 'projects.prune_plugin'
PLUGIN_FILE = OURS / 'prune_plugin' / '__init__.py'


def reach_plugin() -> None:
    """Have ``import projects.prune_plugin`` find the plugin that lies beside this package.

    A package ``projects`` that Python finds before ours, or has imported, stays as it is: our folder
    comes last on its path, so a module that both have is theirs.

    Raises:
        ImportError: the plugin isn't there, or something else has its name.
    """
    if not PLUGIN_FILE.is_file():
        raise ImportError(f'mm_prune needs {PLUGIN_FILE}, which is missing: install mm-prune again')
    if not is_ours(found_plugin()):
        add_our_folder()
    found = found_plugin()
    if found is None:
        file = getattr(sys.modules.get('projects'), '__file__', None)
        raise ImportError(
            f'mm_prune needs a package projects, but {file} is a single file: rename it'
        )
    if not is_ours(found):
        raise ImportError(
            f'mm_prune belongs to {PLUGIN_FILE}, but projects.prune_plugin is {found}: '
            'rename that package, or take it off sys.path'
        )


def found_plugin() -> str | None:
    """The file that ``import projects.prune_plugin`` would load, or has loaded."""
    try:
        spec = find_spec(PLUGIN)
    except ModuleNotFoundError as error:
        if error.name not in ('projects', PLUGIN):  # theirs lacks a package
            raise
        return None
    return spec.origin if spec else None


def is_ours(file: str | None) -> bool:
    """Whether a file is our plugin, whatever links lead to it."""
    return file is not None and os.path.exists(file) and os.path.samefile(file, PLUGIN_FILE)


def add_our_folder() -> None:
    """Let ``projects`` look into our folder too, after its own."""
    projects = sys.modules.get('projects')
    if projects is None or getattr(projects, '__file__', None) is None:
        # There is none, or one without an `__init__.py`, which takes its path anew from sys.path.
        sys.path.append(str(OURS.parent))
    elif hasattr(projects, '__path__'):
        projects.__path__.append(str(OURS))
