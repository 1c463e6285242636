"""The optimizers that see a leaf as a whole, against float64 twins written from their papers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn import optim, tree
from fnn.optim.contrib._linalg import eigenbasis, inverse_root, orthonormal
from fnn.types import Objective
from tests.matrix_twins import (
    adafactor_twin,
    kron_twin,
    lamb_twin,
    lars_twin,
    muon_twin,
    rms,
    shampoo_twin,
    soap_twin,
    sophia_twin,
)

STEPS, LR = 50, 0.1
SHAPES = {"bias": (3,), "one": (4, 3), "two": (4, 3), "window": (2, 3, 5)}
RANDOM = np.random.default_rng(0)
START = {name: RANDOM.normal(size=shape) for name, shape in SHAPES.items()}
GRADS = {name: RANDOM.normal(size=(STEPS, *shape)) for name, shape in SHAPES.items()}
part = functools.partial


def few(*names, steps=STEPS):
    """Gradients and start of some leaves, which compile sooner than all of them."""
    return {n: GRADS[n][:steps] for n in names}, {n: START[n] for n in names}


def cast(x):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), x)


def run(optimizer, grads=GRADS, start=START, lr=LR, curvature=None):
    """Parameters after every update, as one scan. The objective has a diagonal Hessian."""

    def step(carry, g):
        params, state = carry

        def at(there):
            moved = jax.tree.map(jnp.subtract, there, params)
            slopes = jax.tree.map(lambda g, d, c: g + c * d, g, moved, cast(curvature))
            return jnp.float32(0), slopes

        objective = None if curvature is None else Objective(jnp.float32(0), at)
        updates, state = optimizer.update(g, state, params, lr, objective)
        params = tree.add(params, updates)
        return (params, state), params

    params = cast(start)
    scan = jax.jit(lambda carry, grads: jax.lax.scan(step, carry, grads)[1])
    return jax.tree.map(np.asarray, scan((params, optimizer.init(params)), cast(grads)))


def run_twin(direction, grads=GRADS, start=START, lr=LR):
    """The same in float64, leaf by leaf: `direction(g, p, t, memory)`."""

    def leaf(g, p):
        p, memory, path = np.float64(np.float32(p)), {}, []
        for t, now in enumerate(np.float64(np.float32(g)), start=1):
            p = p - lr * direction(now, p, t, memory)
            path.append(p)
        return np.stack(path)

    return jax.tree.map(leaf, grads, start)


KEY = jax.random.key(0)
TWINS = [
    ("lamb with decay", optim.lamb(weight_decay=0.1), part(lamb_twin, decay=0.1)),
    (
        "lars with decay and trust",
        optim.lars(momentum=0.5, weight_decay=0.1, trust=0.1),
        part(lars_twin, mu=0.5, decay=0.1, trust=0.1),
    ),
    ("adafactor", optim.adafactor(min_factored=2), adafactor_twin),
    (
        "adafactor_absolute",
        optim.adafactor_absolute(max_rms=0.5),
        part(adafactor_twin, relative=False, factored=False, d=0.5),
    ),
    ("muon", optim.muon(companion=optim.sgd()), muon_twin),
    (
        "muon with decay",
        optim.muon(companion=optim.sgd(), momentum=0.8, weight_decay=0.1),
        part(muon_twin, mu=0.8, decay=0.1),
    ),
    ("shampoo", optim.contrib.shampoo(b2=0.99, every_steps=3, eps=1e-2), shampoo_twin),
    (
        "shampoo of one side",
        optim.contrib.shampoo(b2=0.99, every_steps=3, eps=1e-2, max_size=3),
        part(shampoo_twin, max_size=3),
    ),
    (
        "shampoo in blocks",  # of 2 rows, and of 2, 2 and 1 columns
        optim.contrib.shampoo(b2=0.99, every_steps=3, eps=1e-2, block_size=2),
        part(shampoo_twin, block=2),
    ),
    (
        "shampoo in blocks of columns alone",  # 6 rows of the window, which are too many
        optim.contrib.shampoo(b2=0.99, every_steps=3, eps=1e-2, block_size=2, max_size=5),
        part(shampoo_twin, block=2, max_size=5),
    ),
    (
        "shampoo with a leaf too large for it",
        optim.contrib.shampoo(b2=0.99, every_steps=3, eps=1e-2, max_size=4),
        part(shampoo_twin, max_size=4),
    ),
    (
        "kron",  # with a diagonal for the 6 rows of the window, and for the bias
        optim.contrib.kron(key=KEY, every_steps=2, max_size=5),
        lambda *args: kron_twin(*args, KEY, max_size=5),
    ),
    ("soap", optim.contrib.soap(weight_decay=0.0), soap_twin),
    (
        "soap that turns often",
        optim.contrib.soap(every_steps=2),
        part(soap_twin, every=2, decay=0.01),
    ),
]


def expect_close(got, expected, rtol=2e-6):
    for name, want in expected.items():
        # Fifty roundings of the parameters, each at most 6e-8 of the largest.
        np.testing.assert_allclose(
            got[name], want, rtol=0, atol=rtol * np.abs(want).max(), err_msg=name
        )


@pytest.mark.sampled(12)
@pytest.mark.parametrize(("name", "optimizer", "twin"), TWINS, ids=[row[0] for row in TWINS])
def test_fifty_updates_are_those_of_the_paper(name, optimizer, twin):
    expect_close(run(optimizer), run_twin(twin))


def test_fifty_updates_of_sophia_are_those_of_the_paper():
    # Signs find a diagonal Hessian exactly, whatever the key.
    curvature = jax.tree.map(lambda p: np.linspace(-1, 4, p.size).reshape(p.shape), START)
    got = run(optim.contrib.sophia(key=KEY, scale=30.0), curvature=curvature)
    expected = {
        name: run_twin(
            part(sophia_twin, gamma=30.0, diagonal=np.float64(np.float32(curvature[name]))),
            GRADS[name],
            START[name],
        )
        for name in START
    }
    expect_close(got, expected)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("shape", [(4, 4), (3, 9), (9, 3), (2, 5, 8)])
def test_newton_schulz_brings_the_singular_values_near_one(shape):
    x = RANDOM.normal(size=shape)
    u, s, v = np.linalg.svd(x, full_matrices=False)
    s = np.linspace(0.02, 1, s.shape[-1])  # as shares of the largest
    x = 7 * (u * s) @ v
    got = np.asarray(optim.newton_schulz(jnp.float32(x)))
    # The range of the iterated polynomial over [0.005, 1]; the vectors stay as they are.
    inner = np.swapaxes(u, -1, -2) @ got @ np.swapaxes(v, -1, -2)
    diagonal = np.diagonal(inner, axis1=-2, axis2=-1)
    assert (diagonal > 0.68).all() and (diagonal < 1.21).all()
    np.testing.assert_allclose(inner - diagonal[..., None] * np.eye(s.size), 0, atol=1e-5)


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e30])
def test_newton_schulz_takes_any_size(size):
    x = optim.newton_schulz(jnp.full((2, 2), size, jnp.float32))
    assert np.isfinite(x).all() and (size != 0 or not x.any())


def test_soap_without_sides_is_adam_from_the_second_update_on():
    soap = run(optim.contrib.soap(max_size=0, weight_decay=0.0, b1=0.9, b2=0.99), *few("one"))
    rest, start = {"one": GRADS["one"][1:]}, {"one": soap["one"][0]}
    adam = run(optim.adam(b2=0.99), grads=rest, start=start)
    for name, path in adam.items():
        np.testing.assert_allclose(soap[name][1:], path, atol=1e-6)


def test_soap_turns_with_the_gradient():
    """Rotated gradients and parameters give rotated updates, unlike those of Adam."""
    left, right = (np.linalg.qr(RANDOM.normal(size=(n, n)))[0] for n in (4, 3))
    turned = left.T @ GRADS["one"] @ right
    plain = run(optim.contrib.soap(eps=1e-3), {"w": GRADS["one"]}, {"w": START["one"]}, lr=1e-2)[
        "w"
    ]
    other = run(
        optim.contrib.soap(eps=1e-3), {"w": turned}, {"w": left.T @ START["one"] @ right}, lr=1e-2
    )
    # All but the first update, which is Adam's. The bases' rounding grows where eigenvalues meet.
    moves = np.diff(plain, axis=0), left @ np.diff(other["w"], axis=0) @ right.T
    decay = 1e-2 * 1e-2 * (left @ other["w"][0] @ right.T - plain[0])
    np.testing.assert_allclose(moves[0][:5], moves[1][:5] + decay, atol=2e-6)


def test_shampoo_moves_as_far_as_its_graft():
    graft = optim.rmsprop()
    first = few("bias", "one", steps=1)
    got, length = run(optim.contrib.shampoo(graft=graft), *first), run(graft, *first)
    moves = [np.linalg.norm(path["one"][0] - START["one"]) for path in (got, length)]
    np.testing.assert_allclose(*moves, rtol=1e-5)
    np.testing.assert_array_equal(got["bias"], length["bias"])


def test_the_first_step_of_shampoo_without_momentum_is_orthogonal():
    got = run(
        optim.contrib.shampoo(b1=0.0, eps=1e-12), {"w": GRADS["one"][:1]}, {"w": 0 * START["one"]}
    )
    values = np.linalg.svd(got["w"][0])[1]
    np.testing.assert_allclose(values, values.mean(), rtol=1e-3)


def test_no_factor_of_shampoo_is_longer_than_a_block():
    shapes = {"tokens": (50257, 768), "up": (768, 3072), "window": (3, 3, 500, 2100)}
    params = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s, jnp.float32), shapes, is_leaf=is_shape)
    factors = jax.eval_shape(optim.contrib.shampoo().init, params).factors
    assert factors["tokens"].keys() == {"right"}
    sizes = {n: {s: x.shape for s, x in both.items()} for n, both in factors.items()}
    up = {"left": (768, 768), "right": (1024, 1024)}
    assert {n: size for n, size in sizes.items() if n.startswith("up")} == {
        f"up[0,{j}]": up for j in range(3)
    }
    # 4,500 rows in 5 even parts, 2,100 columns in 3.
    assert sum(n.startswith("window") for n in sizes) == 15
    assert sizes["window[4,2]"] == {"left": (900, 900), "right": (700, 700)}


def is_shape(x):
    return isinstance(x, tuple)


def test_shampoo_refuses_blocks_of_nothing():
    with pytest.raises(
        ValueError, match="shampoo: expected block_size to be a positive integer, got"
    ):
        optim.contrib.shampoo(block_size=0)


def test_a_leaf_named_as_a_block_of_another_is_refused():
    params = {"w": jnp.zeros((4, 1)), "w[1,0]": jnp.zeros((2, 1))}
    with pytest.raises(ValueError, match=r"expected one matrix named 'w\[1,0\]', got two; rename"):
        optim.contrib.shampoo(block_size=2).init(params)


STACKS = [
    lambda stacked: optim.muon(companion=optim.sgd(), stacked=stacked),
    lambda stacked: optim.contrib.shampoo(stacked=stacked),
    lambda stacked: optim.contrib.soap(stacked=stacked, weight_decay=0.0),
]


@pytest.mark.sampled(4)
@pytest.mark.parametrize("make", STACKS, ids=["muon", "shampoo", "soap"])
def test_stacked_matrices_move_as_they_would_alone(make):
    grads, start = GRADS["window"][:12], START["window"]
    together = run(make(tree.matching("w")), {"w": grads}, {"w": start})["w"]
    alone = run(make(None), {"w": grads[:, 1]}, {"w": start[1]})["w"]
    if make is STACKS[1]:  # its length is that of the whole leaf
        lengths = [
            np.linalg.norm(x - y) for x, y in ((together[0, 1], start[1]), (alone[0], start[1]))
        ]
        directions = [
            (x - start[1]) / n for x, n in zip((together[0, 1], alone[0]), lengths, strict=True)
        ]
        np.testing.assert_allclose(*directions, atol=1e-4)
    else:
        np.testing.assert_allclose(together[:, 1], alone, atol=1e-5)


def test_muon_leaves_to_its_companion_what_it_does_not_own():
    companion = optim.adamw(weight_decay=0.1)
    opt = optim.muon(companion=companion, companion_lr=0.5, owned=tree.matching("one"))
    got, theirs = run(opt, *few("one", "two")), run(companion, *few("two"), lr=LR / 2)
    np.testing.assert_allclose(got["two"], theirs["two"], rtol=1e-6)
    alone = run(optim.muon(companion=optim.sgd()), *few("one"))
    np.testing.assert_allclose(got["one"], alone["one"], rtol=1e-6)


def test_muon_owns_no_vectors():
    opt = optim.muon(companion=optim.sgd(), owned=tree.matching("*"))
    with pytest.raises(ValueError, match=r"muon: expected matrices to own, got b: float32\[3\]"):
        opt.init({"b": jnp.zeros(3)})


def test_the_scale_of_adamw_gives_updates_of_its_size():
    opt = optim.muon(companion=optim.sgd(), scale=optim.adamw_scale)
    shape = 40, 10
    grads, start = RANDOM.normal(size=(1, *shape)), np.zeros(shape)
    update = run(opt, {"w": grads}, {"w": start}, lr=1.0)["w"][0]
    assert 0.1 < rms(update) < 0.25


@pytest.mark.sampled(2)
@pytest.mark.parametrize("make", [optim.lamb, optim.lars])
def test_leaves_that_are_not_scaled_follow_the_plain_method(make):
    plain = {optim.lamb: optim.adam(eps=1e-6), optim.lars: optim.sgd(momentum=0.9)}[make]
    got = run(make(scaled=tree.matching("one")), *few("bias", "one"))
    np.testing.assert_array_equal(got["bias"], run(plain, *few("bias"))["bias"])
    assert not np.allclose(got["one"], run(plain, *few("one"))["one"], atol=1e-2)


@pytest.mark.parametrize("make", [optim.lamb, optim.lars])
def test_a_leaf_of_zeros_can_leave_zero(make):
    grads, start = few("bias", steps=1)
    assert run(make(), grads, {"bias": 0 * start["bias"]})["bias"].all()


def test_the_relative_step_is_that_of_the_paper():
    expected = [min(1e-2, (t + 1) ** -0.5) for t in (0, 9_998, 9_999, 10**6)]
    got = jax.vmap(optim.relative_step)(jnp.array([0, 9_998, 9_999, 10**6]))
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_adafactor_keeps_a_row_and_a_column_of_a_long_matrix():
    state = optim.adafactor().init({"w": jnp.zeros((128, 256)), "b": jnp.zeros((127, 256))})
    sizes = jax.tree.map(jnp.size, (state.rows, state.columns, state.whole))
    assert sizes == ({"w": 128, "b": 0}, {"w": 256, "b": 0}, {"w": 0, "b": 127 * 256})


MEETING = np.diag([2.0, 2.0, 1.0, 0.0])  # two eigenvalues that coincide, and one that is 0


@pytest.mark.sampled(4)
@pytest.mark.parametrize("function", [part(inverse_root, order=4), eigenbasis, orthonormal])
def test_derivatives_are_finite_where_eigenvalues_meet_or_vanish(function):
    slope = jax.grad(lambda a: jnp.sum(jnp.sin(function(a))))
    for a in (MEETING, np.zeros((4, 4)), np.ones((4, 4))):
        assert tree.all_finite(slope(jnp.float32(a)))


def test_the_root_of_a_matrix_inverts_its_power():
    half = RANDOM.normal(size=(2, 5, 7))
    a = half @ np.swapaxes(half, -1, -2)
    root = np.float64(inverse_root(jnp.float32(a), 4))
    # The condition of these matrices is about 50, and a root is used four times.
    np.testing.assert_allclose(root @ root @ root @ root @ a, np.eye(5) + 0 * a, atol=1e-3)


SPARSE = {name: np.where(np.abs(GRADS[name]) < 1, 0, GRADS[name])[:20] for name in ("bias", "one")}
SPARSE["one"][:] *= np.array([1, 0, 0])  # of rank one, with columns that never get a gradient
MAKERS = {
    "lamb": optim.lamb,
    "lars": optim.lars,
    "adafactor": lambda: optim.adafactor(min_factored=2),
    "muon": lambda: optim.muon(companion=optim.sgd()),
    "shampoo": lambda: optim.contrib.shampoo(every_steps=3),
    "soap": lambda: optim.contrib.soap(every_steps=3),
    "kron": lambda: optim.contrib.kron(key=KEY, every_steps=3),
}


@pytest.mark.sampled(8)
@pytest.mark.parametrize("name", MAKERS)
def test_derivatives_through_twenty_updates_with_zeros_in_the_gradient_are_finite(name):
    optimizer = MAKERS[name]()

    def trained(start, lr):
        def step(carry, g):
            params, state = carry
            g = jax.tree.map(lambda g, p: g * jnp.cos(p), g, params)  # zero stays zero
            updates, state = optimizer.update(g, state, params, lr)
            return (tree.add(params, updates), state), None

        (params, _), _ = jax.lax.scan(step, (start, optimizer.init(start)), cast(SPARSE))
        return tree.squared_norms(params)[0]

    start = {"bias": jnp.asarray(START["bias"], jnp.float32), "one": jnp.zeros((4, 3))}
    value, slopes = jax.jit(jax.value_and_grad(trained, argnums=(0, 1)))(start, 0.1)
    assert tree.all_finite((value, slopes)) and slopes[1] != 0


BATCHED = [
    (optim.contrib.shampoo(), "eigh", 4),  # sides of 3, 4, 5 and 6, the first two twice
    (optim.contrib.shampoo(block_size=3), "eigh", 2),  # of 3 and 2: all blocks of all leaves
    (optim.contrib.soap(), "eigh", 4),
    (optim.muon(companion=optim.sgd()), "dot_general", 2 * 5 * 3),
]


@pytest.mark.parametrize(("optimizer", "operation", "count"), BATCHED)
def test_leaves_of_one_shape_are_computed_together(optimizer, operation, count):
    params = cast(START)
    state = optimizer.init(params)
    graph = str(jax.make_jaxpr(optimizer.update)(params, state, params, LR))
    assert graph.count(f" {operation}[") == count
