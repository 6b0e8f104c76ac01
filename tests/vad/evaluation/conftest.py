"""The original's results, from the suite's own file and from the reference where it is there."""

import pytest
import vad_cases


@pytest.fixture(params=['fixture', 'reference'])
def cases(request) -> dict:
    return vad_cases.load(request.param)
