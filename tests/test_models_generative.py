"""Autoencoder, VAE, diffusion and its samplers, DiT, and the step of two players."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn import losses, models, nn, optim, schedules
from fnn.models.diffusion import _alpha_sigma
from fnn.nn import lift
from fnn.train.gan import GANRecipe, Player, make_gan_init, make_gan_step


def key(i=0):
    return jax.random.key(i)


AE = models.autoencoder.AutoencoderConfig(widths=(7, 5), code_features=2)
VAE = models.vae.VAEConfig(widths=(8,), latent_features=2)
X = jax.random.uniform(jax.random.key(9), (5, 6))


def test_an_autoencoder_is_its_two_halves():
    model = models.autoencoder.autoencoder(AE)
    params, _ = jax.jit(model.init)(key(), X)
    code = models.autoencoder.encode(AE, params, X)
    assert code.shape == (5, 2)
    whole = model.apply(params, (), X)[0]
    np.testing.assert_array_equal(whole, models.autoencoder.decode(AE, params, code))
    widths = [layer["linear"]["bias"].shape[0] for layer in params["decoder"]["hidden"]]
    assert widths == [5, 7]  # the encoder's, reversed


def test_the_divergence_is_that_of_a_long_sum_over_draws():
    mean, log_var = jnp.array([[0.7, -0.3]]), jnp.array([[-0.5, 0.4]])
    m, s = np.asarray(mean), np.asarray(log_var)
    z = np.random.default_rng(0).normal(size=(400_000, 2)) * np.exp(s / 2) + m
    log_q = -0.5 * ((z - m) ** 2 / np.exp(s) + s).sum(axis=1)
    log_p = -0.5 * (z**2).sum(axis=1)
    # The difference has a deviation of about 1, its mean over the draws one of 0.002.
    divergence = float(models.vae.gaussian_kl(mean, log_var)[0])
    assert divergence == pytest.approx(np.mean(log_q - log_p), abs=0.01)


def test_the_divergence_is_zero_at_the_prior_and_nowhere_below():
    log_var = jnp.linspace(-1e-3, 1e-3, 2001)[:, None]  # where exp(s) - 1 - s rounds below 0
    kl = models.vae.gaussian_kl(jnp.zeros((2001, 1)), log_var)
    assert kl.min() == 0 == models.vae.gaussian_kl(jnp.zeros((1, 1)), jnp.zeros((1, 1)))[0]


def test_the_loss_of_a_vae_is_a_sum_over_features_of_each_example():
    output = models.vae.VAEOutput(jnp.zeros((2, 3)), jnp.ones((2, 2)), jnp.zeros((2, 2)))
    for beta in (0.0, 1.0, 4.0):
        loss = models.vae.negative_elbo(output, jnp.ones((2, 3)), beta=jnp.float32(beta))
        np.testing.assert_allclose(loss, 3 * np.log(2) + beta, rtol=1e-6)
    normal = partial(models.vae.negative_elbo, nll=models.vae.unit_gaussian_nll)
    np.testing.assert_allclose(
        normal(output, jnp.full((2, 3), 2.0)), 1 + 3 * (2 + np.log(2 * np.pi) / 2), rtol=1e-6
    )


def test_the_bound_is_tight_where_the_posterior_is_exact():
    # p(x | z) = N(z, 1), so p(x) = N(0, 2) and the posterior is N(x / 2, 1 / 2): then the bound
    # with many draws is log p(x) itself.
    x, n = jnp.array([[1.3]]), 20_000
    mean, log_var = x / 2, jnp.log(jnp.full((1, 1), 0.5))
    z = models.vae.reparameterize(key(), jnp.tile(mean, (n, 1)), jnp.tile(log_var, (n, 1)))
    output = models.vae.VAEOutput(z, jnp.tile(mean, (n, 1)), jnp.tile(log_var, (n, 1)))
    bound = -models.vae.negative_elbo(output, jnp.tile(x, (n, 1)), nll=models.vae.unit_gaussian_nll)
    exact = -0.5 * (1.3**2 / 2 + np.log(2 * np.pi * 2))
    assert float(bound.mean()) == pytest.approx(exact, abs=0.02)  # a deviation of 0.6 / sqrt(n)


def test_gradients_pass_through_the_draw():
    draw = lambda m, s: models.vae.reparameterize(key(), m, s).sum()  # noqa: E731
    m, s = jnp.ones(3), jnp.zeros(3)
    by_mean, by_log_var = jax.grad(draw, (0, 1))(m, s)
    np.testing.assert_array_equal(by_mean, 1)
    noise = models.vae.reparameterize(key(), m, s) - m
    np.testing.assert_allclose(by_log_var, noise / 2, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_a_vae_draws_in_training_alone_and_samples_from_the_prior():
    model = models.vae.vae(VAE)
    params, _ = jax.jit(model.init)(key(), X)
    quiet, again = (model.apply(params, (), X)[0] for _ in range(2))
    np.testing.assert_array_equal(quiet.reconstruction, again.reconstruction)
    decoded = models.vae.vae_decode(VAE, params, models.vae.vae_encode(VAE, params, X)[0])
    np.testing.assert_array_equal(quiet.reconstruction, decoded)
    drawn = model.apply(params, (), X, key=key(), train=True)[0]
    assert not np.allclose(drawn.reconstruction, decoded)
    z = jax.random.normal(key(3), (4, 2))
    sampled = models.vae.vae_sample(VAE, params, key(3), 4)
    np.testing.assert_array_equal(sampled, models.vae.vae_decode(VAE, params, z))


SCHEDULES = [models.diffusion.cosine_noise, models.diffusion.linear_noise]
MEAN, STD = 0.8, 0.4  # of data that are one normal number


def perfect(schedule):
    """The best estimate of x_0 from x_t for data of N(MEAN, STD^2)."""

    def denoise(x, t):
        alpha, sigma = _alpha_sigma(schedule, t, x)
        gain = alpha * STD**2 / ((alpha * STD) ** 2 + sigma**2)
        return MEAN + gain * (x - alpha * MEAN)

    return denoise


@pytest.mark.sampled(2)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_schedule_falls_from_the_example_to_noise(schedule):
    signal = schedule(jnp.linspace(0, 1, 101))
    assert signal[0] == 1 and 0 < signal[-1] < 1e-4 and (jnp.diff(signal) < 0).all()


def test_the_linear_schedule_is_that_of_ddpm_with_its_thousand_steps():
    betas = np.linspace(1e-4, 0.02, 1000)
    t = np.arange(1, 1001) / 1000
    continuous = models.diffusion.linear_noise(jnp.asarray(t, jnp.float32))
    # The product of 1 - b and the exponential of -b differ by b^2 / 2 a step: 0.07 in all.
    np.testing.assert_allclose(np.log(continuous), np.log(np.cumprod(1 - betas)), atol=0.08)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_noisy_examples_have_the_mean_and_variance_of_their_time(schedule):
    seen = {}

    def spy(inputs):
        seen["x"], seen["t"] = inputs
        return inputs[0]

    config = models.diffusion.DiffusionConfig(denoiser=lift(spy), schedule=schedule)
    models.diffusion.diffusion(config).apply(
        {}, (), jnp.full((8, 40_000), 2.0), key=key(), train=True
    )
    signal = np.asarray(schedule(seen["t"]), np.float64)
    # 40,000 draws: the mean is off by 0.005 and the variance by 0.7 % of itself, in one deviation.
    np.testing.assert_allclose(seen["x"].mean(axis=1), 2 * np.sqrt(signal), atol=0.02)
    np.testing.assert_allclose(seen["x"].var(axis=1), 1 - signal, rtol=0.03, atol=1e-6)


@pytest.mark.parametrize(
    "prediction", [models.diffusion.noise_prediction, models.diffusion.v_prediction]
)
def test_what_is_predicted_gives_the_example_back(prediction):
    x, noise = jax.random.normal(key(), (2, 50))
    alpha, sigma = jnp.float32(0.6), jnp.float32(0.8)
    target = prediction.target(x, noise, alpha, sigma)
    clean = prediction.clean(alpha * x + sigma * noise, target, alpha, sigma)
    np.testing.assert_allclose(clean, x, atol=1e-5)


def test_evaluation_has_no_chance_in_it_and_training_has():
    config = models.diffusion.DiffusionConfig(denoiser=lift(lambda inputs: inputs[0]))
    model = models.diffusion.diffusion(config)
    one, other = (model.apply({}, (), X, key=k)[0].target for k in (None, key(1)))
    np.testing.assert_array_equal(one, other)
    one, other = (model.apply({}, (), X, key=key(i), train=True)[0].target for i in (1, 2))
    assert not np.allclose(one, other)


def test_labels_are_left_out_at_their_rate_and_never_in_an_evaluation():
    seen = {}

    def spy(inputs):
        seen["labels"] = inputs[2]
        return inputs[0]

    model = models.diffusion.diffusion(
        models.diffusion.DiffusionConfig(denoiser=lift(spy), null_label=3), rate=0.25
    )
    x = (jnp.zeros((10_000, 1)), jnp.ones(10_000, jnp.int32))
    model.apply({}, (), x)
    assert (seen["labels"] == 1).all()
    model.apply({}, (), x, key=key(), train=True)
    share = float((seen["labels"] == 3).mean())
    assert abs(share - 0.25) < 0.02  # a deviation of 0.0043


@pytest.mark.sampled(2)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_both_samplers_recover_a_normal_distribution_from_a_perfect_predictor(schedule):
    noise = jax.random.normal(key(), (20_000, 1))
    parts = {"schedule": schedule, "steps": 400}
    for samples in (
        models.diffusion.ddim(perfect(schedule), noise, **parts),
        models.diffusion.ancestral(perfect(schedule), noise, key(1), **parts),
    ):
        # 20,000 draws: the mean is off by 0.003, the deviation by 0.5 % of itself; the steps, of
        # which there are finitely many, take about 1 % more.
        assert float(samples.mean()) == pytest.approx(MEAN, abs=0.015)
        assert float(samples.std()) == pytest.approx(STD, rel=0.03)


def test_ddim_carries_each_noise_to_its_quantile_and_more_steps_are_nearer():
    noise = jnp.linspace(-2, 2, 9)[:, None]
    off = [
        float(
            jnp.abs(
                models.diffusion.ddim(
                    perfect(models.diffusion.cosine_noise),
                    noise,
                    schedule=models.diffusion.cosine_noise,
                    steps=steps,
                )
                - (MEAN + STD * noise)
            ).max()
        )
        for steps in (50, 100, 200)
    ]
    assert off[0] > off[1] > off[2] and off[2] < 0.01
    assert off[1] / off[2] == pytest.approx(2, rel=0.3)  # of first order


def test_ddim_is_a_function_of_its_noise_and_the_ancestral_sampler_of_its_key_too():
    noise, parts = (
        jax.random.normal(key(), (3, 2)),
        {"schedule": models.diffusion.linear_noise, "steps": 5},
    )
    estimate = perfect(models.diffusion.linear_noise)
    np.testing.assert_array_equal(
        models.diffusion.ddim(estimate, noise, **parts),
        models.diffusion.ddim(estimate, noise, **parts),
    )
    one, other = (models.diffusion.ancestral(estimate, noise, key(i), **parts) for i in (1, 2))
    assert not np.allclose(one, other)


def test_a_model_that_predicts_perfectly_samples_as_the_perfect_estimate_does():
    schedule, prediction = models.diffusion.cosine_noise, models.diffusion.noise_prediction
    best = perfect(schedule)

    def network(inputs):
        x, t = inputs
        alpha, sigma = _alpha_sigma(schedule, t, x)
        return (x - alpha * best(x, t)) / sigma

    config = models.diffusion.DiffusionConfig(denoiser=lift(network), prediction=prediction)
    noise, parts = jax.random.normal(key(), (50, 1)), {"schedule": schedule, "steps": 20}
    np.testing.assert_allclose(
        models.diffusion.ddim(models.diffusion.denoise_with(config, {}), noise, **parts),
        models.diffusion.ddim(best, noise, **parts),
        atol=2e-3,  # at t near 1, alpha is 0.003: an error of the noise is 300 of the example
    )


def test_guidance_goes_from_the_estimate_without_a_label_through_that_with_it():
    by_label = lambda inputs: inputs[2].astype(jnp.float32)[:, None] + 0 * inputs[0]  # noqa: E731
    config = models.diffusion.DiffusionConfig(
        denoiser=lift(by_label), prediction=models.diffusion.v_prediction, null_label=5
    )
    x, t = jnp.ones((2, 1)), jnp.full(2, 0.5)
    estimate = lambda **how: models.diffusion.denoise_with(config, {}, **how)(x, t)  # noqa: E731
    labels = jnp.array([1, 2])
    nothing, told = estimate(), estimate(labels=labels)
    np.testing.assert_allclose(estimate(labels=labels, guidance=0.0), nothing, rtol=1e-6)
    np.testing.assert_allclose(estimate(labels=labels, guidance=jnp.float32(1)), told, atol=1e-6)
    np.testing.assert_allclose(
        estimate(labels=labels, guidance=3.0), nothing + 3 * (told - nothing), rtol=1e-5
    )
    assert (estimate(labels=labels, clean=jnp.zeros_like) == 0).all()


DIT = models.dit.DiTConfig(features=8, num_layers=2, num_heads=2, num_classes=3)
INPUTS = (
    jax.random.normal(jax.random.key(4), (2, 4, 4, 1)),
    jnp.array([0.2, 0.7]),
    jnp.array([0, 2]),
)


def shaken(params):
    """Parameters away from the zeros that a DiT begins with."""
    generator = np.random.default_rng(0)
    move = lambda p: p + 0.2 * generator.normal(size=p.shape).astype(np.float32)  # noqa: E731
    return jax.tree.map(move, params)


@pytest.fixture(scope="module")
def dit():
    model = models.dit.dit(DIT)
    params, _ = jax.jit(model.init)(key(), INPUTS)
    return params, jax.jit(lambda params, inputs: model.apply(params, (), inputs)[0])


@pytest.mark.slow
def test_a_dit_begins_with_zero_and_with_blocks_that_do_nothing(dit):
    params, apply = dit
    assert (apply(params, INPUTS) == 0).all()
    assert not params["blocks"][0]["modulation"]["kernel"].any()


@pytest.mark.slow
def test_a_dit_sees_the_image_the_time_and_the_label(dit):
    params, apply = dit
    params = shaken(params)
    y = apply(params, INPUTS)
    assert y.shape == INPUTS[0].shape
    x, t, labels = INPUTS
    for other in ((x + 1, t, labels), (x, t + 0.1, labels), (x, t, labels + 1)):
        assert not np.allclose(apply(params, other), y)
    corner = x.at[:, 0, 0].add(1.0)
    assert not np.allclose(apply(params, (corner, t, labels))[:, -1, -1], y[:, -1, -1])


def test_a_scanned_dit_computes_what_one_with_a_list_does(dit):
    params, apply = dit
    params = shaken(params)
    model = models.dit.dit(replace(DIT, scan=True))
    stacked = {**params, "blocks": jax.tree.map(lambda *p: jnp.stack(p), *params["blocks"])}
    np.testing.assert_allclose(
        jax.jit(model.apply)(stacked, (), INPUTS)[0], apply(params, INPUTS), rtol=1e-4, atol=1e-5
    )


def test_dit_s_2_has_as_many_parameters_as_published():
    config = models.dit.DiTConfig(num_classes=1000)
    x = (jnp.zeros((1, 32, 32, 4)), jnp.zeros(1), jnp.zeros(1, jnp.int32))
    params, _ = jax.eval_shape(models.dit.dit(config).init, key(), x)
    count = sum(p.size for p in jax.tree.leaves(params))
    assert round(count / 1e6) == 33  # table 1 of the paper, which gives no more digits


def gan(hyper):
    lr = schedules.constant(hyper["lr"])
    judge = models.mlp.mlp(models.mlp.MLPConfig(widths=(16,), out_features=1))
    return GANRecipe(
        generator=Player(nn.linear(1), optim.adam(b1=0.5), lr),
        discriminator=Player(judge, optim.adam(b1=0.5), lr),
        prior=lambda key, n: jax.random.normal(key, (n, 1)),
    )


@pytest.mark.slow
def test_a_generator_moves_to_the_data_with_one_trace_of_a_pure_step():
    traces = []

    def recipe(hyper):
        traces.append(hyper)
        return gan(hyper)

    hyper, x = {"lr": 0.01}, 3 + 0.5 * jax.random.normal(key(1), (256, 1))
    state, step = (
        jax.jit(make_gan_init(gan))(key(), hyper, x),
        jax.jit(make_gan_step(recipe), donate_argnums=0),
    )
    start = float(state.generator.params["bias"][0])
    for _ in range(600):
        old = state
        state, metrics = step(state, x, key(2), hyper)
    assert start == 0 and len(traces) == 1 and int(state.step) == 600
    assert float(state.generator.params["bias"][0]) == pytest.approx(3, abs=0.4)
    assert old.generator.params["bias"].is_deleted()  # the state is given up to the step
    # At balance log 2 and 2 log 2: neither player has won.
    assert 0.3 < metrics["generator_loss"] < 1.5 and 0.8 < metrics["discriminator_loss"] < 1.6


def test_the_losses_of_the_players_are_those_of_the_paper():
    hyper, x = {"lr": 0.0}, jnp.full((4, 1), 2.0)
    recipe = gan(hyper)._replace(prior=lambda key, n: jnp.ones((n, 1)))
    state = jax.jit(make_gan_init(lambda hyper: recipe))(key(), hyper, x)
    made, _ = recipe.generator.model.apply(state.generator.params, (), jnp.ones((4, 1)))
    on = lambda x: recipe.discriminator.model.apply(state.discriminator.params, (), x)[0]  # noqa: E731
    sure = [np.asarray(jax.nn.sigmoid(on(at)), np.float64) for at in (x, made)]
    _, metrics = jax.jit(make_gan_step(lambda hyper: recipe), donate_argnums=0)(
        state, x, key(), hyper
    )
    expected = -np.log(sure[0]).mean() - np.log(1 - sure[1]).mean()
    np.testing.assert_allclose(metrics["discriminator_loss"], expected, rtol=1e-5)
    np.testing.assert_allclose(metrics["generator_loss"], -np.log(sure[1]).mean(), rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: models.autoencoder.autoencoder(AE).init(key(), jnp.zeros((1, 2, 3))),
            r"autoencoder: expected x of shape \(batch, features\)",
        ),
        (
            lambda: models.vae.vae(VAE).apply(
                models.vae.vae(VAE).init(key(), X)[0], (), X, train=True
            ),
            "vae: expected a key with train=True",
        ),
        (
            lambda: models.diffusion.diffusion(
                models.diffusion.DiffusionConfig(denoiser=lift(jnp.sin))
            ).apply({}, (), (X, X)),
            r"diffusion: expected x alone, because null_label is None, got tuple",
        ),
        (
            lambda: models.diffusion.diffusion(
                models.diffusion.DiffusionConfig(denoiser=lift(jnp.sin))
            ).apply({}, (), X, train=True),
            "diffusion: expected a key with train=True",
        ),
        (
            lambda: models.diffusion.ddim(
                lambda x, t: x, X, schedule=models.diffusion.cosine_noise, steps=0
            ),
            "ddim: expected steps to be a positive integer, got 0",
        ),
        (
            lambda: models.dit.dit(DIT).init(key(), INPUTS[:2]),
            r"dit: expected \(x, t, labels\) with x of shape",
        ),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_denoising_loss_is_the_mean_over_an_example():
    output = models.diffusion.Denoising(jnp.zeros((3, 2, 2)), jnp.full((3, 2, 2), 2.0))
    np.testing.assert_array_equal(models.diffusion.denoising_loss(output, None), 4)
    np.testing.assert_array_equal(
        losses.mean_squared_error(output.output, output.target),
        models.diffusion.denoising_loss(output, None),
    )
