"""`experiments/benchmarks/gpu.py --tiny`: every part that is measured on a GPU runs on a CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_every_part_runs_without_tyro(tmp_path):
    (tmp_path / "tyro.py").write_text("raise ImportError('not on a machine with a GPU')")
    done = subprocess.run(
        [sys.executable, ROOT / "experiments/benchmarks/gpu.py", "--tiny", "--out", tmp_path],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    found = json.loads((tmp_path / "gpu.json").read_text())["parts"]
    assert done.returncode == 0, done.stdout
    assert list(found) == ["attention", "gpt2", "cifar", "sweep"]
    assert all(part["code"] == "0" for part in found.values())
    assert "tokens a second" in done.stdout and "seed 0" in done.stdout
