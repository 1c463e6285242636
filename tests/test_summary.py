"""What a summary says agrees with what is computed, and it computes nothing."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn import models
from fnn.combinators import sequential, stack
from fnn.train import compile_cache, summary
from fnn.train.summary import count_flops
from fnn.types import Model

MLP = models.mlp(models.MLPConfig(widths=(8, 8), out_features=3, norm=models.batch_norm), rate=0.5)
X = np.zeros((4, 5), np.float32)
SPEC = jax.ShapeDtypeStruct


def test_leaves_counts_and_bytes_are_those_of_the_parameters():
    table = summary(MLP, X)
    params, model_state = MLP.init(jax.random.key(0), X)
    for leaves, values in ((table.params, params), (table.model_state, model_state)):
        arrays = jax.tree.leaves(values)
        assert [leaf.shape for leaf in leaves] == [a.shape for a in arrays]
        assert [leaf.dtype for leaf in leaves] == [a.dtype.name for a in arrays]
        assert [leaf.bytes for leaf in leaves] == [a.nbytes for a in arrays]
    assert table.count == sum(a.size for a in jax.tree.leaves(params))
    assert table.bytes == 4 * table.count
    assert (table.inputs, table.outputs) == ("float32[4,5]", "float32[4,3]")


def test_a_linear_map_costs_what_its_products_do():
    n, d, k = 16, 64, 32
    table = summary(models.dense(k, bias=False), SPEC((n, d), jnp.float32))
    product = 2 * n * d * k
    assert product <= table.forward_flops < 1.01 * product
    # The gradient to the kernel is one more product; the input needs none. The sum and the last
    # layer's cotangents are elementwise.
    assert 2 * product <= table.step_flops < 2.1 * product


@pytest.mark.parametrize(
    "make",
    [
        lambda n: (stack(models.dense(16), n), SPEC((4, 16), jnp.float32)),
        lambda n: (models.gru(8), SPEC((4, n, 6), jnp.float32)),
    ],
    ids=["layers of a stack", "steps of a recurrent layer"],
)
def test_what_a_scan_repeats_is_counted_as_often(make):
    few, many = (summary(*make(n)) for n in (5, 20))
    for name in ("forward_flops", "step_flops"):
        assert 3.8 < getattr(many, name) / getattr(few, name) <= 4.1, name


def test_scans_in_scans_are_multiplied():
    def nested(x):
        inner = lambda x, _: (x @ x, None)  # noqa: E731
        outer = lambda x, _: (jax.lax.scan(inner, x, None, length=3)[0], None)  # noqa: E731
        return jax.lax.scan(outer, jax.lax.scan(inner, x, None, length=2)[0], None, length=5)[0]

    product = 2 * 8**3
    flops = count_flops(jax.jit(nested), SPEC((8, 8), jnp.float32))
    assert 17 * product <= flops < 17.2 * product  # 2 + 5 * 3, and the counters of the loops


def test_nothing_is_computed():
    def never(*_):
        raise AssertionError("computed")

    inner = models.dense(4)

    def apply(params, model_state, x, *, key=None, train=False):
        jax.debug.callback(never)
        return inner.apply(params, model_state, x, key=key, train=train)

    huge = SPEC((10**6, 10**5), jnp.float32)  # 400 GB
    assert summary(Model(inner.init, apply), huge).count == 4 * 10**5 + 4


def test_models_of_trees_integers_and_no_parameters_have_a_summary():
    pair = (SPEC((2, 3), jnp.float32), SPEC((2, 4), jnp.float32))
    assert summary(models.bilinear(5), pair).inputs == "0: float32[2,3], 1: float32[2,4]"
    words = summary(sequential(models.embedding(7, 3), models.dense(2)), np.zeros((2, 4), np.int32))
    assert (words.inputs, words.outputs) == ("int32[2,4]", "float32[2,4,2]")
    empty = summary(models.flatten(), X)
    assert (empty.count, empty.bytes, empty.params) == (0, 0, ())
    assert "parameters: 0 (0 B)" in str(empty)


def test_the_table_has_a_line_for_each_leaf_and_the_totals():
    text = str(summary(MLP, X)).splitlines()
    assert text[0].split() == ["params", "shape", "dtype", "count", "bytes"]
    assert "head/kernel  " in "\n".join(text) and "model_state" in text
    assert [line.split(":")[0] for line in text[-5:]] == [
        "parameters",
        "input",
        "output",
        "forward",
        "forward and backward",
    ]
    assert len({len(line) for line in text if "float32 " in line}) == 1  # aligned to the right


CACHED = """
import sys, jax
from fnn.train import compile_cache
print(compile_cache(*sys.argv[1:]))
jax.jit(lambda x: x * 2 + 1)(1.0)
"""


def test_the_second_start_finds_what_the_first_compiled(tmp_path):
    def start(*arguments, **variables):
        environment = {**os.environ, "JAX_PLATFORMS": "cpu", **variables}
        ran = subprocess.run(
            [sys.executable, "-c", CACHED, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return ran.stdout.strip()

    assert start(str(tmp_path / "a")) == str(tmp_path / "a")
    entries = {f.name for f in (tmp_path / "a").iterdir() if f.name.endswith("-cache")}
    assert entries
    assert start(FNN_CACHE=str(tmp_path / "a")) == str(tmp_path / "a")
    assert {f.name for f in (tmp_path / "a").iterdir() if f.name.endswith("-cache")} == entries


def test_the_cache_is_in_the_users_own_by_default(tmp_path, monkeypatch):
    set_to = {}
    monkeypatch.setattr(jax.config, "update", set_to.__setitem__)
    monkeypatch.delenv("FNN_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert compile_cache() == tmp_path / "fnn" / "compiled"
    assert set_to["jax_compilation_cache_dir"] == str(tmp_path / "fnn" / "compiled")
    assert compile_cache(tmp_path / "own") == tmp_path / "own"


def test_a_cache_that_cannot_be_written_to_is_refused_with_the_remedy(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="got '.*file/a'.*; give another path, or set FNN_CACHE"):
        compile_cache(tmp_path / "file" / "a")
