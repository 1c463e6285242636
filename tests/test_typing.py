"""Type checkers accept a typed user script and find the mistakes planted in a second one."""

import ast
import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "user_script.py"

# A checker must report the lines marked WRONG and no others.
MISTAKES = """\
import jax
import numpy as np

from fnn import Batch, Data, Metric, Model, Recipe, losses, metrics, nn, optim, schedules
from fnn.models.mlp import MLPConfig, mlp
from fnn.train import fit

data = Data(train=Batch(np.zeros(2), 1), valid=Batch(np.zeros(2), 1))
key = jax.random.key(0)


def recipe(hyper: dict[str, float]) -> Recipe:
    return Recipe(
        model=nn.linear(2),
        loss=losses.cross_entropy,
        optimizer=optim.sgd(),
        schedule=schedules.constant(hyper["lr"]),
        metrics={"accuracy": metrics.accuracy()},
    )


result = fit(recipe, data, key=key, hyper={"lr": 0.1}, steps=2, batch_size=1)
result.states  # WRONG
result.history.train["loss"].mean()
fit(recipe, data, key=key, hyper={"lr": 0.1}, steps="2", batch_size=1)  # WRONG
nn.linear("2")  # WRONG
nn.sequential(nn.linear(2), 3)  # WRONG
Recipe(nn.linear(2), losses.cross_entropy, 0.1, schedules.constant(0.1))  # WRONG
optim.adamw(weight_decay="0.1")  # WRONG
Data(train=data.train)  # WRONG
mlp(MLPConfig(width=3, out_features=2))  # WRONG
Metric(measure=metrics.accuracy())  # WRONG
Model(init=3, apply=nn.linear(2).apply)  # WRONG
"""
WRONG = {n for n, line in enumerate(MISTAKES.splitlines(), 1) if "# WRONG" in line}


def has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def check(folder: Path, *command: str) -> tuple[str, set[int]]:
    """The checker's output, and the lines of mistakes.py in which it found an error."""
    shutil.copy(SCRIPT, folder)
    (folder / "mistakes.py").write_text(MISTAKES)
    done = subprocess.run(
        [sys.executable, "-m", *command, "user_script.py", "mistakes.py"],
        cwd=folder,  # out of reach of this project's settings, as a user is
        capture_output=True,
        text=True,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout, {int(n) for n in re.findall(r"mistakes\.py:(\d+):.* error", done.stdout)}


@pytest.mark.slow  # without a cache: 30 s
@pytest.mark.skipif(not has("mypy"), reason="mypy is not installed: pip install 'fnn[dev]'")
def test_mypy(tmp_path):
    output, found = check(tmp_path, "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"))
    assert "user_script.py" not in output, output
    assert found == WRONG, output


@pytest.mark.slow
@pytest.mark.skipif(
    not has("basedpyright"), reason="basedpyright is not installed: pip install 'fnn[dev]'"
)
def test_pyright(tmp_path):
    (tmp_path / "pyrightconfig.json").write_text('{"typeCheckingMode": "standard"}')
    command = ("basedpyright", "--pythonpath", sys.executable, "--level", "error")
    output, found = check(tmp_path, *command)
    assert "user_script.py" not in output, output
    assert found == WRONG, output


@pytest.mark.slow
def test_the_script_trains():
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    accuracies = ast.literal_eval(done.stdout)
    assert min(accuracies.values()) > 0.8, accuracies  # 0.92 and 0.91; guessing gives 0.5
