# make demo   merge real adapters into a real model, four ways, and compare them
# make test   run all tests
# make lint   ruff and mypy
#
# Each makes the environment it needs, in .venv, if it is missing.

PYTHON ?= python3
# Any torch from 2.5 on will do; naming one keeps pip from fetching a newer one than is installed.
TORCH ?= torch==2.13.0
WORKERS ?= 2

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test lint clean

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

clean:
	rm -rf $(VENV)

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
