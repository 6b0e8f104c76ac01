"""The last line of a run that has written a checkpoint: the command that evaluates it."""

import argparse
import os
import shlex
from pathlib import Path
from typing import Any

from arguments import ROOT

#: First keys of ``--cfg-options`` that an evaluation has no use for, or how they begin.
OF_TRAINING = ('prune_cfg', 'calibration_', 'train_', 'optim_wrapper', 'param_scheduler')


def print_next_step(args: argparse.Namespace, cfg: Any, checkpoint: str | Path) -> None:
    """Print ``next: python tools/test.py CONFIG CHECKPOINT`` where that works; not with ``--quiet``.

    Args:
        args: The command line.
        cfg: Its config; without an evaluator nothing is said.
        checkpoint: The file that was written; nothing is said of one that isn't there.
    """
    evaluated = cfg.get('test_dataloader') and cfg.get('test_evaluator')
    if args.quiet or not evaluated or not os.path.isfile(checkpoint):
        return
    tool = os.path.relpath(ROOT / 'tools/test.py')
    tool = str(ROOT / 'tools/test.py') if tool.startswith(os.pardir) else tool
    words = [tool, args.config, str(checkpoint)]
    options = [word for word in args.cfg_options if not word.startswith(OF_TRAINING)]
    print(f'next: python {shlex.join([*words, *(["--cfg-options", *options] if options else [])])}')
