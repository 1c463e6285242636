"""The compiled program names its operations by the paths of the parameters."""

import jax
import jax.numpy as jnp
import pytest

from fnn import models, nn


def op_names(model, x):
    params, state = jax.eval_shape(model.init, jax.random.key(0), x)
    lowered = jax.jit(lambda p, s: model.apply(p, s, x)[0]).lower(params, state)
    return lowered.as_text(debug_info=True)


@pytest.mark.parametrize("scan, path", [(False, "blocks/1/mlp"), (True, "blocks/mlp")])
def test_a_gpt_names_its_blocks(scan, path):
    config = models.gpt.gpt2(
        vocab_size=11, max_length=8, features=8, num_layers=2, num_heads=2, scan=scan
    )
    text = op_names(models.gpt.gpt(config), jnp.zeros((1, 4), int))
    assert path in text and path.replace("mlp", "attention_norm") in text


def test_children_are_named_by_their_address():
    model = nn.sequential(body=nn.linear(3), head=nn.sequential(nn.linear(2)))
    text = op_names(model, jnp.zeros((1, 4)))
    assert "head/0" in text and "body" in text
