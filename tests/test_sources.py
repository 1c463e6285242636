"""Files of data sets: the formats, where they are looked for, and the real ones where they are."""

import gzip
import io
import os
import pickle
import shutil
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fnn import data
from fnn.data._files import unpack

ROOT = Path(os.environ.get("FNN_DATA", Path(__file__).parents[2] / "shared" / "data"))
IMAGES = np.arange(2 * 32 * 32 * 3).reshape(2, 32, 32, 3).astype(np.uint8)
LABELS = np.array([3, 7], np.int32)


def real(*names):
    """The folder of the real files; a test that needs them is skipped without it."""
    if not all((ROOT / name).exists() for name in names):
        pytest.skip(f"needs the real files {names} in {ROOT}; set FNN_DATA to their folder")
    return ROOT


def idx(array, kind):
    header = bytes([0, 0, kind, array.ndim]) + struct.pack(f">{array.ndim}i", *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


@pytest.mark.parametrize(
    ("kind", "dtype"), [(8, "u1"), (9, "i1"), (11, "i2"), (12, "i4"), (13, "f4"), (14, "f8")]
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_an_idx_file_is_read_in_every_type(tmp_path, kind, dtype, pack):
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    (tmp_path / "a").write_bytes(pack(idx(array, kind)))
    read = data.read_idx(tmp_path / "a")
    assert read.dtype == array.dtype and read.dtype.isnative
    np.testing.assert_array_equal(read, array)


def test_what_is_no_idx_file_is_refused(tmp_path):
    (tmp_path / "text").write_text("hello")
    with pytest.raises(ValueError, match="read_idx: expected an idx file, got .*b'hell'"):
        data.read_idx(tmp_path / "text")
    (tmp_path / "short").write_bytes(idx(np.zeros(5, np.uint8), 8)[:-1])
    with pytest.raises(ValueError, match=r"expected 5 bytes .* shape \(5,\), got 4; fetch"):
        data.read_idx(tmp_path / "short")


def planes(images):
    return images.transpose(0, 3, 1, 2).reshape(len(images), -1)


def test_the_binary_format_of_cifar_is_read(tmp_path):
    records = np.concatenate([LABELS[:, None].astype(np.uint8), planes(IMAGES)], axis=1)
    for name, record in zip("ab", records, strict=True):
        record.tofile(tmp_path / name)
    x, y = data.read_cifar_binary(tmp_path / "a", tmp_path / "b")
    np.testing.assert_array_equal(x, IMAGES)
    np.testing.assert_array_equal(y, LABELS)
    (tmp_path / "a").write_bytes(b"123")
    with pytest.raises(ValueError, match="expected records of 3073 bytes, got 3 bytes"):
        data.read_cifar_binary(tmp_path / "a")


@pytest.mark.parametrize("protocol", [2, 5])
def test_the_python_format_of_cifar_is_read(tmp_path, protocol):
    made = {b"data": planes(IMAGES), b"labels": LABELS.tolist(), b"batch_label": b"1 of 1"}
    (tmp_path / "a").write_bytes(pickle.dumps(made, protocol))
    x, y = data.read_cifar_python(tmp_path / "a")
    np.testing.assert_array_equal(x, IMAGES)
    np.testing.assert_array_equal(y, LABELS)


class Harm:
    def __reduce__(self):
        return os.mkdir, ("harm",)


def test_nothing_in_a_pickle_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").write_bytes(pickle.dumps({b"data": Harm(), b"labels": []}))
    with pytest.raises(ValueError, match=r"read_cifar_python: .*it asks for posix.mkdir"):
        data.read_cifar_python(tmp_path / "a")
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("content", [pickle.dumps([1]), b"", b"no pickle"])
def test_what_is_no_batch_of_cifar_is_refused(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(ValueError, match="read_cifar_python: expected a"):
        data.read_cifar_python(tmp_path / "a")


def test_sheets_of_images_are_cut_in_rows(tmp_path):
    image = pytest.importorskip("PIL.Image")
    images = np.random.default_rng(0).integers(256, size=(6, 32, 32, 3)).astype(np.uint8)
    sheet = images.reshape(2, 3, 32, 32, 3).swapaxes(1, 2).reshape(64, 96, 3)
    image.fromarray(sheet).save(tmp_path / "sheet_0.png")
    np.arange(6, dtype=np.uint8).tofile(tmp_path / "labels")
    x, y = data.read_sheets(tmp_path, "sheet_*.png", "labels")
    np.testing.assert_array_equal(x, images)
    assert y.tolist() == list(range(6))
    np.arange(5, dtype=np.uint8).tofile(tmp_path / "labels")
    with pytest.raises(ValueError, match="a label for each of 6 images, got 5"):
        data.read_sheets(tmp_path, "sheet_*.png", "labels")
    with pytest.raises(ValueError, match="expected sheets none_"):
        data.read_sheets(tmp_path, "none_*.png", "labels")


def damaged(content):
    """A file cut at several lengths, one with bytes changed, and one of another format."""
    for keep in (0, 1, 3, 10, len(content) // 2, len(content) - 1):
        yield content[:keep]
    yield content[: len(content) // 2] + b"\xff" * 8 + content[len(content) // 2 + 8 :]
    yield b"<html>not found</html>"


def tar_of(name, content):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


NOISE = np.random.default_rng(0).integers(256, size=5000).astype(np.uint8)
PICKLE = pickle.dumps({b"data": NOISE[:3072][None], b"labels": [7]}, 2)
READERS = {  # a whole file, and what reads it
    "idx": (idx(NOISE, 8), data.read_idx),
    "idx.gz": (gzip.compress(idx(NOISE, 8)), data.read_idx),
    "csv.gz": (gzip.compress(b"a,b\n" + b"1,2\n" * 99), data.read_csv),
    "cifar.bin": (bytes([7]) + NOISE[:3072].tobytes(), data.read_cifar_binary),
    "cifar.pickle": (PICKLE, data.read_cifar_python),
    "tar.gz": (tar_of("in/a", NOISE.tobytes()), lambda p: unpack(p, "in", p.parent / "out")),
}


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_refused_by_its_name(tmp_path, name):
    whole, reader = READERS[name]
    file = tmp_path / name
    file.write_bytes(whole)
    reader(file)
    refused = 0
    for content in damaged(whole):
        file.write_bytes(content)
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        try:
            reader(file)  # bytes that have no checksum may be any
        except ValueError as error:
            assert str(file) in str(error)
            refused += 1
    assert refused >= 7
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]  # nothing half unpacked


def test_a_damaged_vocabulary_is_refused_by_its_name(tmp_path):
    pytest.importorskip("tokenizers")
    file = tmp_path / "vocabulary.json"
    data.train_subwords("low lower lowest", 260).save(file)
    for content in damaged(file.read_bytes()):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=f"Subwords.load: .*{file}"):
            data.Subwords.load(file)


def test_an_idx_header_of_nonsense_is_refused(tmp_path):
    for shape in [(2**31 - 1,) * 3, (-1, -5), (0, 7, -1)]:
        header = bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}i", *shape)
        (tmp_path / "a").write_bytes(header + bytes(5))
        with pytest.raises(ValueError, match="read_idx: expected .* bytes of data"):
            data.read_idx(tmp_path / "a")


FORGED = {
    "labels above 9": {b"data": planes(IMAGES), b"labels": [3, 10]},
    "too few labels": {b"data": planes(IMAGES), b"labels": [3]},
    "floats": {b"data": planes(IMAGES) * 1.5, b"labels": [3, 7]},
    "objects": {b"data": np.array([[None]]), b"labels": [3]},
    "no data": {b"labels": [3]},
}


@pytest.mark.parametrize("name", FORGED)
def test_a_pickle_of_other_images_or_labels_is_refused(tmp_path, name):
    (tmp_path / "a").write_bytes(pickle.dumps(FORGED[name]))
    with pytest.raises(ValueError, match=f"read_cifar_python: .*{tmp_path / 'a'}"):
        data.read_cifar_python(tmp_path / "a")


def test_a_forged_dtype_does_not_reach_numpy(tmp_path):
    class Forged:
        def __reduce__(self):
            return np.dtype, ("V8", False, True), (3, "|", None, None, None, 8, 1, 63)

    whole = pickle.dumps({b"data": Forged(), b"labels": [1]}, 2)
    (tmp_path / "a").write_bytes(whole)
    with pytest.raises(ValueError, match="read_cifar_python: expected a pickled dict"):
        data.read_cifar_python(tmp_path / "a")
    for content in (b"N" + b"r" + (2**27).to_bytes(4, "little") + b"0}.", b"\x8e" + b"\xff" * 7):
        (tmp_path / "a").write_bytes(content)
        with pytest.raises(ValueError, match="read_cifar_python: expected a pickled dict"):
            data.read_cifar_python(tmp_path / "a")


CSV = "age, work, sex\n39, 1.5, F\n?, x, M\n17,, F\n"


def test_a_csv_file_becomes_numbers_and_categories(tmp_path):
    (tmp_path / "a.csv").write_text(CSV)
    table = data.read_csv(tmp_path / "a.csv")
    assert (table.numeric, table.categorical, len(table)) == (("age",), ("work", "sex"), 3)
    np.testing.assert_array_equal(table.columns["age"], [39, np.nan, 17])
    assert table.columns["work"].tolist() == ["1.5", "x", ""]
    assert table.without("age").take([2]).columns["sex"].tolist() == ["F"]


def test_csv_files_that_hold_no_table_are_refused(tmp_path):
    for text in ("", "a,b\n"):
        (tmp_path / "a.csv").write_text(text)
        with pytest.raises(ValueError, match="read_csv: expected"):
            data.read_csv(tmp_path / "a.csv")


def test_columns_of_unequal_length_are_refused():
    with pytest.raises(ValueError, match="Table: expected columns of one length, got {'a': 1"):
        data.Table(columns={"a": np.zeros(1), "b": np.zeros(2)})


def test_an_encoder_is_undone_and_does_not_know_what_it_was_not_fitted_on(tmp_path):
    (tmp_path / "a.csv").write_text(CSV)
    table = data.read_csv(tmp_path / "a.csv")
    encoder = data.fit_encoder(table)
    x = encoder.apply(table)
    assert x.dtype == np.float32 and x.shape == (3, len(encoder.features))
    # float32 keeps seven digits.
    back = encoder.invert(x).columns
    np.testing.assert_allclose(back["age"], table.columns["age"], rtol=1e-6)
    assert back["sex"].tolist() == ["F", "M", "F"] and back["work"].tolist() == ["1.5", "x", ""]
    strange = data.Table(columns={**table.columns, "sex": np.array(["F", "X", ""])})
    assert encoder.codes(strange)[:, 1].tolist() == [1, 0, 0]
    assert encoder.invert(encoder.apply(strange)).columns["sex"].tolist() == ["F", "", ""]
    with pytest.raises(ValueError, match=r"Encoder: .* none named \['sex'\]"):
        encoder.apply(table.without("sex"))


def test_a_column_that_does_not_vary_becomes_zeros_and_an_empty_one_is_refused():
    constant = data.Table(columns={"a": np.ones(3)})
    assert data.fit_encoder(constant).apply(constant).tolist() == [[0], [0], [0]]
    with pytest.raises(ValueError, match="fit_encoder: expected numbers in column 'a'"):
        data.fit_encoder(data.Table(columns={"a": np.full(3, np.nan)}))
    with pytest.raises(ValueError, match="fit_encoder: expected at least one row"):
        data.fit_encoder(data.Table(columns={"a": np.zeros(0)}))


@settings(max_examples=30)
@given(st.text())
def test_bytes_and_characters_of_any_text_come_back(text):
    assert data.decode_bytes(data.encode_bytes(text)) == text
    characters = data.Characters.of(text)
    tokens = characters.encode(text)
    assert tokens.dtype == np.int32 and (tokens < len(characters)).all()
    assert characters.decode(tokens) == text


def test_an_unknown_character_is_refused():
    with pytest.raises(ValueError, match=r"Characters.encode: .* got \['z'\]"):
        data.Characters.of("abc").encode("az")


def test_subwords_of_any_text_come_back_and_are_fewer_than_its_bytes(tmp_path):
    pytest.importorskip("tokenizers")
    text = "the quick brown fox jumps over the lazy dog\n" * 20
    subwords = data.train_subwords(text, 300)
    subwords.save(tmp_path / "vocabulary.json")
    again = data.Subwords.load(tmp_path / "vocabulary.json")
    for sample in (text, "Größe\t漢字 🙂", ""):
        assert again.decode(subwords.encode(sample)) == sample
    assert len(subwords.encode(text)) < len(data.encode_bytes(text)) / 2
    assert len(subwords) <= 300
    with pytest.raises(ValueError, match="train_subwords: expected at least the 256 bytes"):
        data.train_subwords(text, 100)


def test_a_name_that_is_no_data_set_is_refused():
    with pytest.raises(ValueError, match="data.load: expected one of .*'mnist'.* got 'minst'"):
        data.load("minst")


def test_files_that_are_nowhere_are_missed_with_the_places(tmp_path, monkeypatch):
    places = f"{tmp_path}/mnist, {tmp_path}, got no such files; name a folder"
    with pytest.raises(FileNotFoundError, match=places):
        data.load("mnist", tmp_path)
    with pytest.raises(FileNotFoundError, match="data_batch_1.bin"):
        data.load("cifar10", tmp_path)


@pytest.mark.parametrize("by", ["argument", "variable", "cache"])
def test_files_are_found_by_argument_by_variable_and_in_the_cache(tmp_path, monkeypatch, by):
    folder = tmp_path / ("fnn/makemore-names" if by == "cache" else "makemore-names")
    folder.mkdir(parents=True)
    (folder / "names.txt").write_text("emma\nolivia")
    monkeypatch.delenv("FNN_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path if by == "cache" else tmp_path / "none"))
    if by == "variable":
        monkeypatch.setenv("FNN_DATA", str(tmp_path))
    assert data.load("names", tmp_path if by == "argument" else None) == ("emma", "olivia")


def test_what_is_fetched_is_checked_against_its_digest(tmp_path, monkeypatch):
    pooch = pytest.importorskip("pooch")
    monkeypatch.delenv("FNN_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def download(url, output_file, *rest):
        Path(output_file).write_text("not the names")

    monkeypatch.setattr(pooch.core, "choose_downloader", lambda *a, **k: download)
    with pytest.raises(FileNotFoundError, match="fetching https://.*names.txt failed: .*SHA256"):
        data.load("names")
    assert not (tmp_path / "fnn/makemore-names/names.txt").exists()


SKLEARN = {
    "digits": ((1797, 8, 8), 10),
    "iris": ((150, 4), 3),
    "wine": ((178, 13), 3),
    "breast_cancer": ((569, 30), 2),
    "diabetes": ((442, 10), 0),
}


@pytest.mark.parametrize("name", SKLEARN)
def test_the_sets_inside_scikit_learn_are_loaded(name):
    shape, classes = SKLEARN[name]
    made = data.load(name)
    assert made.train.x.shape == shape and made.train.x.dtype == np.float32
    assert len(made.classes) == classes
    assert made.train.y.dtype == (np.int32 if classes else np.float32)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_mnist_and_fashion_mnist_are_as_published(name):
    made = data.load(name.replace("-", "_"), real(name))
    assert made.train.x.shape == (60000, 28, 28) and made.test.x.dtype == np.uint8
    assert made.test.y.shape == (10000,) and set(made.train.y) == set(range(10))
    assert len(made.classes) == 10


def test_cifar_10_is_as_published():
    made = data.load("cifar10", real("cifar10"))
    assert made.train.x.shape == (50000, 32, 32, 3)
    assert np.bincount(made.test.y).tolist() == [1000] * 10


def test_adult_is_as_published():
    made = data.load("adult", real("adult"))
    assert len(made.train.x) == 32561 and len(made.test.x) == 16281
    assert made.train.y.sum() == 7841 and made.test.y.sum() == 3846
    assert len(made.train.x.categorical) == 8
    assert (made.train.x.columns["occupation"] == "").sum() == 1843  # '?' in the file


def test_the_texts_are_as_published():
    root = real("tinyshakespeare", "makemore-names")
    assert len(data.load("tiny_shakespeare", root)) == 1_115_394
    assert len(data.load("names", root)) == 32_033
