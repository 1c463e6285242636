"""Memory that the process keeps: the pages of one call are there for the next."""

import ctypes
import subprocess
import sys

import pytest

from fnn.train import keep_memory

PROGRAM = """
import ctypes, resource, sys
from fnn.train import keep_memory

if sys.argv[1] == "keep":
    assert keep_memory() is True
library, mebibytes_48 = ctypes.CDLL(None), 48 << 20
library.aligned_alloc.restype = ctypes.c_void_p
library.free.argtypes = [ctypes.c_void_p]
faults = []
for _ in range(12):  # as a compiled program takes its block, fills it, and gives it back
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = library.aligned_alloc(64, ctypes.c_size_t(mebibytes_48))
    ctypes.memset(block, 1, mebibytes_48)
    library.free(block)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(min(faults))  # now and then a block comes from another place of the heap
"""


def least_faults_of_a_block(mode):
    done = subprocess.run([sys.executable, "-c", PROGRAM, mode], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="needs glibc")
def test_the_pages_of_one_block_are_there_for_the_next():
    # 48 MiB are 12,288 pages of 4 KiB, or 24 of 2 MiB where the system gives such.
    assert least_faults_of_a_block("leave") >= 24
    assert least_faults_of_a_block("keep") < 10


@pytest.mark.parametrize("missing", ["gnu_get_libc_version", "mallopt"])
def test_another_c_library_is_left_alone(monkeypatch, missing):
    class Library:
        def __getattr__(self, name):
            if name == missing:
                raise AttributeError(name)
            return lambda *_: pytest.fail("called")

    monkeypatch.setattr(ctypes, "CDLL", lambda _: Library())
    assert keep_memory() is False


def test_a_system_without_a_c_library_to_ask_is_left_alone(monkeypatch):
    def refuse(_):
        raise TypeError("Windows")

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    assert keep_memory() is False
