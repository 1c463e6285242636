"""Recurrent layers against PyTorch with the same weights: outputs, last carries and gradients."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fnn.layers import LSTMCarry, bidirectional, multilayer
from tests.sequences import LAYERS, expect_close, numbers, with_gradients

# As a share of the largest entry.
RTOL = {np.float32: 1e-5, np.float64: 1e-10}
DTYPES = {np.float32: torch.float32, np.float64: torch.float64}
MODULES = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}


def as_params(kind, weight_ih, weight_hh, bias_ih, bias_hh):
    """fnn's parameters from PyTorch's: kernels are transposed, and redundant biases added."""
    params = {"input": {"kernel": weight_ih.T, "bias": bias_ih + bias_hh}}
    params["hidden"] = {"kernel": weight_hh.T}
    if kind == "gru":  # the new value has both biases
        r_and_z = 2 * len(bias_hh) // 3
        params["input"]["bias"][r_and_z:] = bias_ih[r_and_z:]
        params["hidden"]["bias"] = bias_hh[r_and_z:]
    return params


def as_gradients(kind, weight_ih, weight_hh, bias_ih, bias_hh):
    """Likewise for gradients: a sum of two has the gradient of either."""
    return as_params(kind, weight_ih, weight_hh, bias_ih, 0 * bias_hh) | (
        {"hidden": {"kernel": weight_hh.T, "bias": bias_hh[2 * len(bias_hh) // 3 :]}}
        if kind == "gru"
        else {}
    )


def tree_of(module, convert, array):
    """A list of the layers' parameters; a layer in two directions is a dict."""
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")

    def part(layer, direction):
        return convert(*(array(getattr(module, f"{n}_l{layer}{direction}")) for n in names))

    if not module.bidirectional:
        return [part(layer, "") for layer in range(module.num_layers)]
    return [
        {"forward": part(layer, ""), "backward": part(layer, "_reverse")}
        for layer in range(module.num_layers)
    ]


def outputs_of(module, x, lengths):
    """[y, h of all layers and directions, and c for an LSTM]."""
    if lengths is None:
        y, last = module(x)
    else:
        lengths = torch.tensor(lengths)
        packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, True, enforce_sorted=False)
        packed, last = module(packed)
        y, _ = torch.nn.utils.rnn.pad_packed_sequence(packed, True, total_length=x.shape[1])
    return [y, *(last if isinstance(last, tuple) else [last])]


def of_torch(kind, module, x, lengths):
    """Parameters as fnn has them, the outputs, and the gradients by parameters and x."""
    x = torch.tensor(x, requires_grad=True)
    outputs = outputs_of(module, x, lengths)
    values = [y.detach().numpy() for y in outputs]
    weights = [numbers(*y.shape, seed=20 + i, dtype=y.dtype) for i, y in enumerate(values)]
    sum((torch.tensor(w) * y).sum() for w, y in zip(weights, outputs, strict=True)).backward()
    params = tree_of(module, partial(as_params, kind), lambda p: p.detach().numpy())
    slopes = tree_of(module, partial(as_gradients, kind), lambda p: p.grad.numpy())
    return params, (values, (slopes, x.grad.numpy()))


def of_fnn(kind, both, lengths):
    layer = partial(bidirectional, LAYERS[kind][0]) if both else LAYERS[kind][0]

    def outputs(params, x):
        carries, y = multilayer(layer, params, x, lengths=lengths)
        carries = jax.tree.leaves(carries, is_leaf=lambda c: isinstance(c, LSTMCarry))
        if kind != "lstm":
            return [y, jnp.stack(carries)]
        return [y, jnp.stack([c.hidden for c in carries]), jnp.stack([c.cell for c in carries])]

    return with_gradients(outputs)


SIZES = st.integers(1, 4)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("kind", MODULES)
@example(np.float64, (3, 4, 3), 2, 2, True, [2, 4, 1])
@example(np.float32, (1, 1, 1), 1, 1, False, None)
@settings(max_examples=1, deadline=None, derandomize=True, database=None)
@given(
    dtype=st.sampled_from([np.float32, np.float64]),
    shape=st.tuples(SIZES, st.integers(2, 5), SIZES),
    hidden=st.integers(2, 3),
    num_layers=st.just(1),
    both=st.booleans(),
    lengths=st.none(),
)
def test_layers_agree_with_torch(kind, dtype, shape, hidden, num_layers, both, lengths):
    torch.manual_seed(hidden)
    module = MODULES[kind](shape[2], hidden, num_layers, batch_first=True, bidirectional=both)
    x = numbers(*shape, dtype=dtype)
    params, expected = of_torch(kind, module.to(DTYPES[dtype]), x, lengths)
    with jax.enable_x64(dtype == np.float64):
        lengths = None if lengths is None else jnp.array(lengths)
        params, x = jax.tree.map(jnp.asarray, (params, x))
        got = of_fnn(kind, both, lengths)(params, x)
        assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(got))
        expect_close(got, expected, RTOL[dtype])
