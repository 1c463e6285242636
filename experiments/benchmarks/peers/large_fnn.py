"""The networks of `compiled.py` by fnn."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from experiments.benchmarks.peers.large import (
    BERT,
    GPT2,
    LLAMA,
    LR,
    MOMENTUM,
    NETWORKS,
    WEIGHT_DECAY,
    batch_of,
)
from fnn import losses, optim, schedules
from fnn.models import bert, gpt, resnet, vit
from fnn.nn import mixed_bfloat16
from fnn.recipe import Recipe
from fnn.train import make_init, make_step
from fnn.types import Model


def _masked_lm() -> Model:
    model = bert.masked_lm(bert.bert_base(vocab_size=BERT.vocabulary, scan=True))

    def apply(
        params: Any, model_state: Any, x: Any, *, key: Any = None, train: bool = False
    ) -> tuple[Any, Any]:
        return model.apply(params, model_state, bert.BERTInput(x), key=key, train=train)

    return Model(init=lambda key, x: model.init(key, bert.BERTInput(x)), apply=apply)


def _gpt2(remat: str | None = None) -> Model:
    config = gpt.gpt2(vocab_size=GPT2.vocabulary, bias=False, scan=True)
    return gpt.gpt(replace(config, block=replace(config.block, remat=remat)))


def _llama() -> Model:
    config = gpt.llama(
        vocab_size=LLAMA.vocabulary,
        max_length=LLAMA.length,
        features=LLAMA.features,
        num_layers=LLAMA.layers,
        num_heads=LLAMA.heads,
        num_kv_heads=LLAMA.heads,
        hidden_features=LLAMA.hidden,
        scan=True,
    )
    return gpt.gpt(replace(config, block=replace(config.block, remat="nothing")))


MODELS: dict[str, Callable[[], Model]] = {
    "gpt2": _gpt2,
    "gpt2-remat": lambda: _gpt2("nothing"),
    "llama": _llama,
    "bert": _masked_lm,
    "vit": lambda: vit.vit(vit.vit_base(scan=True)),
    "resnet50": lambda: resnet.resnet(resnet.resnet50()),
}
assert MODELS.keys() == NETWORKS.keys()


def step_of(name: str) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """A training step, and the shapes of its arguments."""
    images = name == "resnet50"
    optimizer = optim.sgd(momentum=MOMENTUM) if images else optim.adamw(weight_decay=WEIGHT_DECAY)

    def recipe(hyper: Any) -> Recipe:
        schedule = schedules.constant(hyper["lr"])
        return mixed_bfloat16(Recipe(MODELS[name](), losses.cross_entropy, optimizer, schedule))

    x, y = batch_of(name)
    key, hyper = jax.random.key(0), {"lr": jnp.float32(LR)}
    shapes = jax.eval_shape(make_init(recipe), key, hyper, x)
    return make_step(recipe), (shapes, (x, y), *jax.eval_shape(lambda: (key, hyper)))
