"""Combinators: depth by scan, memory by rematerialization, precision by cast, branches abreast."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn import nn
from fnn.activations import tanh
from fnn.nn import cast, output_of, parallel, remat, residual, sequential, stack
from tests.registry.rows import normal

RTOL = 5e-6  # of the largest entry: the law for scan against unrolled, and remat against none
KEY = jax.random.key(0)
POLICIES = {
    "nothing saved": jax.checkpoint_policies.nothing_saveable,
    "products saved": jax.checkpoint_policies.dots_saveable,
}


def block():
    """With parameters, running statistics and noise."""
    return sequential(norm=nn.batch_norm(), dense=nn.linear(4), tanh=tanh, drop=nn.dropout(0.5))


def trained(model, params, state, x):
    """Value, new state and gradients of a step with noise, compiled."""

    def loss(params, x):
        y, new = model.apply(params, state, x, key=jax.random.key(1), train=True)
        return jnp.square(y - 1).mean(), (y, new)

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(params, x)


def expect_close(got, expected):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=RTOL * float(abs(b).max()))


@pytest.fixture(scope="module")
def scanned():
    """Parameters and state of three blocks, an input, and what the scanned stack makes of them."""
    x, model = jnp.asarray(normal(5, 4)), stack(block(), 3)
    params, state = jax.jit(model.init)(KEY, x)
    return params, state, x, trained(model, params, state, x)


@pytest.fixture(scope="module")
def plain(scanned):
    """The same of one block."""
    params, state = jax.tree.map(lambda leaf: leaf[0], scanned[:2])
    x = scanned[2]
    return params, state, x, trained(block(), params, state, x)


@pytest.mark.slow
def test_the_unrolled_stack_has_the_same_parameters_and_computes_the_same(scanned):
    params, state, x, expected = scanned
    model = stack(block(), 3, scan=False)
    for a, b in zip(*map(jax.tree.leaves, (jax.jit(model.init)(KEY, x)[0], params)), strict=True):
        assert (a == b).all()
    expect_close(trained(model, params, state, x), expected)


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    "policy, scan", [("nothing saved", True), ("products saved", True), ("nothing saved", False)]
)
def test_a_policy_changes_no_value_and_no_gradient(scanned, policy, scan):
    params, state, x, expected = scanned
    model = stack(block(), 3, scan=scan, policy=POLICIES[policy])
    expect_close(trained(model, params, state, x), expected)


def test_a_stack_is_its_blocks_one_after_another_each_with_its_own_key(scanned):
    params, state, x, ((_, (y, new)), _) = scanned
    one, h, key = jax.jit(block().apply, static_argnames="train"), x, jax.random.key(1)
    for i in range(3):
        own, its_state = jax.tree.map(lambda leaf, i=i: leaf[i], (params, state))
        h, after = one(own, its_state, h, key=jax.random.fold_in(key, i), train=True)
        expect_close(after, jax.tree.map(lambda leaf, i=i: leaf[i], new))
    expect_close(h, y)


def test_a_block_starts_the_same_whatever_the_number_of_blocks(scanned):
    params, _, x, _ = scanned
    alone = jax.jit(block().init)(jax.random.fold_in(KEY, 2), x)[0]
    expect_close(jax.tree.map(lambda leaf: leaf[2], params), alone)
    five, _ = jax.jit(stack(block(), 5).init)(KEY, x)
    expect_close(jax.tree.map(lambda leaf: leaf[:3], five), params)


def test_a_stack_evaluates_without_a_key_and_keeps_its_state(scanned):
    params, state, x, _ = scanned
    _, after = stack(block(), 3).apply(params, state, x)
    expect_close(after, state)


def test_blocks_may_pass_pytrees_on():
    swap = stack(lambda pair: {"a": pair["b"], "b": pair["a"] + 1}, 3)
    y, _ = swap.apply({}, (), {"a": jnp.zeros(2), "b": jnp.ones(2)})
    assert y["a"].tolist() == [2.0, 2.0] and y["b"].tolist() == [2.0, 2.0]


def equations(jaxpr):
    """All equations of a jaxpr, those of its inner jaxprs included."""
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(list(equation.params.values())):
            inner = getattr(value, "jaxpr", value)  # of a closed jaxpr
            if hasattr(inner, "eqns"):
                yield from equations(inner)


def programs(n, scan):
    """Jaxprs of init and of a gradient step for n blocks."""
    x, model = jnp.zeros((5, 4)), stack(residual(block()), n, scan=scan)
    params, state = jax.eval_shape(model.init, KEY, x)

    def loss(params, state, x):
        return model.apply(params, state, x, key=jax.random.key(1), train=True)[0].sum()

    return (
        jax.make_jaxpr(model.init)(KEY, x).jaxpr,
        jax.make_jaxpr(jax.value_and_grad(loss))(params, state, x).jaxpr,
    )


def test_the_program_does_not_grow_with_the_number_of_blocks():
    sizes = {n: [sum(1 for _ in equations(p)) for p in programs(n, True)] for n in (12, 96)}
    assert sizes[12] == sizes[96]
    assert min(sizes[12]) > 10
    # The count does see growth where there is some.
    (_, two), (_, four) = programs(2, False), programs(4, False)
    assert sum(1 for _ in equations(four)) > 1.5 * sum(1 for _ in equations(two))


def test_small_leaves_of_a_scanned_block_are_in_memory_before_it_reads_them(scanned):
    params, state, x, _ = scanned
    compiled = jax.jit(lambda *given: stack(block(), 3).apply(*given)).lower(params, state, x)
    found = compiled.compile().as_text().count(" conditional(")
    assert found == (jax.default_backend() == "cpu")


def test_a_scanned_stack_has_forward_mode_derivatives_and_maps(scanned):
    params, state, x, _ = scanned
    scan, written_out = (stack(block(), 3, scan=scan) for scan in (True, False))

    def moved(model, x):
        return jax.jvp(lambda p: model.apply(p, state, x)[0], (params,), (params,))

    expect_close(jax.jit(partial(moved, scan))(x), jax.jit(partial(moved, written_out))(x))
    both = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), params)
    mapped = [
        jax.jit(jax.vmap(lambda p, m=model: m.apply(p, state, x)[0]))(both)
        for model in (scan, written_out)
    ]
    expect_close(*mapped)


def test_remat_changes_no_value_and_no_gradient(plain):
    params, state, x, expected = plain
    expect_close(trained(remat(block()), params, state, x), expected)


def test_remat_computes_again_what_the_policy_does_not_save():
    def products(layer):
        model = sequential(layer, jnp.sin)
        params, state = jax.eval_shape(model.init, KEY, jnp.zeros((2, 4)))
        loss = lambda p: model.apply(p, state, jnp.zeros((2, 4)))[0].sum()  # noqa: E731
        steps = equations(jax.make_jaxpr(jax.grad(loss))(params).jaxpr)
        return sum(e.primitive.name == "dot_general" for e in steps)

    layer = sequential(nn.linear(4), tanh, nn.linear(4))
    # Two forwards and three backwards (none for x); with remat also the first forward again, as
    # what the second one gives is not needed.
    assert products(layer) == 5
    assert products(remat(layer)) == 6
    assert products(remat(layer, POLICIES["products saved"])) == 5


def test_cast_computes_in_the_dtype_and_gives_back_what_came_in(plain):
    params, state, x, ((_, (full, statistics)), _) = plain
    model = cast(block(), jnp.bfloat16)
    program = jax.make_jaxpr(lambda p, s, x: model.apply(p, s, x)[0])(params, state, x)
    products = [e for e in equations(program.jaxpr) if e.primitive.name == "dot_general"]
    assert products and all(v.aval.dtype == jnp.bfloat16 for e in products for v in e.invars)
    ((_, (y, new)), grads) = trained(model, params, state, x)
    assert y.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves((new, grads))} == {jnp.dtype(jnp.float32)}
    # bfloat16 has 8 bits: a product of four terms is off by a few 2^-8.
    np.testing.assert_allclose(y, full, atol=0.05)
    # The statistics are those of x as bfloat16, taken and kept in float32.
    np.testing.assert_allclose(new["norm"]["mean"], statistics["norm"]["mean"], atol=1e-4)
    rounded = new["norm"]["mean"].astype(jnp.bfloat16).astype(jnp.float32)
    assert (rounded != new["norm"]["mean"]).any()


def test_cast_gives_float32_where_integers_came_in_and_float64_where_that_came_in():
    table = cast(lambda ids: jnp.ones((3, 2), jnp.bfloat16)[ids], jnp.bfloat16)
    assert table.apply({}, (), jnp.array([0, 2]))[0].dtype == jnp.float32
    with jax.enable_x64(True):
        y, _ = cast(jnp.sin, jnp.bfloat16).apply({}, (), jnp.ones(2, jnp.float64))
        assert y.dtype == jnp.float64


def test_parallel_gives_every_branch_the_same_input():
    x = jnp.asarray(normal(3, 4))
    model = parallel(wide=nn.linear(5), narrow=nn.linear(2))
    params, state = jax.jit(model.init)(KEY, x)
    outputs, _ = model.apply(params, state, x)
    for name, branch in {"wide": nn.linear(5), "narrow": nn.linear(2)}.items():
        assert (outputs[name] == branch.apply(params[name], (), x)[0]).all()
    listed = parallel(nn.linear(5), nn.linear(2), combine=lambda ys: jnp.concatenate(ys, 1))
    params, state = jax.eval_shape(listed.init, KEY, x)
    assert isinstance(params, list)
    assert output_of(listed, params, state, x).shape == (3, 7)


def test_adding_a_branch_changes_no_other():
    x = jnp.zeros((3, 4))
    one, two = (
        jax.jit(model.init)(KEY, x)[0]
        for model in (
            parallel(b=nn.linear(5)),
            parallel(a=nn.linear(5), b=nn.linear(5)),
        )
    )
    assert (one["b"]["kernel"] == two["b"]["kernel"]).all()
    assert (two["a"]["kernel"] != two["b"]["kernel"]).any()


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda x: stack(tanh, 0), "stack: expected n of at least 1, got 0"),
        (
            lambda x: jax.eval_shape(stack(nn.linear(3), 2).init, KEY, x),
            r"keep float32\[2,4\], got float32\[2,3",
        ),
        (lambda x: stack(lambda x: x[:1], 2).apply({}, (), x), "stack: expected the block to keep"),
        (
            lambda x: stack(lambda x: x.astype(jnp.bfloat16), 2).apply({}, (), x),
            r"got bfloat16\[2,4\]",
        ),
        (lambda x: parallel(), "parallel: expected layers by position or by name, got 0 and 0"),
        (lambda x: parallel(tanh, a=tanh), "parallel: expected layers by position or by name"),
        (lambda x: cast(tanh, jnp.int32), "cast: expected a floating dtype"),
    ],
)
def test_combinators_say_what_is_wrong(call, words):
    with pytest.raises(ValueError, match=words):
        call(jnp.ones((2, 4)))
