"""Keys by name."""

import jax
import pytest

from fnn.keys import RunKeys, fold_name, run_keys


def bits(key):
    return tuple(jax.random.key_data(key).tolist())


def test_a_name_gives_the_same_stream_every_time():
    assert bits(fold_name(jax.random.key(3), "kernel")) == bits(
        fold_name(jax.random.key(3), "kernel")
    )


def test_a_stream_is_the_same_in_every_process():
    # The number is the CRC-32 of the name; Python's own hash changes from process to process.
    expected = jax.random.fold_in(jax.random.key(0), 1574083243)
    assert bits(fold_name(jax.random.key(0), "kernel")) == bits(expected)


def test_names_and_keys_give_different_streams():
    names = ["kernel", "bias", "scale", "a", "b", "", "layers/0", "é"]
    streams = [bits(fold_name(jax.random.key(seed), n)) for seed in (0, 1) for n in names]
    assert len(set(streams)) == len(streams)


def test_folding_does_not_consume_the_key():
    key = jax.random.key(0)
    fold_name(key, "a")
    fold_name(key, "b")
    jax.random.normal(key)


def test_the_streams_of_a_run_are_named():
    key = jax.random.key(7)
    keys = run_keys(key)
    assert isinstance(keys, RunKeys)
    assert {name: bits(stream) for name, stream in keys._asdict().items()} == {
        name: bits(fold_name(key, name)) for name in ("init", "order", "noise")
    }


@pytest.mark.parametrize("count", [1, 3])
def test_folding_works_under_jit_and_vmap(count):
    keys = jax.random.split(jax.random.key(0), count)
    under = jax.jit(jax.vmap(lambda key: fold_name(key, "kernel")))(keys)
    assert [bits(key) for key in under] == [bits(fold_name(key, "kernel")) for key in keys]
