import importlib

import jax
import numpy as np
import pytest
import tyro

pytestmark = pytest.mark.slow  # whole trainings

scaling = importlib.import_module("experiments.scaling_law")
LAW = scaling.Law(E=0.9, A=30.0, a=0.4, B=200.0, b=0.4)


@pytest.fixture
def text(tmp_path):
    (tmp_path / "tinyshakespeare").mkdir()
    letters = "To be, or not to be, that is the question:\n" * 60
    (tmp_path / "tinyshakespeare" / "input.txt").write_text(letters)
    return tmp_path


def test_it_trains_all_sizes_fits_a_law_and_draws_it(text, monkeypatch):
    lines: list[str] = []
    monkeypatch.setattr("builtins.print", lambda said: lines.extend(said.split("\n")))
    monkeypatch.setattr(scaling, "read_text", lambda root: (text_of(root), "a text"))
    config = scaling.Config(
        root=str(text),
        num_layers=(1, 1),
        features=(16, 32),
        max_length=8,
        batch_size=4,
        steps=(6, 7),
        evals=6,
        eval_windows=8,
        warmup_steps=1,
        first_step=1,
        starts=2,
        out=text / "new" / "picture.png",
    )
    scaling.main(config)
    assert sum("parameters: loss" in line for line in lines) == 2
    assert any(line.startswith("L = ") for line in lines)
    assert config.out.read_bytes().startswith(b"\x89PNG")


def text_of(root):
    return (scaling.Path(root) / "tinyshakespeare" / "input.txt").read_text()


def test_a_law_is_found_again_from_its_own_losses():
    tokens = np.geomspace(1e5, 1.6e6, 12)
    sizes = (16_000, 60_000, 160_000, 350_000)
    curves = [scaling.Curve(n, tokens, LAW.loss(n, tokens)) for n in sizes]
    law, error = scaling.fit_law(curves, jax.random.key(0), starts=8)
    assert error < 2e-3  # of losses around 2; float32, and a valley that is nearly flat
    assert law.a == pytest.approx(LAW.a, rel=0.15) and law.b == pytest.approx(LAW.b, rel=0.15)


def test_the_best_size_for_a_compute_has_the_lowest_loss_of_all():
    compute = 1e12
    best = LAW.best_parameters(compute)
    loss = lambda n: LAW.loss(n, compute / 6 / n)  # noqa: E731
    assert loss(best) < min(loss(0.9 * best), loss(1.1 * best))


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
