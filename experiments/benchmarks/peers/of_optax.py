"""What the peers on JAX take from optax: optimizer and loss."""

from typing import Any

import jax
import optax

from experiments.benchmarks.peers.work import B2, CLIP_NORM, LR, WEIGHT_DECAY, Work


def optimizer_of(work: Work) -> optax.GradientTransformation:
    if not work.adamw:
        return optax.adam(LR)
    matrices = lambda params: jax.tree.map(lambda p: p.ndim >= 2, params)  # noqa: E731
    adamw = optax.adamw(LR, b2=B2, weight_decay=WEIGHT_DECAY, mask=matrices)
    return optax.chain(optax.clip_by_global_norm(CLIP_NORM), adamw)


def mean_loss(logits: Any, labels: Any) -> Any:
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def cross_entropy(params: Any, x: Any, y: Any) -> Any:
    return mean_loss(x, y)
