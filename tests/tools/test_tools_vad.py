"""VAD through the tools: two processes equal one, a killed training ends as a whole one."""

import json
from pathlib import Path

import pytest
import torch
from tool_runs import VAD_CONFIG, kill_at
from tool_runs import vad_options as options


def metrics_of(work_dir: Path) -> dict[str, float]:
    """What an evaluation wrote."""
    found = list(work_dir.glob('*/*.json'))
    assert len(found) == 1, found
    return json.loads(found[0].read_text())


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    """The weights of a checkpoint."""
    from projects.prune_plugin.checkpoints.checkpoint_file import load_file

    return load_file(path)['state_dict']


def test_losses_fall_and_the_normalisation_is_recorded(vad_trained):
    from projects.prune_plugin.checkpoints.checkpoint_file import load_file

    lines = [json.loads(line) for line in next(vad_trained.glob('*/vis_data/scalars.json')).open()]
    losses = [line['loss'] for line in lines if 'loss' in line]
    assert losses[-1] < losses[0]
    assert load_file(vad_trained / 'epoch_3.pth')['meta']['img_norm'] == {
        'mean': [123.675, 116.28, 103.53],
        'std': [58.395, 57.12, 57.375],
        'bgr_to_rgb': True,
    }


def test_two_processes_evaluate_like_one(vad_trained, run_tool, toy_root, tmp_path):
    """On two scenes, so that each process has one; the BEV of a scene goes from frame to frame."""
    both = tmp_path / 'both.pkl'
    both.write_bytes(merged(toy_root))
    results = []
    for ranks in (1, 2):
        work = tmp_path / str(ranks)
        launcher = ('--launcher', 'pytorch') if ranks == 2 else ()
        ended = run_tool(
            'test', VAD_CONFIG, vad_trained / 'epoch_3.pth', '--eval', 'bbox', '--work-dir', work,
            *options(toy_root, f'test_dataloader.dataset.ann_file={both}'), *launcher, ranks=ranks,
            env={'OMP_NUM_THREADS': '1'},  # sums of as many parts in both
        )  # fmt: skip
        assert 'planning, ' in ended.out
        results.append(metrics_of(work))
    one, two = results
    figures = {k: v for k, v in one.items() if '/' in k}
    assert len(figures) > 80
    # Not to the last bit: where a tensor lies in memory may change how its sums are rounded.
    assert figures == pytest.approx({k: two[k] for k in figures}, nan_ok=True, rel=1e-4)
    assert one['planning/num_valid'] == 4  # the last six of eight frames have no full future


def merged(root: Path) -> bytes:
    """Both info files of a drive in one."""
    import pickle

    from projects.vad.datasets.infos import load_infos

    parts = [load_infos(root / f'vad_nuscenes_infos_temporal_{s}.pkl') for s in ('train', 'val')]
    infos = [info for part in parts for info in part['infos']]
    return pickle.dumps(dict(infos=infos, metadata=parts[0]['metadata']))


def test_two_processes_train_to_equal_weights(run_tool, toy_root, tmp_path):
    work = tmp_path / 'work'
    ended = run_tool(
        'train', VAD_CONFIG, '--work-dir', work, '--launcher', 'pytorch',
        *options(toy_root, 'train_cfg.max_epochs=1', 'train_dataloader.batch_size=1'), ranks=2,
    )  # fmt: skip
    assert 'were not used in producing loss' not in ended.out
    assert (work / 'epoch_1.pth').is_file()
    ended = run_tool(
        'test', VAD_CONFIG, work / 'epoch_1.pth', '--eval', 'planning', '--work-dir', tmp_path / 'test',
        *options(toy_root),
    )  # fmt: skip
    assert 'planning, ' in ended.out and 'detection, ' not in ended.out


def test_a_killed_training_ends_like_the_whole_one(vad_trained, run_tool, toy_root, tmp_path):
    """Killed with SIGKILL in the middle of the second epoch."""
    work = tmp_path / 'work'
    arguments = ('--work-dir', str(work), *options(toy_root, 'train_cfg.max_epochs=3'))
    kill_at(r'Epoch\(train\)\s+\[2\]\[2/', 'train', VAD_CONFIG, *arguments)
    assert not (work / 'epoch_2.pth').exists()
    ended = run_tool('train', VAD_CONFIG, '--resume', *arguments)
    assert 'resumed epoch: 1' in ended.out
    whole, resumed = weights_of(vad_trained / 'epoch_3.pth'), weights_of(work / 'epoch_3.pth')
    assert whole.keys() == resumed.keys()
    for name, weight in whole.items():
        assert torch.equal(weight, resumed[name]), name


def test_weights_of_other_images_are_refused(vad_trained, run_tool, toy_root, tmp_path):
    ended = run_tool(
        'test', VAD_CONFIG, vad_trained / 'epoch_3.pth', '--eval', 'map', '--work-dir', tmp_path / 'work',
        *options(toy_root, 'model.data_preprocessor.bgr_to_rgb=False'), code=2,
    )  # fmt: skip
    assert 'model.data_preprocessor.bgr_to_rgb=True' in ended.err
    assert not (tmp_path / 'work').exists()
