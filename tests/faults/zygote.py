"""Runs tools with faults in them: requests have ``fault``, ``script`` and ``arguments``."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def warm() -> None:
    """Import what the tools import."""
    import matplotlib.pyplot  # noqa: F401
    import sklearn.datasets

    import projects.prune_plugin.checkpoints.export.formats
    import projects.prune_plugin.workflows.train
    import projects.vit  # noqa: F401

    sklearn.datasets.load_digits()


def run(request: dict) -> None:
    """Run a tool with a fault injected."""
    import injecting

    injecting.run(request['fault'], request['script'], request['arguments'])


if __name__ == '__main__':
    sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent), str(HERE)]
    from fork_server import serve

    warm()
    serve(run)
