"""The strictest settings that JAX has, for every test.

float64 stays off; a test that needs it enters `jax.enable_x64`.
"""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
from hypothesis import settings

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)

# Compilations make the first examples slow, and a test must not fail by the luck of its draws.
settings.register_profile("fnn", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("fnn")
