"""Runs tools as processes of their own: requests have ``script``, ``arguments`` and ``cwd``."""

import os
import runpy
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]


def warm() -> None:
    """Import what takes long, nothing below a package's root."""
    import matplotlib.pyplot  # noqa: F401
    import sklearn.datasets  # noqa: F401
    import transformers

    import projects.llm
    import projects.prune_plugin
    import projects.vit  # noqa: F401

    transformers.AutoModelForCausalLM  # noqa: B018  imported when it is looked up


def run(request: dict) -> None:
    """Run a tool as from the command line."""
    os.chdir(request['cwd'])
    sys.argv = [request['script'], *request['arguments']]
    runpy.run_path(request['script'], run_name='__main__')


if __name__ == '__main__':
    sys.path[:0] = [str(TESTS.parent), str(TESTS)]
    from fork_server import serve

    warm()
    serve(run)
