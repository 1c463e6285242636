import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fnn import checkpoint
from fnn.checkpoint import RunDir
from tests.tiny import assert_same_bits

TREE = {
    "w": np.arange(6, dtype=np.float32).reshape(2, 3),
    "layers": [{"b": jnp.ones(2, jnp.bfloat16)}, {"b": np.array(3, np.int32)}],
    "flags": np.array([True, False]),
    "empty": np.zeros((0, 2), np.float32),
}


@pytest.fixture
def path(tmp_path):
    checkpoint.save(tmp_path / "a.safetensors", TREE, {"step": 3, "text": "ü/∞"})
    return tmp_path / "a.safetensors"


def test_what_is_loaded_is_what_was_saved(path):
    values, meta = checkpoint.load(path, TREE)
    assert_same_bits(TREE, values)
    assert [v.dtype for v in jax.tree.leaves(values)] == [v.dtype for v in jax.tree.leaves(TREE)]
    assert jax.tree.structure(values) == jax.tree.structure(TREE)
    assert meta == {"step": 3, "text": "ü/∞"}


def test_the_official_reader_reads_it(path):
    from safetensors.numpy import load_file

    np.testing.assert_array_equal(load_file(path)["w"], TREE["w"])


def test_no_flipped_bit_goes_unnoticed(path):
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    # Every bit of a small file would take long; 300 at random, header and data alike.
    for position, bit in rng.integers((len(content), 8), size=(300, 2)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << int(bit)
        path.write_bytes(bytes(damaged))
        try:
            values, meta = checkpoint.load(path, TREE)
        except ValueError as error:
            assert "checkpoint.load" in str(error)
        else:  # a flip that changes no value, as in the padding of the header
            assert_same_bits(TREE, values)
            assert meta == {"step": 3, "text": "ü/∞"}, (position, bit)


def test_a_damaged_leaf_is_named(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1  # in the last array of the file
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match=r"checksums of .* to hold, got damage in \['"):
        checkpoint.load(path, TREE)


@pytest.mark.parametrize("keep", [0, 1, 7, 8, 100, -1])
def test_a_truncated_file_is_refused(path, keep):
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match="damaged or foreign"):
        checkpoint.load(path, TREE)


def test_another_models_checkpoint_is_refused_with_every_difference(path):
    other = {
        "w": np.zeros((3, 3), np.float32),
        "layers": [{"b": np.zeros(2, np.float32)}],
        "flags": TREE["flags"],
        "new": np.zeros(1, np.float32),
    }
    with pytest.raises(ValueError) as caught:
        checkpoint.load(path, other)
    text = str(caught.value)
    assert "w: expected float32[3,3], got float32[2,3]" in text
    assert "layers/0/b: expected float32[2], got bfloat16[2]" in text
    assert "new: expected float32[1], got no such leaf" in text
    assert "layers/1/b: expected no such leaf, got int32[]" in text
    assert "empty: expected no such leaf" in text


def test_a_failed_write_leaves_the_old_file_and_no_temporary_one(path, monkeypatch):
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(path, TREE, {"step": 4})
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_keys_are_refused_with_the_remedy(tmp_path):
    with pytest.raises(ValueError, match="got a key at 'k'; store jax.random.key_data"):
        checkpoint.save(tmp_path / "x", {"k": jax.random.key(0)})


DTYPES = [
    *("bool", "int2", "int4", "int8", "int16", "int32", "int64"),
    *("uint2", "uint4", "uint8", "uint16", "uint32", "uint64"),
    *("float4_e2m1fn", "float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz", "float8_e4m3fn"),
    *("float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"),
    *("bfloat16", "float16", "float32", "float64", "complex64", "complex128"),
]


@pytest.mark.parametrize("shape", [(), (5,), (0, 2)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_comes_back(tmp_path, dtype, shape):
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        leaf = jnp.asarray(np.asarray(rng.integers(0, 2, shape), np.float32).astype(dtype))
        checkpoint.save(tmp_path / "a", {"leaf": leaf})
        (loaded,) = checkpoint.load(tmp_path / "a", {"leaf": leaf})[0].values()
        assert loaded.dtype == leaf.dtype == dtype and loaded.shape == shape
        assert np.asarray(loaded).tobytes() == np.asarray(leaf).tobytes()


def test_a_dtype_of_another_name_is_no_match(tmp_path):
    leaf = jnp.ones(3, jnp.float8_e4m3fn)
    checkpoint.save(tmp_path / "a", {"w": leaf})
    with pytest.raises(ValueError, match=r"w: expected float8_e5m2\[3\], got float8_e4m3fn\[3\]"):
        checkpoint.load(tmp_path / "a", {"w": leaf.astype(jnp.float8_e5m2)})


@pytest.mark.parametrize("leaf", [True, 3, 2.5, 1j, np.float32(0.1), np.float64(0.1)])
def test_scalars_come_back_as_jax_has_them(tmp_path, leaf):
    checkpoint.save(tmp_path / "a", {"a": leaf})
    loaded = checkpoint.load(tmp_path / "a", {"a": leaf})[0]["a"]
    assert loaded == jnp.asarray(leaf) and loaded.dtype == jnp.asarray(leaf).dtype


@pytest.mark.parametrize(
    "leaf",
    ["text", np.array(["a"]), np.array([1, None]), object(), np.longdouble(1), 2**40,
     np.zeros(2, jax.dtypes.float0), np.datetime64("2020-01-01"), np.ma.masked_array([1], [1])],
    ids=lambda leaf: type(leaf).__name__,
)  # fmt: skip
def test_what_is_no_number_of_jax_is_refused_before_anything_is_written(tmp_path, leaf):
    with pytest.raises(ValueError, match="checkpoint.save: expected arrays of numbers .* at 'a/b'"):
        checkpoint.save(tmp_path / "a", {"a": {"b": leaf}})
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="checkpoint.save: expected meta that JSON can hold"):
        checkpoint.save(tmp_path / "a", {}, {"leaf": np.int64(1)})


@pytest.mark.parametrize("leaf", [np.int64(2**40), np.float64(1e300), np.float64(1e-300)])
def test_64_bits_are_not_narrowed_to_another_number(tmp_path, leaf):
    checkpoint.save(tmp_path / "a", {"a": leaf})
    with pytest.raises(ValueError, match="at 'a' in .* load it with jax_enable_x64"):
        checkpoint.load(tmp_path / "a", {"a": leaf})
    with jax.enable_x64(True):
        assert checkpoint.load(tmp_path / "a", {"a": leaf})[0]["a"] == leaf


def test_a_directory_and_a_foreign_header_are_refused_by_name(tmp_path):
    from safetensors.numpy import save_file

    with pytest.raises(ValueError, match=f"checkpoint of fnn in {tmp_path}, got a damaged"):
        checkpoint.load(tmp_path, {})
    for changed in ({"crc32": "5"}, {"crc32": "[]"}, {"format": "fnn-99"}, {"dtypes": "7"}):
        header = {"format": "fnn-1", "meta": "{}", "crc32": "{}"} | changed
        save_file({"a": np.ones(1, np.float32)}, tmp_path / "a", metadata=header)
        with pytest.raises(
            ValueError,
            match="load: expected (a checkpoint of fnn|the format 'fnn-1') in",
        ):
            checkpoint.load(tmp_path / "a", {"a": np.ones(1, np.float32)})


@pytest.mark.parametrize("line", [b"[]", b"5", b"{}", b'{"step": "a"}', b"\xff"])
def test_a_log_with_a_line_that_is_no_row_is_refused_by_name(tmp_path, line):
    run = RunDir(tmp_path)
    run.log([{"step": 0, "loss": 1.0}])
    with open(tmp_path / "metrics.jsonl", "ab") as file:
        file.write(line + b"\n")
    with pytest.raises(ValueError, match="RunDir: expected .*metrics.jsonl"):
        run.rows(up_to_step=9)


leaves = st.sampled_from([np.float32, np.int8, np.uint32, np.bool_, jnp.bfloat16]).flatmap(
    lambda dtype: st.lists(st.integers(0, 3), max_size=3).map(lambda shape: np.ones(shape, dtype))
)
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3),
        st.dictionaries(st.text("ab./é ", min_size=1, max_size=4), inner, min_size=1, max_size=3),
    ),
    max_leaves=6,
)


@given(tree=trees)
@settings(deadline=None, derandomize=True, max_examples=50)
def test_any_tree_comes_back_or_is_refused_for_paths_that_coincide(tree, tmp_path_factory):
    path = tmp_path_factory.mktemp("any") / "t.safetensors"
    try:
        checkpoint.save(path, tree)
    except ValueError as error:
        assert "two leaves" in str(error)  # {'a/b': 1} and {'a': {'b': 1}} have one path
        return
    values, _ = checkpoint.load(path, tree)
    assert_same_bits(tree, values)
    assert jax.tree.structure(values) == jax.tree.structure(tree)


def test_rows_after_the_checkpoint_and_torn_ones_leave_the_log(tmp_path):
    run = RunDir(tmp_path)
    run.log([{"step": i, "loss": float(i)} for i in range(4)])
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 4, "lo')
    assert [row["step"] for row in run.rows(up_to_step=2)] == [0, 1, 2]
    run.log([{"step": 3, "loss": float("nan")}])
    assert run.rows(up_to_step=9)[-1] == {"step": 3, "loss": None}
