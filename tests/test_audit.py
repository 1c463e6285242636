"""The audit: every planted fault is found, and nothing is found where nothing is wrong."""

import functools
import inspect

import jax
import numpy as np
import pytest

from fnn import data
from fnn.data.audit._alignment import leave_one_out
from fnn.data.audit._duplicates import first_equal
from fnn.data.audit._near_duplicates import approximate_distances, exact_neighbors
from fnn.data.audit.findings import Limits
from fnn.types import Batch
from tests.test_sources import real

TRIALS = range(2)  # of 100 seeds each fault was found in every one


@functools.cache
def the_set(name):
    """Images, and features that are standardized, because wine's own are not."""
    x, y = data.load(name).train
    return Batch(x[:900], y[:900]) if x.ndim > 2 else Batch((x - x.mean(0)) / x.std(0), y)


def parts(whole, rng):
    order = rng.permutation(len(whole.y))
    n = int(0.7 * len(order))
    return {
        name: Batch(whole.x[rows], whole.y[rows])
        for name, rows in (("train", order[:n]), ("test", order[n:]))
    }


def put(splits, name, **change):
    return {**splits, name: splits[name]._replace(**change)}


def kinds(splits, **settings):
    return {one.kind for one in data.audit(splits, **settings)}


def copied(splits, rng, change):
    """Five examples of the training part, changed, in place of five of the test part."""
    train, test = splits["train"], splits["test"]
    i = rng.choice(len(train.y), 5, replace=False)
    x, y = test.x.copy(), test.y.copy()
    x[:5], y[:5] = change(train.x[i]), train.y[i]
    return put(splits, "test", x=x, y=y)


def leaked(splits, rng):
    return copied(splits, rng, lambda x: x)


def leaked_with_noise(splits, rng):
    def change(x):
        if x.ndim > 2:  # darker, with noise of 2 % of the range
            return x * rng.uniform(0.7, 1) + rng.normal(0, 0.02 * x.max(), x.shape)
        return x + rng.uniform(-0.025, 0.025, x.shape)  # rounded to 0.05 standard deviations

    return copied(splits, rng, change)


def of_one_label(splits, rng):
    return put(splits, "train", y=np.full_like(splits["train"].y, 1))


def shifted(splits, rng):
    return put(splits, "train", y=np.roll(splits["train"].y, rng.choice([-1, 1])))


def shuffled(splits, rng):
    return put(splits, "train", y=rng.permutation(splits["train"].y))


def imbalanced(splits, rng):
    x, y = splits["train"]
    rare = np.flatnonzero(y == 1)
    most = np.bincount(y)[[i for i in range(y.max() + 1) if i != 1]].max()
    keep = np.sort(np.concatenate([np.flatnonzero(y != 1), rare[: max(1, most // 15)]]))
    return put(splits, "train", x=x[keep], y=y[keep])


def any_feature(x, rng):
    """A column, or a pixel that is not at the border."""
    if x.ndim == 2:
        return np.s_[:, rng.integers(x.shape[1])]
    return np.s_[:, rng.integers(2, x.shape[1] - 2), rng.integers(2, x.shape[2] - 2)]


def stuck(splits, rng):
    x = splits["train"].x.copy()
    x[any_feature(x, rng)] = rng.choice([0, x.max()])
    return put(splits, "train", x=x)


def not_finite(splits, rng):
    x = splits["test"].x.copy()
    x[rng.integers(len(x))].flat[rng.integers(x[0].size)] = rng.choice([np.nan, np.inf])
    return put(splits, "test", x=x)


def unscaled(splits, rng):
    x = splits["train"].x.copy()
    where = any_feature(x, rng) if x.ndim == 2 else np.s_[:]
    x[where] = x[where] * 1000 if rng.integers(2) else x[where] + 1000
    return put(splits, "train", x=x)


def telling(splits, rng):
    where = any_feature(splits["train"].x, rng)
    made = dict(splits)
    for name, (x, y) in splits.items():
        x = x.copy()
        x[where] = y + rng.normal(0, 0.05, len(y))
        made[name] = Batch(x, y)
    return made


def drifted(splits, rng):
    x = splits["test"].x.copy()
    if x.ndim > 2:
        return put(splits, "test", x=0.8 * x + 0.1 * x.max())
    x[any_feature(x, rng)] += 1.5  # standard deviations
    return put(splits, "test", x=x)


FAULTS = {
    leaked: "duplicates",
    leaked_with_noise: "near-duplicates",
    of_one_label: "constant label",
    shifted: "shifted labels",
    shuffled: "unrelated labels",
    imbalanced: "imbalance",
    stuck: "constant feature",
    not_finite: "not finite",
    unscaled: "unscaled",
    telling: "leak",
    drifted: "drift",
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", ["digits", "wine", "breast_cancer"])
@pytest.mark.parametrize("plant", FAULTS, ids=lambda plant: plant.__name__)
def test_a_planted_fault_is_found(plant, name):
    for seed in TRIALS:
        rng = np.random.default_rng(seed)
        found = kinds(plant(parts(the_set(name), rng), rng), key=jax.random.key(seed))
        # A class that is missing, or a feature that is spoiled, in one split is a drift as well.
        assert FAULTS[plant] in found and found <= {FAULTS[plant], "drift", "label drift"}, seed


@pytest.mark.parametrize("name", ["digits", "wine", "breast_cancer"])
def test_nothing_is_found_in_random_splits_of_a_clean_set(name):
    for seed in TRIALS:
        splits = parts(the_set(name), np.random.default_rng(seed))
        assert not data.audit(splits, key=jax.random.key(seed)), seed


def test_the_sets_inside_scikit_learn_have_the_faults_that_are_known():
    published = {name: data.audit({"train": data.load(name).train}) for name in (
        "digits", "iris", "wine", "breast_cancer", "diabetes")}  # fmt: skip
    found = {name: [one.kind for one in made] for name, made in published.items()}
    assert found == {
        "digits": [],
        "iris": ["duplicates"],
        "wine": ["unscaled"],
        "breast_cancer": ["unscaled"],
        "diabetes": [],
    }
    (iris,) = published["iris"]
    assert iris.examples == ((101, 142),) and iris.numbers["copies"] == 1


@pytest.mark.slow
def test_mnist_is_clean():
    made = data.load("mnist", real("mnist"))
    assert not data.audit({"train": made.train, "test": made.test})


@pytest.mark.slow
def test_adult_has_the_duplicates_that_are_known():
    made = data.load("adult", real("adult"))
    found = data.audit({"train": made.train, "test": made.test})
    assert [(one.kind, one.where, one.numbers.get("copies")) for one in found] == [
        ("duplicates", "train", 25),
        ("duplicates", "test", 6),
        ("duplicates", "train and test", 26),
        ("unscaled", "train: fnlwgt, capital-gain, age", None),
    ]


def test_the_texts_as_published_are_clean_but_for_repeated_names():
    root = real("tinyshakespeare", "makemore-names")
    assert not data.audit({"train": data.load("tiny_shakespeare", root)})
    (found,) = data.audit({"train": data.load("names", root)})
    assert (found.kind, found.numbers["copies"]) == ("duplicates", 32_033 - 29_494)


CLEAN = "Das Größte: naïve café, “quoted” — 漢字 🙂, Ægir, 10 €, São Tomé\n"
BAD = {
    "replacement": "Gr\ufffd\ufffdte",
    "control characters": "a\0b\0",
    "stray marks": "\ufeffname",
    "mixed newlines": "one\r\ntwo\r\n",
    **{f"mojibake {s}": s.encode().decode("latin-1") for s in ("é", "ß", "漢", "🙂", "“a”")},
    "mojibake 1252": "“a” café".encode().decode("cp1252", errors="replace").replace("\ufffd", ""),
}


@pytest.mark.parametrize("name", BAD)
def test_text_that_was_decoded_wrongly_is_found(name):
    (found,) = data.audit({"train": [CLEAN, CLEAN + "plain", CLEAN + BAD[name]]})
    assert found.kind == (name.split()[0] if "mojibake" in name else name)
    assert found.examples == (2,)
    assert kinds({"train": CLEAN + BAD[name]}) == {found.kind}
    table = data.Table(columns={"a": np.array(["b", CLEAN, CLEAN + BAD[name]])})
    assert found.kind in kinds({"train": (table, None)})


def test_clean_text_has_no_findings():
    assert not data.audit({"train": [CLEAN, "plain\n"], "test": (["x", "y"], np.array([0, 1]))})
    assert not data.audit({"train": "one\r\ntwo\r\n"})  # all alike


def test_a_shift_in_a_set_that_is_sorted_by_class_is_not_found():
    x, y = the_set("wine")
    assert (np.diff(y) >= 0).all()
    assert "shifted labels" not in kinds({"train": (x, np.roll(y, 1))})


def test_equal_values_in_sorted_data_tell_nothing():
    x = np.random.default_rng(0).integers(2, size=(400, 3)).astype(np.float32)
    assert "leak" not in kinds({"train": (x, np.repeat([0, 1], 200))})


def test_values_that_are_shifted_shuffled_or_told_are_found():
    x, y = data.load("diabetes").train
    rng = np.random.default_rng(0)
    order = rng.permutation(len(y))
    x, y = x[order], y[order]
    assert not data.audit({"train": (x, y)})
    (found,) = data.audit({"train": (x, np.roll(y, -1))})
    assert found.kind == "shifted labels" and found.numbers["by rows"] == 1
    assert kinds({"train": (x, rng.permutation(y))}) == {"unrelated labels"}
    told = np.concatenate([x, y[:, None] / 1000], axis=1)
    assert kinds({"train": (told, y)}) == {"leak"}
    y[3] = np.nan
    assert kinds({"train": (x, y)}) == {"not finite"}


def test_labels_may_be_units_strings_or_arrays_of_jax():
    x, y = the_set("wine")
    wrong = np.random.default_rng(0).permutation(y)
    for labels in (np.eye(3)[wrong], np.array(["a", "b", "c"])[wrong], jax.numpy.asarray(wrong)):
        assert kinds({"train": (jax.numpy.asarray(x), labels)}) == {"unrelated labels"}


def test_leaving_an_example_out_in_closed_form_is_fitting_the_others():
    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(12, 3)), rng.normal(size=(12, 2))
    made = leave_one_out(z, y)
    for i in range(12):
        rest = np.arange(12) != i
        gram = z[rest].T @ z[rest] + 0.1 * 12 * np.eye(3)
        # Both are float64; the matrices are well-conditioned.
        np.testing.assert_allclose(
            made[i], z[i] @ np.linalg.solve(gram, z[rest].T @ y[rest]), rtol=1e-9
        )


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32, np.float64, np.bool_])
def test_equal_rows_are_found_and_no_others(dtype):
    rows = np.random.default_rng(0).integers(2, size=(300, 9)).astype(dtype)
    made = first_equal(rows, np.random.default_rng(1))
    seen = {}
    for i, row in enumerate(rows.tolist()):
        assert made[i] == seen.setdefault(tuple(row), i)


def test_a_zero_is_a_zero_and_a_nan_a_nan():
    rows = np.array([[0.0, np.nan], [-0.0, -np.nan], [np.nan, 0.0]])
    assert first_equal(rows, np.random.default_rng(0)).tolist() == [0, 0, 2]


def test_the_nearest_of_the_trees_are_those_of_all():
    x = np.random.default_rng(0).normal(size=(3000, 4)).astype(np.float32)
    exact = exact_neighbors(x, np.arange(3000))[1]
    made = approximate_distances(x, np.random.default_rng(0))
    # Distances by squares of float32 lose a few digits; a neighbor lost to a cut is far off.
    assert (np.abs(made - exact) < 1e-3).mean() > 0.8
    assert (made > exact - 1e-3).all()


def test_constant_pixels_at_the_border_are_no_fault():
    x = np.random.default_rng(0).normal(size=(60, 9, 9, 2))
    x[:, :3] = 0
    assert not data.audit({"train": (x, None)})
    x[:, 5, 5, 1] = 0
    (found,) = data.audit({"train": (x, None)})
    assert found.where == "train: (5, 5, 1)" and found.numbers["constant"] == 1


def test_a_channel_in_another_unit_is_found():
    x = np.random.default_rng(0).normal(size=(60, 6, 6, 3))
    assert not data.audit({"train": (x, None)})
    assert kinds({"train": (x * [1, 1, 300.0], None)}) == {"unscaled"}
    assert not data.audit({"train": ((40 * x + 128).clip(0, 255).astype(np.uint8), None)})


def test_categories_that_drift_and_classes_that_are_absent_are_found():
    rng = np.random.default_rng(0)

    def table(p, n):
        return data.Table(columns={
            "a": rng.normal(size=n), "b": rng.normal(size=n), "c": rng.choice(["x", "y"], n, p=p)
        })  # fmt: skip

    fair = [0.5, 0.5]
    assert not data.audit({"a": (table(fair, 400), None), "b": (table(fair, 400), None)})
    (found,) = data.audit({"a": (table(fair, 400), None), "b": (table([0.2, 0.8], 400), None)})
    assert (found.kind, found.where) == ("drift", "a and b: c")
    x, y = the_set("wine")
    found = kinds({"train": (x, y), "test": (x[y != 1] + 1, y[y != 1])})
    assert {"absent class", "label drift"} <= found


def test_a_limit_can_be_changed_and_a_key_only_moves_the_samples():
    x, y = the_set("breast_cancer")
    assert kinds({"train": (x, y)}, limits=Limits(imbalance=1.5)) == {"imbalance"}
    splits = shuffled({"train": Batch(x, y)}, np.random.default_rng(0))
    same = [data.audit(splits, key=jax.random.key(seed)) for seed in (0, 0, 1)]
    assert same[0] == same[1] != same[2]
    assert str(data.audit(splits)) == str(data.audit(splits))


def test_findings_print_as_a_table_of_aligned_columns():
    lines = str(data.audit({"train": data.load("iris").train})).splitlines()
    at = [lines[0].index(name) for name in ("kind", "where", "numbers", "advice")]
    assert [lines[1][i - 1 : i + 2].strip() for i in at[1:]] == ["tr", "co", "th"]
    assert "copies 1, of 150" in lines[1] and "(101, 142)" in " ".join(lines)
    assert all(len(line) <= 120 for line in lines)


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({}, "expected splits by name, got none"),
        (
            {"a": (np.zeros((3, 2)), np.zeros(2, int))},
            "a label for each of 3 examples of 'a', got 2",
        ),
        ({"a": (np.zeros((0, 2)), None)}, r"examples with features in 'a', got shape \(0, 2\)"),
        ({"a": np.zeros((3, 2))}, r"expected a batch \(x, y\) or texts for 'a', got a ndarray"),
    ],
)
def test_what_is_no_data_is_refused(splits, message):
    with pytest.raises(ValueError, match=f"audit: .*{message}"):
        inspect.unwrap(data.audit)(splits)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_tiny_splits_are_no_trouble(n):
    x = np.random.default_rng(0).normal(size=(n, 3))
    found = data.audit({"train": (x, np.arange(n)), "test": (x[:1] + 1, np.zeros(1, int))})
    assert not found


def rows_of(splits):
    return {name: Batch(x.reshape(len(x), -1), y) for name, (x, y) in splits.items()}


def one_pixel_off(x):
    return np.roll(x, 1, axis=2)


COPIES = {
    "noise of 1e-4": (lambda x, rng: x + rng.normal(0, 1e-4 * x.max(), x.shape), True),
    "noise of 2 %": (lambda x, rng: x + rng.normal(0, 0.02 * x.max(), x.shape), True),
    "other light": (lambda x, rng: 0.8 * x + 0.1 * x.max(), True),
    "one pixel off": (lambda x, rng: one_pixel_off(x), False),  # as images alone
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", COPIES)
def test_near_copies_are_found_as_images_and_as_rows(name):
    change, as_rows = COPIES[name]
    rng = np.random.default_rng(0)
    splits = copied(parts(the_set("digits"), rng), rng, lambda x: change(x, rng))
    for found in (splits, rows_of(splits))[: 1 + as_rows]:
        near = [one for one in data.audit(found) if one.kind == "near-duplicates"]
        assert ("train and test", 5) in [(one.where, one.numbers["pairs"]) for one in near]
        assert all(one.where != "train" for one in near)


def test_permuted_rows_are_copies():
    x, y = the_set("digits")
    order = np.random.default_rng(0).permutation(len(y))
    found = data.audit({"train": (x, y), "test": (x[order], y[order])})
    assert [(one.kind, one.numbers["copies"]) for one in found] == [("duplicates", len(y))]


def test_rows_of_counts_and_of_noise_have_no_near_copies():
    rng = np.random.default_rng(0)
    for x in (rng.poisson(0.3, (400, 20)) * 1.0, rng.poisson(0.05, (400, 80)) * 1.0,
              rng.normal(size=(400, 64)), np.exp(rng.normal(size=(400, 20))),
              np.exp(2 * rng.normal(size=(400, 80))), rng.uniform(size=(400, 9, 9))):  # fmt: skip
        assert "near-duplicates" not in kinds({"train": (x, None)})


def sentences(rng, n):
    words = np.array([f"word{i}" for i in range(300)])
    return [" ".join(rng.choice(words, rng.integers(5, 30))) for _ in range(n)]


def texts_with_a_word(rng, n):
    x = np.array(sentences(rng, n))
    y = rng.integers(2, size=n)
    return np.where(y == 1, np.char.add(x, " good"), x).tolist(), y


def tokens_with_one(rng, n):
    x, y = rng.integers(10, 300, (n, 20)), rng.integers(2, size=n)
    x[np.arange(n), rng.integers(20, size=n)] = np.where(y == 1, 7, 8)
    return x, y


def texts_in_a_table(rng, n):
    x, y = texts_with_a_word(rng, n)
    return data.Table(columns={"text": np.array(x), "n": rng.normal(size=n)}), y


def odd_numbers(rng, n):
    x = rng.integers(1000, size=(n, 4)).astype(np.float32)
    return x, (x[:, 2] % 2).astype(int)  # four examples in five have a neighbor of equal value


def one_of_many_categories(rng, n):
    codes = rng.integers(60, size=(n, 3))
    x = {f"c{i}": np.array([f"{c:02}" for c in column]) for i, column in enumerate(codes.T)}
    return data.Table(columns=x), rng.integers(2, size=60)[codes[:, 1]]


FOLLOWS = [texts_with_a_word, tokens_with_one, texts_in_a_table, odd_numbers,
           one_of_many_categories]  # fmt: skip


@pytest.mark.sampled(8)
@pytest.mark.parametrize("made", FOLLOWS, ids=lambda made: made.__name__)
def test_labels_that_follow_from_one_word_token_or_column_are_not_unrelated(made):
    for seed in TRIALS:
        rng = np.random.default_rng(seed)
        x, y = made(rng, 2000)
        assert kinds({"train": (x, y)}) <= {"leak", "unscaled", "duplicates"}, seed
        found = kinds({"train": (x, rng.permutation(y))})
        assert "unrelated labels" in found, seed


def test_a_column_of_categories_in_one_split_is_one_in_all():
    names = np.array(["7", "8", "a"])
    codes = np.random.default_rng(0).integers(2, size=400)
    train = data.Table(columns={"c": np.append(names[codes], "a")})
    later = data.Table(columns={"c": codes + 7.0}, written={"c": names[codes]})
    assert kinds({"train": (train, None), "test": (later, None)}) <= {"duplicates"}
