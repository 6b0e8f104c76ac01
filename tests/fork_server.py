"""A process that has imported everything, and forks for each request: a second instead of ten.

It reads a JSON object a line and answers each with ``code``, negative for a signal as in
:mod:`subprocess`, and ``out``, all that the request printed.
"""

import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable

SECONDS = 120


def serve(run: Callable[[dict], None]) -> None:
    """Hand each request to ``run``, in a process of its own, until standard input ends.

    Args:
        run: Called with the request; imports that take long are the caller's, before this.

    Raises:
        RuntimeError: Threads are running, which a fork would lose.
    """
    if threading.active_count() > 1:
        raise RuntimeError(f'a fork would lose these threads: {threading.enumerate()}')
    for line in sys.stdin:
        request = json.loads(line)
        sys.stdout.flush()
        reader, writer = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(reader)
            child(run, request, writer)
        os.close(writer)
        with open(reader, errors='replace') as stream:
            out = stream.read()
        _, status = os.waitpid(pid, 0)
        print(json.dumps(dict(code=os.waitstatus_to_exitcode(status), out=out)), flush=True)


def child(run: Callable[[dict], None], request: dict, out: int) -> None:
    """Run the request with its output into ``out``; never returns."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (out, 1), (out, 2)):
        os.dup2(source, target)
    os.setsid()
    signal.alarm(SECONDS)
    code = 1
    try:
        run(request)
        code = 0
    except SystemExit as left:
        code = left.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
