"""A change of the public API shows in review: `tests/api.txt` holds every name and signature."""

from pathlib import Path

from tests import api

ROOT = Path(__file__).parents[1]
# What a newcomer reads, in this order.
FIRST_READING = [
    "fnn/types.py", "fnn/train/step.py", "fnn/models/mlp.py", "experiments/digits.py",
]  # fmt: skip


def test_the_public_names_and_signatures_are_those_of_the_list():
    listed = (Path(__file__).parent / "api.txt").read_text().splitlines()
    now = list(api.lines())
    added, removed = sorted(set(now) - set(listed)), sorted(set(listed) - set(now))
    assert now == listed, (
        "the public API has changed; if that is meant, say python -m tests.api > tests/api.txt and "
        f"add a line to CHANGELOG.md\nadded: {added}\nremoved: {removed}"
    )


def test_the_first_reading_takes_at_most_700_lines():
    assert sum(len((ROOT / file).read_text().splitlines()) for file in FIRST_READING) <= 700
