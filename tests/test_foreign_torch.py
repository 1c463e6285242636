"""Tensors of torch are refused with the conversion, or taken as the arrays that they are."""

import jax
import jaxtyping
import numpy as np
import pytest
import torch

from fnn import data

KEY = jax.random.key(0)
X = torch.ones(4, 2)


@pytest.fixture(autouse=True)
def without_shape_hook():
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize(
    "function",
    [
        data.fit_standardizer,
        data.fit_standardizer(jax.numpy.ones((2, 2))).apply,
        lambda x: data.Table(columns={"a": x}),
        lambda x: data.windows(x, 1),
        lambda x: data.audit({"train": (x, None)}),
        lambda x: data.show((x, None)),
    ],
)
def test_a_tensor_is_refused_with_the_conversion(function):
    with pytest.raises(ValueError, match=r"got a Tensor of torch; (give|convert it:) np\.asarray"):
        function(X)


def test_tensors_of_labels_and_tokens_are_those_of_arrays():
    y = torch.tensor([0, 1, 0, 1])
    for a, b in zip(
        data.stratified_split(jax.random.key(0), y, (0.5, 0.5)),
        data.stratified_split(jax.random.key(0), y.numpy(), (0.5, 0.5)),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)
    assert data.pack([y], 4).tokens.tolist() == [[0, 1, 0, 1]]
    assert data.decode_bytes(torch.tensor([97])) == "a"
