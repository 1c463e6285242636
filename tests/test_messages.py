"""Every message that a newcomer meets, with the call that earns it."""

import re

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from fnn import data, diagnose, losses, measures, metrics, models, nn, optim, schedules, train
from fnn._arguments import CallError
from fnn.generate import generate
from fnn.nn import residual, sequential
from fnn.recipe import Recipe
from fnn.train import fit, make_evaluate, make_init, make_run, make_step, silent
from fnn.types import Batch, Data, Decoder, Model, Optimizer

KEY = jax.random.key(0)
HYPER = {"lr": 0.1}
X, Y = np.ones((8, 3), np.float32), np.array([0, 1] * 4, np.int32)
DATA = Data(train=Batch(X, Y), valid=Batch(X, Y))


@pytest.fixture(autouse=True)
def without_shape_hook():
    """Users have no hook that checks the annotations; what they give must reach our own checks."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def recipe(hyper):
    return Recipe(
        model=nn.linear(2),
        loss=losses.cross_entropy,
        optimizer=optim.adam(),
        schedule=schedules.constant(hyper["lr"]),
        metrics={"accuracy": metrics.accuracy()},
    )


def fitted(recipe=recipe, data=DATA, **others):
    arguments = dict(key=KEY, hyper=HYPER, steps=2, batch_size=4, progress=silent) | others
    return fit(recipe, data, **arguments)


def of(**fields):
    """A fit whose recipe has other fields, as a function to call."""
    return lambda: fitted(lambda hyper: recipe(hyper)._replace(**fields))


def on(x=X, y=Y, **others):
    return lambda: fitted(data=Data(train=(x, y), valid=(X, Y)), **others)


def state_of(recipe=recipe):
    return make_init(recipe)(KEY, HYPER, X)


def given_up():
    state = state_of()
    for leaf in jax.tree.leaves(state):
        leaf.delete()
    return state


def peer(package, name="Linear", **methods):
    """An object whose type says that it comes from a peer."""
    return type(name, (), {"__module__": f"{package}.nn", **methods})()


def optax_adam():
    import optax

    return optax.adam(1e-3)


def mine(*arguments):
    """An optimizer of the user's whose update takes these arguments."""
    update = eval(f"lambda {', '.join(arguments)}: (grads, state)")
    return Optimizer(init=lambda params: (), update=update)


def answers(result):
    return Optimizer(init=lambda params: (), update=lambda g, s, p, lr, objective: result(g, s))


def traced(make, **hyper):
    """A fit of a recipe that reads hyper where Python needs a value."""
    return lambda: fitted(lambda h: recipe(h)._replace(model=make(h)), hyper=HYPER | hyper)


WIDTH = {"width": 8}
DENSE = nn.linear(2)


# What is called, and what it answers.
CASES = {
    # A recipe in place of its function, and what a recipe function returns.
    "fit: recipe": (
        lambda: fitted(recipe(HYPER)),
        "recipe: expected a function of hyper, got a Recipe; pass the function itself, "
        "without calling it",
    ),
    "make_run: recipe": (
        lambda: make_run(recipe(HYPER), steps=1, batch_size=1),
        "recipe: expected a function of hyper, got a Recipe; pass the function itself, "
        "without calling it",
    ),
    "make_step: recipe": (
        lambda: make_step(recipe(HYPER)),
        "recipe: expected a function of hyper, got a Recipe; pass the function itself, "
        "without calling it",
    ),
    "make_init: recipe": (
        lambda: make_init(recipe(HYPER)),
        "recipe: expected a function of hyper, got a Recipe; pass the function itself, "
        "without calling it",
    ),
    "make_evaluate: recipe": (
        lambda: make_evaluate(recipe(HYPER)),
        "recipe: expected a function of hyper, got a Recipe; pass the function itself, "
        "without calling it",
    ),
    "sweep: recipe": (
        lambda: train.sweep(
            recipe(HYPER), DATA, {"lr": X[:, 0]}, jax.random.split(KEY, 2), steps=1, batch_size=1
        ),
        "sweep: expected a recipe function, or groups from search.shapes, got a Recipe; pass "
        "the function recipe(hyper) itself, without calling it",
    ),
    "lr_find: recipe": (
        lambda: diagnose.lr_find(recipe(HYPER), DATA, key=KEY, hyper=HYPER, batch_size=1),
        "recipe: expected a function of hyper, got a Recipe; pass the function itself, "
        "without calling it",
    ),
    "overfit: recipe": (
        lambda: diagnose.overfit_one_batch(recipe(HYPER), DATA, key=KEY, hyper=HYPER),
        "recipe: expected a function of hyper, got a Recipe; pass the function itself, "
        "without calling it",
    ),
    "check: recipe": (
        lambda: train.check(recipe(HYPER), DATA, key=KEY, hyper=HYPER, batch_size=1),
        "recipe: expected a function of hyper, got a Recipe; pass the function itself, "
        "without calling it",
    ),
    "recipe: None": (
        lambda: fitted(lambda hyper: None),
        "recipe: expected a Recipe from recipe(hyper), got NoneType; return Recipe(model=, "
        "loss=, optimizer=, schedule=)",
    ),
    "recipe: width": (
        traced(lambda h: nn.linear(h["width"]), **WIDTH),
        "linear: expected out_features to be a positive integer, got a traced int32[]; hyper "
        "is traced, and what decides shapes cannot be: let the recipe close over a Python "
        "int, or sweep it with search.shapes",
    ),
    "recipe: range": (
        traced(lambda h: sequential(*[DENSE for _ in range(h["width"])]), **WIDTH),
        "recipe: expected only arithmetic on hyper, which is traced, got a use that needs a "
        "value, such as a shape, a loop or a branch; let the recipe close over that value, or"
        " sweep it with search.shapes",
    ),
    "recipe: branch": (
        traced(lambda h: DENSE if h["width"] > 4 else None, **WIDTH),
        "recipe: expected only arithmetic on hyper, which is traced, got a use that needs a "
        "value, such as a shape, a loop or a branch; let the recipe close over that value, or"
        " sweep it with search.shapes",
    ),
    "recipe: float": (
        traced(lambda h: nn.linear(int(float(h["width"]))), **WIDTH),
        "recipe: expected only arithmetic on hyper, which is traced, got a use that needs a "
        "value, such as a shape, a loop or a branch; let the recipe close over that value, or"
        " sweep it with search.shapes",
    ),
    "recipe: config": (
        traced(
            lambda h: models.mlp.mlp(models.mlp.MLPConfig(widths=(h["width"],), out_features=2)),
            **WIDTH,
        ),
        "MLPConfig: expected widths to be a sequence of which each is a positive integer,"
        " got (a traced int32[]); hyper is traced, and what decides shapes cannot be: let the"
        " recipe close over a Python int, or sweep it with search.shapes",
    ),
    # Fields of a recipe.
    "model: constructor": (
        of(model=nn.linear),
        "Recipe.model: expected a Model, got the function linear; call it: linear(...)",
    ),
    "model: function": (
        of(model=jnp.tanh),
        "Recipe.model: expected a Model, got the function tanh; use one such as "
        "nn.linear(10), or wrap your functions: Model(init, apply)",
    ),
    "model: None": (
        of(model=None),
        "Recipe.model: expected a Model, got None; use one such as nn.linear(10), or wrap "
        "your functions: Model(init, apply)",
    ),
    "model: class": (
        of(model=dict),
        "Recipe.model: expected a Model, got the class dict; use one such as "
        "nn.linear(10), or wrap your functions: Model(init, apply)",
    ),
    "model: flax": (
        of(model=peer("flax")),
        "Recipe.model: expected a Model, got a Linear of flax; wrap its init and apply in "
        "Model(init, apply), which return (params, state) and (outputs, state)",
    ),
    "model: equinox": (
        of(model=peer("equinox")),
        "Recipe.model: expected a Model, got a Linear of equinox; split it with "
        "equinox.partition and wrap the parts in Model(init, apply)",
    ),
    "model: torch": (
        of(model=peer("torch")),
        "Recipe.model: expected a Model, got a Linear of torch; build it of fnn.models, and "
        "read its weights with fnn.interop",
    ),
    "model: keras": (
        of(model=peer("keras")),
        "Recipe.model: expected a Model, got a Linear of keras; build it of fnn.models, as in"
        " sequential(nn.linear(10)) or models.mlp.mlp",
    ),
    "model: init": (
        of(model=Model(init=3, apply=DENSE.apply)),
        "Recipe.model.init: expected a function of (key, x), got 3; return (params, model_state)",
    ),
    "model: init takes": (
        of(model=Model(init=lambda key: ({}, ()), apply=DENSE.apply)),
        "Recipe.model.init: expected a function of (key, x), got <lambda>(key); return "
        "(params, model_state)",
    ),
    "model: apply takes": (
        of(model=Model(init=DENSE.init, apply=lambda params, x: x)),
        "Recipe.model.apply: expected a function of (params, model_state, x, key=, train=), "
        "got <lambda>(params, x); return (outputs, model_state)",
    ),
    "model: init returns": (
        of(model=Model(init=lambda key, x: {"w": jnp.ones(3)}, apply=DENSE.apply)),
        "Recipe.model.init: expected a pair (params, model_state), got a dict; return "
        "(params, model_state)",
    ),
    "model: apply returns": (
        of(
            model=DENSE._replace(
                apply=lambda p, s, x, *, key=None, train=False: x[:, :2] * p["bias"][None]
            )
        ),
        "Recipe.model.apply: expected a pair (outputs, model_state), got a traced "
        "float32[4,2]; return (outputs, model_state)",
    ),
    "optimizer: constructor": (
        of(optimizer=optim.adam),
        "Recipe.optimizer: expected an Optimizer, got the function adam; call it: adam()",
    ),
    "optimizer: optax": (
        lambda: of(optimizer=optax_adam())(),
        "Recipe.optimizer: expected an Optimizer, got a GradientTransformationExtraArgs of "
        "optax; wrap it: fnn.interop.optax.from_optax(...), with a learning rate of 1.0",
    ),
    "optimizer: chain": (
        of(optimizer=optim.chain(optim.clip_by_global_norm(1.0))),
        "Recipe.optimizer: expected an Optimizer, got a Transform; end the chain with an "
        "optimizer: chain(..., sgd())",
    ),
    "optimizer: name": (
        of(optimizer="adam"),
        "Recipe.optimizer: expected an Optimizer, got 'adam'; use one such as optim.adam(), "
        "or your own: Optimizer(init, update)",
    ),
    "optimizer: number": (
        of(optimizer=1e-3),
        "Recipe.optimizer: expected an Optimizer, got 0.001; use one such as optim.adam(), or"
        " your own: Optimizer(init, update)",
    ),
    "optimizer: update takes": (
        of(optimizer=mine("grads", "state", "params")),
        "Recipe.optimizer.update: expected a function of (grads, state, params, lr, "
        "objective), got <lambda>(grads, state, params); take all of them, objective=None "
        "included, and return (updates, state)",
    ),
    "optimizer: update takes no objective": (
        of(optimizer=mine("grads", "state", "params", "lr")),
        "Recipe.optimizer.update: expected a function of (grads, state, params, lr, "
        "objective), got <lambda>(grads, state, params, lr); take all of them, objective=None"
        " included, and return (updates, state)",
    ),
    "optimizer: update returns one": (
        of(optimizer=answers(lambda grads, state: grads)),
        "Recipe.optimizer.update: expected a pair (updates, state), got a dict; return "
        "(updates, state)",
    ),
    "optimizer: update returns three": (
        of(optimizer=answers(lambda grads, state: (grads, state, 0))),
        "Recipe.optimizer.update: expected a pair (updates, state), got a tuple; return "
        "(updates, state)",
    ),
    "optimizer: update returns others": (
        of(optimizer=answers(lambda grads, state: (grads["bias"], state))),
        "Recipe.optimizer.update: params and updates differ:\n"
        "  bias: expected float32[2], got no such leaf\n"
        "  kernel: expected float32[3,2], got no such leaf\n"
        "  : expected no such leaf, got float32[2]",
    ),
    "schedule: number": (
        of(schedule=1e-3),
        "Recipe.schedule: expected a function of (step), got 0.001; use schedules.constant(0.001)",
    ),
    "schedule: constructor": (
        of(schedule=schedules.constant),
        "Recipe.schedule: expected a function of (step), got the function constant; call it: "
        "constant(...)",
    ),
    "schedule: constructor with options": (
        of(schedule=schedules.warmup_cosine),
        "Recipe.schedule: expected a function of (step), got the function warmup_cosine; call"
        " it: warmup_cosine(...)",
    ),
    "schedule: two arguments": (
        of(schedule=lambda step, epoch: 0.1),
        "Recipe.schedule: expected a function of (step), got <lambda>(step, epoch); use one "
        "such as schedules.constant(1e-3)",
    ),
    "schedule: returns": (
        of(schedule=lambda step: None),
        "Recipe.schedule: expected a learning rate from schedule(step), got None; return a number",
    ),
    "loss: name": (
        of(loss="mse"),
        "Recipe.loss: expected a function of (outputs, targets), got 'mse'; use one such as "
        "losses.mean_squared_error",
    ),
    "loss: None": (
        of(loss=None),
        "Recipe.loss: expected a function of (outputs, targets), got None; use one such as "
        "losses.mean_squared_error",
    ),
    "loss: metric": (
        of(loss=metrics.accuracy()),
        "Recipe.loss: expected a function of (outputs, targets), got a Metric; use one such "
        "as losses.mean_squared_error",
    ),
    "loss: one argument": (
        of(loss=lambda outputs: outputs),
        "Recipe.loss: expected a function of (outputs, targets), got <lambda>(outputs); use "
        "one such as losses.mean_squared_error",
    ),
    "loss: torch": (
        of(loss=peer("torch", "MSELoss", __call__=lambda self, a, b: a)),
        "Recipe.loss: expected a function of (outputs, targets) on JAX arrays, got torch's"
        " MSELoss; use one such as losses.mean_squared_error",
    ),
    "metrics: not called": (
        of(metrics={"accuracy": metrics.accuracy}),
        "Recipe.metrics['accuracy']: expected a Metric, got the function accuracy; call it: "
        "accuracy()",
    ),
    "metrics: function": (
        of(metrics={"error": losses.mean_absolute_error}),
        "Recipe.metrics['error']: expected a Metric, got the function mean_absolute_error; "
        "use metrics.mean(mean_absolute_error)",
    ),
    "metrics: list": (
        of(metrics=[metrics.accuracy()]),
        "Recipe.metrics: expected a dict of names and metrics, got a list; give each a name, "
        "as in {'accuracy': metrics.accuracy()}",
    ),
    "metrics: metric": (
        of(metrics=metrics.accuracy()),
        "Recipe.metrics: expected a dict of names and metrics, got a Metric; give each a "
        "name, as in {'accuracy': metrics.accuracy()}",
    ),
    "metrics: name": (
        of(metrics={"loss": metrics.accuracy()}),
        "Recipe.metrics: expected other names than ['loss'], got 'loss'; rename it",
    ),
    "metrics: number": (
        of(metrics={3: metrics.accuracy()}),
        "Recipe.metrics: expected names that are strings, got 3; name each metric by a string",
    ),
    "train_metrics: not called": (
        of(train_metrics={"accuracy": metrics.accuracy}),
        "Recipe.train_metrics['accuracy']: expected a Metric, got the function accuracy; call"
        " it: accuracy()",
    ),
    "train_metrics: loss": (
        of(train_metrics={"loss": metrics.accuracy()}),
        "Recipe.train_metrics: expected other names than ['loss', 'lr', 'penalty', 'step', "
        "'valid'], got 'loss'; rename it",
    ),
    "train_metrics: lr": (
        of(train_metrics={"lr": metrics.accuracy()}),
        "Recipe.train_metrics: expected other names than ['loss', 'lr', 'penalty', 'step', "
        "'valid'], got 'lr'; rename it",
    ),
    "train_metrics: penalty": (
        of(train_metrics={"penalty": metrics.accuracy()}),
        "Recipe.train_metrics: expected other names than ['loss', 'lr', 'penalty', 'step', "
        "'valid'], got 'penalty'; rename it",
    ),
    "train_metrics: step": (
        of(train_metrics={"step": metrics.accuracy()}),
        "Recipe.train_metrics: expected other names than ['loss', 'lr', 'penalty', 'step', "
        "'valid'], got 'step'; rename it",
    ),
    "train_metrics: valid": (
        of(train_metrics={"valid": metrics.accuracy()}),
        "Recipe.train_metrics: expected other names than ['loss', 'lr', 'penalty', 'step', "
        "'valid'], got 'valid'; rename it",
    ),
    "train_metrics: a measure's name": (
        of(train_metrics={"grad_norm": metrics.accuracy()}),
        "Recipe.measures: expected names of their own, got ['grad_norm'] twice; rename them",
    ),
    "measures: function": (
        of(measures=measures.norms),
        "Recipe.measures: expected a sequence of measures, got the function norms; put it in "
        "a tuple: (norms,)",
    ),
    "measures: name": (
        of(measures=("norms",)),
        "Recipe.measures[0]: expected a function of (view), got 'norms'; use one such as "
        "measures.norms",
    ),
    "measures: not called": (
        of(measures=(measures.every,)),
        "Recipe.measures[0]: expected a function of (view), got every(steps, measure); use "
        "one such as measures.norms",
    ),
    "penalty: number": (
        of(penalty=0.1),
        "Recipe.penalty: expected a function of (params, model_state), got 0.1; use a "
        "function such as lambda params, model_state: 0.0",
    ),
    "penalty: arguments": (
        of(penalty=lambda params: 0.0),
        "Recipe.penalty: expected a function of (params, model_state), got <lambda>(params); "
        "use a function such as lambda params, model_state: 0.0",
    ),
    "augment: name": (
        of(augment="flip"),
        "Recipe.augment: expected a function of (key, batch), got 'flip'; omit it for no "
        "augmentation",
    ),
    "augment: arguments": (
        of(augment=lambda batch: batch),
        "Recipe.augment: expected a function of (key, batch), got <lambda>(batch); omit it "
        "for no augmentation",
    ),
    "gradient: number": (
        of(gradient=4),
        "Recipe.gradient: expected a function of (loss, params, model_state, batch, key), got"
        " 4; use one such as train.microbatches(4)",
    ),
    "gradient: not called": (
        of(gradient=train.microbatches),
        "Recipe.gradient: expected a function of (loss, params, model_state, batch, key), got"
        " the function microbatches; call it: microbatches(...)",
    ),
    # Layers.
    "linear: str": (
        lambda: nn.linear("32"),
        "linear: expected out_features to be a positive integer, got '32'; write 32",
    ),
    "linear: float": (
        lambda: nn.linear(2.0),
        "linear: expected out_features to be a positive integer, got 2.0; write 2",
    ),
    "linear: zero": (
        lambda: nn.linear(0),
        "linear: expected out_features to be a positive integer, got 0; use 1 or more",
    ),
    "linear: negative": (
        lambda: nn.linear(-3),
        "linear: expected out_features to be a positive integer, got -3; use 1 or more",
    ),
    "linear: None": (
        lambda: nn.linear(None),
        "linear: expected out_features to be a positive integer, got None; use a Python int of"
        " 1 or more",
    ),
    "linear: bool": (
        lambda: nn.linear(True),
        "linear: expected out_features to be a positive integer, got True; use a Python int of"
        " 1 or more",
    ),
    "linear: list": (
        lambda: nn.linear([32]),
        "linear: expected out_features to be a positive integer, got [32]; use a Python int of"
        " 1 or more",
    ),
    "linear: initializer": (
        lambda: nn.linear(2, kernel_init="zeros"),
        "linear: expected kernel_init to be a function, got 'zeros'; pass the function itself,"
        " not its name",
    ),
    "linear: bias": (
        lambda: nn.linear(2, bias="yes"),
        "linear: expected bias to be True or False, got 'yes'; use one of them",
    ),
    "linear: misspelt": (
        lambda: nn.linear(2, biass=False),
        "linear: expected only out_features, bias, kernel_init, bias_init, got 'biass'; did you "
        "mean 'bias'?",
    ),
    "linear: nothing": (
        lambda: nn.linear(),
        "linear: expected out_features, got no out_features; give out_features=",
    ),
    "conv: kernel_size": (
        lambda: nn.conv(8, "3"),
        "conv: expected kernel_size to be a positive integer for each window axis, got '3'; write "
        "(3, 3), of Python ints, for images",
    ),
    "conv: kernel_size of floats": (
        lambda: nn.conv(8, (3.0, 3.0)),
        "conv: expected kernel_size to be a positive integer for each window axis, got (3.0, 3.0); "
        "write (3, 3), of Python ints, for images",
    ),
    "conv: stride": (
        lambda: nn.conv(8, (3, 3), stride=0),
        "conv: expected stride to be a positive number, or a sequence of them, got 0; use 1 "
        "or more",
    ),
    "conv: groups": (
        lambda: nn.conv(8, (3, 3), groups=1.5),
        "conv: expected groups to be a positive integer, got 1.5; use a Python int of 1 or more",
    ),
    "self_attention: heads": (
        lambda: nn.self_attention(2.0),
        "self_attention: expected num_heads to be a positive integer, got 2.0; write 2",
    ),
    "group_norm: num_groups": (
        lambda: nn.group_norm(num_groups=0),
        "group_norm: expected num_groups to be a positive integer, got 0; use 1 or more",
    ),
    "embedding: vocabulary": (
        lambda: nn.embedding("words", 8),
        "embedding: expected vocabulary to be a positive integer, got 'words'; use a "
        "Python int of 1 or more",
    ),
    "lstm: hidden": (
        lambda: nn.lstm(8.0),
        "lstm: expected hidden to be a positive integer, got 8.0; write 8",
    ),
    "max_pool: kernel_size": (
        lambda: nn.max_pool(-2),
        "max_pool: expected kernel_size to be a positive integer for each window axis, got -2; "
        "write (3, 3), of Python ints, for images",
    ),
    "dropout: str": (
        lambda: nn.dropout("0.5"),
        "dropout: expected rate to be a number, got '0.5'; write it without quotes",
    ),
    "dropout: None": (
        lambda: nn.dropout(None),
        "dropout: expected rate to be a number, got None; use a float",
    ),
    "dropout: NaN": (
        lambda: nn.dropout(float("nan")),
        "dropout: expected rate to be a number, got nan; use a finite number",
    ),
    "dropout: many": (
        lambda: nn.dropout(np.ones(2)),
        "dropout: expected rate to be a number, got float32[2]; use "
        "one value, and jax.vmap for many",
    ),
    "mlp: widths": (
        lambda: models.mlp.MLPConfig(widths=(8, "16"), out_features=2),
        "MLPConfig: expected widths to be a sequence of which each is a positive integer,"
        " got (8, '16'); write 16",
    ),
    "mlp: out_features": (
        lambda: models.mlp.MLPConfig(widths=(8,), out_features=0),
        "MLPConfig: expected out_features to be a positive integer, got 0; use 1 or more",
    ),
    "mlp: config": (
        lambda: models.mlp.mlp((8, 2)),
        "mlp: expected config to be an MLPConfig, got (8, 2); make one: MLPConfig(...)",
    ),
    "sequential: constructor": (
        lambda: sequential(nn.linear(2), nn.batch_norm),
        "sequential: layer 1: expected a Model or a function of x, got the function "
        "batch_norm; call it: batch_norm()",
    ),
    "sequential: by name": (
        lambda: sequential(hidden=nn.linear, head=nn.linear(2)),
        "sequential: layer 'hidden': expected a Model or a function of x, got the function "
        "linear; call it: linear(...)",
    ),
    "sequential: str": (
        lambda: sequential("relu"),
        "sequential: layer 0: expected a Model or a function of x, got 'relu'; call the "
        "layer's constructor first, as in linear(128)",
    ),
    "sequential: number": (
        lambda: sequential(32),
        "sequential: layer 0: expected a Model or a function of x, got 32; call the layer's "
        "constructor first, as in linear(128)",
    ),
    "sequential: list": (
        lambda: sequential([nn.linear(2)]),
        "sequential: layer 0: expected a Model or a function of x, got a list; call the "
        "layer's constructor first, as in linear(128)",
    ),
    "sequential: torch": (
        lambda: sequential(peer("torch", __call__=lambda self, x: x)),
        "sequential: layer 0: expected a Model or a function of x, got a Linear of torch; "
        "build it of fnn.models, and read its weights with fnn.interop",
    ),
    "sequential: own constructor": (
        lambda: sequential(lambda features: nn.linear(4)).init(KEY, X),
        "layer <lambda>: expected a function of x that returns arrays, got a Model; call it, "
        "as in linear(128)",
    ),
    "residual: constructor": (
        lambda: residual(nn.linear),
        "residual: expected a Model or a function of x, got the function linear; call it: "
        "linear(...)",
    ),
    # Optimizers, schedules, losses, metrics.
    "adam: lr by position": (
        lambda: optim.adam(1e-3),
        "adam: expected no learning rate, got 0.001; it is the recipe's schedule, as in "
        "schedules.constant(0.001)",
    ),
    "adam: lr": (
        lambda: optim.adam(lr=1e-3),
        "adam: expected no learning rate, got 0.001; it is the recipe's schedule, as in "
        "schedules.constant(0.001)",
    ),
    "adam: learning_rate": (
        lambda: optim.adamw(learning_rate=1e-3, weight_decay=0.1),
        "adamw: expected no learning rate, got 0.001; it is the recipe's schedule, as in "
        "schedules.constant(0.001)",
    ),
    "adamw: weight_decay": (
        lambda: optim.adamw(),
        "adamw: expected weight_decay, got no weight_decay; give weight_decay=",
    ),
    "adam: str": (
        lambda: optim.adam(b1="0.9"),
        "adam: expected b1 to be a number, got '0.9'; write it without quotes",
    ),
    "adam: misspelt": (
        lambda: optim.adam(beta1=0.9),
        "adam: expected only b1, b2, eps, got 'beta1'; drop it",
    ),
    "accumulate: number": (
        lambda: optim.accumulate(4),
        "accumulate: expected optimizer to be an Optimizer, got 4; use one such as "
        "optim.adam(), or your own: Optimizer(init, update)",
    ),
    "accumulate: constructor": (
        lambda: optim.accumulate(optim.adam, steps=4),
        "accumulate: expected optimizer to be an Optimizer, got the function adam; call it: adam()",
    ),
    "accumulate: steps": (
        lambda: optim.accumulate(optim.adam(), steps=0),
        "accumulate: expected steps to be a positive integer, got 0; use 1 or more",
    ),
    "accumulate: every": (
        lambda: optim.accumulate(optim.adam(), every=4),
        "accumulate: expected only optimizer, steps, got 'every'; drop it",
    ),
    "chain: constructor": (
        lambda: optim.chain(optim.clip_by_global_norm(1.0), optim.adam),
        "chain: expected transforms, then at most one optimizer, got the function adam; call "
        "it: adam()",
    ),
    "clip: str": (
        lambda: optim.clip_by_global_norm("1"),
        "clip_by_global_norm: expected max_norm to be a number, got '1'; write it without quotes",
    ),
    "constant: str": (
        lambda: schedules.constant("1e-3"),
        "constant: expected value to be a number, got '1e-3'; write it without quotes",
    ),
    "warmup_cosine: NaN": (
        lambda: schedules.warmup_cosine(float("nan"), warmup_steps=1, total_steps=2),
        "warmup_cosine: expected peak to be a number, got nan; use a finite number",
    ),
    "cross_entropy: swapped": (
        lambda: losses.cross_entropy(jnp.asarray(Y), jnp.ones((8, 2))),
        "cross_entropy: expected logits to be an array of floats, got int32[8]; check the "
        "order of the arguments, or cast it: .astype('float32')",
    ),
    "cross_entropy: float labels": (
        lambda: losses.cross_entropy(jnp.ones((8, 2)), jnp.ones(8)),
        "cross_entropy: expected integer labels of shape (8,), or probabilities of shape (8, "
        "2), got float32[8]; cast labels: y.astype('int32')",
    ),
    "cross_entropy: bool labels": (
        lambda: losses.cross_entropy(jnp.ones((8, 2)), jnp.ones(8, bool)),
        "cross_entropy: expected targets to be an array of numbers, got bool[8]; check the "
        "order of the arguments, or cast it: .astype('int32')",
    ),
    "cross_entropy: lists": (
        lambda: losses.cross_entropy([[0.0, 1.0]], [1]),
        "cross_entropy: expected logits to be an array of floats, got a list; convert it: "
        "jnp.asarray(...)",
    ),
    "accuracy: str": (
        lambda: metrics.accuracy(ignore_index="pad"),
        "accuracy: expected ignore_index to be an integer or None, got 'pad'; use a Python int",
    ),
    "accuracy: regression": (
        lambda: metrics.accuracy().measure(jnp.ones((8, 1)), jnp.ones((8, 1))),
        "metrics.hits: expected logits of at least 2 classes, got float32[8,1]; for one logit use "
        "metrics.binary_accuracy, for a regression metrics.mean of a loss",
    ),
    "mean: Metric": (
        lambda: metrics.mean(metrics.accuracy()),
        "mean: expected function to be a function, got a Metric; pass a function",
    ),
    "every: str": (
        lambda: measures.every("10", measures.norms),
        "every: expected steps to be a positive integer, got '10'; write 10",
    ),
    # Data.
    "data: tuple": (
        lambda: fitted(data=((X, Y), (X, Y))),
        "data: expected a Data, got a tuple; use Data(train=(x, y), valid=(x, y))",
    ),
    "data: None": (
        lambda: fitted(data=None),
        "data: expected a Data, got None; use Data(train=(x, y), valid=(x, y))",
    ),
    "data: list of two": (
        lambda: fitted(data=Data(train=[X, Y], valid=(X, Y))),
        "data.train: expected a pair (x, y), got a list; write (x, y), each with the batch "
        "axis first",
    ),
    "data: dict": (
        lambda: fitted(data=Data(train={"x": X, "y": Y}, valid=(X, Y))),
        "data.train: expected a pair (x, y), got a dict; pass a tuple: (batch['x'], batch['y'])",
    ),
    "data: loader": (
        lambda: fitted(
            data=Data(
                train=peer("torch.utils", "DataLoader", __iter__=lambda self: iter(())),
                valid=(X, Y),
            )
        ),
        "data.train: expected a batch for each of 2 steps, got 0 batches from DataLoader; train "
        "for fewer steps, or pass fnn.data.repeat(...) of what can be read again, such as a "
        "DataLoader",
    ),
    "data: three": (
        lambda: fitted(data=Data(train=(X, Y, Y), valid=(X, Y))),
        "data.train: expected a pair (x, y), got a tuple; write (x, y), each with the batch "
        "axis first",
    ),
    "data: torch": (
        on(x=peer("torch", "Tensor", dtype="float32", shape=(8, 3), ndim=2)),
        "data.train.x: expected an array with the batch axis first, got a Tensor of torch; "
        "convert it: np.asarray(tensor)",
    ),
    "data: pandas": (
        on(x=peer("pandas", "DataFrame", shape=(8, 3), ndim=2)),
        "data.train.x: expected an array with the batch axis first, got a DataFrame of "
        "pandas; convert it: .to_numpy(), or read the file with data.read_csv",
    ),
    "data: lists": (
        on(x=X.tolist()),
        "data.train.x: expected an array with the batch axis first, got a list; convert it: "
        "np.asarray(...)",
    ),
    "data: None in x": (
        on(x=None),
        "data.train.x: expected an array with the batch axis first, got None; give at least "
        "one array",
    ),
    "data: None in y": (
        on(y=None),
        "data.train.y: expected an array with the batch axis first, got None; give at least "
        "one array",
    ),
    "data: strings": (
        on(y=np.array(["cat", "dog"] * 4)),
        "data.train.y: expected numbers, got <U3[8]; encode them: np.unique(y, "
        "return_inverse=True)[1]",
    ),
    "data: objects": (
        on(x=X.astype(object)),
        "data.train.x: expected numbers, got object[8,3]; give an array of one dtype: "
        ".astype('float32') of numbers, or encode them",
    ),
    "data: scalar": (
        on(y=3.0),
        "data.train.y: expected an array with the batch axis first, got 3.0; convert it: "
        "np.asarray(...)",
    ),
    "data: another structure": (
        lambda: fitted(data=Data(train=(X, Y), valid=({"a": X}, Y))),
        "data.valid.x: expected the structure of data.train.x, float32[8,3], got a dict with "
        "a; give both the same names",
    ),
    # Arguments of fit and its helpers.
    "fit: store": (
        lambda: fitted(store="runs/a"),
        "fit: expected store to be a RunDir, or another Store, got 'runs/a'; use "
        "fnn.checkpoint.RunDir('runs/a')",
    ),
    "fit: progress": (
        lambda: fitted(progress=None),
        "fit: expected progress to be a function, got None; use train.silent to show nothing",
    ),
    "fit: hyper": (
        lambda: fitted(hyper=None),
        "hyper: expected hyperparameters, such as {'lr': 0.1}, got None; give {} if there are none",
    ),
    "fit: hyper with None": (
        lambda: fitted(hyper={"lr": None}),
        "hyper['lr']: expected a number or an array of numbers, got None; let the recipe "
        "close over what is not a number",
    ),
    "fit: hyper with str": (
        lambda: fitted(hyper={"lr": "0.1"}),
        "hyper['lr']: expected a number or an array of numbers, got str; let the recipe "
        "close over what is not a number",
    ),
    "fit: key": (
        lambda: fitted(key=0),
        "key: expected a typed key, got 0; make it with jax.random.key(seed)",
    ),
    "fit: key of None": (
        lambda: fitted(key=None),
        "key: expected a typed key, got None; make it with jax.random.key(seed)",
    ),
    "fit: steps": (
        lambda: fitted(steps="2"),
        "fit: expected steps to be a positive integer, got '2'; write 2",
    ),
    "fit: steps of float": (
        lambda: fitted(steps=2.0),
        "fit: expected steps to be a positive integer, got 2.0; write 2",
    ),
    "fit: batch_size": (
        lambda: fitted(batch_size=0),
        "fit: expected batch_size to be a positive integer, got 0; use 1 or more",
    ),
    "fit: callbacks": (
        lambda: fitted(callbacks=[print]),
        "fit: expected callbacks to be a mapping of names, got a list; give each a name and "
        "wrap its function in Callback",
    ),
    "fit: callback": (
        lambda: fitted(callbacks={"print": print}),
        "callbacks['print']: expected a Callback, got the function print; wrap its function "
        "in Callback",
    ),
    "fit: score": (
        lambda: fitted(score=lambda valid: -valid["acuracy"]),
        "score: expected one of ['accuracy', 'loss'], got 'acuracy'; did you mean 'accuracy'?",
    ),
    "fit: misspelt": (
        lambda: fitted(batchsize=3),
        "fit: expected only recipe, data, key, hyper, steps, batch_size, eval_every, "
        "eval_batch_size, patience, min_delta, score, callbacks, init, store, resume, progress, "
        "devices, got 'batchsize'; did you mean 'batch_size'?",
    ),
    "fit: min_delta": (
        lambda: fitted(min_delta="small"),
        "fit: expected min_delta to be a number, got 'small'; write it without quotes",
    ),
    "fit: in jit": (
        lambda: jax.jit(lambda hyper: fitted(hyper=hyper).state)(HYPER),
        "fit: expected known values, got a traced float32[]; inside jax.jit, vmap or grad use"
        " make_run, which is a pure function",
    ),
    "step: dict": (
        lambda: make_step(recipe)(state_of(), {"image": X, "label": Y}, KEY, HYPER),
        "step: batch: expected a pair (x, y), got a dict; pass a tuple: (batch['image'], "
        "batch['label'])",
    ),
    "step: array": (
        lambda: make_step(recipe)(state_of(), X, KEY, HYPER),
        "step: batch: expected a pair (x, y), got float32[8,3]; write (x, y), each with the "
        "batch axis first",
    ),
    "step: torch": (
        lambda: make_step(recipe)(state_of(), (peer("torch", "Tensor"), Y), KEY, HYPER),
        "step: batch.x: expected an array with the batch axis first, got a Tensor of torch; "
        "convert it: np.asarray(tensor)",
    ),
    "step: jitted, dict": (
        lambda: jax.jit(make_step(recipe))(state_of(), {"x": X, "y": Y}, KEY, HYPER),
        "step: batch: expected a pair (x, y), got a dict; pass a tuple: (batch['x'], batch['y'])",
    ),
    "step: params": (
        lambda: make_step(recipe)(state_of().params, (X, Y), KEY, HYPER),
        "step: expected state to be a TrainState, got a dict; use what init or a step returned",
    ),
    "step: key": (
        lambda: make_step(recipe)(state_of(), (X, Y), 0, HYPER),
        "key: expected a typed key, got 0; make it with jax.random.key(seed)",
    ),
    "step: given up": (
        lambda: make_step(recipe)(given_up(), (X, Y), KEY, HYPER),
        "step: expected a state whose arrays exist, got one that was donated to an earlier "
        "step (donate_argnums); keep the state that the step returned",
    ),
    "step: hyper": (
        lambda: make_step(recipe)(state_of(), (X, Y), KEY, None),
        "hyper: expected hyperparameters, such as {'lr': 0.1}, got None; give {} if there are none",
    ),
    "init: swapped": (
        lambda: make_init(recipe)(HYPER, KEY, X),
        "key: expected a typed key, got a dict; make it with jax.random.key(seed)",
    ),
    "init: swapped, jitted": (
        lambda: jax.jit(make_init(recipe))(HYPER, KEY, X),
        "key: expected a typed key, got a dict; make it with jax.random.key(seed)",
    ),
    "init: None": (
        lambda: make_init(recipe)(KEY, HYPER, None),
        "init: x: expected an array with the batch axis first, got None; give at least one array",
    ),
    "init: list": (
        lambda: make_init(recipe)(KEY, HYPER, [[1.0, 2.0]]),
        "init: x: expected an array with the batch axis first, got a list; convert it: "
        "np.asarray(...)",
    ),
    "evaluate: array": (
        lambda: make_evaluate(recipe)(state_of(), X, HYPER),
        "evaluate: batch: expected a pair (x, y), got float32[8,3]; write (x, y), each with "
        "the batch axis first",
    ),
    "evaluate: params": (
        lambda: make_evaluate(recipe)(state_of().params, (X, Y), HYPER),
        "evaluate: expected state to be a TrainState, got a dict; use what init or a step returned",
    ),
    "run: swapped": (
        lambda: make_run(recipe, steps=1, batch_size=2)(HYPER, KEY, DATA),
        "key: expected a typed key, got a dict; make it with jax.random.key(seed)",
    ),
    "run: data": (
        lambda: make_run(recipe, steps=1, batch_size=2)(KEY, HYPER, (X, Y)),
        "data: expected a Data, got a tuple; use Data(train=(x, y), valid=(x, y))",
    ),
    "run: steps": (
        lambda: make_run(recipe, steps=1.5, batch_size=2),
        "make_run: expected steps to be a positive integer, got 1.5; use a Python int of 1 or more",
    ),
    "fork: given up": (
        lambda: diagnose.fork(
            recipe,
            given_up(),
            DATA,
            key=KEY,
            hyper=HYPER,
            edits={"a": {"lr": 0.2}},
            steps=1,
            batch_size=2,
        ),
        "fork: expected a state whose arrays exist, got one that was donated to an earlier "
        "step (donate_argnums); keep the state that the step returned",
    ),
    "fork: state": (
        lambda: diagnose.fork(
            recipe, {}, DATA, key=KEY, hyper=HYPER, edits={"a": {"lr": 0.2}}, steps=1, batch_size=2
        ),
        "fork: expected state to be a TrainState, got a dict; use what make_init(recipe)(key,"
        " hyper, x) or a step returned",
    ),
    "lr_find: state": (
        lambda: diagnose.lr_find(
            recipe, DATA, key=KEY, hyper=HYPER, batch_size=2, state=given_up()
        ),
        "lr_find: expected a state whose arrays exist, got one that was donated to an "
        "earlier step (donate_argnums); keep the state that the step returned",
    ),
    "lr_find: str": (
        lambda: diagnose.lr_find(recipe, DATA, key=KEY, hyper=HYPER, batch_size=2, lr_min="1e-6"),
        "lr_find: expected lr_min to be a number, got '1e-6'; write it without quotes",
    ),
    "trained_params: state": (
        lambda: train.trained_params(recipe, state_of().params, HYPER),
        "trained_params: expected state to be a TrainState, got a dict; use what "
        "make_init(recipe)(key, hyper, x) or a step returned",
    ),
    "sweep: keys": (
        lambda: train.sweep(recipe, DATA, {"lr": X[:, 0]}, KEY, steps=1, batch_size=2),
        "sweep: expected typed keys of shape (n,), got key<fry>[]; make them with "
        "jax.random.split(jax.random.key(0), n)",
    ),
    "microbatches: float": (
        lambda: train.microbatches(4.0),
        "microbatches: expected parts to be a positive integer, got 4.0; write 4",
    ),
    "generate: model": (
        lambda: generate(DENSE, {}, Y[None], KEY, max_tokens=1),
        "generate: expected decoder to be a Decoder, got a Model; use one such as "
        "models.gpt.gpt_decoder(config)",
    ),
    "generate: constructor": (
        lambda: generate(models.gpt.gpt_decoder, {}, Y[None], KEY, max_tokens=1),
        "generate: expected decoder to be a Decoder, got the function gpt_decoder; call it: "
        "gpt_decoder(...)",
    ),
    "generate: key": (
        lambda: generate(Decoder(None, None), {}, Y[None], 0, max_tokens=1),
        "generate: expected key to be a typed key, got 0; make it with jax.random.key(seed)",
    ),
    "generate: prompt": (
        lambda: generate(Decoder(None, None), {}, [1, 2], KEY, max_tokens=1),
        "generate: expected a prompt of integers of shape (batch, time), got [1, 2]; convert "
        "it: np.asarray(tokens)[None] for one prompt",
    ),
    "generate: prompt of floats": (
        lambda: generate(Decoder(None, None), {}, X, KEY, max_tokens=1),
        "generate: expected a prompt of integers of shape (batch, time), got float32[8,3]; "
        "convert it: np.asarray(tokens)[None] for one prompt",
    ),
    "generate: max_tokens": (
        lambda: generate(Decoder(None, None), {}, Y[None], KEY, max_tokens="9"),
        "generate: expected max_tokens to be a positive integer, got '9'; write 9",
    ),
    "summary: constructor": (
        lambda: diagnose.summary(nn.linear, X),
        "summary: expected model to be a Model, got the function linear; call it: linear(...)",
    ),
    "summary: torch": (
        lambda: diagnose.summary(peer("torch"), X),
        "summary: expected model to be a Model, got a Linear of torch; build it of "
        "fnn.models, and read its weights with fnn.interop",
    ),
    "summary: shape": (
        lambda: diagnose.summary(DENSE, (8, 3)),
        "summary: expected x to be a batch of arrays, got (8, 3); convert it: jnp.asarray(...)",
    ),
    "k_fold: key": (
        lambda: data.k_fold(0, n=8, folds=2),
        "k_fold: expected a typed key, got 0; make it with jax.random.key(seed)",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_wrong_call_gets_one_clear_sentence(name):
    call, message = CASES[name]
    with pytest.raises(ValueError) as raised:
        call()
    assert str(raised.value) == message


@pytest.mark.parametrize("name", CASES)
def test_a_sentence_says_what_was_expected_what_came_and_what_to_do(name):
    _, message = CASES[name]
    assert re.match(r"[\w.\[\]'<> ]+: .*expected .*got ", message, re.DOTALL)
    assert len(message) <= 300 and ("; " in message or "\n" in message)


@pytest.mark.parametrize("name", [name for name in CASES if name.endswith(("misspelt", "lr"))])
def test_a_call_of_another_form_is_also_a_type_error_as_in_python(name):
    if name.startswith(("linear", "adam", "fit")):
        with pytest.raises(CallError) as raised:
            CASES[name][0]()
        assert isinstance(raised.value, TypeError)
