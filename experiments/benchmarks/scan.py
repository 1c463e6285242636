"""The time of each layer's gradient step inside a loop over its time outside: ratios.

    python experiments/benchmarks/scan.py
    python experiments/benchmarks/scan.py --only conv --rounds 30

XLA compiles some operations differently inside a loop: on a CPU the weight gradient of a
convolution may become a hundred times slower. Training is a loop (`run` is a scan, `fit` makes
chunks of steps), so every layer of `fnn.models` is measured here: its forward and backward pass and
an update by SGD, 8 of them in one `lax.scan` against 8 calls of the same compiled step. Before the
layer stands a learned gain, so that the gradient to the layer's input is needed too. The two
alternate, round by round, in one process; a ratio is a median over the rounds, with the quartiles
beside it. The goal is 1.2. Run nothing else meanwhile.
"""

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from experiments.benchmarks.peers.ratios import ratio_of, shown
from fnn import nn
from fnn import nn as all_layers
from fnn.types import Model

KEY, STEPS, GOAL = jax.random.key(0), 8, 1.2


@dataclass(frozen=True, kw_only=True)
class Config:
    rounds: int = 15
    round_ms: float = 15.0  # least time of either side in a round
    only: str | None = None  # layers whose name contains this


def of(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def below(most: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(most, size=shape).astype(np.int32)


# A batch of each kind: rows, images (after a first stage), sequences.
ROWS, IMAGES, SEQUENCES = of(128, 256), of(32, 16, 16, 32), of(16, 64, 64)
LENGTHS = below(64, 16) + 1

# The first word of a name is the layer's, in fnn.nn.
LAYERS: dict[str, tuple[Callable[[], Model], Any]] = {
    "dense": (lambda: nn.linear(256), ROWS),
    "einsum": (lambda: nn.einsum("bgi,gio->bgo", o=32), of(128, 8, 32)),
    "linear_general": (lambda: nn.linear_general((8, 32)), ROWS),
    "bilinear": (lambda: nn.bilinear(32), (of(64, 32), of(64, 32))),
    "feed_forward": (lambda: all_layers.feed_forward(256), SEQUENCES),
    "gated_mlp": (lambda: nn.gated_mlp(256, jax.nn.sigmoid), SEQUENCES),
    "swiglu": (lambda: nn.swiglu(256), SEQUENCES),
    "geglu": (lambda: nn.geglu(256), SEQUENCES),
    "moe": (lambda: nn.moe(64, num_experts=4), SEQUENCES),
    "conv 3x3": (lambda: nn.conv(32, (3, 3)), IMAGES),
    "conv 3x3 of an image": (lambda: nn.conv(32, (3, 3)), of(32, 28, 28, 1)),
    "conv 1x1": (lambda: nn.conv(64, (1, 1)), IMAGES),
    "conv 3x3 stride 2": (lambda: nn.conv(64, (3, 3), stride=2), IMAGES),
    "conv 3x3 groups 4": (lambda: nn.conv(32, (3, 3), groups=4), IMAGES),
    "conv 3x3 dilation 2": (lambda: nn.conv(32, (3, 3), dilation=2), IMAGES),
    "conv 5 of sequences": (lambda: nn.conv(64, (5,)), SEQUENCES),
    "conv_transpose 3x3 stride 2": (lambda: nn.conv_transpose(16, (3, 3), stride=2), IMAGES),
    "depthwise_conv 3x3": (lambda: nn.depthwise_conv((3, 3)), IMAGES),
    "separable_conv 3x3": (lambda: nn.separable_conv(64, (3, 3)), IMAGES),
    "max_pool": (lambda: nn.max_pool((2, 2)), IMAGES),
    "max_pool with overlap": (lambda: nn.max_pool((3, 3), stride=2), IMAGES),
    "average_pool": (lambda: nn.average_pool((2, 2)), IMAGES),
    "average_pool with overlap": (lambda: nn.average_pool((3, 3), stride=2), IMAGES),
    "sum_pool": (lambda: nn.sum_pool((2, 2)), IMAGES),
    "global_max_pool": (nn.global_max_pool, IMAGES),
    "global_average_pool": (nn.global_average_pool, IMAGES),
    "adaptive_max_pool": (lambda: all_layers.adaptive_max_pool((5, 5)), IMAGES),
    "adaptive_average_pool": (lambda: all_layers.adaptive_average_pool((5, 5)), IMAGES),
    "resize_nearest": (lambda: nn.resize_nearest((24, 24)), IMAGES),
    "resize_linear": (lambda: nn.resize_linear((24, 24)), IMAGES),
    "upsample_nearest": (lambda: nn.upsample_nearest((2, 2)), IMAGES),
    "upsample_linear": (lambda: nn.upsample_linear((2, 2)), IMAGES),
    "pixel_shuffle": (lambda: nn.pixel_shuffle((2, 2)), IMAGES),
    "pixel_unshuffle": (lambda: nn.pixel_unshuffle((2, 2)), IMAGES),
    "patchify": (lambda: nn.patchify((4, 4)), IMAGES),
    "unpatchify": (lambda: nn.unpatchify((2, 2)), IMAGES),
    "flatten": (nn.flatten, IMAGES),
    "squeeze_excite": (lambda: nn.squeeze_excite(4), IMAGES),
    "batch_norm": (nn.batch_norm, IMAGES),
    "group_norm": (lambda: nn.group_norm(8), IMAGES),
    "instance_norm": (nn.instance_norm, IMAGES),
    "layer_norm": (nn.layer_norm, SEQUENCES),
    "rms_norm": (nn.rms_norm, SEQUENCES),
    "weight_norm of dense": (lambda: nn.weight_norm(nn.linear(256)), ROWS),
    "spectral_norm of dense": (lambda: nn.spectral_norm(nn.linear(256)), ROWS),
    "prelu": (all_layers.prelu, SEQUENCES),
    "snake": (all_layers.snake, SEQUENCES),
    "dropout": (lambda: nn.dropout(0.5), SEQUENCES),
    "alpha_dropout": (lambda: nn.alpha_dropout(0.5), SEQUENCES),
    "gaussian_dropout": (lambda: nn.gaussian_dropout(0.5), SEQUENCES),
    "gaussian_noise": (lambda: nn.gaussian_noise(0.5), SEQUENCES),
    "spatial_dropout": (lambda: nn.spatial_dropout(0.5), IMAGES),
    "drop_path": (lambda: nn.drop_path(0.5), SEQUENCES),
    "stochastic_depth": (lambda: nn.stochastic_depth(nn.linear(64), 0.5), SEQUENCES),
    "embedding": (lambda: nn.embedding(1000, 64), below(1000, 16, 64)),
    "learned_positions": (lambda: nn.learned_positions(64), SEQUENCES),
    "sinusoidal_positions": (nn.sinusoidal_positions, SEQUENCES),
    "self_attention": (lambda: nn.self_attention(4), SEQUENCES),
    "cross_attention": (lambda: nn.cross_attention(4), (SEQUENCES, SEQUENCES)),
    "rnn": (lambda: nn.rnn(64), SEQUENCES),
    "lstm": (lambda: nn.lstm(64), SEQUENCES),
    "gru": (lambda: nn.gru(64), SEQUENCES),
    "linear_recurrence": (lambda: nn.linear_recurrence(64), SEQUENCES),
    "bidirectional gru": (lambda: nn.bidirectional(nn.gru(32)), SEQUENCES),
    "keep_lengths of dense": (lambda: nn.keep_lengths(nn.linear(64)), (SEQUENCES, LENGTHS)),
    "last_step": (nn.last_step, (SEQUENCES, LENGTHS)),
}


def expect_all_layers() -> None:
    """Raise for a layer that the table lacks."""
    public = {name for name, value in vars(all_layers).items() if callable(value)}
    missing = public - {name.split()[0] for name in LAYERS}
    if missing:
        raise ValueError(f"expected every layer in the table, got none of {sorted(missing)}")


def make_step(model: Model, x: Any) -> tuple[Callable, Any]:
    """`step(state, x, key) -> state` by SGD behind a gain, and the first state."""
    params, model_state = model.init(KEY, x)
    floats = [leaf for leaf in jax.tree.leaves(x) if leaf.dtype == np.float32]
    gains = [jnp.ones(leaf.shape[-1:]) for leaf in floats]

    def loss(learned, model_state, x, key):
        params, gains = learned
        rest = iter(gains)
        x = jax.tree.map(lambda a: a * next(rest) if a.dtype == jnp.float32 else a, x)
        y, model_state = model.apply(params, model_state, x, key=key, train=True)
        parts = [
            jnp.square(leaf).mean() for leaf in jax.tree.leaves(y) if leaf.dtype == jnp.float32
        ]
        return sum(parts), model_state

    def step(state, x, key):
        learned, model_state, count = state
        key = jax.random.fold_in(key, count)
        grads, model_state = jax.grad(loss, has_aux=True)(learned, model_state, x, key)
        learned = jax.tree.map(lambda p, g: p - 0.01 * g, learned, grads)
        return learned, model_state, count + 1

    return step, ((params, gains), model_state, jnp.int32(0))


def sides(model: Model, x: Any) -> tuple[Callable[[int], float], Callable[[int], float]]:
    """Two functions that time so many times STEPS steps: in a scan, and call by call."""
    x = jax.tree.map(jnp.asarray, x)
    step, first = make_step(model, x)
    alone = jax.jit(step, donate_argnums=0)

    @partial(jax.jit, donate_argnums=0)
    def looped(state, x, key):
        return jax.lax.scan(lambda s, _: (step(s, x, key), None), state, None, length=STEPS)[0]

    def timed(function: Callable, calls: int) -> Callable[[int], float]:
        def seconds(times: int) -> float:
            state = jax.block_until_ready(jax.tree.map(jnp.copy, first))
            start = time.perf_counter()
            for _ in range(calls * times):
                state = function(state, x, KEY)
            jax.block_until_ready(state)
            return time.perf_counter() - start

        return seconds

    return timed(looped, 1), timed(alone, STEPS)


def measure(names: list[str], config: Config) -> Iterator[tuple[float, str]]:
    """The ratio of each layer with its line of the table."""
    for name in names:
        make, x = LAYERS[name]
        inside, outside = sides(make(), x)
        inside(1), outside(1)  # compile
        times = max(1, round(config.round_ms / 1e3 / outside(1)))
        pairs = np.array([(inside(times), outside(times)) for _ in range(config.rounds)])
        ratio = ratio_of(pairs[:, 0], pairs[:, 1])
        each = np.median(pairs, axis=0) / times / STEPS * 1e6
        mark = "  above the goal" if ratio[1] > GOAL else ""
        yield (
            ratio[1],
            f"{name:28} {shown(ratio, 2)}   "
            f"{each[0]:9.1f} us against {each[1]:9.1f} us a step{mark}",
        )


def main(config: Config) -> None:
    expect_all_layers()
    names = [name for name in LAYERS if (config.only or "") in name]
    if not names:
        sys.exit(f"scan.py: --only: expected part of a layer's name, got {config.only!r}")
    print(f"jax {jax.__version__} on {jax.devices()[0].device_kind}; ratios: inside / outside")
    ratios = []
    for ratio, line in measure(names, config):
        ratios.append(ratio)
        print(line, flush=True)
    above = sum(ratio > GOAL for ratio in ratios)
    print(f"{len(ratios)} layers, median {np.median(ratios):.2f}, {above} above {GOAL}")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
