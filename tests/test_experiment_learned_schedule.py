import importlib

import jax
import numpy as np
import pytest
import tyro

pytestmark = pytest.mark.slow  # whole trainings

learned = importlib.import_module("experiments.learned_schedule")
TINY = dict(steps=6, batch_size=16, width=4, rates=(0.1, 0.2), outer_steps=3, seeds=2)


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """What a small run prints, and its image."""
    lines: list[str] = []
    out = tmp_path_factory.mktemp("learned") / "new" / "image.png"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("builtins.print", lambda text: lines.extend(text.split("\n")))
        with jax.debug_key_reuse(False):  # a gradient makes its steps again, with the same noise
            learned.main(learned.Config(out=out, **TINY))
    return lines, out


def test_it_compares_with_the_cosine_on_its_own_seeds_and_on_others(said):
    lines, out = said
    assert sum("over 2 seeds" in line for line in lines) == 2
    assert sum(line.startswith("  test loss") for line in lines) == 2
    assert out.read_bytes().startswith(b"\x89PNG") and f"figure: {out}" in lines[-1]


def test_what_is_learned_is_never_worse_on_the_validation_part(said):
    row = next(line for line in said[0] if line.startswith("  valid loss"))
    assert "better for 2 of 2" in row  # three steps of descent from where it begins


def test_it_begins_with_the_cosine():
    config = learned.Config(**TINY)
    lrs = np.exp(np.asarray(learned.cosine(config, 0.2)["log_lr"], np.float64))
    expected = 0.1 * (1 + np.cos(np.pi * np.arange(6) / 6))
    np.testing.assert_allclose(lrs, expected, rtol=1e-4)  # 1 + cos cancels to a fifteenth


@pytest.mark.parametrize(
    ("flag", "value"),
    [("--rates", "-1"), ("--batch-size", "900"), ("--outer-lr", "nan"), ("--seeds", "1")],
)
def test_a_wrong_argument_ends_with_a_message_that_names_it(flag, value, capsys):
    with pytest.raises(SystemExit) as end:
        tyro.cli(learned.Config, args=[flag, value])
    said = capsys.readouterr()
    assert end.value.code == 2 and flag in said.out + said.err
