"""Freed memory stays with the process."""

import subprocess
import sys

import pytest

SCRIPT = """
import sys
import torch
from projects.prune_plugin.common.glibc_memory import keep_freed_memory

def resident():
    with open('/proc/self/statm') as file:
        return int(file.read().split()[1]) * 4096

if sys.argv[1] == 'keep':
    assert keep_freed_memory()
tensor = torch.ones(64 << 20, dtype=torch.uint8)
before = resident()
del tensor
print(before - resident())
"""


@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='for glibc')
def test_freed_memory_is_kept():
    given_back = {}
    for how in ('keep', 'leave'):
        command = [sys.executable, '-c', SCRIPT, how]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        given_back[how] = int(done.stdout)
    assert given_back['leave'] >= 64 << 20
    assert given_back['keep'] < 1 << 20


GIVE_BACK = """
import torch
from projects.prune_plugin.common.glibc_memory import trim_heap

def resident():
    with open('/proc/self/statm') as file:
        return int(file.read().split()[1]) * 4096

parts = [torch.ones(64 << 10, dtype=torch.uint8) for _ in range(2048)]
last = parts[-1]
full = resident()
del parts
trim_heap()
assert full - resident() > 100 << 20, (full, resident())
"""


@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='for glibc')
def test_holes_go_back_to_the_system():
    """Though something at the end of the heap is still held."""
    subprocess.run([sys.executable, '-c', GIVE_BACK], check=True)
