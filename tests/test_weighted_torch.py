"""Means under masks and weights, beside PyTorch's and transformers'."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers.loss.loss_utils import ForCausalLMLoss

from fnn import losses, nn, optim, schedules
from fnn.recipe import Recipe
from fnn.train import make_init, make_step, microbatches
from tests.draws import ordinary
from tests.tiny import KEY

N, CLASSES, IGNORED = 12, 5, -100
WEIGHTS = np.array([0.5, 1.0, 2.0, 0.1, 3.0], np.float32)
LOGITS = ordinary(N, CLASSES)
LABELS = np.random.default_rng(1).integers(CLASSES, size=N)
HIDDEN = np.where(np.arange(N) % 3 == 0, IGNORED, LABELS)

CASES = {
    "ignored": (HIDDEN, {"ignore_index": IGNORED}),
    "class weights": (LABELS, {"weight": WEIGHTS}),
    "smoothed": (LABELS, {"label_smoothing": 0.2}),
    "class weights, smoothed": (LABELS, {"weight": WEIGHTS, "label_smoothing": 0.2}),
    "all of them": (
        HIDDEN, {"ignore_index": IGNORED, "weight": WEIGHTS, "label_smoothing": 0.2},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_mean_and_its_gradient_are_those_of_torch(name):
    labels, options = CASES[name]
    z = torch.tensor(LOGITS, requires_grad=True)
    theirs = {k: torch.tensor(v) if k == "weight" else v for k, v in options.items()}
    expected = F.cross_entropy(z, torch.tensor(labels), reduction="mean", **theirs)
    expected.backward()
    ours = {"class_weights" if k == "weight" else k: v for k, v in options.items()}
    ours = {k: jnp.asarray(v) if k == "class_weights" else v for k, v in ours.items()}

    @jax.jit
    @jax.value_and_grad
    def mean(z):
        found = losses.cross_entropy(z, jnp.asarray(labels, jnp.int32), **ours)
        return found.mean()  # of an array, or of a Weighted

    value, slope = mean(LOGITS)
    np.testing.assert_allclose(value, expected.item(), rtol=1e-6)
    np.testing.assert_allclose(slope, z.grad, rtol=1e-5, atol=1e-8)


@pytest.mark.slow
def test_one_hot_probabilities_weigh_as_their_labels():
    onehot = jnp.eye(CLASSES)[LABELS]
    options = {"class_weights": jnp.asarray(WEIGHTS), "label_smoothing": 0.2, "z_loss": 0.01}
    z = jnp.asarray(LOGITS)
    hard = losses.cross_entropy(z, jnp.asarray(LABELS, jnp.int32), **options)
    soft = losses.cross_entropy(z, onehot, **options)
    np.testing.assert_allclose(soft.values, hard.values, rtol=1e-5)
    np.testing.assert_allclose(soft.weights, hard.weights, rtol=1e-6)
    targets = onehot, jnp.asarray(LABELS, jnp.int32)
    focal = [losses.focal(z, y, class_weights=options["class_weights"]) for y in targets]
    np.testing.assert_allclose(focal[0].values, focal[1].values, rtol=1e-5)


def test_accumulation_is_that_of_a_causal_language_model_of_transformers():
    """Parts of unequal counts, divided by `num_items_in_batch` over all accumulation steps."""
    vocabulary, batch, time, parts = 11, 8, 6, 4
    tokens = np.random.default_rng(2).integers(vocabulary, size=(batch, time))
    lengths = np.array([6, 6, 6, 5, 3, 2, 2, 2])
    labels = np.where(np.arange(time) < lengths[:, None], tokens, IGNORED)

    table = torch.nn.Embedding(vocabulary, vocabulary)
    items = int((labels[:, 1:] != IGNORED).sum())
    total = 0.0
    for rows in np.split(np.arange(batch), parts):
        loss = ForCausalLMLoss(
            table(torch.tensor(tokens[rows])),
            torch.tensor(labels[rows]),
            vocab_size=vocabulary,
            num_items_in_batch=items,
        )
        loss.backward()
        total += loss.item()

    def shifted(logits, labels):
        return losses.cross_entropy(logits[:, :-1], labels[:, 1:], ignore_index=IGNORED)

    def recipe(hyper):
        return Recipe(
            model=nn.embedding(vocabulary, vocabulary),
            loss=shifted,
            optimizer=optim.sgd(),
            schedule=schedules.constant(1.0),
            gradient=microbatches(parts),
        )

    state = jax.jit(make_init(recipe))(KEY, {}, tokens)
    start = {"table": jnp.asarray(table.weight.detach().numpy())}
    state = replace(state, params=start)
    batch_of = (jnp.asarray(tokens, jnp.int32), jnp.asarray(labels, jnp.int32))
    after, found = jax.jit(make_step(recipe))(state, batch_of, KEY, {})
    np.testing.assert_allclose(found["loss"], total, rtol=1e-5)
    np.testing.assert_allclose(
        start["table"] - after.params["table"], table.weight.grad, rtol=1e-4, atol=1e-6
    )
