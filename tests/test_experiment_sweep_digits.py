import csv
import importlib
import runpy
from pathlib import Path

import jax
import pytest
import tyro

FILE = Path(__file__).parents[1] / "experiments" / "sweep_digits.py"
sweep_digits = importlib.import_module("experiments.sweep_digits")
TINY = "--lrs 3 --decays 2 --seeds 2 --width 4 --steps 4 --warmup-steps 1 --eval-every 2".split()


def script(monkeypatch, *arguments: str) -> None:
    """Run the experiment as its command does, on the device that the tests have."""
    monkeypatch.setattr("sys.argv", ["sweep_digits.py", *arguments])
    monkeypatch.setattr(jax.config, "update", lambda name, value: None)
    runpy.run_path(str(FILE), run_name="__main__")


@pytest.mark.slow
def test_a_table_and_two_figures_are_made(monkeypatch, tmp_path, capsys):
    out = tmp_path / "new" / "sweep"
    script(monkeypatch, *TINY, "--out", str(out), "--figure", str(tmp_path / "map.png"))
    said = capsys.readouterr().out
    assert "12 runs of 4 steps" in said and f"table and figures: {out}" in said
    with open(out / "sweep.csv") as file:
        rows = list(csv.DictReader(file))
    assert len({(row["lr"], row["weight_decay"]) for row in rows}) == 6
    assert all(row["n"] == "2" for row in rows)
    for name in ("map.png", "curves.png", "../../map.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "arguments",
    [["--lr-from", "4"], ["--decay-from", "0"], ["--seeds", "0"], ["--warmup-steps", "400"]],
    ids=lambda arguments: arguments[0],
)
def test_a_wrong_argument_ends_with_a_message_that_names_it(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        tyro.cli(sweep_digits.Config, args=arguments)
    said = capsys.readouterr()
    assert end.value.code == 2 and arguments[0] in said.out + said.err


def test_a_directory_that_cannot_be_made_ends_it_before_any_training(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit, match="sweep_digits.py: .*file"):
        script(monkeypatch, "--out", str(tmp_path / "file" / "sweep"))
