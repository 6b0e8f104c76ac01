"""Runs tools as processes of their own, forked from one that has imported everything.

Reads a JSON object a line (``script``, ``arguments``, ``cwd``), answers each with ``code``, negative for a
signal as in :mod:`subprocess`, and ``out``, all that the tool printed. A run takes a second so, not ten.
"""

import json
import os
import runpy
import signal
import sys
import threading
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 120


def warm() -> None:
    """Import what takes long, nothing below a package's root."""
    import matplotlib.pyplot  # noqa: F401
    import sklearn.datasets  # noqa: F401
    import transformers

    import projects.llm
    import projects.prune_plugin
    import projects.vit  # noqa: F401

    transformers.AutoModelForCausalLM  # noqa: B018  imported when it is looked up
    if threading.active_count() > 1:
        raise RuntimeError(f'a fork would lose these threads: {threading.enumerate()}')


def child(request: dict, out: int) -> None:
    """Run the tool; never returns."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (out, 1), (out, 2)):
        os.dup2(source, target)
    os.setsid()
    signal.alarm(SECONDS)
    os.chdir(request['cwd'])
    sys.argv = [request['script'], *request['arguments']]
    code = 1
    try:
        runpy.run_path(request['script'], run_name='__main__')
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
    sys.path.insert(0, str(ROOT))
    warm()
    for line in sys.stdin:
        request = json.loads(line)
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
