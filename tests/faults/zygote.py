"""A process that has imported everything, and forks for each run: a second instead of ten.

Reads a JSON object a line (``fault``, ``script``, ``arguments``), answers each with ``code``, negative
for a signal as in :mod:`subprocess`, and ``out``, all that it printed.
"""

import json
import os
import signal
import sys
import threading
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 120


def warm() -> None:
    """Import what the tools import."""
    import matplotlib.pyplot  # noqa: F401
    import sklearn.datasets

    import projects.prune_plugin.checkpoints.export.formats
    import projects.prune_plugin.workflows.train
    import projects.vit  # noqa: F401

    sklearn.datasets.load_digits()
    if threading.active_count() > 1:
        raise RuntimeError(f'a fork would lose these threads: {threading.enumerate()}')


def child(request: dict, out: int) -> None:
    """Run the tool; never returns."""
    import injecting

    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (out, 1), (out, 2)):
        os.dup2(source, target)
    os.setsid()
    signal.alarm(SECONDS)
    code = 1
    try:
        injecting.run(request['fault'], request['script'], request['arguments'])
        code = 0
    except SystemExit as left:
        code = left.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    """Serve until standard input ends."""
    sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]
    warm()
    for line in sys.stdin:
        request = json.loads(line)
        sys.stdout.flush()
        reader, writer = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(reader)
            child(request, writer)
        os.close(writer)
        with open(reader, errors='replace') as stream:
            out = stream.read()
        _, status = os.waitpid(pid, 0)
        print(json.dumps(dict(code=os.waitstatus_to_exitcode(status), out=out)), flush=True)


if __name__ == '__main__':
    main()
