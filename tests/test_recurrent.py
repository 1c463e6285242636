"""Recurrent layers: against loops over their cells, and the laws of padding and of carries."""

import contextlib
from functools import cache, partial

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fnn import layers, nn
from fnn.initializers import zeros
from fnn.layers import bidirectional, multilayer, recurrent, reverse_sequences, scan_cell
from fnn.layers._recurrent_vjp import cell_step, unroll
from fnn.layers.sequence import masked_scan
from fnn.nn import lift, sequential
from tests.sequences import (
    CARRIES,
    IN,
    LAYERS,
    LENGTHS,
    PARAMS,
    REAL,
    SAME,
    B,
    H,
    T,
    X,
    expect_close,
    expect_equal,
    numbers,
    weighted_sum,
    with_gradients,
)

# Parameters of a layer in two directions, and carries for it.
TWO = {"forward": PARAMS["gru"], "backward": jax.tree.map(lambda p: -p, PARAMS["gru"])}
TWO_CARRIES = (CARRIES["gru"], -CARRIES["gru"])
NO_STATE = {"forward": (), "backward": ()}
reverse = jax.jit(reverse_sequences)
PARTS = {"rnn": recurrent._RNN, "lstm": recurrent._LSTM, "gru": recurrent._GRU}


# One step after the other.


def all_layers(params, carries, x):
    """Every layer over sequences with lengths, and the GRU in both directions."""
    outputs = {
        kind: LAYERS[kind][0](params[kind], x, carry=carries[kind], lengths=LENGTHS)
        for kind in ("rnn", "lstm", "linear_recurrence")
    }
    both = bidirectional(layers.gru, params["two"], x, carry=carries["two"], lengths=LENGTHS)
    return {**outputs, "two": both}


program = with_gradients(all_layers)
EVERY = {**PARAMS, "two": TWO}
STARTS = {**CARRIES, "two": TWO_CARRIES}


@cache
def result():
    return program(EVERY, STARTS, X)


def test_layers_agree_with_their_cells_one_step_after_the_other():
    @jax.jit
    def cells(params, carries, x):
        return {
            kind: scan_cell(LAYERS[kind][1], params[kind], carries[kind], x, lengths=LENGTHS)
            for kind in LAYERS
        }

    outputs = result()[0]
    expected = cells(PARAMS, CARRIES, X)
    (carry, _), y = outputs["two"]
    ahead = {"gru": (carry, y[..., :H])}
    expect_close({**ahead, **{k: outputs[k] for k in outputs if k != "two"}}, expected, SAME)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("kind", ["lstm", "linear_recurrence"])
def test_layers_have_the_gradients_of_their_cells_also_by_the_carry(kind):
    layer, cell, _ = LAYERS[kind]
    args = PARAMS[kind], CARRIES[kind], X
    expect_close(
        with_gradients(lambda p, c, x: layer(p, x, carry=c, lengths=LENGTHS))(*args),
        with_gradients(lambda p, c, x: scan_cell(cell, p, c, x, lengths=LENGTHS))(*args),
        SAME,
    )


def test_scan_cell_agrees_with_a_loop_in_python():
    cell = jax.jit(layers.rnn_cell)
    carry, expected = CARRIES["rnn"], []
    for t in range(T):
        carry, y = cell(PARAMS["rnn"], carry, X[:, t])
        expected.append(y)
    got = scan_cell(layers.rnn_cell, PARAMS["rnn"], CARRIES["rnn"], X)
    expect_close(got, (carry, jnp.stack(expected, axis=1)), SAME)


def test_a_cell_of_your_own_may_have_any_carry_and_any_outputs():
    def cell(params, carry, x):  # counts the steps and adds the inputs up
        count, total = carry["count"] + 1, carry["total"] + x
        return {"count": count, "total": total}, {"mean": total / count[:, None], "x": x}

    start = {"count": jnp.zeros(B), "total": jnp.zeros((B, IN))}
    carry, y = jax.jit(lambda x: scan_cell(cell, {}, start, x, lengths=LENGTHS))(X)
    np.testing.assert_array_equal(carry["count"], LENGTHS)
    np.testing.assert_array_equal(y["x"], np.where(REAL[..., None], X, 0))
    expect_close(y["mean"][1, 1], np.asarray(X)[1, :2].mean(axis=0), SAME)


def test_a_layer_goes_on_from_the_carry_that_it_returned():
    @jax.jit
    def both(params, x):
        carry, first = layers.lstm(params, x[:, :2])
        carry, second = layers.lstm(params, x[:, 2:], carry=carry)
        return (carry, jnp.concatenate([first, second], axis=1)), layers.lstm(params, x)

    expect_close(*both(PARAMS["lstm"], X), SAME)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("kind", PARTS)
def test_the_kernel_of_the_hidden_state_has_the_right_second_derivative(kind):
    # The derivative by this kernel is written by hand, and is differentiated here in turn, in both
    # ways that JAX has, against those of a plain scan.
    def slope(layer, params):
        kernel = jax.grad(lambda p: weighted_sum(layer(p)))(params)["hidden"]["kernel"]
        return jnp.vdot(jnp.asarray(numbers(*kernel.shape, seed=5)), kernel)

    @partial(jax.jit, static_argnums=0)
    def both_ways(layer, params):
        forward = jax.jvp(partial(slope, layer), (params,), (params,))[1]
        return jax.grad(partial(slope, layer))(params), forward

    layer, cell, _ = LAYERS[kind]
    x, carry = X[:, :3], CARRIES[kind]
    by_layer = both_ways(lambda p: layer(p, x, carry=carry), PARAMS[kind])
    by_cell = both_ways(lambda p: scan_cell(cell, p, carry, x), PARAMS[kind])
    expect_close(by_layer, by_cell, 5 * SAME)  # of two derivatives, with terms that cancel


def parts_in_float64(kind):
    """A layer's cell taken apart, its kernel, a carry, and inputs (T, B, H) of a recurrence."""
    cell, kernel = PARTS[kind].cell, numbers(H, PARTS[kind].cell.blocks * H, dtype=np.float64)
    carry = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), CARRIES[kind])
    count = len(jax.eval_shape(lambda p: PARTS[kind].inputs(p, X[:, 0]), PARAMS[kind]))
    inputs = tuple(numbers(T, B, H, seed=i, dtype=np.float64) for i in range(count))
    return cell, jax.tree.map(jnp.asarray, (kernel, carry, inputs))


@pytest.mark.sampled(2)
@pytest.mark.parametrize("kind", PARTS)
def test_the_slopes_of_a_cell_are_its_derivative(kind):
    with jax.enable_x64(True):
        cell, (_, carry, inputs) = parts_in_float64(kind)
        sums, others = [x[0] for x in inputs[: cell.blocks]], [x[0] for x in inputs[cell.blocks :]]
        new, slopes = cell.advance(carry, sums, tuple(others))
        d = jax.tree.map(lambda c: jnp.asarray(numbers(B, H, seed=7, dtype=np.float64)), new)
        _, pull = jax.vjp(lambda *args: cell.advance(*args)[0], carry, sums, tuple(others))
        expect_close(cell.pull(slopes, d), pull(d), 1e-14)  # some ten roundings of 1e-16


@pytest.mark.sampled(8)
@pytest.mark.parametrize("valid", [None, REAL], ids=["all steps", "padded"])
@pytest.mark.parametrize("kind", PARTS)
def test_the_derivative_by_hand_is_that_of_the_scan_also_of_outputs_at_padding(kind, valid):
    with jax.enable_x64(True):
        cell, args = parts_in_float64(kind)
        mask = None if valid is None else jnp.asarray(valid)

        def plain(kernel, carry, inputs):
            return masked_scan(partial(cell_step, cell, kernel), carry, inputs, mask)

        def byhand(kernel, carry, inputs):
            return unroll(cell, kernel, carry, inputs, mask)

        expect_close(*(with_gradients(f)(*args) for f in (byhand, plain)), 1e-13)  # 1e-14 a step
        forward = (jax.jit(partial(jax.jvp, f))(args, args)[1] for f in (byhand, plain))
        expect_close(*forward, 1e-13)


def opened(jaxpr):
    return getattr(jaxpr, "jaxpr", jaxpr)


def equations(jaxpr):
    """All equations of a program, also those of the programs inside."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in map(opened, equation.params.values()):
            if hasattr(inner, "eqns"):
                yield from equations(inner)


def test_the_products_of_input_and_kernel_gradient_are_outside_the_scan():
    # What makes the layers quick on a CPU: one product for all steps, and no accumulator of the
    # kernel's size in the loop.
    def loss(params, x):
        return weighted_sum(layers.lstm(params, x))

    whole = opened(jax.make_jaxpr(jax.grad(loss, argnums=(0, 1)))(PARAMS["lstm"], X))
    bodies = [opened(e.params["jaxpr"]) for e in equations(whole) if e.primitive.name == "scan"]
    assert len(bodies) == 2
    for body in bodies:
        products = [e for e in equations(body) if e.primitive.name == "dot_general"]
        assert len(products) == 1
        assert not {(H, 4 * H), (4 * H, H)} & {variable.aval.shape for variable in body.outvars}
    products = [e for e in equations(whole) if e.primitive.name == "dot_general"]
    assert sum(e.outvars[0].aval.shape == (H, 4 * H) for e in products) == 1  # of all gates


TOKENS = jnp.array([[0, 3, 1, 1, 2], [2, 2, 2, 0, 3], [1, 0, 3, 3, 3]])  # (B, T)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("kind", PARTS)
def test_a_layer_over_tokens_is_the_layer_over_their_rows(kind):
    layer, table = LAYERS[kind][0], jnp.asarray(numbers(4, IN, seed=4))
    args = PARAMS[kind], table, CARRIES[kind]
    expect_close(
        with_gradients(lambda p, t, c: layers.over_tokens(layer, p, t, TOKENS, carry=c))(*args),
        with_gradients(lambda p, t, c: layer(p, t[TOKENS], carry=c))(*args),
        SAME,
    )


def products_with(rows, layer):
    """How many products over tokens have this many rows of inputs."""
    table = jnp.ones((rows, IN))
    program = jax.make_jaxpr(lambda p, t: layers.over_tokens(layer, p, t, TOKENS))
    found = [e for e in equations(opened(program(PARAMS["rnn"], table)))]
    shapes = [e.invars[0].aval.shape for e in found if e.primitive.name == "dot_general"]
    return shapes.count((rows, IN)), shapes.count((T * B, IN))


def test_the_rows_of_a_table_meet_the_kernel_once_unless_they_are_more_than_the_tokens():
    def my_own(params, x, *, carry=None):
        return layers.rnn(params, x, carry=carry)

    assert products_with(4, layers.rnn) == (1, 0)
    assert products_with(B * T + 1, layers.rnn) == (0, 1)
    assert products_with(4, my_own) == (0, 1)


# The linear recurrence.


def sequential_twin(decay, drive):
    """The recurrence as it is defined, in float64."""
    h, steps = np.zeros_like(drive[:, 0]), []
    for t in range(drive.shape[1]):
        h = decay[:, t] * h + drive[:, t]
        steps.append(h)
    return np.stack(steps, axis=1)


@example((1, 1, 1))
@example((2, 7, 3))
@settings(max_examples=1, deadline=None, derandomize=True, database=None)
@given(st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 3)))
def test_the_associative_scan_is_the_loop(shape):
    decay, drive = (numbers(*shape, seed=s, dtype=np.float64) for s in (0, 1))
    expected = sequential_twin(decay, drive)
    with jax.enable_x64(True):
        got = jax.jit(layers.linear_scan)(jnp.asarray(decay), jnp.asarray(drive))
        expect_close(got, expected, 1e-14)  # nine steps of float64, 1e-16 each


def test_the_linear_recurrence_is_the_formula_of_the_paper():
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), PARAMS["linear_recurrence"])
    x = np.asarray(X, np.float64)
    gate = 1 / (1 + np.exp(-(x @ p["gate"]["kernel"] + p["gate"]["bias"])))
    impulse = np.tanh(x @ p["candidate"]["kernel"] + p["candidate"]["bias"])
    expected = sequential_twin(gate, (1 - gate) * impulse)
    carry, y = jax.jit(layers.linear_recurrence)(PARAMS["linear_recurrence"], X)
    expect_close((carry, y), (expected[:, -1], expected), SAME)


def test_the_linear_recurrence_sums_in_float32_where_x_is_bfloat16():
    params, x = jax.tree.map(lambda p: p.astype(jnp.bfloat16), (PARAMS["linear_recurrence"], X))
    carry, y = jax.jit(layers.linear_recurrence)(params, x)
    assert (carry.dtype, y.dtype) == (jnp.float32, jnp.bfloat16)
    # A sum in bfloat16 that is cast at the end has no digits to lose.
    assert (carry.astype(jnp.bfloat16).astype(jnp.float32) != carry).all()
    expect_equal(carry.astype(jnp.bfloat16), y[:, -1])


# Lengths.


def test_padding_changes_nothing():
    outputs, gradients = result()
    for padding in (0.0, 1e30, np.nan, np.inf):
        changed = jnp.where(REAL[..., None], X, padding)
        expect_equal(program(EVERY, STARTS, changed), (outputs, gradients))
    for name, y in {**{kind: y for kind, (_, y) in outputs.items()}, "dx": gradients[-1]}.items():
        assert (np.asarray(y)[~REAL] == 0).all() and (np.asarray(y)[REAL] != 0).all(), name


def test_a_padded_sequence_gives_what_it_gives_by_itself():
    @jax.jit
    def alone(params, x):
        start, two_starts = jax.tree.map(
            lambda c: c[1:2], (CARRIES["linear_recurrence"], TWO_CARRIES)
        )
        return {
            "linear_recurrence": layers.linear_recurrence(params, x, carry=start),
            "two": bidirectional(layers.gru, TWO, x, carry=two_starts),
        }

    for kind, expected in alone(PARAMS["linear_recurrence"], X[1:2, :2]).items():
        carry, y = result()[0][kind]
        expect_close((jax.tree.map(lambda c: c[1:2], carry), y[1:2, :2]), expected, SAME)


def test_a_sequence_of_length_0_returns_the_carry_that_it_was_given():
    for kind, (carry, _) in result()[0].items():
        start = STARTS[kind]
        expect_equal(*(jax.tree.map(lambda c: c[2], tree) for tree in (carry, start)))


def test_lengths_beyond_the_steps_mean_all_and_below_0_none():
    run = jax.jit(lambda lengths: layers.rnn(PARAMS["rnn"], X, lengths=lengths))
    expected = run(jnp.array([T, 2, 0]))
    expect_equal(run(jnp.array([T + 9, 2, -4])), expected)
    expect_equal(run(jnp.array([T, 2, 0], jnp.int8)), expected)


@settings(max_examples=20, deadline=None, derandomize=True, database=None)
@given(st.tuples(*3 * [st.integers(0, 6)]))
def test_reversing_turns_each_sequence_around_within_its_length(lengths):
    x = numbers(3, 6, 2)
    expected = x.copy()
    for row, length in zip(expected, lengths, strict=True):
        row[:length] = row[:length][::-1].copy()
    turned = reverse(jnp.asarray(x), lengths=jnp.array(lengths))
    np.testing.assert_array_equal(turned, expected)
    np.testing.assert_array_equal(reverse(turned, lengths=jnp.array(lengths)), x)


def test_reversing_without_lengths_turns_all_steps_around():
    np.testing.assert_array_equal(reverse_sequences(X), X[:, ::-1])


# Initial values.


def test_each_gate_has_an_orthogonal_kernel_of_its_own():
    params = jax.jit(lambda key: layers.gru_cell_init(key, IN, 3))(jax.random.key(1))
    r, z, n = np.split(np.asarray(params["hidden"]["kernel"], np.float64), 3, axis=1)
    for block in (r, z, n):
        np.testing.assert_allclose(block.T @ block, np.eye(3), atol=1e-6)  # float32 QR
    assert np.abs(r - z).max() > 0.1 and np.abs(z - n).max() > 0.1


def test_the_forget_gate_starts_open_and_its_bias_may_be_traced():
    def bias(**forget_bias):
        plain = dict(kernel_init=zeros, recurrent_init=zeros)
        params = layers.lstm_cell_init(jax.random.key(0), IN, H, **plain, **forget_bias)
        return params["input"]["bias"]

    np.testing.assert_array_equal(bias(), np.repeat([0, 1, 0, 0], H))
    traced = jax.jit(lambda b: bias(forget_bias=b))
    for b in (0.0, 2.5):
        np.testing.assert_array_equal(traced(b), np.repeat([0, b, 0, 0], H))


# As models.


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["arrays", "pairs"])
def test_models_of_sequences_are_the_layers_and_return_a_pair_for_a_pair(lengths):
    @jax.jit
    def both(params, two, x):
        given = x if lengths is None else (x, lengths)
        as_models = (
            nn.rnn(H).apply(params, (), given),
            nn.bidirectional(nn.gru(H)).apply(two, NO_STATE, given),
        )
        as_layers = (
            layers.rnn(params, x, lengths=lengths)[1],
            bidirectional(layers.gru, two, x, lengths=lengths)[1],
        )
        return as_models, as_layers

    as_models, as_layers = both(PARAMS["rnn"], TWO, X)
    for (y, state), expected, no_state in zip(as_models, as_layers, ((), NO_STATE), strict=True):
        assert state == no_state
        if lengths is not None:
            y, kept = y
            expect_equal(kept, lengths)
        expect_equal(y, expected)


def test_a_classifier_of_integers_with_lengths_ignores_what_pads_them():
    model = sequential(nn.keep_lengths(nn.embedding(7, IN)), nn.rnn(H), nn.last_step())
    ids = jnp.asarray(np.random.default_rng(0).integers(7, size=(B, T)))
    params, state = jax.jit(model.init)(jax.random.key(0), (ids, LENGTHS))
    apply = jax.jit(model.apply)
    y, _ = apply(params, state, (ids, LENGTHS))
    padded, _ = apply(params, state, (jnp.where(REAL, ids, -100), LENGTHS))
    expect_equal(padded, y)
    np.testing.assert_array_equal(y[2], 0)  # no step at all
    assert y.shape == (B, H) and (y[:2] != 0).all()


def test_the_last_step_is_that_of_each_sequence():
    def last(x):
        return nn.last_step().apply({}, (), x)[0]

    np.testing.assert_array_equal(last(X), X[:, -1])
    np.testing.assert_array_equal(last((X, LENGTHS)), jnp.stack([X[0, 4], X[1, 1], X[2, 0]]))


# Bad input.


@contextlib.contextmanager
def refused(match):
    """ValueError, as a user sees it who does not check the annotations."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        with pytest.raises(ValueError, match=match) as error:
            yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
    assert "expected" in str(error.value) and ";" in str(error.value)


def trace(function, *args, **options):
    """Shapes only: a message that needs no values costs no compilation."""
    return jax.eval_shape(lambda args: function(*args, **options), args)


@pytest.mark.parametrize("kind", LAYERS)
def test_bad_input_of_a_layer_is_refused(kind):
    layer, cell, _ = LAYERS[kind]
    with refused(rf"{kind}: expected x of shape \(batch, time, features\), got \(3, 5\)"):
        trace(layer, PARAMS[kind], X[..., 0])
    with refused(r"linear: expected x with 3 features in its last axis, got shape .* 2\)"):
        trace(layer, PARAMS[kind], X[..., :2])
    with refused(rf"{kind}: expected lengths of shape \(3,\) .* got int32\[2\]"):
        trace(layer, PARAMS[kind], X, lengths=LENGTHS[:2])
    with refused(rf"{kind}: expected lengths to be an array of integers.*, got float32\[3\]"):
        trace(layer, PARAMS[kind], X, lengths=jnp.ones(3))
    wrong = jax.tree.map(lambda c: c[:2], CARRIES[kind])
    with refused(rf"{kind}: expected the carry .*float32\[3,2\].*, got .*float32\[2,2\]"):
        trace(layer, PARAMS[kind], X, carry=wrong)
    with refused(rf"{kind}: expected the carry .*float32\[3,2\].*, got .*float32\[2,2\]"):
        trace(cell, PARAMS[kind], wrong, X[:, 0])


def test_the_carry_of_an_lstm_is_no_plain_pair():
    with refused(r"lstm: expected the carry LSTMCarry\(hidden='float32.*, got \('float32"):
        trace(layers.lstm_cell, PARAMS["lstm"], tuple(CARRIES["lstm"]), X[:, 0])


def test_bad_input_of_what_layers_are_put_into_is_refused():
    with refused(r"multilayer: expected 1 carries, got 2"):
        trace(partial(multilayer, layers.rnn), [PARAMS["rnn"]], X, carry=[None, None])
    with refused(r"reverse_sequences: expected lengths of shape \(3,\)"):
        trace(reverse_sequences, X, lengths=jnp.array([1]))
    with refused(r"scan_cell: expected lengths of shape \(3,\)"):
        scan_cell(layers.rnn_cell, PARAMS["rnn"], CARRIES["rnn"], X, lengths=jnp.array([1]))


@pytest.mark.parametrize("kind", LAYERS)
def test_a_model_of_sequences_refuses_inputs_without_time(kind):
    with refused(rf"{kind}: expected x of shape \(batch, time, features\), got \(3, 5\)"):
        getattr(nn, kind)(H).init(jax.random.key(0), jnp.zeros((3, 5)))


@pytest.mark.parametrize(
    "layer",
    [nn.last_step(), nn.keep_lengths(nn.flatten()), lift(lambda x: x[0])],
    ids=["one step", "flat", "without lengths"],
)
def test_two_directions_refuse_a_layer_that_loses_the_steps_or_the_lengths(layer):
    nothing = {"forward": {}, "backward": {}}
    with refused("bidirectional: expected outputs for each of the 5 steps"):
        trace(nn.bidirectional(layer).apply, nothing, nothing, (X, LENGTHS))
