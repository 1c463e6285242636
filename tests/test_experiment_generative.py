import importlib

import jax
import pytest
import tyro

pytestmark = pytest.mark.slow  # whole trainings

vae = importlib.import_module("experiments.vae_digits")
diffusion = importlib.import_module("experiments.diffusion_digits")


def said_by(experiment, config):
    """What a run prints, line by line."""
    lines: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("builtins.print", lambda text: lines.extend(text.split("\n")))
        experiment.main(config)
    return lines


def test_the_vae_bounds_the_likelihood_and_draws(tmp_path):
    out = tmp_path / "new" / "image.png"
    config = vae.Config(widths=(8,), latent=2, steps=4, batch_size=32, draws=3, out=out)
    lines = said_by(vae, config)
    assert [line.split(":")[0] for line in lines] == ["train", "valid", "figure"]
    one, many = (float(word) for word in lines[1].split() if word[0] == "-")
    assert one < many < 0  # the bound of more draws is tighter
    assert out.read_bytes().startswith(b"\x89PNG")


def test_the_likelihood_of_a_pixel_adds_up_to_one():
    logits = jax.numpy.full((1, 17), 0.7)
    x = jax.numpy.arange(17.0)[None] / 16
    total = float(jax.numpy.exp(-vae.binomial_nll(logits, x)).sum())
    assert total == pytest.approx(1, abs=1e-5)


def test_the_diffusion_model_samples_every_label_and_draws(tmp_path):
    out = tmp_path / "new" / "image.png"
    config = diffusion.Config(
        features=8,
        num_layers=1,
        num_heads=1,
        patch=4,
        steps=4,
        batch_size=16,
        sampling_steps=2,
        samples=10,
        out=out,
    )
    lines = said_by(diffusion, config)
    assert sum(line.startswith("100 samples, guidance") for line in lines) == 2
    assert f"figure: {out}" in lines[-1] and out.read_bytes().startswith(b"\x89PNG")


def test_the_judge_knows_the_training_images_themselves():
    data = diffusion.digits(0)
    x, y = data.train.x
    said = diffusion.judge(x[:20], y[:20], (x, y))
    assert said.right == 1 and said.distance == 0
    wrong = diffusion.judge(x[:20], (y[:20] + 1) % 10, (x, y))
    assert wrong.right == 0 and wrong.distance > 1


@pytest.mark.parametrize(
    ("experiment", "flag", "value"),
    [
        (vae, "--latent", "0"),
        (vae, "--beta", "-1"),
        (vae, "--batch-size", "5000"),
        (diffusion, "--patch", "3"),
        (diffusion, "--features", "30"),
        (diffusion, "--guidance", "nan"),
    ],
)
def test_a_wrong_argument_ends_with_a_message_that_names_it(experiment, flag, value, capsys):
    with pytest.raises(SystemExit) as end:
        tyro.cli(experiment.Config, args=[flag, value])
    said = capsys.readouterr()
    assert end.value.code == 2 and flag in said.out + said.err
