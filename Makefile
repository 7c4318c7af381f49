# make demo   merge real adapters into a real model, four ways, and compare them
# make test   run all tests
# make lint   ruff and mypy
#
# make test-lowest    run all tests with the lowest versions that pyproject.toml allows
# make test-mergekit  run mergekit's own tests, with this package installed beside it
#
# Each makes the environment it needs, in .venv or beside it, if it is missing.

PYTHON ?= python3
# Any torch from 2.5 on will do; naming one keeps pip from fetching a newer one than is installed.
TORCH ?= torch==2.13.0
WORKERS ?= 2

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test test-lowest test-mergekit lint clean

demo: $(VENV)/.demo
	@$(BIN)/mergekit-spectral demo

# Without Chromium one test has nothing to look at the page of `inspect` with.
NO_BROWSER := $(if $(shell command -v chromium || command -v google-chrome),,-m "not browser")

test: $(VENV)/.test
	@$(if $(NO_BROWSER),echo "No Chromium: the page of inspect is not looked at")
	@$(BIN)/python -m pytest --numprocesses $(WORKERS) $(NO_BROWSER)

lint: $(VENV)/.test
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

# torch stays as in $(TORCH): pip finds its wheel, uv then keeps what is installed. The lowest versions
# are of direct dependencies; what these need is as low as they allow only where we name it ourselves.
test-lowest: $(VENV)-lowest/.test
	@$(VENV)-lowest/bin/python -m pytest --numprocesses $(WORKERS) $(NO_BROWSER)

$(VENV)-lowest/.test: pyproject.toml
	@echo "Making the environment $(VENV)-lowest"
	@$(PYTHON) -m venv --clear $(VENV)-lowest
	@$(VENV)-lowest/bin/python -m pip install --quiet --disable-pip-version-check '$(TORCH)' uv
	@$(VENV)-lowest/bin/uv pip install --quiet --python $(VENV)-lowest/bin/python \
		--resolution lowest-direct '$(TORCH)' --editable '.[demo,quality,test]'
	@touch $@

# The tests are in mergekit's source distribution. Nothing of it is kept in this repository.
test-mergekit: $(VENV)/.test
	@tests/versions/mergekits_own_tests.sh $(BIN)/python

clean:
	rm -rf $(VENV) $(VENV)-lowest

$(VENV)/.torch:
	@echo "Making the environment $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --quiet '$(TORCH)'
	@touch $@

$(VENV)/.demo: $(VENV)/.torch pyproject.toml
	@echo "Installing mergekit-spectral and what the demo needs"
	@$(PIP) install --quiet --editable '.[demo]'
	@touch $@

$(VENV)/.test: $(VENV)/.torch pyproject.toml
	@echo "Installing mergekit-spectral and what its tests need"
	@$(PIP) install --quiet --editable '.[demo,quality,test,dev]'
	@touch $@
