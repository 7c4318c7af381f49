# make demo   merge real adapters into a real model, seven ways, tune a merge, and compare them
# make test   run all tests
# make lint   run ruff and mypy
# make docs   build the documentation into build/site; a broken link is an error
# make notebook  run docs/notebooks/merge.ipynb from top to bottom, in a temporary folder
#
# make coverage       list the lines that no test ran in the last `make test`
# make test-lowest    run all tests with the lowest versions that pyproject.toml allows
# make test-mergekit  run mergekit's own tests, with this package installed beside it
# make test-llama-cpp convert merges to GGUF, and compare llama.cpp's answers with transformers'
#
# Each makes the environment it needs, in .venv or beside it, if it is missing.

PYTHON ?= python3
# Any torch from 2.5 on works. pip installs the version named here, since it finds torch's wheels in
# places that uv does not look at; uv, which is faster, keeps it and installs everything else.
TORCH ?= torch==2.13.0
WORKERS ?= 2

VENV := .venv
BIN := $(VENV)/bin
make_venv = $(PYTHON) -m venv --clear $(1) \
	&& $(1)/bin/python -m pip install --quiet --disable-pip-version-check '$(TORCH)' uv
uv_install = $(1)/bin/uv pip install --quiet --python $(1)/bin/python '$(TORCH)'

.PHONY: demo test coverage test-lowest test-mergekit test-llama-cpp lint docs notebook clean

demo: $(VENV)/.demo
	@$(BIN)/mergekit-spectral demo

# One test looks at the pages of `inspect` and `tune` in Chromium.
NO_BROWSER := $(if $(shell command -v chromium || command -v google-chrome),,-m "not browser")

test: $(VENV)/.test
	@$(if $(NO_BROWSER),echo "No Chromium: the test of the pages is left out")
	@$(BIN)/python -m pytest --numprocesses $(WORKERS) $(NO_BROWSER) --cov --cov-report=
	@echo "Coverage in percent:" $$($(BIN)/coverage report --format=total)

coverage:
	@$(BIN)/coverage report

lint: $(VENV)/.test
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

docs: $(VENV)/.docs
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "The documentation is in build/site/index.html"

notebook: $(VENV)/.test
	@folder=$$(mktemp -d) && trap 'rm -r "$$folder"' EXIT \
		&& cp docs/notebooks/merge.ipynb "$$folder" \
		&& $(BIN)/jupyter execute --timeout=600 --kernel_name=python3 "$$folder/merge.ipynb"

# The lowest versions of direct dependencies, with torch as above. Dependencies of dependencies are at
# their newest, but for those that pyproject.toml names too.
test-lowest: $(VENV)-lowest/.test
	@$(VENV)-lowest/bin/python -m pytest --numprocesses $(WORKERS) $(NO_BROWSER)

$(VENV)-lowest/.test: pyproject.toml
	@echo "Making the environment $(VENV)-lowest"
	@$(call make_venv,$(VENV)-lowest)
	@$(call uv_install,$(VENV)-lowest) --resolution lowest-direct --editable '.[demo,quality,test]'
	@touch $@

# The tests are in mergekit's source distribution. Nothing of it is kept in this repository.
test-mergekit: $(VENV)/.test
	@tests/versions/mergekits_own_tests.sh $(BIN)/python

# llama.cpp's converters and a build of it are downloaded from PyPI.
test-llama-cpp: $(VENV)/.demo
	@tests/versions/llama_cpp.sh $(BIN)/python

clean:
	rm -rf $(VENV) $(VENV)-lowest build/site

$(VENV)/.uv:
	@echo "Making the environment $(VENV)"
	@$(call make_venv,$(VENV))
	@touch $@

$(VENV)/.demo: $(VENV)/.uv pyproject.toml
	@echo "Installing mergekit-spectral and what the demo needs"
	@$(call uv_install,$(VENV)) --editable '.[demo]'
	@touch $@

$(VENV)/.test: $(VENV)/.uv pyproject.toml
	@echo "Installing mergekit-spectral and what its tests need"
	@$(call uv_install,$(VENV)) --editable '.[demo,quality,test,dev]'
	@touch $@

$(VENV)/.docs: $(VENV)/.uv pyproject.toml
	@echo "Installing mergekit-spectral and what its documentation needs"
	@$(call uv_install,$(VENV)) --editable '.[docs]'
	@touch $@
