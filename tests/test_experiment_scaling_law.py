import importlib

import pytest
import tyro

pytestmark = pytest.mark.slow  # whole trainings

scaling = importlib.import_module("experiments.scaling_law")


@pytest.fixture
def text(tmp_path):
    (tmp_path / "tinyshakespeare").mkdir()
    letters = "To be, or not to be, that is the question:\n" * 60
    (tmp_path / "tinyshakespeare" / "input.txt").write_text(letters)
    return tmp_path


def test_it_trains_all_sizes_fits_a_law_and_draws_it(text, monkeypatch):
    lines: list[str] = []
    monkeypatch.setattr("builtins.print", lambda said: lines.extend(said.split("\n")))
    monkeypatch.setattr(scaling.shared, "read_text", lambda root: (text_of(root), "a text"))
    config = scaling.Config(
        root=str(text),
        num_layers=(1, 1, 1),
        features=(16, 32, 48),
        max_length=8,
        batch_size=4,
        steps=(6, 7, 8),
        evals=6,
        eval_windows=8,
        warmup_steps=1,
        first_step=1,
        out=text / "new" / "image.png",
    )
    scaling.main(config)
    assert sum("parameters: loss" in line for line in lines) == 3
    assert any(line.startswith("L = ") for line in lines)
    assert config.out.read_bytes().startswith(b"\x89PNG")


def text_of(root):
    return (scaling.Path(root) / "tinyshakespeare" / "input.txt").read_text()


@pytest.mark.parametrize(
    ("flag", "value"),
    [("--features", "30"), ("--num-layers", "1"), ("--first-step", "12000"), ("--lr", "nan")],
)
def test_a_wrong_argument_ends_with_a_message_that_names_it(flag, value, capsys):
    with pytest.raises(SystemExit) as end:
        tyro.cli(scaling.Config, args=[flag, value])
    said = capsys.readouterr()
    assert end.value.code == 2
    assert flag in said.out + said.err
