"""Makes ``fixtures/`` with the code of commit 7766c92, and with no other.

The files stand for what users have saved with that code, so they are never made anew from newer code::

    git worktree add ../old 7766c92
    CUDA_VISIBLE_DEVICES= OMP_NUM_THREADS=1 PYTHONPATH=../old \\
        python tests/compatibility/make_fixtures.py ../old

Configs lie in ``fixtures/`` already; this adds checkpoints, the runs in the middle, and ``expected/``. Runs
are killed with the old tests' ``injecting.py``. Each run in the middle is also done without a break; both
must end with the same bits here. What decides which units and weights stay must be far from ties, as
another processor rounds otherwise: so each is done once more from weights that are off by a relative
1e-5, a hundred times the rounding, and must keep the very same units and weights.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from old_files import (
    FIXTURES,
    RUNS,
    digest,
    drive,
    end_of,
    kept_units,
    load,
    tokens,
    unpacked,
    wave,
)

COMMIT = '7766c92'
STEP = 'mmengine.runner.loops:EpochBasedTrainLoop.run_iter'
#: What begins each run, as (tool, arguments), the last of which is killed ...
BEGINS = {
    'slim': [('analysis_struct', 'vit_slim.py dense.pth --output-dir slim --fine-tune '
              '--save-table scores.csv')],
    'masked': [('analysis_struct', 'vit_masked.py dense.pth --output-dir masked'),
               ('train', 'digits.py --load-from masked/vit_pruned.pth --work-dir masked/trained')],
    'steps': [('analysis_struct', 'vit_steps.py dense.pth --output-dir steps --fine-tune')],
    'geometric': [('train', 'vit_geometric.py --work-dir geometric')],
    'sparsegpt': [('analysis_struct', 'vit_sparsegpt.py dense.pth --output-dir sparsegpt')],
    'rsst': [('train', 'ticket_rsst.py --work-dir rsst')],
    'imp': [('train', 'ticket_imp.py --work-dir imp')],
}  # fmt: skip
#: ... as this function is called for the so-manieth time. An epoch has 4 iterations, in rounds 2.
KILLS = {
    'slim': (STEP, 6),  # in the second epoch of two
    'masked': (STEP, 6),
    'steps': ('projects.prune_plugin.rounds:Rounds.prune', 2),  # the first round is over
    'geometric': (STEP, 8),  # in the second round's second epoch
    'sparsegpt': ('projects.prune_plugin.sparsify:Progress.save', 4),  # three layers are done
    'rsst': (STEP, 14),  # in the second epoch of state 1
    'imp': (STEP, 14),
}
#: What is kept of a run in the middle: all that going on reads.
KEPT = ('*.pth', 'last_checkpoint', 'history.json', 'states.json', 'scores.csv', 'vit_slim.py')
#: Configs of the slim VADs.
VADS = {'vad': 'tiny_vad', 'vad_nano': 'vad_nano'}
#: Outputs with more elements are not kept.
LARGE = 20000
WORDS = [f'w{i}' for i in range(90)]


class Old:
    """The old code, and a folder to run it in.

    Args:
        root: Where the old code lies.
        folder: Where runs are made.
    """

    def __init__(self, root: Path, folder: Path):
        self.root, self.folder = root.resolve(), folder

    def place(self, name: str) -> Path:
        """A new folder with the configs, and with the dense checkpoint if there is one."""
        place = self.folder / name
        place.mkdir()
        for path in [*FIXTURES.glob('*.py'), FIXTURES / 'dense.pth']:
            if path.is_file():
                shutil.copy(path, place)
        return place

    def run(self, tool: str, arguments, place: Path, kill: tuple[str, int] | None = None) -> None:
        """Run a tool in ``place``; it must end well, or be killed if it is to."""
        fault = kill and dict(type='kill_at_call', target=kill[0], number=kill[1])
        command = [sys.executable, self.root / 'tests/faults/injecting.py', json.dumps(fault),
                   self.root / f'tools/{tool}.py', *arguments]  # fmt: skip
        env = {**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': '',
               'PYTHONPATH': str(self.root), 'HF_HUB_OFFLINE': '1', 'MPLBACKEND': 'Agg'}  # fmt: skip
        ended = subprocess.run(command, cwd=place, env=env, capture_output=True, text=True)
        if ended.returncode != (-9 if kill else 0):
            raise SystemExit(
                f'{tool} {arguments}: {ended.returncode}\n{ended.stdout}{ended.stderr}'
            )

    def begin(self, name: str, place: Path, kill: tuple[str, int] | None = None) -> None:
        """Begin a run."""
        *first, last = BEGINS[name]
        for tool, arguments in first:
            self.run(tool, arguments.split(), place)
        self.run(last[0], last[1].split(), place, kill)


def make_dense(old: Old) -> None:
    """``dense.pth``: the digits' ViT, which reads them, after two epochs with SGD."""
    place = old.place('dense')
    (place / 'adam.py').write_text(
        "_base_ = './digits.py'\ntrain_cfg = dict(max_epochs=8)\n"
        "optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=5e-3))\n"
    )
    options = ('--cfg-options', 'train_dataloader.dataset.indices=1437')
    old.run('train', ['adam.py', '--work-dir', 'adam', *options], place)
    start = ('--load-from', 'adam/latest.pth', '--work-dir', 'dense')
    old.run('train', ['digits.py', *start, *options], place)
    shutil.copy(place / 'dense/epoch_2.pth', FIXTURES / 'dense.pth')


def make_run(old: Old, name: str) -> None:
    """A run in the middle, and the end that it must come to."""
    killed, whole = old.place(f'{name}-killed'), old.place(f'{name}-whole')
    old.begin(name, killed, KILLS[name])
    keep(killed, name)
    resumed = old.folder / f'{name}-resumed'
    shutil.copytree(killed, resumed, symlinks=True)
    old.run(RUNS[name]['tool'], RUNS[name]['go_on'], resumed)
    old.begin(name, whole)
    end, expected = end_of(resumed, name), end_of(whole, name)
    check_same(name, end, expected, bits=True)
    near = old.place(f'{name}-near')
    spoil(near / 'dense.pth')
    old.begin(name, near)
    check_same(name, end_of(near, name), expected, bits=False)
    save(expected, name)


def spoil(path: Path) -> None:
    """Change all weights of a checkpoint by a relative 1e-5."""
    content = load(path)
    torch.manual_seed(1)
    for tensor in content['state_dict'].values():
        if tensor.is_floating_point():
            tensor.mul_(1 + 1e-5 * torch.randn_like(tensor))
    torch.save(content, path)


def check_same(name: str, ours: dict, theirs: dict, bits: bool) -> None:
    """End unless both ends keep the same units and weights, and, with ``bits``, are the same."""
    for path, one in ours['files'].items():
        other = theirs['files'][path]
        same = one['masks_digest'] == other['masks_digest'] and one['kept'] == other['kept']
        if not same or bits and one['digest'] != other['digest']:
            raise SystemExit(f'{name}: {path} depends on rounding; take another seed or ratio')
    if bits and ours['rows'] != theirs['rows']:
        raise SystemExit(f'{name}: the tables differ')


def keep(place: Path, name: str) -> None:
    """Move what counts of a run in the middle to the fixtures; leave only that in ``place``."""
    (target := FIXTURES / name).mkdir()
    files = [
        p for pattern in KEPT for p in (place / name).rglob(pattern) if 'vis_data' not in p.parts
    ]
    for path in files:
        if 'vis_data' in path.parts or path.name.startswith('state_'):  # logs, and what is over
            continue
        copy = target / path.relative_to(place / name)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy, follow_symlinks=False)
    if (place / 'scores.csv').is_file():
        shutil.copy(place / 'scores.csv', FIXTURES)
    shutil.rmtree(place / name)
    shutil.copytree(target, place / name, symlinks=True)


def save(content: dict, name: str) -> None:
    """Write down what is expected."""
    (FIXTURES / 'expected').mkdir(exist_ok=True)
    torch.save(content, FIXTURES / 'expected' / f'{name}.pth')


def make_slim_vit() -> None:
    """What the slim ViT of the run ``slim`` says of an image."""
    from mmengine.config import Config
    from mmengine.registry import MODELS

    cfg = Config.fromfile(FIXTURES / 'digits.py')
    path = FIXTURES / 'slim/vit_structured_pruned.pth'
    checkpoint = load(path)
    model = MODELS.build(dict(type='SlimModel', model=cfg.model, prune_state=str(path))).eval()
    model.load_state_dict(checkpoint['state_dict'])
    with torch.no_grad():
        logits = model(wave(4, 1, 32, 32))
    save(dict(logits=logits, kept=kept_units(checkpoint)), 'slim_vit')


def make_vad(old: Old, name: str) -> None:
    """A slim VAD, and what it says of two frames."""
    from mmengine.config import Config
    from mmengine.registry import MODELS, init_default_scope

    place, config = old.place(name), VADS[name]
    cfg = Config.fromfile(FIXTURES / f'{config}.py')
    init_default_scope('mmdet3d')
    torch.manual_seed(0)
    dense = MODELS.build(cfg.model)
    with torch.no_grad():  # what begins at a constant would tell nothing
        for tensor in dense.parameters():
            tensor.add_(0.1 * torch.randn_like(tensor))
    torch.save(dict(state_dict=dense.state_dict(), meta={}), place / 'dense_vad.pth')
    old.run('analysis_struct', f'{config}.py dense_vad.pth --output-dir {name}'.split(), place)
    (FIXTURES / name).mkdir()
    (made,) = (place / name).glob('*_structured_pruned.pth')
    path = Path(shutil.copy(made, FIXTURES / name))
    checkpoint = load(path)
    model = MODELS.build(dict(type='SlimModel', model=cfg.model, prune_state=str(path))).eval()
    model.load_state_dict(checkpoint['state_dict'])
    outs = {key: out for key, out in drive(model).items() if out.numel() < LARGE}
    save(dict(outs=outs, kept=kept_units(checkpoint)), name)


def make_llm(old: Old) -> None:
    """A tiny language model with masks, and a slim one as a Hugging Face folder."""
    import transformers
    from mmengine.config import Config
    from mmengine.registry import MODELS
    from tokenizers import Tokenizer, models, pre_tokenizers

    place, folder = old.place('llm'), FIXTURES / 'llm'
    entries = {'[UNK]': 0, **{w: i + 3 for i, w in enumerate(WORDS)}}
    inner = Tokenizer(models.WordLevel(entries, '[UNK]'))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    torch.manual_seed(3)
    lm = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model(
            'llama', vocab_size=96, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
            tie_word_embeddings=True, initializer_range=0.2,
        )
    )  # fmt: skip
    lm.save_pretrained(folder / 'base')
    transformers.PreTrainedTokenizerFast(tokenizer_object=inner, unk_token='[UNK]').save_pretrained(
        folder / 'base'
    )
    draw = random.Random(0)
    (folder / 'text.txt').write_text(' '.join(draw.choice(WORDS) for _ in range(300)) + '\n')
    for path in folder.rglob('*.safetensors'):
        path.chmod(0o644)
    shutil.copytree(folder, place / 'llm')
    old.run('analysis_struct', 'tiny_llm_masked.py --output-dir masked'.split(), place)
    old.run('analysis_struct', 'tiny_llm_slim.py --output-dir slim --save-hf hf'.split(), place)
    shutil.copy(place / 'masked/tiny_pruned.pth', folder)
    shutil.copy(place / 'slim/tiny_structured_pruned.pth', folder)
    shutil.copytree(place / 'hf', folder / 'hf')
    os.chdir(FIXTURES)
    cfg, expected = Config.fromfile('tiny_llm.py'), {}
    for name, report in (('masked', 'masked'), ('structured', 'slim')):
        path = folder / ('tiny_pruned.pth' if name == 'masked' else 'tiny_structured_pruned.pth')
        checkpoint, model_cfg = load(path), cfg.model
        if name == 'structured':
            model_cfg = dict(type='SlimModel', model=cfg.model, prune_state=str(path))
        model = MODELS.build(model_cfg).eval()
        model.load_state_dict(checkpoint['state_dict'])
        with torch.no_grad():
            logits = model(tokens())
        stages = json.loads((place / report / 'report.json').read_text())
        masks = unpacked(checkpoint.get('masks'))
        expected[name] = dict(
            logits=logits, masks=masks, kept=kept_units(checkpoint), digest=digest(masks),
            perplexity=stages['pruned']['metrics']['ppl/perplexity'],
        )  # fmt: skip
    save(expected, 'llm')


def main() -> None:
    """Make them all, or those named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('old', type=Path, help=f'a work tree of commit {COMMIT}')
    parser.add_argument('--only', nargs='+', help='dense, names of runs, vad, vad_nano, llm')
    args = parser.parse_args()
    head = subprocess.run(
        ['git', '-C', args.old, 'rev-parse', 'HEAD'], capture_output=True, text=True
    )
    import projects.llm
    import projects.prune_plugin
    import projects.vit  # noqa: F401

    if not head.stdout.startswith(COMMIT):
        raise SystemExit(f'{args.old} is not at commit {COMMIT}')
    if args.old.resolve() not in Path(projects.prune_plugin.__file__).parents:
        raise SystemExit('PYTHONPATH must name the old code')
    torch.set_num_threads(1)
    folder = Path(tempfile.gettempdir(), 'old_runs')  # checkpoints name it, so it says nothing else
    folder.mkdir()
    try:
        old, wanted = Old(args.old, folder), args.only or ['dense', *RUNS, *VADS, 'llm']
        for name in wanted:
            print(name, flush=True)
            shutil.rmtree(FIXTURES / name, ignore_errors=True)
            if name == 'dense':
                make_dense(old)
            if name in RUNS:
                make_run(old, name)
            if name == 'slim':
                make_slim_vit()
            if name in VADS:
                make_vad(old, name)
            if name == 'llm':
                make_llm(old)
    finally:
        shutil.rmtree(folder)


if __name__ == '__main__':
    main()
