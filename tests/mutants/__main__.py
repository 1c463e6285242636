"""The mutation score of the laws: `python -m tests.mutants [kind ...]`.

Every check runs on the correct base of each family and on its bugs, at three levels: with default
arguments, with declared properties, and with a reference. A base that does not pass voids its
family. The table by kind is printed; `--bugs` names the bugs that are missed, but for those held
out, which are only counted; `--docs` writes the table into the documentation.
"""

import argparse
import collections
import importlib
import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
)

import jax

from fnn import testing
from fnn.testing import laws_of
from fnn.testing.battery import Law
from tests.mutants.family import LEVELS, Family, is_held_out

OTHERS = ("__main__", "family", "correct")


def _files():
    """The modules with families."""
    import pkgutil

    import tests.mutants

    return [
        file for file in pkgutil.iter_modules(tests.mutants.__path__) if file.name not in OTHERS
    ]


def families() -> list[Family]:
    """All families, of every module that exists."""
    found = [importlib.import_module(f"tests.mutants.{file.name}") for file in _files()]
    return [family for module in found for family in module.FAMILIES]


def laws(kind: str, thing, args, options) -> list[Law]:
    """The laws of a thing."""
    return getattr(laws_of, kind).__wrapped__(thing, *args, **options)


def broken(kind: str, thing, args, options) -> list[str]:
    """Names of the broken laws; 'arguments' if the check does not take the thing."""
    try:
        given = laws(kind, thing, args, options)
    except Exception as error:
        return [f"arguments ({type(error).__name__}: {error})"]
    found = []
    for law in given:
        if law.skipped:
            continue
        try:
            law()
        except testing.LawError as error:
            found.append(f"{law.name}: {error}")
    return found


def caught_at(family: Family, thing) -> tuple[str | None, list[str]]:
    """The first level that finds a bug, and the laws that it breaks there."""
    for level in LEVELS:
        found = broken(family.kind, thing, family.args, family.options(level))
        if found:
            return level, found
    return None, []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*")
    parser.add_argument("--bugs", action="store_true", help="name the bugs that are missed")
    parser.add_argument("--bases", action="store_true", help="run the correct bases only")
    parser.add_argument("--name", default="", help="families whose names have this in them")
    parser.add_argument("--json", type=Path, help="write the results there")
    given = parser.parse_args()
    score: dict = collections.defaultdict(collections.Counter)
    by_law: collections.Counter = collections.Counter()
    rows = []
    for family in families():
        if (given.kinds and family.kind not in given.kinds) or given.name not in family.name:
            continue
        start = time.perf_counter()
        for level in LEVELS:
            found = broken(family.kind, family.base, family.args, family.options(level))
            if found:
                print(f"FALSE ALARM {family.kind}/{family.name} ({level}):")
                for line in found:
                    print("   ", line[:300].replace("\n", " "))
                score[family.kind]["void"] += 1
                break
        took = time.perf_counter() - start
        if took > 30:
            print(f"slow: {family.kind}/{family.name}: {took:.0f} s for the base")
        if given.bases or found:
            continue
        for bug, thing in family.bugs.items():
            level, laws_ = caught_at(family, thing)
            held_out = is_held_out(family, bug)
            score[family.kind]["bugs"] += 1
            score["held out" if held_out else "seen"]["bugs"] += 1
            for name in LEVELS[LEVELS.index(level) :] if level else ():
                score[family.kind][name] += 1
                score["held out" if held_out else "seen"][name] += 1
            rows.append([family.kind, family.name, bug, held_out, level, laws_])
            if laws_ and not held_out:
                by_law[laws_[0].split(":")[0]] += 1
            if given.bugs and level != "generic" and not held_out:
                print(f"{level or 'MISSED'}: {family.kind}/{family.name}: {bug}", flush=True)
        jax.clear_caches()
        sys.stdout.flush()
    total: collections.Counter = collections.Counter()
    for kind, counts in score.items():
        if kind not in ("seen", "held out"):
            total += counts
    print(f"\n| kind | bugs | {' | '.join(LEVELS)} |\n|---|---|---|---|---|")
    for kind, counts in [*score.items(), ("all", total)]:
        n = max(counts["bugs"], 1)
        cells = [f"{counts[level]} = {100 * counts[level] / n:.0f} %" for level in LEVELS]
        print(f"| {kind} | {counts['bugs']} | {' | '.join(cells)} |")
    print("void families:", total["void"])
    print("laws:", ", ".join(f"{name} {count}" for name, count in by_law.most_common()))
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
