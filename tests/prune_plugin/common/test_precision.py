"""TF32 is off where digits count, and as the user has it elsewhere."""

import pytest
import torch

from projects.prune_plugin.calibration import layer_inputs
from projects.prune_plugin.common.precision import at_least_float32, without_tf32
from projects.prune_plugin.methods import optimal_brain_surgeon


def settings() -> tuple:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


@pytest.fixture(params=['highest', 'high'])
def precision(request):
    """As ``torch.set_float32_matmul_precision`` sets it."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(request.param)
    yield request.param
    torch.set_float32_matmul_precision(before)


def test_the_users_setting_comes_back(precision):
    before = settings()
    with pytest.raises(ZeroDivisionError), without_tf32():
        assert torch.backends.cuda.matmul.fp32_precision == 'ieee'
        assert torch.backends.cudnn.conv.fp32_precision == 'ieee'
        raise ZeroDivisionError
    assert settings() == before and torch.get_float32_matmul_precision() == precision


def test_where_digits_count_it_is_off(precision, monkeypatch):
    seen = []

    def cholesky(matrix):
        seen.append(torch.backends.cuda.matmul.fp32_precision)
        return torch.linalg.cholesky(matrix), torch.tensor(0)

    monkeypatch.setattr(torch.linalg, 'cholesky_ex', cholesky)
    optimal_brain_surgeon.damped_factor(torch.eye(3), 0.01, 'x', of_inverse=False)
    assert seen == ['ieee']
    layer_inputs.add_gram(torch.zeros(3, 3, dtype=torch.float64), torch.ones(2, 3))


def test_half_floats_are_widened():
    for dtype in (torch.float16, torch.bfloat16):
        assert at_least_float32(torch.ones(1, dtype=dtype)).dtype == torch.float32
    for dtype in (torch.float32, torch.float64):
        assert at_least_float32(torch.ones(1, dtype=dtype)).dtype == dtype
