"""Laws of augmentations: what they keep, what they change, and how often."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn.data import augment
from fnn.train import make_init, make_run, make_step
from tests import tiny
from tests.registry.rows import normal

IMAGE = jnp.asarray(np.random.default_rng(0).uniform(size=(8, 6, 3)), jnp.float32)
BYTES = jnp.round(255 * IMAGE).astype(jnp.uint8)
TOKENS = jnp.array([5, 6, 7, 8, 9, 5, 6, 7, 0, 0])
SYNONYMS = jnp.array([[-1, -1]] * 5 + [[6, -1], [5, 7], [8, 9], [9, -1], [-1, -1]])
WAVE = jnp.sin(jnp.arange(900) / 7)
SOUND, FEATURES = jnp.asarray(normal(9, 7)), jnp.asarray(normal(5))


def key(seed=0):
    return jax.random.key(seed)  # made anew: a key is used once


@dataclass(frozen=True, eq=False)
class Row:
    name: str
    make: Callable[..., Any]  # of the strength
    x: Any
    strong: float
    nothing: float = 0.0


ROWS = [
    Row("flip", augment.flip, IMAGE, 0.5),
    Row("flip of bytes", augment.flip, BYTES, 0.5),
    Row("rotate", augment.rotate, IMAGE, 40.0),
    Row("rotate of bytes", augment.rotate, BYTES, 40.0),
    Row("shift", lambda s: augment.affine(shift=s), IMAGE, 0.3),
    Row("scale", lambda s: augment.affine(scale=s), IMAGE, 0.3),
    Row("shear", lambda s: augment.affine(shear=s), IMAGE, 20.0),
    Row("brightness", lambda s: augment.color_jitter(brightness=s), IMAGE, 0.5),
    Row("contrast", lambda s: augment.color_jitter(contrast=s), BYTES, 0.5),
    Row("saturation", lambda s: augment.color_jitter(saturation=s), IMAGE, 0.5),
    Row("hue", lambda s: augment.color_jitter(hue=s), IMAGE, 0.5),
    Row("cutout", augment.cutout, IMAGE, 3.0),
    Row("random_erasing", augment.random_erasing, IMAGE, 1.0),
    Row("random_erasing of bytes", augment.random_erasing, BYTES, 1.0),
    Row("delete_tokens", functools.partial(augment.delete_tokens, pad=0), TOKENS, 0.5),
    Row("replace_by_synonyms", lambda s: augment.replace_by_synonyms(s, SYNONYMS), TOKENS, 0.5),
    Row("mask_spans", functools.partial(augment.mask_spans, mask=1, pad=0), TOKENS, 0.3),
    Row("feature_noise", augment.feature_noise, FEATURES, 0.3),
    Row("add_noise", augment.add_noise, WAVE, 20.0, nothing=np.inf),
    Row("time_stretch", augment.time_stretch, WAVE, 0.3),
    Row("pitch_shift", augment.pitch_shift, WAVE, 3.0),
    Row("mask_times", augment.mask_times, SOUND, 6.0),
    Row("mask_frequencies", augment.mask_frequencies, SOUND, 5.0),
    Row("sometimes", lambda s: augment.sometimes(s, lambda key, x: -x), IMAGE, 0.5),
]
rows = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)


@functools.cache
def many(row: Row) -> Callable[..., Any]:
    """The augmentation of a batch by one key and a traced strength, compiled."""

    def apply(key, strength, batch):
        return augment.per_example(row.make(strength))(key, (batch, jnp.arange(len(batch))))

    return jax.jit(apply)


def batch_of(row):
    return np.stack([row.x] * 16)


@pytest.mark.sampled(6)
@rows
def test_a_strength_of_0_changes_nothing_to_the_bit(row):
    x, y = many(row)(key(), row.nothing, batch_of(row))
    np.testing.assert_array_equal(x, batch_of(row))
    assert y.tolist() == list(range(16))


@pytest.mark.sampled(10)
@rows
def test_shape_and_dtype_and_range_are_kept_and_examples_and_keys_differ(row):
    x, _ = many(row)(key(), row.strong, batch_of(row))
    assert x.shape == batch_of(row).shape and x.dtype == row.x.dtype
    assert np.isfinite(x).all()
    if row.x is IMAGE and "erasing" not in row.name and "sometimes" not in row.name:
        assert x.min() >= 0 and x.max() <= 1 + 1e-6
    assert len({np.asarray(one).tobytes() for one in x}) > 1
    assert (x != row.x[None]).any()
    np.testing.assert_array_equal(x, many(row)(key(), row.strong, batch_of(row))[0])
    assert (x != many(row)(jax.random.key(1), row.strong, batch_of(row))[0]).any()


@pytest.mark.sampled(5)
@rows
def test_an_example_does_not_depend_on_its_batch(row):
    other = batch_of(row)
    other[1:] = other[1:] // 2 if row.x.dtype.kind in "iu" else other[1:] * 0.5
    x, y = (many(row)(key(), row.strong, batch)[0][0] for batch in (batch_of(row), other))
    np.testing.assert_array_equal(x, y)


def test_a_flip_is_its_own_inverse_and_comes_as_often_as_the_rate_says():
    always = augment.flip(1.0)
    np.testing.assert_array_equal(always(key(), IMAGE), IMAGE[:, ::-1])
    np.testing.assert_array_equal(always(key(), always(key(), IMAGE)), IMAGE)
    keys = jax.random.split(key(), 2000)
    flipped = jax.vmap(lambda k: augment.flip(0.3)(k, jnp.asarray(IMAGE))[0, 0, 0])(keys)
    share = (flipped != IMAGE[0, 0, 0]).mean()
    assert abs(share - 0.3) < 5 * (0.3 * 0.7 / 2000) ** 0.5


def test_an_alternating_flip_shows_both_sides_in_two_epochs_and_half_of_each_in_one():
    images, indices = np.stack([IMAGE] * 200), np.arange(200)
    flip = jax.jit(jax.vmap(augment.alternating_flip, (0, 0, None)))
    first, second, third = (np.asarray(flip(images, indices, epoch)) for epoch in (0, 1, 2))
    np.testing.assert_array_equal(first, third)
    np.testing.assert_array_equal(first, second[:, :, ::-1])
    assert 60 < (first != images).any(axis=(1, 2, 3)).sum() < 140


@pytest.mark.slow
@pytest.mark.sampled(2)
@pytest.mark.parametrize("reflect", [False, True])
def test_a_crop_is_a_part_of_the_padded_image(reflect):
    mode = "reflect" if reflect else "constant"
    padded = np.pad(IMAGE, ((2, 2), (2, 2), (0, 0)), mode=mode)
    parts = {padded[i : i + 8, j : j + 6].tobytes(): (i, j) for i in range(5) for j in range(5)}
    crop = jax.jit(jax.vmap(augment.crop(2, reflect=reflect), (0, None)))
    found = {parts[np.asarray(x).tobytes()] for x in crop(jax.random.split(key(), 300), IMAGE)}
    assert len(found) == 25  # each of 25 places is missed by 300 draws in 1 of 200,000 keys
    np.testing.assert_array_equal(augment.crop(0)(key(), IMAGE), IMAGE)


def test_a_turn_by_a_right_angle_is_that_of_numpy():
    square = IMAGE[:6]
    turned = augment.warp(square, jnp.array([[0.0, 1.0], [-1.0, 0.0]]), jnp.zeros(2))
    # Sines and cosines of float32 are exact here; the places are whole.
    np.testing.assert_allclose(turned, np.rot90(square), atol=1e-6)


@pytest.mark.slow
def test_a_shift_by_whole_pixels_is_exact_and_fills():
    moved = augment.warp(BYTES, jnp.eye(2), jnp.array([1.0, -2.0]), fill=9.0)
    np.testing.assert_array_equal(moved[:-1, 2:], BYTES[1:, :-2])
    assert (moved[-1] == 9).all() and (moved[:, :2] == 9).all()


@pytest.mark.slow
def test_half_a_pixel_is_the_mean_of_two():
    moved = augment.warp(IMAGE, jnp.eye(2), jnp.array([0.5, 0.0]))
    np.testing.assert_allclose(moved[:-1], (IMAGE[1:] + IMAGE[:-1]) / 2, atol=1e-6)


def test_colors_change_as_defined():
    gray = IMAGE @ np.array([0.299, 0.587, 0.114], np.float32)
    np.testing.assert_allclose(augment.adjust_saturation(IMAGE, 0.0)[..., 1], gray, atol=1e-6)
    flat = augment.adjust_contrast(IMAGE, 0.0)
    np.testing.assert_allclose(flat, np.full_like(IMAGE, gray.mean()), atol=1e-6)
    np.testing.assert_allclose(augment.adjust_brightness(IMAGE, 2.0), np.minimum(2 * IMAGE, 1))
    turned = augment.adjust_hue(IMAGE * 0.2 + 0.4, 0.4)
    np.testing.assert_allclose(  # a turn keeps the luma
        turned @ np.array([0.299, 0.587, 0.114], np.float32), 0.2 * gray + 0.4, atol=1e-5
    )


def test_bytes_and_floats_are_changed_alike():
    for change in (
        lambda x: augment.solarize(x, 0.5),
        lambda x: augment.posterize(x, 3),
        augment.autocontrast,
        lambda x: augment.adjust_sharpness(x, 2.0),
        lambda x: augment.adjust_saturation(x, 0.3),
    ):
        of_bytes = np.asarray(change(jnp.asarray(BYTES))).astype(np.float32)
        of_floats = 255 * np.asarray(change(jnp.asarray(BYTES, jnp.float32) / 255))
        np.testing.assert_allclose(of_bytes, of_floats, atol=0.51)


@pytest.mark.slow
def test_random_augment_at_0_is_one_of_three_and_stronger_changes_most():
    apply = jax.jit(
        lambda key, strength: jax.vmap(augment.random_augment(1, strength), (0, None))(
            jax.random.split(key, 64), jnp.asarray(IMAGE)
        )
    )
    weak = {np.asarray(x).tobytes() for x in apply(key(), 0.0)}
    allowed = [IMAGE, augment.autocontrast(IMAGE), augment.equalize(IMAGE)]
    # posterize to 8 bits rounds to a 255th
    close = [
        np.abs(np.frombuffer(w, np.float32).reshape(8, 6, 3) - np.stack(allowed)) for w in weak
    ]
    assert all(d.max(axis=(1, 2, 3)).min() < 0.51 / 255 + 1e-5 for d in close)
    strong = np.asarray(apply(key(), 0.8))
    assert (strong >= 0).all() and (strong <= 1 + 1e-6).all()
    assert len({x.tobytes() for x in strong}) > 20


@pytest.mark.slow
def test_mixup_mixes_examples_and_labels_by_the_same_share():
    x, labels = jnp.eye(6), jnp.arange(6)
    mixed, targets = augment.mixup(1.0, classes=6)(key(), (x, labels))
    np.testing.assert_allclose(mixed, targets, atol=1e-6)
    np.testing.assert_allclose(mixed.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(mixed.sum(axis=0), 1, atol=1e-6)
    assert ((mixed > 0.01) & (mixed < 0.99)).any()
    same, hard = augment.mixup(0, classes=6)(key(), (x, labels))
    np.testing.assert_array_equal(same, x)
    np.testing.assert_array_equal(hard, np.eye(6))


@pytest.mark.slow
def test_the_share_of_mixup_is_from_the_beta_distribution():
    shares = jax.vmap(lambda key: augment.mixup(0.4)(key, (jnp.eye(5), jnp.eye(5)))[0].max())(
        jax.random.split(key(), 400)
    )
    # max(w, 1 - w) of Beta(0.4, 0.4): mean 0.866, std 0.15; five deviations of the mean.
    draws = np.random.default_rng(0).beta(0.4, 0.4, 100_000)
    expected = np.maximum(draws, 1 - draws)
    kept = shares < 1  # partners may be the example itself
    assert abs(shares[kept].mean() - expected.mean()) < 5 * 0.15 / 400**0.5


@pytest.mark.slow
def test_cutmix_takes_as_much_of_the_label_as_of_the_image():
    images = jnp.arange(4.0)[:, None, None, None] * jnp.ones((1, 8, 8, 1))
    for seed in range(5):
        mixed, targets = augment.cutmix(1.0, classes=4)(
            jax.random.key(seed), (images, jnp.arange(4))
        )
        shares = np.stack([(np.asarray(mixed) == c).mean(axis=(1, 2, 3)) for c in range(4)], 1)
        np.testing.assert_allclose(shares, targets, atol=1e-6)


@pytest.mark.parametrize("mix", [augment.mixup, augment.cutmix])
def test_labels_that_cannot_be_mixed_are_refused(mix):
    with pytest.raises(ValueError, match="expected targets that can be mixed, got int32; pass"):
        mix(1.0)(key(), (jnp.zeros((2, 4, 4, 1)), jnp.arange(2)))


@pytest.mark.slow
def test_deleted_tokens_leave_the_others_in_order():
    deleted = jax.jit(jax.vmap(augment.delete_tokens(0.4, pad=0), (0, None)))
    results = np.asarray(deleted(jax.random.split(key(), 500), TOKENS))
    lengths = (results != 0).sum(axis=1)
    for x, n in zip(results, lengths, strict=True):
        assert (x[n:] == 0).all()
        left = iter(TOKENS[:8].tolist())
        assert all(token in left for token in x[:n].tolist())
    assert lengths.min() >= 1
    assert abs(lengths.mean() - 8 * 0.6) < 5 * (8 * 0.24 / 500) ** 0.5
    np.testing.assert_array_equal(augment.delete_tokens(1.0, pad=0)(key(), TOKENS), [5] + [0] * 9)


def test_swapped_tokens_are_the_same_tokens():
    swapped = augment.swap_tokens(5, pad=0)(key(), TOKENS)
    assert sorted(swapped.tolist()) == sorted(TOKENS.tolist())
    assert (swapped[8:] == 0).all() and (swapped != TOKENS).any()
    np.testing.assert_array_equal(augment.swap_tokens(0, pad=0)(key(), TOKENS), TOKENS)


def test_synonyms_come_from_the_table_evenly():
    replaced = jax.jit(jax.vmap(augment.replace_by_synonyms(1.0, SYNONYMS), (0, None)))
    results = np.asarray(replaced(jax.random.split(key(), 400), TOKENS))
    for place, token in enumerate(TOKENS):
        allowed = set(SYNONYMS[token].tolist()) - {-1} or {int(token)}
        assert set(results[:, place].tolist()) == allowed


def test_spans_hide_the_share_that_is_asked_for_in_runs():
    x = np.arange(2, 1002, dtype=np.int32)
    for rate, mean in ((0.15, 3.0), (0.3, 1.0), (0.5, 5.0)):
        spans = jax.jit(
            jax.vmap(augment.mask_spans(rate, mean_length=mean, mask=1, pad=0), (0, None))
        )
        hidden = np.asarray(spans(jax.random.split(key(), 60), x)) == 1
        # (1 - s)^mean is a product only for small s; its error here is below 0.03.
        assert abs(hidden.mean() - rate) < 0.035
        runs = hidden[:, 1:] & ~hidden[:, :-1]
        assert hidden.sum() / runs.sum() > 0.9 * mean


def test_noise_has_the_ratio_that_is_asked_for():
    x = jnp.asarray(np.tile(WAVE, 20))
    noise = augment.add_noise(10.0)(key(), x) - x
    ratio = 10 * np.log10(float(jnp.square(x).mean() / jnp.square(noise).mean()))
    assert abs(ratio - 10) < 0.3  # 18,000 squares: 0.05 dB
    np.testing.assert_array_equal(augment.add_noise(10.0)(key(), jnp.zeros(5)), np.zeros(5))


def tone(hertz, samples=8000, rate=8000):
    return jnp.sin(2 * jnp.pi * hertz * jnp.arange(samples, dtype=jnp.float32) / rate)


def pitch(x):
    return int(jnp.abs(jnp.fft.rfft(x[500:4500])).argmax()) * 8000 / 4000


@pytest.mark.slow
@pytest.mark.sampled(2)
@pytest.mark.parametrize("speed", [0.7, 1.4])
def test_a_stretched_tone_keeps_its_pitch_and_changes_its_length(speed):
    x = jnp.where(jnp.arange(8000) < 4000, tone(440.0), 0)
    y = augment.stretch(x, speed)
    assert abs(pitch(augment.stretch(tone(440.0), speed)) - 440) <= 2
    loud = np.flatnonzero(np.abs(np.asarray(y)) > 0.3)
    assert abs(loud[-1] - 4000 / speed) < 300  # half a window


def test_a_shifted_tone_changes_its_pitch_and_keeps_its_length():
    shifted = jax.jit(jax.vmap(augment.pitch_shift(12.0), (0, None)))
    pitches = [pitch(x) for x in shifted(jax.random.split(key(), 12), tone(440.0))]
    assert 219 < min(pitches) < 350 and 550 < max(pitches) < 881


@pytest.mark.slow
def test_new_rows_lie_between_a_row_and_one_of_its_neighbors():
    x = jnp.asarray(np.concatenate([normal(10, 2), 100 + normal(10, 2, seed=1)]))
    new = np.asarray(augment.smote(key(), x, 200, neighbors=3))
    away = np.abs(new).max(axis=1)
    assert ((away < 5) | (away > 95)).all()  # never between the two clouds
    assert len(np.unique(new.round(4), axis=0)) > 190
    with pytest.raises(ValueError, match="smote: expected at least 2 rows .* got 1 rows"):
        augment.smote(key(), x[:1], 5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: augment.crop(-1), "crop: expected padding to be a non-negative"),
        (lambda: augment.crop(7, reflect=True)(key(), IMAGE), "crop: expected a padding below"),
        (lambda: augment.color_jitter()(key(), IMAGE[..., :1]), "color_jitter: expected an im"),
        (lambda: augment.random_augment(-1), "random_augment: expected operations to be a non-n"),
        (lambda: augment.random_augment()(key(), IMAGE[..., :1]), "random_augment: expected an i"),
        (
            lambda: augment.cutmix(1.0)(key(), (jnp.ones((3, 2)), jnp.ones(3))),
            "cutmix: expected images",
        ),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.slow
def test_strengths_have_gradients():
    def total(degrees, x):
        return jnp.square(augment.rotate(degrees)(key(), x)).sum()

    assert jnp.isfinite(jax.grad(total)(20.0, jnp.asarray(IMAGE)))
    assert jax.grad(total)(20.0, jnp.asarray(IMAGE)) != 0


def noisy(hyper):
    rest = {name: value for name, value in hyper.items() if name != "noise"}
    noise = augment.per_example(augment.feature_noise(hyper["noise"]))
    return tiny.recipe(rest)._replace(augment=noise)


def test_a_recipe_augments_what_a_step_sees_and_nothing_else():
    seen = []

    def spy(hyper):
        def look(key, batch):
            seen.append(batch[0].shape)
            return batch

        return tiny.recipe(hyper)._replace(augment=look)

    run = make_run(spy, steps=6, batch_size=16, eval_every=3)
    jax.eval_shape(run, key(), tiny.HYPER, tiny.DATA)
    assert set(seen) == {(16, 2)}


@pytest.mark.slow
def test_the_noise_of_a_step_follows_from_its_key_and_its_strength_may_be_traced():
    step, init = jax.jit(make_step(noisy), donate_argnums=0), jax.jit(make_init(noisy))
    batch = tuple(leaf[:16] for leaf in tiny.DATA.train)

    def loss(seed, noise):
        hyper = {**tiny.HYPER, "noise": noise, "rate": 0.0}
        state = init(key(), hyper, batch[0])
        return float(step(state, batch, key(seed), hyper)[1]["loss"])

    assert loss(0, 0.5) == loss(0, 0.5)
    assert len({loss(0, 0.5), loss(1, 0.5), loss(0, 0.1)}) == 3
    assert loss(0, 0.0) == loss(1, 0.0)
