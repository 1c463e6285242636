"""The experiments as commands: options, --help, interrupts and runs that resume."""

import dataclasses
import importlib
import json
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tyro

import fnn
from experiments import shared
from fnn.checkpoint import RunDir

ROOT = Path(__file__).parents[1]
NAMES = sorted(file.stem for file in (ROOT / "experiments").glob("*.py"))
RESUMABLE = [
    "char_gpt", "cifar_resnet", "digits", "digits_boxes", "fashion_cnn",
    "mnist_cnn", "names_rnn", "scaling_law",
]  # fmt: skip
digits = importlib.import_module("experiments.digits")


def config_of(name):
    return importlib.import_module(f"experiments.{name}").Config


def parse(config, *arguments):
    return tyro.cli(config, args=list(arguments))


def said_by(capsys, config, *arguments):
    """The exit code of wrong arguments, and what is printed."""
    with pytest.raises(SystemExit) as end:
        parse(config, *arguments)
    said = capsys.readouterr()
    return end.value.code, said.out + said.err


@pytest.mark.parametrize("name", NAMES)
def test_every_option_is_explained_with_its_default(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    code, help = said_by(capsys, config_of(name), "--help")
    text = re.sub(r"[│─╭╮╰╯\s]+", " ", help)
    parts = re.split(r" --(?=[a-z][a-z0-9-]* )", text)[1:]
    options = [part for part in parts if not part.startswith("help ")]
    assert code == 0 and len(options) == len(dataclasses.fields(config_of(name)))
    for option in options:
        explained, _, default = option.partition(" (default: ")
        assert default and not default.startswith("None)")
        assert re.search(r" [a-z0-9]", explained), f"no explanation: {option}"


@pytest.mark.parametrize("name", NAMES)
def test_every_experiment_resumes_or_says_why_not(name):
    module = importlib.import_module(f"experiments.{name}")
    takes = "resume" in {field.name for field in dataclasses.fields(module.Config)}
    assert takes == (name in RESUMABLE)
    assert ("--resume" in module.__doc__) or "nothing to resume" in module.__doc__


WRONG = {
    "seed": ["abc", "-1", "4294967296", "99999999999999999999"],
    "steps": ["0", "-3", "ten"],
    "lr": ["nan", "0", "-1", "inf", "x"],
    "dropout_rate": ["1.5", "1", "-0.1", "nan"],
    "batch_size": ["0", "-1", "1000000000"],
    "eval_every": ["0"],
    "seeds": ["0", "-1"],
    "patience": ["0"],
    "warmup_steps": ["-1", "1000000000", "x"],
    "weight_decay": ["-1", "nan", "inf"],
    "no_such_option": ["1"],
}
CASES = [
    (name, option, value)
    for name in NAMES
    for option, values in WRONG.items()
    if option in {f.name for f in dataclasses.fields(config_of(name))} or option.startswith("no_")
    # Of text there are as many windows as it is long.
    if (name, option) not in {("char_gpt", "batch_size"), ("scaling_law", "batch_size")}
    for value in values
]


@pytest.mark.parametrize(("name", "option", "value"), CASES)
def test_a_wrong_value_ends_with_a_box_that_names_the_option(name, option, value, capsys):
    code, said = said_by(capsys, config_of(name), shared.flag(option), value)
    assert code == 2 and shared.flag(option) in said and said[0] in "╭ "  # a box
    assert "Traceback" not in said


@pytest.mark.parametrize("name", [n for n in NAMES if n != "scaling_law"])
@pytest.mark.parametrize("steps", ["1", "2", "10", "100000"])
def test_a_run_is_shortened_by_one_option(name, steps):
    config = config_of(name)
    if "steps" not in {field.name for field in dataclasses.fields(config)}:
        pytest.skip("it has no steps")
    made = parse(config, "--steps", steps)
    if "warmup_steps" in (hyper := getattr(made, "hyper", {})):
        assert 0 <= hyper["warmup_steps"] < int(steps)


def test_the_default_warm_up_is_a_tenth_of_a_short_run_and_bounded():
    made = [digits.Config(steps=steps).hyper["warmup_steps"] for steps in (1, 9, 10, 500, 1500)]
    assert made == [0, 0, 1, 50, 100]
    for given in (0, 7):
        assert digits.Config(steps=10, warmup_steps=given).hyper["warmup_steps"] == given


def test_hyper_has_the_options_of_type_float_and_the_warm_up():
    hyper = digits.Config(lr=0.5).hyper
    names = {"lr", "warmup_steps", "weight_decay", "clip_norm", "dropout_rate", "norm_decay"}
    assert hyper.keys() == names and hyper["lr"] == 0.5
    assert "temperature" not in config_of("names_rnn")().hyper  # it is static


# Directories of runs


def begun(tmp_path, **options):
    """A run of digits that has begun with these options."""
    config = digits.Config(out=tmp_path / "run", **options)
    for seed, run in enumerate(runs_of(config), start=config.seed):
        one = dataclasses.replace(config, seed=seed, seeds=1, out=run.path)
        run.write_config(dataclasses.asdict(one))
    return tmp_path / "run"


def runs_of(config):
    return shared.open_runs(config, "digits")


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_run_is_resumed_with_the_same_options(tmp_path, seeds):
    run = begun(tmp_path, lr=0.01, widths=(8, 4), seeds=seeds, seed=5)
    config = digits.Config(resume=run, lr=0.01, widths=(8, 4), seeds=seeds, seed=5)
    paths = [store.path for store in runs_of(config)]
    assert paths == ([run] if seeds == 1 else [run / f"seed_{seed}" for seed in (5, 6, 7)])


@pytest.mark.parametrize(
    "changed",
    [{"lr": 0.02}, {"widths": (8,)}, {"steps": 10}, {"seed": 1}, {"warmup_steps": 3}, {}],
)
def test_a_resume_names_the_option_that_is_not_the_same(tmp_path, changed):
    run = begun(tmp_path, lr=0.01, widths=(8, 4))
    config = digits.Config(resume=run, **{"lr": 0.01, "widths": (8, 4)} | changed)
    if not changed:
        runs_of(config)
        return
    [name] = changed
    flag = shared.flag(name)
    with pytest.raises(ValueError, match=rf"--resume: .*\n  {flag}: expected .*, got .*\n"):
        runs_of(config)


def test_a_resume_shows_values_as_they_are_typed(tmp_path):
    run = begun(tmp_path, widths=(8, 4))
    with pytest.raises(ValueError, match="--widths: expected 8 4, got 256 256"):
        runs_of(digits.Config(resume=run))


def test_a_resume_wants_a_run_and_no_other_directory(tmp_path):
    with pytest.raises(ValueError, match=r"--resume: expected the directory of a run, got .*nix'"):
        runs_of(digits.Config(resume=tmp_path / "nix"))
    assert not (tmp_path / "nix").exists()
    run = begun(tmp_path)
    with pytest.raises(ValueError, match="--out: expected none beside --resume"):
        runs_of(digits.Config(resume=run, out=tmp_path / "b"))
    with pytest.raises(ValueError, match=r"no seed_0/config\.json"):
        runs_of(digits.Config(resume=run, seeds=2))
    (run / "config.json").write_text("{")
    with pytest.raises(ValueError, match="config.json, got a damaged file"):
        runs_of(digits.Config(resume=run))


def test_an_option_that_only_one_version_of_the_script_has_is_named(tmp_path):
    run = begun(tmp_path)
    before = json.loads((run / "config.json").read_text())
    del before["clip_norm"]
    (run / "config.json").write_text(json.dumps(before | {"old": 3}))
    with pytest.raises(
        ValueError, match=r"(?s)--old: expected 3, got no.*--clip-norm: expected no"
    ):
        runs_of(digits.Config(resume=run))


def test_a_keyboard_interrupt_outside_of_fit_is_an_exit_code_and_a_command(tmp_path, capsys):
    def interrupted():
        raise KeyboardInterrupt

    assert shared.resumable(tmp_path, interrupted) == 130
    assert f"--resume {tmp_path}" in capsys.readouterr().out
    with pytest.raises(SystemExit) as end:
        shared.start(interrupted, resumes=True)
    assert end.value.code == 130


def test_start_puts_the_handler_of_ctrl_c_back():
    before = signal.getsignal(signal.SIGINT)
    seen = []
    shared.start(lambda: seen.append(signal.getsignal(signal.SIGINT)), resumes=False)
    assert seen == [signal.SIG_DFL] and signal.getsignal(signal.SIGINT) is before


# In a real terminal, with real signals


class Terminal:
    """A command in a pseudo-terminal."""

    def __init__(self, *command):
        self._fd, end = pty.openpty()
        # A session of its own, whose terminal sends it SIGINT for Ctrl-C.
        take = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)"
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"{take}; os.execvp(sys.argv[1], sys.argv[1:])", *command],
            stdin=end, stdout=end, stderr=end, start_new_session=True, cwd=ROOT,
            env=os.environ | {"TERM": "xterm", "COLUMNS": "200", "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        os.close(end)
        self.text = ""

    def until(self, pattern, seconds=120):
        """Read until `pattern` comes, or the end; returns whether it came."""
        start, deadline = len(self.text), time.monotonic() + seconds
        while time.monotonic() < deadline:
            if pattern and re.search(pattern, self.text[start:]):
                return True
            if select.select([self._fd], [], [], 0.1)[0]:
                try:
                    read = os.read(self._fd, 65536)
                except OSError:  # the command has ended
                    return False
                self.text += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", read.decode(errors="replace"))
        self._process.kill()
        raise TimeoutError(self.text)

    def type(self, text):
        os.write(self._fd, text.encode())

    def send(self, number):
        self._process.send_signal(number)

    def ended(self):
        """The exit code, after all that is printed."""
        self.until("")
        os.close(self._fd)
        return self._process.wait()


ENDLESS = "--steps 100000 --widths 8 --eval-every 100 --patience 100000 --lr 0.002".split()


def command_in(text):
    """The command that the run says to resume it with."""
    [line] = [line for line in text.splitlines() if line.startswith("to resume: ")]
    return shlex.split(line.removeprefix("to resume: "))


def test_ctrl_c_and_sigterm_end_digits_with_a_report_and_the_command_that_goes_on(tmp_path):
    run = tmp_path / "a run"
    first = Terminal(sys.executable, "experiments/digits.py", *ENDLESS, "--out", str(run))
    assert first.until("valid loss")
    first.type("\x03")
    assert first.ended() == 130
    assert "(interrupted)" in first.text and "test accuracy" in first.text
    assert (run / "report.html").exists() and "Traceback" not in first.text
    made = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["step"]

    command = command_in(first.text)
    assert command[-2:] == ["--resume", str(run)] and set(ENDLESS) <= set(command)
    second = Terminal(*command)
    assert second.until("valid loss")
    second.send(signal.SIGTERM)
    assert second.ended() == 143 and command_in(second.text) == command
    rows = [json.loads(row) for row in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [row["step"] for row in rows if "loss" in row]
    assert steps == list(range(len(steps))) and len(steps) > made + 1


@pytest.mark.slow
def test_a_second_ctrl_c_is_clean(tmp_path):
    run = tmp_path / "run"
    terminal = Terminal(sys.executable, "experiments/digits.py", *ENDLESS, "--out", str(run))
    assert terminal.until("valid loss")
    terminal.type("\x03")
    time.sleep(0.2)
    terminal.type("\x03")
    assert terminal.ended() == 130
    assert "Traceback" not in terminal.text and command_in(terminal.text)[-1] == str(run)


@pytest.mark.slow
def test_a_resumed_run_of_digits_is_bitwise_identical_to_an_uninterrupted_one(tmp_path):
    options = ["--steps", "3000", "--widths", "8", "--eval-every", "100", "--patience", "1000"]
    command = [sys.executable, "experiments/digits.py", *options, "--out"]
    assert Terminal(*command, str(tmp_path / "whole")).ended() == 0
    part = Terminal(*command, str(tmp_path / "part"))
    part.until("valid loss")
    part.type("\x03")
    assert part.ended() == 130
    assert Terminal(*command_in(part.text)).ended() == 0
    whole, part = (RunDir(tmp_path / name) for name in ("whole", "part"))
    assert (whole.path / "metrics.jsonl").read_bytes() == (part.path / "metrics.jsonl").read_bytes()
    from safetensors.numpy import load_file

    a, b = (load_file(store.path / "last.safetensors") for store in (whole, part))
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])


# The package and the Makefile


def test_the_version_is_that_of_the_source():
    assert re.fullmatch(r"\d+\.\d+\.\d+", fnn.__version__)
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" in project["project"]["dynamic"]
    assert project["tool"]["hatch"]["version"]["path"] == "fnn/__init__.py"


@pytest.mark.parametrize(
    ("target", "extra", "ends_with"),
    [
        ("run", ".[experiments]", ".venv/bin/python experiments/digits.py --seed 3"),
        ("test", ".[dev]", ".venv/bin/python -m pytest -q"),
        ("check", ".[dev]", ".venv/bin/mypy"),
    ],
)
def test_make_installs_what_a_target_needs(target, extra, ends_with, tmp_path):
    files = ["Makefile", "pyproject.toml"]
    for name in files:
        (tmp_path / name).write_text((ROOT / name).read_text())
    make = ["make", "-n", "--no-print-directory", "ARGS=--seed 3"]
    of_outer_make = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKEOVERRIDES")  # `make test` sets them
    environment = {name: value for name, value in os.environ.items() if name not in of_outer_make}

    def run(*more):
        command = [*make, *more]
        made = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )
        return made.stdout

    fresh = run(target)
    assert f"--editable '{extra}'" in fresh and fresh.strip().endswith(ends_with)
    assert "version_info < (3, 11)" in fresh
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "run-ready").touch()  # a small environment is upgraded where needed
    assert ("--editable" in run(target)) == (target != "run")
    (tmp_path / ".venv" / "ready").touch()
    assert "--editable" not in run(target)
