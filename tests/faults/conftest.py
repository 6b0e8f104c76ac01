"""Tools with faults in them, on a ViT that trains in a second."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from faulty_tools import CONFIG, HERE, ONE_THREAD, ROOT, SMALL, Ended


@pytest.fixture(scope='session')
def tool():
    """``tool('train', *args, fault={...})``: a process of its own, forked from one that is warm."""
    zygote = subprocess.Popen(
        [sys.executable, HERE / 'zygote.py'], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True, cwd=ROOT, env={**os.environ, **ONE_THREAD},
    )  # fmt: skip

    def run(name: str, *args, fault: dict | None = None, code: int | None = None) -> Ended:
        arguments = [str(a) for a in args]
        request = dict(fault=fault, script=f'{ROOT}/tools/{name}.py', arguments=arguments)
        zygote.stdin.write(json.dumps(request, default=str) + '\n')
        zygote.stdin.flush()
        ended = Ended(**json.loads(zygote.stdout.readline()))
        assert code is None or ended.code == code, ended.out[-4000:]
        return ended

    yield run
    zygote.kill()  # there is nothing to tidy up
    zygote.communicate()


@pytest.fixture(scope='session')
def dense(tool, tmp_path_factory) -> Path:
    """The checkpoint of a training of one epoch."""
    folder = tmp_path_factory.mktemp('dense')
    options = ('--cfg-options', *SMALL, 'train_cfg.max_epochs=1')
    tool('train', CONFIG, '--work-dir', folder, *options, code=0)
    return folder / 'epoch_1.pth'
