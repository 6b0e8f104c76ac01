"""NaN gradients and losses: an end in a sentence that says where, before any weight is spoilt."""

import torch
from fault_table import fault
from faulty_tools import CONFIG, PROFILE, SMALL, files, load

KIND = 'Bad numbers'
WEIGHT = 'backbone.blocks.0.attn.proj.weight'
RETRAIN = "recovery=dict(mode='retrain', epochs=2)"
TAYLOR = f"prune_cfg = dict(criterion=dict(type='Taylor'), {PROFILE}, {RETRAIN})"


def config(folder, more: str = TAYLOR):
    path = folder / 'nan_config.py'
    path.write_text(f"_base_ = ['{CONFIG}']\n{more}\n")
    return path


@fault(
    KIND,
    'a NaN in a gradient while retraining',
    'in one entry of the gradient of one weight, third batch',
    'exit code 2; the sentence names epoch, batch and tensor; the epoch before is saved, and finite',
)
def test_nan_gradient_in_recovery(tool, dense, tmp_path):
    out = tmp_path / 'out'
    flags = (config(tmp_path), dense, '--output-dir', out, '--fine-tune', '--retrain')
    calibrating = 4  # batches, whose gradients come first
    where = dict(type='nan_gradient', parameter=WEIGHT, number=calibrating + 3)
    ended = tool('analysis_struct', *flags, '--cfg-options', *SMALL, fault=where)
    ended.refused(
        'in epoch 2, batch 1', f'gradients of 1 of 20 tensors are NaN or infinite ({WEIGHT})'
    )
    saved = load(out / 'retrained/latest.pth')
    assert saved['meta']['epoch'] == 1
    assert all(w.isfinite().all() for w in saved['state_dict'].values())
    assert 'retrained/epoch_2.pth' not in files(out)


@fault(
    KIND,
    'a NaN in a gradient while scoring',
    'in one entry of the gradient of one weight, second batch',
    'exit code 2; the sentence names the unit group; nothing is written',
)
def test_nan_gradient_in_taylor(tool, dense, tmp_path):
    flags = (config(tmp_path), dense, '--output-dir', tmp_path / 'out', '--cfg-options', *SMALL)
    where = dict(type='nan_gradient', parameter=WEIGHT, number=2)
    ended = tool('analysis_struct', *flags, fault=where)
    ended.refused('scores of backbone.blocks.0.attn are not finite')
    assert not (tmp_path / 'out').exists()


@fault(
    KIND,
    'a NaN loss while scoring',
    'the losses of the third calibration batch are NaN',
    'exit code 2; the sentence names the batch and its samples; nothing is written',
)
def test_nan_loss_in_taylor(tool, dense, tmp_path):
    flags = (config(tmp_path), dense, '--output-dir', tmp_path / 'out', '--cfg-options', *SMALL)
    ended = tool('analysis_struct', *flags, fault=dict(type='nan_loss', number=3))
    chosen = torch.randperm(64, generator=torch.Generator().manual_seed(0))[16:24].tolist()
    ended.refused('the loss of batch 2', f'samples {", ".join(map(str, chosen))} of')
    assert not (tmp_path / 'out').exists()
