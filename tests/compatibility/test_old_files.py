"""What was saved with the code of commit 7766c92 goes on working and goes on meaning the same.

``fixtures/`` holds files and runs in the middle that ``make_fixtures.py`` made with that code, and what
the code itself made of them. Kept units and masks must be the same, tensors up to the rounding of another
processor; with ``OLD_FILES_EXACT=1`` bit by bit, on the kind of processor that made them. Only what a
user would name is used here: tools, registered names, and the root of ``projects.prune_plugin``.
"""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from old_files import FIXTURES, RUNS, drive, end_of, kept_units, load, tokens, unpacked, wave

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
EXACT = bool(os.environ.get('OLD_FILES_EXACT'))


@pytest.fixture(scope='module')
def tool():
    """``tool('train', *args, cwd=folder)`` runs a tool as a process and returns what it printed."""
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': '', 'HF_HUB_OFFLINE': '1',
           'MPLBACKEND': 'Agg', 'PYTHONPATH': str(ROOT)}  # fmt: skip
    server = subprocess.Popen(
        [sys.executable, HERE / 'tool_server.py'], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True, cwd=ROOT, env=env,
    )  # fmt: skip

    def run(name: str, *arguments, cwd: Path, code: int = 0) -> str:
        words = [str(argument) for argument in arguments]
        request = dict(script=f'{ROOT}/tools/{name}.py', arguments=words, cwd=str(cwd))
        server.stdin.write(json.dumps(request) + '\n')
        server.stdin.flush()
        ended = json.loads(server.stdout.readline())
        assert ended['code'] == code, ended['out'][-4000:]
        return ended['out']

    yield run
    server.kill()
    server.communicate()


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A copy of the user's folder, which is the current one."""
    folder = tmp_path / 'project'
    leave = shutil.ignore_patterns('expected', '__pycache__')
    shutil.copytree(FIXTURES, folder, symlinks=True, ignore=leave)
    monkeypatch.chdir(folder)
    return folder


def expected(name: str) -> dict:
    return load(FIXTURES / 'expected' / f'{name}.pth')


def assert_close(ours: torch.Tensor, theirs: torch.Tensor, name: str = '') -> None:
    """Equal, or, unless bits are asked for, up to rounding."""
    if not EXACT and ours.is_floating_point():
        scale = max(1.0, float(theirs[theirs.isfinite()].abs().max())) if theirs.numel() else 1.0
        torch.testing.assert_close(
            ours, theirs, rtol=1e-4, atol=1e-5 * scale, msg=lambda m: f'{name}: {m}'
        )
    else:
        assert torch.equal(ours, theirs), name


def built(config: str, slim: str | None = None):
    """A config's model, or the slim one that a checkpoint of it describes."""
    cfg = Config.fromfile(config)
    init_default_scope(cfg.default_scope)
    model = cfg.model if slim is None else dict(type='SlimModel', model=cfg.model, prune_state=slim)
    return MODELS.build(model).eval()


def metrics(work_dir: Path) -> dict[str, float]:
    """What ``tools/test.py`` measured."""
    (found,) = work_dir.glob('*/2*.json')
    return json.loads(found.read_text())


# Checkpoints


@torch.no_grad()
def test_slim_vit(project):
    path, end = 'slim/vit_structured_pruned.pth', expected('slim_vit')
    model = built('digits.py', path)
    model.load_state_dict(load(path)['state_dict'])
    assert {name: kept.tolist() for name, kept in model.prune_state.kept.items()} == end['kept']
    sizes = [len(kept) for kept in end['kept'].values()]
    assert len(set(sizes)) > 2  # layers differ
    assert_close(model(wave(4, 1, 32, 32)), end['logits'])


def test_slim_vit_in_the_tools(project, tool):
    """Evaluated with the dense config, and pruned once more."""
    path = 'slim/vit_structured_pruned.pth'
    tool('test', 'digits.py', path, '--work-dir', 'work', cwd=project)
    assert 'accuracy/top1' in metrics(project / 'work')
    tool('analysis_struct', 'vit_slim.py', path, '--output-dir', 'twice', cwd=project)
    before, after = (kept_units(load(p)) for p in (path, 'twice/vit_structured_pruned.pth'))
    assert before.keys() == after.keys()
    assert all(set(after[name]) <= set(kept) for name, kept in before.items())
    assert sum(map(len, after.values())) < sum(map(len, before.values()))


def test_prune_state_by_the_public_functions(project):
    from projects.prune_plugin import PruneState, slim

    data = load('slim/vit_structured_pruned.pth')['meta']['prune_state']
    state = PruneState.from_dict(data)
    assert state.to_dict() == data and data['version'] == 1
    model = slim(built('digits.py'), state)
    weights = load('slim/vit_structured_pruned.pth')['state_dict']
    assert {k: v.shape for k, v in model.state_dict().items()} == {
        k: v.shape for k, v in weights.items()
    }


def test_a_table_of_scores(project, tool):
    """It gives the units that the run which saved it has kept."""
    with open('scores.csv') as file:
        assert next(csv.reader(file)) == [
            'name', 'layer_idx', 'group_type', 'group_idx', 'importance', 'cost', 'score',
        ]  # fmt: skip
    tool('analysis_struct', 'vit_slim.py', 'dense.pth', '--from-table', 'scores.csv', '--output-dir',
         'again', cwd=project)  # fmt: skip
    again = load('again/vit_structured_pruned.pth')
    assert kept_units(again) == expected('slim_vit')['kept']
    for name, tensor in load('slim/vit_structured_pruned.pth')['state_dict'].items():
        assert torch.equal(again['state_dict'][name], tensor), name


@pytest.mark.parametrize(
    ('config', 'path'),
    [
        ('tiny_vad.py', 'vad/tiny_structured_pruned.pth'),
        ('vad_nano.py', 'vad_nano/vad_structured_pruned.pth'),
    ],
)
def test_slim_vads(project, config, path):
    """Of small sizes and of VAD_nano's, with units of several kinds removed, over two frames."""
    pytest.importorskip('mmdet3d')
    end = expected(Path(path).parts[0])
    model = built(config, path)
    model.load_state_dict(load(path)['state_dict'])
    assert {name: kept.tolist() for name, kept in model.prune_state.kept.items()} == end['kept']
    kinds = {group.kind for group in model.prune_state.reduced}
    of_all = {'attention', 'mlp', 'branch', 'deformable', 'channel'}
    assert kinds == of_all | ({'point'} if config == 'vad_nano.py' else set())
    outs = drive(model)
    assert outs.keys() >= end['outs'].keys() and '1/ego_fut_preds' in end['outs']
    for name, theirs in end['outs'].items():
        assert_close(outs[name], theirs, name)


@pytest.mark.parametrize(('kind', 'file'), [('masked', 'tiny_pruned.pth'),
                                            ('structured', 'tiny_structured_pruned.pth')])  # fmt: skip
def test_language_models(project, tool, kind, file):
    """With masks, and slim."""
    pytest.importorskip('transformers')
    path, end = f'llm/{file}', expected('llm')[kind]
    checkpoint = load(path)
    model = built('tiny_llm.py', path if kind == 'structured' else None)
    model.load_state_dict(checkpoint['state_dict'])
    masks = unpacked(checkpoint.get('masks'))
    assert kept_units(checkpoint) == end['kept'] and masks.keys() == end['masks'].keys()
    for name, keep in masks.items():
        assert torch.equal(keep, end['masks'][name])
        assert not checkpoint['state_dict'][name][~keep].any()
    with torch.no_grad():
        assert_close(model(tokens()), end['logits'])
    tool('test', 'tiny_llm.py', path, '--eval', 'ppl', '--work-dir', 'work', cwd=project)
    found = metrics(project / 'work')['ppl/perplexity']
    assert found == pytest.approx(end['perplexity'], rel=1e-4)


# A Hugging Face folder, whose layers differ in width


def test_hugging_face_folder_in_transformers(project, tmp_path, monkeypatch):
    transformers = pytest.importorskip('transformers')
    modules = str(tmp_path / 'modules')  # where transformers copies the folder's code to
    monkeypatch.setattr('transformers.dynamic_module_utils.HF_MODULES_CACHE', modules)
    monkeypatch.syspath_prepend(modules)
    lm = transformers.AutoModelForCausalLM.from_pretrained('llm/hf', trust_remote_code=True)
    assert len({layer.mlp.up_proj.out_features for layer in lm.model.layers}) > 1
    with torch.no_grad():
        assert_close(lm(tokens()).logits, expected('llm')['structured']['logits'])


def test_hugging_face_folder_as_a_source(project, tool):
    """As ``model.path``, without running the folder's code; and pruned further."""
    pytest.importorskip('transformers')
    cfg = Config.fromfile('tiny_llm.py')
    model = MODELS.build(dict(cfg.model, path='llm/hf')).eval()
    model.init_weights()
    end = expected('llm')['structured']
    with torch.no_grad():
        assert_close(model(tokens()), end['logits'])
    tool('test', 'tiny_llm.py', '--eval', 'ppl', '--work-dir', 'work', '--cfg-options',
         'model.path=llm/hf', cwd=project)  # fmt: skip
    found = metrics(project / 'work')['ppl/perplexity']
    assert found == pytest.approx(end['perplexity'], rel=1e-4)


# Runs in the middle


def assert_same_end(ours: dict, theirs: dict) -> None:
    """The same units, masks, tickets and tables; the same weights up to rounding."""
    for path, other in theirs['files'].items():
        one = ours['files'][path]
        assert one['kept'] == other['kept'] and one['epoch'] == other['epoch'], path
        assert one['masks'].keys() == other['masks'].keys(), path
        for name, keep in other['masks'].items():
            assert torch.equal(one['masks'][name], keep), f'{name} of {path}'
        assert_same_ticket(one['ticket'], other['ticket'])
        assert one['state_dict'].keys() == other['state_dict'].keys(), path
        for name, tensor in other['state_dict'].items():
            assert_close(one['state_dict'][name], tensor, f'{name} of {path}')
        if EXACT:
            assert one['digest'] == other['digest'], path
    assert_same_rows(ours['rows'], theirs['rows'])


def assert_same_ticket(ours: dict | None, theirs: dict | None) -> None:
    """The same state, ratios and units."""
    assert (ours is None) == (theirs is None)
    if theirs is None:
        return
    assert ours['state'] == theirs['state'] and ours['ratios'] == theirs['ratios']
    assert ours['units'].keys() == theirs['units'].keys()
    for which, entries in theirs['units'].items():
        for name, units in entries.items():
            found = ours['units'][which][name]
            assert torch.equal(found, units) if torch.is_tensor(units) else found == units


def assert_same_rows(ours, theirs) -> None:
    """The same tables, with at least their keys; an accuracy may differ by one image of 32."""
    if isinstance(theirs, dict):
        assert ours.keys() >= theirs.keys()
        for key, value in theirs.items():
            if key.startswith('accuracy/') and not EXACT:
                assert ours[key] == pytest.approx(value, abs=100 / 32 + 0.01)
            else:
                assert_same_rows(ours[key], value)
    elif isinstance(theirs, list):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert_same_rows(one, other)
    else:
        assert ours == theirs


#: What the log of a run that really goes on says, and what it must not say.
SAYS = {
    'slim': (['resumed epoch: 3,'], None),
    'masked': (['resumed epoch: 1,'], None),
    'steps': (['going on after 1 of 2 rounds'], 'pruning state 1 of'),
    'geometric': (['going on after 1 of 3 rounds', 'resumed epoch: 1,'], 'pruning state 2 of'),
    'sparsegpt': ([], None),
    'rsst': (['going on in pruning state 1'], 'pruning state 0 of'),
    'imp': (['going on in pruning state 1'], 'pruning state 0 of'),
}


@pytest.mark.parametrize('name', RUNS)
def test_a_run_in_the_middle_goes_on(project, tool, name):
    """It ends as it would have with the old code, which resumed and unbroken runs ended alike with."""
    said = tool(RUNS[name]['tool'], *RUNS[name]['go_on'], cwd=project)
    wanted, never = SAYS[name]
    assert 'starting anew' not in said
    for words in wanted:
        assert words in said, said[-3000:]
    assert never is None or never not in said, said[-3000:]
    end = end_of(project, name)
    assert_same_end(end, expected(name))
    for file in end['files'].values():
        for weight, keep in file['masks'].items():
            assert not file['state_dict'][weight][~keep].any()


def test_finished_layers_of_a_killed_pass_are_taken(project, tool):
    """Told by a layer that is changed in the file: the change is in what comes out."""
    files = sorted(Path('sparsegpt/progress').glob('*.pth'))
    assert len(files) == 3
    content = load(files[0])
    assert content.keys() == {'key', 'state_dict', 'keep'}
    (name, weight), *_ = content['state_dict'].items()
    weight[content['keep'][name]] = 0.125
    torch.save(content, files[0])
    tool('analysis_struct', *RUNS['sparsegpt']['go_on'], cwd=project)
    found = load('sparsegpt/vit_pruned.pth')['state_dict'][name]
    assert torch.equal(found.view(weight.shape), weight)


def test_another_run_is_still_refused(project, tool):
    """The key in ``history.json`` counts."""
    said = tool('train', *RUNS['geometric']['go_on'], '--cfg-options', 'prune_cfg.schedule.share=0.3',
                cwd=project, code=2)  # fmt: skip
    assert 'is of a run with another prune_cfg' in said


# Formats


def test_keys_of_the_files(project):
    """Other programs read these: old files have these keys, and new ones are to have them too."""
    history = json.loads(Path('geometric/history.json').read_text())
    assert set(history) == {'key', 'planned', 'dense', 'headline', 'rows'}
    assert set(history['key']) == {'prune_cfg', 'checkpoint', 'model', 'rounds', 'training'}
    assert [row['complete'] for row in history['rows']] == [True, False]
    ticket = load('rsst/epoch_3.pth')['ticket']
    assert set(ticket) == {'state', 'ratios', 'initial', 'rows', 'units'}
    assert ticket['units'].keys() == {'alive', 'chosen'} and ticket['initial']
    assert ticket['units']['alive'] != ticket['units']['chosen']  # some are leaving
    assert load('imp/epoch_3.pth')['ticket']['units'].keys() == {'alive'}
    for entry in load('masked/vit_pruned.pth')['masks'].values():
        assert entry.keys() == {'shape', 'bits'} and entry['bits'].dtype == torch.uint8
