"""Builds the sdist and the wheel, checks what they contain and trains XOR from the wheel alone.

`python tests/package_smoke.py --out dist --fresh` is the check of a release: the backend is
installed for the build, and the wheel with its required dependencies into a new environment.
Without `--fresh` nothing is downloaded: the backend (hatchling) is the installed one, and the wheel
is unpacked beside the installed dependencies, with the extras hidden.
"""

import argparse
import importlib.util
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
EXTRAS = [
    "flatbuffers", "matplotlib", "optax", "pandas", "pooch", "rich", "safetensors", "sklearn",
    "tensorboardX", "tokenizers", "torch", "tqdm", "tyro",
]  # fmt: skip

# Runs in the directory of the environment. Its first argument is a directory to import from, or "".
TRAIN_XOR = f"""
import sys
from importlib.metadata import version

sys.path[:0] = [path for path in sys.argv[1:] if path]
sys.modules.update(dict.fromkeys({EXTRAS}))  # importing one of them raises ImportError

import jax
import numpy as np

import fnn
from fnn import Batch, Data, Recipe, losses, metrics, nn, optim, schedules
from fnn.train import fit, silent

assert fnn.__file__.startswith(sys.argv[1] or sys.prefix), fnn.__file__
assert version("fnn") == fnn.__version__, (version("fnn"), fnn.__version__)

x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]] * 8, np.float32)
xor = Batch(x, (x[:, 0] != x[:, 1]).astype(np.int32))


def recipe(hyper):
    return Recipe(
        model=nn.sequential(nn.linear(16), jax.nn.relu, nn.linear(2)),
        loss=losses.cross_entropy,
        optimizer=optim.adam(),
        schedule=schedules.constant(hyper["lr"]),
        metrics={{"accuracy": metrics.accuracy()}},
    )


result = fit(recipe, Data(train=xor, valid=xor), key=jax.random.key(0), hyper={{"lr": 0.05}},
             steps=200, batch_size=32, progress=silent)
accuracy = float(result.history.valid["accuracy"][-1])
assert accuracy == 1.0, accuracy
print(f"fnn {{fnn.__version__}}, JAX {{jax.__version__}}: XOR with accuracy {{accuracy:.0%}}")
"""


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    """Standard output of a command; raises SystemExit with all output if it fails."""
    done = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command[:4]))} ...\n{done.stdout}{done.stderr}")
    return done.stdout


def build(out: Path, isolated: bool) -> tuple[Path, Path]:
    """Builds the sdist, and the wheel from it, into `out`; returns their paths."""
    if isolated:
        run(sys.executable, "-m", "build", "--outdir", out, ROOT)
    else:  # what `build` runs, without an environment of its own
        backend = "import sys; from hatchling.build import build_sdist as b; print(b(sys.argv[1]))"
        name = run(sys.executable, "-c", backend, out).split()[-1]
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet"]
        run(*pip, "--no-index", "--no-deps", "--no-build-isolation", "-w", out, out / name)
    (sdist,), (wheel,) = out.glob("fnn-*.tar.gz"), out.glob("fnn-*.whl")
    return sdist, wheel


def package_files() -> set[str]:
    """The files of the package in this checkout, as paths in the wheel."""
    files = [p.relative_to(ROOT) for p in (ROOT / "fnn").rglob("*") if p.is_file()]
    return {p.as_posix() for p in files if "__pycache__" not in p.parts}


def check_contents(sdist: Path, wheel: Path) -> None:
    """Raises AssertionError if the wheel is not the package alone or the sdist lacks a part."""
    names = zipfile.ZipFile(wheel).namelist()
    info = f"{'-'.join(wheel.name.split('-')[:2])}.dist-info/"
    files = {name for name in names if not name.startswith(info)}
    assert "fnn/py.typed" in files
    assert files == package_files(), f"in one only: {sorted(files ^ package_files())}"
    assert f"{info}licenses/LICENSE" in names
    folder = sdist.name.removesuffix(".tar.gz")
    contents = {n.removeprefix(f"{folder}/") for n in tarfile.open(sdist).getnames()}
    needed = {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "tests/package_smoke.py"}
    assert contents >= files | needed, f"sdist lacks {sorted((files | needed) - contents)}"


def train_beside_dependencies(wheel: Path, work: Path) -> str:
    """Trains from the unpacked wheel with the dependencies of this interpreter."""
    site = work / "site"
    zipfile.ZipFile(wheel).extractall(site)
    return run(sys.executable, "-c", TRAIN_XOR, site, cwd=work)


def train_in_new_environment(wheel: Path, work: Path) -> str:
    """Trains in a new environment that holds only the wheel and its required dependencies."""
    venv.create(work / "venv", with_pip=True)
    python = work / "venv" / "bin" / "python"
    run(python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", wheel)
    run(python, "-m", "pip", "check")
    return run(python, "-c", TRAIN_XOR, "", cwd=work)


def can_build() -> bool:
    """Whether the backend is installed, which a build without downloads needs."""
    return importlib.util.find_spec("hatchling") is not None


def main(out: Path | None = None, fresh: bool = False) -> str:
    """Builds, checks and trains; returns what the training printed."""
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        out = (out or work / "dist").absolute()
        out.mkdir(parents=True, exist_ok=True)
        sdist, wheel = build(out, isolated=fresh)
        check_contents(sdist, wheel)
        return (train_in_new_environment if fresh else train_beside_dependencies)(wheel, work)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="an empty or new directory for sdist and wheel")
    parser.add_argument("--fresh", action="store_true", help="download; use new environments")
    arguments = parser.parse_args()
    print(main(arguments.out, arguments.fresh), end="")
