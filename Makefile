# `make demo`, `make demo-localise` and `make test` need Python 3.11 to 3.13 and nothing else: each makes .venv and
# installs the pinned packages where that is not done yet.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Python compiles a module when it is first imported; few of the packages' modules ever are.
PIP_INSTALL := -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt

.PHONY: demo demo-localise test test-slow test-jax mutants tutorial lint docs package wheel try-wheel clean
demo: $(INSTALLED)
	$(BIN)/vgg-keras demo --out demo --data-dir demo/data

demo-localise: $(INSTALLED)
	$(BIN)/vgg-keras localise demo --out demo/localise --data-dir demo/data

test: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

# Several processes, devices or backends at work, nets of full width, and whatever takes 10 seconds.
test-slow: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m slow

# Every net x every behaviour, under Keras's other backend.
test-jax: $(INSTALLED)
	KERAS_BACKEND=jax XLA_FLAGS=--xla_backend_optimization_level=0 \
		$(BIN)/python -m pytest -n 2 --dist worksteal tests/conformance

# Changes the code in a copy, one operator or number at a time: do the tests notice?
mutants: $(INSTALLED)
	$(BIN)/python $(PIP_INSTALL) -e '.[mutants]'
	$(BIN)/python -m tests.mutants

# Executes examples/tutorial.py and stores it with its outputs as examples/tutorial.ipynb.
tutorial: $(INSTALLED)
	$(BIN)/python -m tests.tutorial $(SETTINGS)

lint: package
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	cd build/package && ../../$(BIN)/mypy --cache-dir ../mypy --config-file ../../setup.cfg -p vgg_keras

# The site of the documentation, build/site/index.html. A dead link is an error, and so is a warning
# about a docstring.
docs: package
	$(BIN)/python $(PIP_INSTALL) -e '.[docs]'
	PYTHONPATH=tools $(BIN)/python -m zensical build --clean --strict >build/docs.txt 2>&1 || \
		{ cat build/docs.txt; exit 1; }
	! grep '^griffe:' build/docs.txt

# mypy and the reference of the docs do not see package_dir: they get the tree that the wheel is
# built from.
package: $(INSTALLED)
	rm -rf build/package
	$(BIN)/python -c "from setuptools import setup; setup()" -q build_py --build-lib build/package

wheel: $(INSTALLED)
	rm -rf dist
	$(BIN)/python -m build --wheel

# The wheel of `make wheel`, installed and used outside the checkout.
try-wheel:
	elsewhere=$$(mktemp -d) && trap 'rm -rf "$$elsewhere"' EXIT && wheel=$$(ls "$$PWD"/dist/*.whl) && \
		$(PYTHON) -m venv "$$elsewhere/venv" && \
		"$$elsewhere/venv/bin/python" $(PIP_INSTALL) "$$wheel" && \
		cp tests/wheel.py "$$elsewhere" && cd "$$elsewhere" && venv/bin/vgg-keras --help && \
		venv/bin/vgg-keras describe --net D --json >/dev/null && venv/bin/python wheel.py "$$wheel"

$(INSTALLED): setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo "Python 3.11 to 3.13 is needed; set PYTHON, as in: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP_INSTALL) -e '.[test,lint]'
	@touch $@

clean:
	rm -rf $(VENV) .cache build dist demo *.egg-info
