import importlib
import json
import runpy
import signal
from pathlib import Path

import jax
import numpy as np
import pytest
import tyro

from fnn import checkpoint
from tests.pages import Page

HERE = Path(__file__).parents[1] / "experiments"
digits = importlib.import_module("experiments.digits")

FILES = {
    "best.safetensors",
    "config.json",
    "curves.png",
    "last.safetensors",
    "metrics.jsonl",
    "report.html",
}
TINY = {
    "steps": 6,
    "warmup_steps": 2,
    "eval_every": 2,
    "widths": (8,),
    "batch_size": 32,
}
RECIPE = digits.make_recipe(digits.Config(**TINY))  # one function, so one compilation for all


@pytest.fixture(scope="module", autouse=True)
def one_recipe():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digits, "make_recipe", lambda config: RECIPE)
        yield


@pytest.mark.parametrize("name", sorted(file.stem for file in HERE.glob("*.py")))
def test_every_experiment_has_a_config_whose_defaults_are_complete(name):
    module = importlib.import_module(f"experiments.{name}")
    assert module.__doc__ and module.Config()


@pytest.fixture(scope="module")
def two_seeds(tmp_path_factory):
    """The folder of a small run over two seeds, and what it printed."""
    out = tmp_path_factory.mktemp("digits") / "run"
    lines: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("builtins.print", lambda *a, **k: lines.extend(str(a[0]).split("\n")))
        config = digits.Config(out=out, seeds=2, seed=3, **TINY)
        digits.main(config)
    return out, lines


def test_digits_writes_all_that_it_promises(two_seeds):
    out, _ = two_seeds
    assert {path.name for path in out.iterdir()} == {"seed_3", "seed_4"}
    for seed in (3, 4):
        assert {path.name for path in (out / f"seed_{seed}").iterdir()} == FILES
        config = json.loads((out / f"seed_{seed}" / "config.json").read_text())
        assert config["seed"] == seed and config["widths"] == [8] and config["lr"] == 0.003
        log = (out / f"seed_{seed}" / "metrics.jsonl").read_text()
        rows = [json.loads(line) for line in log.splitlines()]
        assert [row["step"] for row in rows if "loss" in row] == list(range(6))
        assert [row["step"] for row in rows if "valid" in row] == [1, 3, 5]


def test_the_report_of_digits_opens_offline_and_says_what_was_printed(two_seeds):
    out, lines = two_seeds
    page = Page((out / "seed_3" / "report.html").read_text("utf-8"))
    page.assert_needs_nothing_else()
    assert page.tags.count("svg") == 6 and page.tags.count("img") == 24
    printed = next(line for line in lines if line.startswith("test accuracy"))
    assert printed.split("(")[0].removeprefix("test accuracy").strip() in page.text
    assert f"report: {out / 'seed_3' / 'report.html'}" in lines


def test_digits_sums_up_its_seeds(two_seeds):
    accuracies = [float(line.split()[2]) for line in two_seeds[1] if "mistakes" in line]
    last = two_seeds[1][-1].replace(",", "").split()
    assert last[:5] == ["test", "accuracy", "over", "2", "seeds:"]
    # Both are printed to a hundredth, so their mean is off by at most 0.005, and rounded by it.
    assert abs(float(last[6]) - np.mean(accuracies)) < 0.011
    assert abs(float(last[9]) - np.std(accuracies, ddof=1)) < 0.02


def test_each_seed_of_digits_has_a_split_of_its_own_standardized_by_its_training_part():
    data, test = digits.load(jax.random.key(0))
    sizes = [len(part.y) for part in (data.train, data.valid, test)]
    assert sizes == [1258, 269, 270]
    x = np.asarray(data.train.x, np.float64)
    np.testing.assert_allclose([x.mean(), x.std()], [0, 1], atol=1e-4)  # 80,000 float32 terms
    assert abs(float(test.x.mean())) > 1e-4
    other = digits.load(jax.random.key(1))[1]
    assert (np.asarray(test.y) != np.asarray(other.y)).any()


def test_an_interrupt_ends_digits_with_a_report_and_no_further_seed(tmp_path, monkeypatch, capsys):
    class Interrupting(checkpoint.RunDir):
        def log(self, rows):
            super().log(rows)
            if "loss" in rows[0] and rows[-1]["step"] == 0:
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(checkpoint, "RunDir", Interrupting)
    config = digits.Config(out=tmp_path, seeds=2, **TINY)
    digits.main(config)
    assert "stopped at step 1 (interrupted), with the weights of step 1" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "seed_0").iterdir()} == FILES - {"best.safetensors"}
    assert not list((tmp_path / "seed_1").iterdir())


WRONG = {
    "--lr": ["-1"],
    "--clip-norm": ["nan"],
    "--widths": [],
    "--dropout-rate": ["1"],
    "--norm-decay": ["-0.1"],
    "--weight-decay": ["inf"],
    "--warmup-steps": ["1500"],
    "--seeds": ["0"],
    "--batch-size": ["x"],
    "--no-such-flag": ["1"],
}


@pytest.mark.parametrize("flag", WRONG)
def test_a_wrong_argument_ends_digits_with_a_message_that_names_it(flag, capsys):
    with pytest.raises(SystemExit) as end:
        tyro.cli(digits.Config, args=[flag, *WRONG[flag]])
    said = capsys.readouterr()
    assert end.value.code == 2 and flag in said.out + said.err


def command(monkeypatch, *arguments: str) -> SystemExit:
    """How the script ends when it is called with these arguments."""
    monkeypatch.setattr("sys.argv", ["digits.py", *arguments])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(HERE / "digits.py"), run_name="__main__")
    return end.value


def test_a_directory_that_cannot_be_made_ends_digits_before_any_training(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    end = command(monkeypatch, "--out", str(tmp_path / "file" / "run"))
    assert "digits.py: RunDir: expected a directory that can be written to" in str(end.code)


def test_digits_never_writes_into_a_run_that_is_there(monkeypatch, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    end = command(monkeypatch, "--out", str(tmp_path))
    assert "--out: expected a new directory" in str(end.code)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def script(monkeypatch, name: str, *arguments: str) -> None:
    """Run an experiment as its command does."""
    monkeypatch.setattr("sys.argv", [f"{name}.py", *arguments])
    runpy.run_path(str(HERE / f"{name}.py"), run_name="__main__")


@pytest.mark.slow
def test_the_table_and_the_image_of_optimizers_are_made(monkeypatch, tmp_path, capsys):
    sizes = ["--seeds", "2", "--steps", "4", "--valley-steps", "5", "--path-steps", "5"]
    out = tmp_path / "new" / "paths.png"
    script(monkeypatch, "optimizers", "--only", "sgd", *sizes, "--out", str(out))
    said = capsys.readouterr().out
    assert said.split("\n")[1].startswith("sgd ") and f"figure: {out}" in said
    assert out.read_bytes().startswith(b"\x89PNG")


def test_an_optimizer_that_is_not_there_is_refused(monkeypatch):
    with pytest.raises(SystemExit, match=r"--only: expected names of .* got \['sdg'\]"):
        script(monkeypatch, "optimizers", "--only", "sdg")


@pytest.mark.parametrize("name", ["adult_mlp", "augment_short"])
def test_an_experiment_says_where_it_looked_for_its_data(name, monkeypatch, tmp_path):
    with pytest.raises(SystemExit, match=f"{name}.py: data.load: expected .* in one of {tmp_path}"):
        script(monkeypatch, name, "--root", str(tmp_path))
