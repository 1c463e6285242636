"""Averages of weights as torch has them, and where it begins elsewhere."""

import jax.numpy as jnp
import numpy as np
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn

from fnn import optim
from tests.optim_runs import GRADS, START, run, run_weights


def averaged(path, updated, **options):
    """The weights of torch's AveragedModel, given those in `path` after the `updated` steps."""
    model = torch.nn.Linear(4, 1, bias=False)
    average, seen = AveragedModel(model, **options), []
    for t, weights in enumerate(path, start=1):
        with torch.no_grad():
            model.weight.copy_(torch.tensor(weights)[None])
        if updated(t):
            average.update_parameters(model)
        seen.append(average.module.weight.detach().numpy()[0].copy())
    return np.stack(seen)


def test_stochastic_weight_averaging_is_that_of_torch():
    path, weights, _ = run_weights(optim.swa(optim.sgd(), start=5, period=3))
    expected = averaged(path, lambda t: t >= 5 and (t - 5) % 3 == 0)
    np.testing.assert_allclose(weights[4:], expected[4:], atol=1e-5)


def test_a_running_mean_in_torch_begins_with_the_first_weights_it_sees():
    decay = 0.9
    path, weights, _ = run_weights(optim.ema(optim.sgd(), decay=decay))
    theirs = averaged(path, lambda t: True, avg_fn=get_ema_avg_fn(decay))
    # Their sum gives the first weights the share decay^(t-1), ours (1 - decay) decay^(t-1), and
    # is divided by 1 - decay^t.
    t = np.arange(1, len(path) + 1)[:, None]
    ours = (theirs - decay**t * path[0]) / (1 - decay**t)
    np.testing.assert_allclose(weights, ours, atol=1e-5)
    assert np.abs(weights - theirs).max() > 0.05


def test_both_are_averages_of_the_same_training():
    path, _, _ = run_weights(optim.ema(optim.sgd()))
    np.testing.assert_array_equal(path, run(optim.sgd(), grads=GRADS, start=jnp.asarray(START)))
