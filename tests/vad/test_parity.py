"""Outputs equal to the original project's, from formula-made weights and images.

``fixtures/vad_tiny_192x320.npz`` holds parts of what the original computed for two frames at
192 x 320 (``fixtures/cut_reference.py`` made it). The tool that compares everything is tested on a
model that is its own reference, and on the full files where they are at hand.
"""

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_vad as tiny
import torch
from mmengine.config import Config

from projects.prune_plugin.workflows import cli

ROOT = Path(__file__).parents[2]
FIXTURES = Path(__file__).parent / 'fixtures'
REFERENCE = Path(os.environ.get('VAD_REFERENCE') or ROOT.parent / 'shared' / 'vad')
TOOL = ROOT / 'tools' / 'benchmarks' / 'vad_parity.py'
CONFIG = ROOT / 'projects' / 'configs' / 'VAD' / 'VAD_tiny_stage_2.py'
needs_reference = pytest.mark.skipif(
    not (REFERENCE / 'reference_tiny_192x320.pt').is_file(), reason='no files of the original'
)


def module(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


parity = module(TOOL)
formulas = module(FIXTURES / 'formulas.py')
STEPS = module(FIXTURES / 'cut_reference.py').STEPS
DET = SimpleNamespace(fill=formulas, input=formulas)


@pytest.fixture(scope='module')
def reference() -> dict:
    with np.load(FIXTURES / 'vad_tiny_192x320.npz') as file:
        return dict(file)


@pytest.fixture(scope='module')
def found() -> dict:
    """Both frames through VAD_tiny, and its weights' digest."""
    model = parity.build(Config.fromfile(CONFIG), DET)
    frames = {f'frame{i}': parity.run_frame(model, DET, i, (192, 320)) for i in (1, 2)}
    return dict(frames, digest=parity.digest(model))


def test_weights_are_the_originals(found, reference):
    assert found['digest'] == str(reference['weights_sha256'])


@pytest.mark.parametrize('frame', ['frame1', 'frame2'])
def test_outputs_are_the_originals(found, reference, frame):
    outs = found[frame]
    bev = outs['bev_embed'][:, 0]
    ours = {name: outs[name][:, :, ::step] for name, step in STEPS.items()}
    ours['all_traj_preds'] = ours['all_traj_preds'][:1]
    ours |= dict(
        ego_fut_preds=outs['ego_fut_preds'], bev_rows=bev[::200], bev_norms=bev.norm(dim=-1)[::10]
    )
    for name, tensor in ours.items():
        expected = reference[f'{frame}/{name}']
        assert expected.std() > 0.05 and np.isfinite(expected).all()
        np.testing.assert_allclose(tensor, expected, atol=1e-3, rtol=0, err_msg=name)


@pytest.mark.parametrize('frame', ['frame1', 'frame2'])
def test_predictions_are_the_originals(found, reference, frame):
    """As sets: scores that tie may come in any order, and the last may be any of a tie."""
    ours = parity.decoded(found[frame]['result'])
    for names in (
        ('bboxes_bottom_center', 'scores', 'labels'),
        ('map_bboxes_xyxy', 'map_scores', 'map_labels'),
    ):
        a = [ours[name] for name in names]
        b = [torch.from_numpy(reference[f'{frame}/{name}']) for name in names]
        assert len(a[0]) == len(b[0])
        assert parity.unmatched(a, b, 1e-3) == parity.unmatched(b, a, 1e-3) == 0
        torch.testing.assert_close(a[1].sort().values, b[1].sort().values, atol=1e-3, rtol=0)


def test_second_frame_depends_on_the_first(found):
    """The comparison would notice a lost history."""
    outs = [found[name]['all_cls_scores'] for name in ('frame1', 'frame2')]
    assert (outs[0] - outs[1]).abs().max() > 1


@pytest.fixture(scope='module')
def own_reference() -> tuple[str, dict]:
    """A small model's config as text, and its own outputs as the reference files hold them."""
    cfg = tiny.config(pts_bbox_head__transformer__num_cams=6, input_shape=(6, 64, 96))
    model = parity.build(cfg.copy(), DET)
    reference = dict(meta=dict(img_hw=(64, 96), weights_sha256=parity.digest(model)))
    for i in (1, 2):
        outs = parity.run_frame(model, DET, i, (64, 96))
        kept = {name: outs[name] for name in parity.OUTPUTS}
        bev = outs['bev_embed'][:, 0]
        kept['all_traj_preds_layer0'] = outs['all_traj_preds'][0]
        kept['bev_embed'] = dict(rows=bev[::10], row_step=10, row_norm=bev.norm(dim=-1))
        kept['fpn'] = [dict(sample=parity.sample_points(x, 99), idx_n=99) for x in outs['fpn']]
        kept['decoded'] = parity.decoded(outs['result'])
        reference[f'frame{i}'] = kept
    return cfg.pretty_text, reference


@pytest.fixture
def small(tmp_path, own_reference) -> SimpleNamespace:
    """The tool's arguments for that model, and the folder that they name files in."""
    (tmp_path / 'small.py').write_text(own_reference[0])
    for name in ('det_fill.py', 'det_input.py'):
        shutil.copy(FIXTURES / 'formulas.py', tmp_path / name)
    path = tmp_path / 'reference.pt'
    torch.save(own_reference[1], path)
    words = [str(tmp_path / 'small.py'), '--det', str(tmp_path), '--reference', str(path)]
    return SimpleNamespace(words=words, path=path, folder=tmp_path)


def exit_code(*words) -> int:
    """What the tool ends with."""
    try:
        cli.run(parity.main, [str(word) for word in words])
    except SystemExit as end:
        return end.code or 0
    return 0


def test_tool_agrees_with_itself(small, capsys):
    assert exit_code(*small.words) == 0
    text = capsys.readouterr().out
    assert 'weights equal those of the reference' in text and 'all within the tolerance' in text
    for name in (*parity.OUTPUTS, 'all_traj_preds[0]', 'bev_embed rows', 'fpn[0]', 'decoded map'):
        found = [line for line in text.splitlines() if line[2:].split('  ')[0] == name]
        assert len(found) == 2, name  # once per frame
    assert text.count('max |diff|') >= 20


@pytest.mark.parametrize(
    'change',
    [
        lambda frame: frame['map_all_pts_preds'][0, 0, 3, 7].add_(0.002),
        lambda frame: frame['bev_embed']['rows'][1].sub_(0.002),
        lambda frame: frame['fpn'][0]['sample'][5].fill_(float('nan')),
        lambda frame: frame['fpn'].append(frame['fpn'][0]),
        lambda frame: frame['decoded']['bboxes_bottom_center'][0, 2].add_(0.01),
        lambda frame: frame['decoded']['map_labels'][0].add_(1),
        lambda frame: frame.update(ego_fut_preds=frame['ego_fut_preds'][:, :2]),
    ],
    ids=['output', 'bev', 'nan', 'levels', 'box', 'label', 'shape'],
)
def test_tool_notices_a_change(small, change, capsys):
    reference = torch.load(small.path, weights_only=True)
    change(reference['frame2'])
    torch.save(reference, small.path)
    assert exit_code(*small.words) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith('1 beyond the tolerance: ')
    assert sum(line.startswith('! ') for line in lines) == 1


def test_tool_notices_other_weights(small, capsys):
    text = (small.folder / 'det_fill.py').read_text()
    (small.folder / 'det_fill.py').write_text(text.replace('return 0.5 * values', 'return values'))
    assert exit_code(*small.words) == 1
    assert 'weights differ from those of the reference' in capsys.readouterr().out


def test_tool_names_what_is_wrong(small, capsys):
    config, _, folder, _, path = small.words
    for words, message in (
        ([config, '--det', folder], 'give --reference or --losses'),
        ([config, '--det', folder, '--reference', path + 'x'], 'does not exist'),
        ([config, '--det', folder + '/x', '--reference', path], 'holds no det_fill.py'),
    ):
        assert exit_code(*words) == 2
        assert message in capsys.readouterr().err


def test_tool_wants_something_to_compare(small, capsys):
    torch.save(dict(meta=torch.load(small.path, weights_only=True)['meta']), small.path)
    assert exit_code(*small.words) == 2
    assert 'holds no frame1' in capsys.readouterr().err


def test_empty_predictions_have_no_like():
    none, some = ([torch.zeros(n, 9), torch.zeros(n), torch.zeros(n)] for n in (0, 3))
    assert parity.unmatched(none, none, 1e-3) == parity.unmatched(some, none, 1e-3) == 0
    assert parity.unmatched(none, some, 1e-3) == 3


@needs_reference
@pytest.mark.slow
@pytest.mark.parametrize('extra, code', [((), 0), (('--atol', '1e-9'), 1)], ids=['as is', 'strict'])
def test_tool_on_the_full_reference(extra, code):
    words = [CONFIG, '--det', REFERENCE, '--reference', REFERENCE / 'reference_tiny_192x320.pt']
    run = subprocess.run(
        [sys.executable, TOOL, *words, *extra], capture_output=True, text=True, timeout=300
    )
    assert run.returncode == code, run.stdout + run.stderr
    assert 'weights equal those of the reference' in run.stdout


@needs_reference
@pytest.mark.slow
def test_training_losses_and_gradients(tmp_path):
    """Three frames, the smaller size: every loss, and the gradients' norms part by part."""
    cases = json.loads((REFERENCE / 'losses_tiny.json').read_text())
    path = tmp_path / 'losses.json'
    path.write_text(json.dumps({'train_192x320': cases['train_192x320']}))
    words = [sys.executable, TOOL, CONFIG, '--det', REFERENCE, '--losses', path]
    run = subprocess.run(words, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stdout + run.stderr
    assert 'parameters without gradient' in run.stdout and 'loss_plan_col' in run.stdout


@needs_reference
@pytest.mark.slow
def test_formulas_are_the_originals():
    """Images and weights bit for bit, cameras and poses to the last digit."""
    fill, inputs = (module(REFERENCE / f'{name}.py') for name in ('det_fill', 'det_input'))
    weights = fill.det_state_dict(REFERENCE / 'state_dict_tiny.json')
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not name.endswith('code_weights'):
            assert torch.equal(formulas.weight(name, tuple(tensor.shape)).float(), tensor), name
    for frame in (1, 2, 3):
        assert torch.equal(formulas.image(frame, 192, 320), inputs.image(frame, 192, 320))
        ours, theirs = formulas.img_meta(frame, 192, 320), inputs.img_meta(frame, 192, 320)
        for key, value in ours.items():
            np.testing.assert_array_equal(value, theirs[key])
    digest = hashlib.sha256(formulas.image(1, 192, 320).numpy().tobytes()).hexdigest()
    reference = torch.load(REFERENCE / 'reference_tiny_192x320.pt', weights_only=True)
    assert digest == reference['meta']['image_sha256'][1]
