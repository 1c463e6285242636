"""Batches and columns of PyTorch."""

import jax.numpy as jnp
import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset

from fnn.data import Streamed, repeat
from fnn.train import fit, silent
from fnn.train._source import arrays
from fnn.types import Data
from tests.tiny import BATCH, DATA, HYPER, KEY, assert_same_bits, recipe

TENSORS = [torch.from_numpy(np.array(part)) for part in DATA.train]


def fit_tiny(train, steps=7):
    arguments = dict(key=KEY, hyper=HYPER, steps=steps, batch_size=BATCH, progress=silent)
    return fit(recipe, Data(train=train, valid=DATA.valid), **arguments)


def test_a_data_loader_is_a_source_of_batches():
    loader = DataLoader(TensorDataset(*TENSORS), batch_size=BATCH, drop_last=True)
    arrays = [tuple(part.numpy() for part in batch) for batch in loader]
    expected = fit_tiny([arrays[i % len(arrays)] for i in range(7)])
    assert_same_bits(fit_tiny(repeat(loader)).state, expected.state)


def test_streamed_tensors_are_streamed_arrays():
    assert_same_bits(fit_tiny(Streamed(*TENSORS)).state, fit_tiny(DATA.train).state)


def test_tensors_of_each_dtype_keep_their_values():
    for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.int64, torch.uint8):
        tensor = torch.tensor([1.5, 2.0, 3.0]).to(dtype).requires_grad_(dtype.is_floating_point)
        array = arrays(tensor)
        assert str(dtype) == f"torch.{array.dtype.name}"
        np.testing.assert_array_equal(array.astype(np.float64), tensor.detach().double().numpy())
    assert arrays(jnp.ones(2)) is not None
