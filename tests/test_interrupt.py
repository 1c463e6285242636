"""Signals as a flag, and what a script tells the shell about them."""

import shlex
import signal
import sys
from types import SimpleNamespace

import pytest

from fnn.train import exit_code, resume_command
from fnn.train.process import interrupts


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_told_and_the_second_acts_at_once(number):
    seen = []
    before = signal.signal(number, lambda number, frame: seen.append(number))
    try:
        with interrupts() as interrupted:
            assert interrupted() == 0
            signal.raise_signal(number)
            assert interrupted() == number and seen == []
            signal.raise_signal(number)
            assert seen == [number]
        assert interrupted() == number
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize(("number", "code"), [(0, 0), (signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_exit_code_is_the_shells(number, code):
    assert exit_code(SimpleNamespace(signal=number)) == code


COMMANDS = {
    "python digits.py": "python digits.py --resume runs/a",
    "python -X dev digits.py --seed 3": "python -X dev digits.py --seed 3 --resume runs/a",
    "python -m experiments.digits": "python -m experiments.digits --resume runs/a",
    "python a.py --out b --lr 1": "python a.py --lr 1 --resume runs/a",
    "python a.py --out=b --widths 8 4": "python a.py --widths 8 4 --resume runs/a",
    "python a.py --resume old --lr 1": "python a.py --lr 1 --resume runs/a",
    "python a.py --name 'a b' cpu": "python a.py --name 'a b' cpu --resume runs/a",
    "python a.py --outer 3": "python a.py --outer 3 --resume runs/a",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_is_repeated_with_the_run_to_resume(command):
    assert resume_command("runs/a", shlex.split(command)) == COMMANDS[command]


def test_an_option_that_resume_does_not_stand_for_is_kept():
    command = resume_command("a", ["x", "--out", "b", "--resume", "c"], replaces=["--resume"])
    assert command == "x --out b --resume a"


def test_the_command_of_this_process_is_the_one_that_was_typed(monkeypatch):
    monkeypatch.setattr(sys, "orig_argv", ["py", "-O", "a.py", "--lr", "1"])
    monkeypatch.setattr(sys, "argv", ["/abs/a.py", "--lr", "1"])
    assert resume_command("r") == "py -O a.py --lr 1 --resume r"
    monkeypatch.setattr(sys, "argv", ["a.py"])
    assert resume_command("r") == "py -O a.py --lr 1 --resume r"
    monkeypatch.setattr(sys, "argv", ["b.py", "--lr", "2"])  # set by another program
    assert resume_command("r") == f"{sys.executable} b.py --lr 2 --resume r"
