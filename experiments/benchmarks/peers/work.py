"""The workloads: names, shapes and random examples. Needs NumPy alone."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

LR, B2, WEIGHT_DECAY, CLIP_NORM = 1e-3, 0.99, 0.1, 1.0  # the last three of AdamW, as nanoGPT's
VOCABULARY, LENGTH = 65, 64  # of the language models
FEATURES, HEADS, BLOCKS = 128, 4, 4  # of the GPT
EMBEDDED, HIDDEN = 64, 256  # of the LSTM
DEPTH, WIDTH = 50, 64  # of the deep network
CLASSES = 50_257  # of the cross-entropy alone

Examples = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Work:
    """What to train, on batches of what; by Adam, or by AdamW behind a clip by norm.

    One with `is_function` has no parameters to train: its value and gradient are computed.
    """

    name: str
    title: str
    examples: Callable[[], Examples]
    batch_size: int
    adamw: bool = False
    is_function: bool = False
    run_steps: int = 64  # of one call of a compiled run

    def batches(self, most: int = 8) -> list[Examples]:
        """The first of the examples, batch by batch."""
        x, y = self.examples()
        cuts = range(0, len(x) - self.batch_size + 1, self.batch_size)
        return [(x[i : i + self.batch_size], y[i : i + self.batch_size]) for i in cuts][:most]


def _normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def _below(most: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(1).integers(most, size=shape).astype(np.int32)


def _classified(classes: int, n: int, *shape: int) -> Callable[[], Examples]:
    return lambda: (_normal(n, *shape), _below(classes, n))


def _texts(n: int) -> Callable[[], Examples]:
    def windows() -> Examples:
        text = _below(VOCABULARY, n, LENGTH + 1)
        return text[:, :-1].copy(), text[:, 1:].copy()

    return windows


_DEEP = Work(
    name="deep",
    title="50 blocks of dense 64, batch norm, relu, batch 128, Adam",
    examples=_classified(10, 1024, WIDTH),
    batch_size=128,
    run_steps=32,
)
_ALL = (
    Work(
        name="tiny",
        title="MLP 2-16-2, batch 32, Adam",
        examples=_classified(2, 1024, 2),
        batch_size=32,
        run_steps=4096,
    ),
    Work(
        name="mlp",
        title="MLP 784-512-256-10, batch 128, Adam",
        examples=_classified(10, 1024, 784),
        batch_size=128,
    ),
    Work(
        name="cnn",
        title="conv 32, conv 64, dense 128 on 28x28, batch 128, Adam",
        examples=_classified(10, 1024, 28, 28, 1),
        batch_size=128,
        run_steps=8,
    ),
    Work(
        name="gpt",
        title="GPT, 4 layers, 4 heads, width 128, context 64, batch 12, AdamW, clip",
        examples=_texts(96),
        batch_size=12,
        adamw=True,
        run_steps=8,
    ),
    _DEEP,
    replace(_DEEP, name="stacked", title="the 50 blocks, by fnn as one that a loop repeats"),
    Work(
        name="lstm",
        title="LSTM 256 language model, context 64, batch 32, Adam",
        examples=_texts(256),
        batch_size=32,
        run_steps=8,
    ),
    Work(
        name="resnet",
        title="ResNet-18 on 32x32, batch 16, Adam",
        examples=_classified(10, 64, 32, 32, 3),
        batch_size=16,
        run_steps=2,
    ),
    Work(
        name="norm_gelu",
        title="layer norm and GELU of 768 x 512, value and gradient",
        examples=lambda: (_normal(768, 512), _normal(768, 512)),
        batch_size=768,
        is_function=True,
    ),
    Work(
        name="cross_entropy",
        title="cross-entropy of 128 x 50,257, value and gradient",
        examples=lambda: (_normal(128, CLASSES), _below(CLASSES, 128)),
        batch_size=128,
        is_function=True,
    ),
)
WORKS: dict[str, Work] = {work.name: work for work in _ALL}
