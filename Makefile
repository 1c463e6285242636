# make run: train the main job.  make test: pass the tests.  make check: formatter, linter, types.
# Each sets up what it needs; a second call finds it in place. make run ARGS="--seed 3" passes options.
PYTHON ?= python3
BIN := .venv/bin
ARGS ?=

.PHONY: run test test-all test-tpu check format docs clean
.NOTPARALLEL:

run: .venv/run-ready
	$(BIN)/python experiments/digits.py $(ARGS)

test: .venv/ready
	$(BIN)/python -m pytest -q

# As users compile it, and with the tests that take long: every row of the registry, every law.
test-all: .venv/ready
	XLA_FLAGS= $(BIN)/python -m pytest -q -m 'slow or not slow'

# The steps of the models, compiled for a TPU v5e by its own compiler; no TPU is needed.
test-tpu: .venv-tpu/ready
	XLA_FLAGS= JAX_PLATFORMS=cpu .venv-tpu/bin/python -m pytest -q -n 1 -m slow tests/test_tpu_compile.py

check: .venv/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: .venv/ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The site, into site/: no request leaves the machine, neither now nor when a page is read.
docs: .venv/docs-ready
	NO_MKDOCS_2_WARNING=1 JAX_PLATFORMS=cpu $(BIN)/mkdocs build --quiet

# To train, to develop, to build the documentation.
.venv/run-ready: EXTRA := experiments
.venv/ready: EXTRA := dev
.venv/docs-ready: EXTRA := docs
.venv/run-ready .venv/ready .venv/docs-ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "fnn needs Python 3.11 or newer; say make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$(EXTRA)]'
	touch .venv/run-ready $@

.venv-tpu/ready: pyproject.toml
	$(PYTHON) -m venv .venv-tpu
	.venv-tpu/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[test,tpu-compile]'
	touch $@

clean:
	rm -rf .venv .venv-tpu runs site .pytest_cache .mypy_cache .ruff_cache
