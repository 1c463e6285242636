"""What a person sees of a value: shapes and counts, and never a whole array."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn import losses, metrics, nn, optim, schedules
from fnn.activations import relu
from fnn.nn import parallel, residual, sequential, stack
from fnn.recipe import Recipe
from fnn.show import made_by, short
from fnn.train import fit, make_init, make_run, search, silent, sweep
from fnn.types import Batch, Data, History, Weighted

KEY = jax.random.key(0)
X = np.linspace(-1, 1, 256, dtype=np.float32).reshape(32, 8)
DATA = Data(train=Batch(X, X[:, :1]), valid=Batch(X, X[:, :1]))
HYPER = {"lr": 0.1}


def recipe(hyper):
    return Recipe(
        model=sequential(nn.linear(64), relu, nn.linear(1)),
        loss=losses.mean_squared_error,
        optimizer=optim.adamw(weight_decay=0.1),
        schedule=schedules.warmup_cosine(hyper["lr"], warmup_steps=2, total_steps=8),
        metrics={"error": metrics.mean(losses.mean_absolute_error)},
    )


@pytest.fixture(scope="module")
def result():
    options = dict(steps=8, batch_size=8, eval_every=2, progress=silent)
    return fit(recipe, DATA, key=KEY, hyper=HYPER, **options)


@pytest.mark.slow
def test_a_result_of_a_fit_is_a_few_lines(result):
    said = repr(result).split("\n")
    assert said[0] == f"FitResult: all steps made; best evaluation after {result.best_step} steps"
    first, last = result.history.train["loss"][jnp.array([0, -1])].tolist()
    assert said[1].startswith(f"  train  8 steps: loss {first:.4g} -> {last:.4g}, lr ")
    assert said[2].startswith("  valid  4 evaluations: loss ") and "error" in said[2]
    assert f"after {result.best_step} steps" in said[2]
    assert "TrainState(step=8, " in said[3] and len(said) == 4
    assert max(map(len, said)) < 250


@pytest.mark.parametrize("part", ["state", "history"])
def test_no_part_of_a_result_prints_its_arrays(result, part):
    said = repr(getattr(result, part))
    assert len(said) < 400 and "Array(" not in said and "[[" not in said


def test_what_is_printed_is_still_a_pytree_and_a_tuple(result):
    state, history = jax.tree.map(lambda a: a + 0, (result.state, result.history))
    assert type(state) is type(result.state) and type(history) is History
    batch = jax.tree.map(jnp.asarray, DATA.train)
    x, y = batch
    assert type(batch) is Batch and batch == Batch(x, y) and batch._fields == ("x", "y")


def test_data_and_states_show_shapes(result):
    pair = "Batch(x=float32[32,8], y=float32[32,1])"
    assert repr(DATA) == f"Data(train={pair}, valid={pair})"
    assert repr(Weighted(jnp.ones(3), jnp.ones(3))) == (
        "Weighted(values=float32[3], weights=float32[3])"
    )
    wide = repr(result.state)
    assert "opt_state=AdamState(9 arrays, 1,283 elements)" in wide  # 2 (8 64 + 64 + 64 + 1) + 1
    shapes = jax.eval_shape(make_init(recipe), KEY, HYPER, X[:4])
    assert repr(shapes).startswith("TrainState(step=int32[], params=")


def test_what_is_traced_can_be_printed():
    said = []

    @jax.jit
    def function(batch, state):
        said.extend([repr(batch), repr(state)])
        return batch

    state = make_init(recipe)(KEY, HYPER, X[:4])
    function(DATA.train, state)
    assert said[0] == "Batch(x=float32[32,8], y=float32[32,1])" and "step=int32[]" in said[1]


def test_histories_of_many_runs_none_or_not_finite_can_be_printed():
    run = jax.vmap(make_run(recipe, steps=4, batch_size=8, eval_every=2), (0, None, None))
    many = jax.eval_shape(run, jax.random.split(KEY, 3), HYPER, DATA)
    assert "loss float32[3,4]" in repr(many[1]) and "loss float32[3,2]" in repr(many[1])
    empty = History(train={"loss": np.zeros(0)}, eval_steps=np.zeros(0, int), valid={})
    assert "0 steps" in repr(empty)
    nan = np.full(3, np.nan)
    broken = History(train={"loss": nan}, eval_steps=np.arange(3), valid={"loss": nan})
    assert "loss nan -> nan" in repr(broken) and "lowest" not in repr(broken)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (nn.linear(32), "linear(32)"),
        (nn.conv(16, (3, 3)), "conv(16, (3, 3))"),
        (nn.dropout(0.5), "dropout(0.5)"),
        (nn.lstm(8), "lstm(8)"),
        (residual(nn.linear(3)), "residual(linear(3))"),
        (stack(nn.linear(3), 12), "stack(linear(3), n=12)"),
        (sequential(a=nn.linear(2, bias=False), b=jnp.tanh),
         "sequential(a=linear(2, bias=False), b=tanh)"),
        (parallel(nn.linear(1), relu), "parallel(linear(1), relu)"),
        (optim.adam(b1=0.5), "adam(b1=0.5)"),
        (optim.sgd(), "sgd()"),
        (optim.chain(optim.clip_by_global_norm(1.0), optim.lion()),
         "chain(clip_by_global_norm(1), lion())"),
        (optim.ema(optim.adam(), decay=0.5), "ema(adam(), decay=0.5)"),
        (schedules.constant(0.1), "constant(0.1)"),
        (schedules.cosine(0.1, total_steps=10), "cosine(0.1, total_steps=10)"),
        (losses.cross_entropy, "cross_entropy"),
    ],
)  # fmt: skip
def test_functions_are_shown_by_the_call_that_made_them(made, said):
    assert made_by(made) == said
    if isinstance(made, tuple):
        assert repr(made) == f"<{type(made).__name__} {said}>"


def test_any_function_and_model_can_be_shown():
    class Callable:
        def __call__(self, x):
            return x

    def loss(outputs, targets):
        return outputs

    assert (made_by(lambda x: x), made_by(loss)) == ("<lambda>", "loss")
    assert made_by(Callable()) == "Callable"
    many = repr(sequential(*[nn.linear(4)] * 40))
    assert "36 more" in many and len(many) < 200
    deep = nn.linear(4)
    for _ in range(30):
        deep = residual(deep)
    assert len(repr(deep)) < 200
    traced = jax.jit(lambda rate: repr(nn.dropout(rate)) and rate)
    assert traced(0.5) == 0.5
    assert short("a" * 3) == "'aaa'" and short(np.float64(0.1 + 0.2)) == "0.3"


def test_a_recipe_shows_its_parts_and_not_its_defaults():
    said = repr(recipe(HYPER))
    assert "model=sequential(linear(64), relu, linear(1))" in said
    assert "loss=mean_squared_error" in said and "optimizer=adamw(weight_decay=0.1)" in said
    assert "metrics={'error': " in said and "gradient" not in said and "penalty" not in said


@pytest.mark.slow
def test_a_sweep_is_its_size_and_its_best_setting():
    settings = search.grid(lr=[1e-3, 0.1])
    found = sweep(
        recipe, DATA, settings, jax.random.split(jax.random.key(1), 2), steps=4, batch_size=8,
        progress=silent,
    )  # fmt: skip
    best = found.best()
    assert repr(found).split("\n") == [
        "SweepResult: 2 settings x 2 keys, 4 steps",
        f"  lowest mean loss {best.value:.4g}: setting {best.index} (lr={best.setting['lr']:.4g})",
    ]
