"""Configs with odd values anywhere: a tool works, or says in one sentence what is wrong and writes nothing.

Slow: each config is tried by a forked process that prunes and trains for an epoch. More of them, and new
ones, with ``--hypothesis-profile=many``.
"""

import importlib.util
import os
import signal
import sys
import tempfile
import time
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mmengine.config import Config
from tool_runs import CONFIG, ROOT

pytestmark = pytest.mark.slow
pytest.importorskip('timm')

SECTIONS = (
    'optim_wrapper', 'default_hooks', 'custom_hooks', 'train_cfg', 'val_cfg', 'test_cfg',
    'param_scheduler', 'train_dataloader', 'val_dataloader', 'test_dataloader', 'test_evaluator',
    'val_evaluator', 'env_cfg', 'randomness', 'log_processor', 'visualizer', 'prune_cfg',
)  # fmt: skip
ODD = (
    None, True, False, 0, -1, 3, 10**12, 0.5, -2.5, 1e30, '', 'x', 'L1', [], [1], [None], {}, dict(a=1),
    dict(type='X'), dict(type='Runner'), [dict(type='X')], ('a', 2), 'none', b'x',
)  # fmt: skip
#: Types that MMEngine knows, in wrong places too.
TYPES = ('SGD', 'AdamW', 'OptimWrapper', 'MultiStepLR', 'EpochBasedTrainLoop', 'CheckpointHook', 'TestLoop',
         'DefaultSampler', 'Accuracy', 'IterTimerHook', 'LocalVisBackend', 'Digits')  # fmt: skip
#: Longest run, in seconds.
LONGEST = 90


def small_config() -> Config:
    """A ViT of one layer on a few digits, with a prune_cfg."""
    cfg = Config.fromfile(CONFIG)
    cfg.model.model_kwargs.update(depth=1, embed_dim=32, num_heads=4)
    for key in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        cfg[key].dataset.indices = 16
        cfg[key].batch_size = 8
    cfg.prune_cfg = dict(
        budget=dict(ratio=0.3), profile=dict(seconds=0.01, batch_size=1), weight_level=False,
        recovery=dict(epochs=1, lr=1e-3),
    )  # fmt: skip
    return cfg


def places(value: Any, path: tuple = ()) -> list[tuple]:
    """Paths of everything in a config's sections."""
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        if not path and key not in SECTIONS:
            continue
        if isinstance(inner, dict | list) and inner:
            found += places(inner, (*path, key))
        else:
            found.append((*path, key))
    return found


BASE = small_config().to_dict()
PLACES = places(BASE)
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(PLACES),
        st.one_of(
            st.just('delete'),
            st.tuples(st.just('set'), st.sampled_from(ODD + TYPES)),
            st.tuples(st.just('add'), st.sampled_from(ODD)),
        ),
    ),
    min_size=1,
    max_size=2,
)


def changed(changes: list) -> dict:
    """The config with changes, as far as they can be made."""
    cfg = deepcopy(BASE)
    for path, how in changes:
        holder: Any = cfg
        try:
            for key in path[:-1]:
                holder = holder[key]
            if how == 'delete':
                del holder[path[-1]]
            elif how[0] == 'set':
                holder[path[-1]] = deepcopy(how[1])
            else:
                holder[path[-1]]['surplus'] = deepcopy(how[1])
        except (KeyError, IndexError, TypeError):  # an earlier change has taken it away
            continue
    return cfg


def outcome(cfg: dict, folder: Path) -> tuple[int, str, list[str]]:
    """Exit code, what was printed, and the files that are left, of pruning and training in a fork."""
    config, out, log = folder / 'vit.py', folder / 'out', folder / 'log.txt'
    config.write_text('\n'.join(f'{key} = {value!r}' for key, value in cfg.items()))
    child = os.fork()
    if not child:
        run(config, out, log)
    deadline = time.monotonic() + LONGEST
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        time.sleep(0.02)
    else:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise AssertionError(f'it hangs: {log.read_text()[-2000:]}')
    files = [str(path.relative_to(out)) for path in out.rglob('*')] if out.exists() else []
    return os.waitstatus_to_exitcode(status), log.read_text(errors='replace'), files


def run(config: Path, out: Path, log: Path) -> None:
    """The tool, in this process, which it ends."""
    with open(log, 'w') as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    code = 70
    try:
        spec = importlib.util.spec_from_file_location('tool', ROOT / 'tools/analysis_struct.py')
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        from projects.prune_plugin.workflows import cli

        arguments = [config, '--random-weights', '--fine-tune', '--output-dir', out]
        cli.run(module.main, module.parse(list(map(str, arguments))))
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def test_the_config_itself_works(tmp_path):
    code, text, files = outcome(BASE, tmp_path)
    assert code == 0, text[-3000:]
    assert 'report.json' in files


@given(changes=CHANGES)
def test_odd_values_anywhere(changes):
    with tempfile.TemporaryDirectory() as folder:
        code, text, files = outcome(changed(changes), Path(folder))
    assert code in (0, 2), f'{changes}: {text[-3000:]}'
    if code == 2:
        last = text.strip().splitlines()[-1]
        assert last.startswith('error: '), f'{changes}: {text[-3000:]}'
        assert not files, f'{changes}: {last}: {files}'
