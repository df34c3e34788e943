# Everything here needs only Python >= 3.10 and make; packages go into .venv, never into the system.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
SPHINX := $(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -d docs/_build/doctrees
INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt

# Threads that wait should sleep: on a machine that does other work too, spinning made a fit of the
# digits take 124 s of processor time instead of 14.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: help demo test coverage lint format docs pictures release-check oldest clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /	/'

demo: $(VENV)/installed  ## maps of iris and digits, explained, in ptsne-demo/
	$(BIN)/ptsne demo

test: $(VENV)/installed-test lint  ## lint, types and tests
	$(BIN)/python -m pytest

lint: $(VENV)/installed-test  ## style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	@if $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))'; \
	then $(BIN)/mypy; \
	else echo "types are checked on Python 3.11 and newer, for which the libraries have stubs"; fi

coverage: $(VENV)/installed-test  ## tests, and which lines and branches they do not run
	$(BIN)/python -m coverage erase
	$(BIN)/python -m coverage run -m pytest
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report

format: $(VENV)/installed-test  ## rewrite the code in the house style
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# Nothing is fetched and no warning is allowed. The second line runs the examples that the pages and
# the docstrings show; the first has run the gallery and the plots.
docs: $(VENV)/installed-docs  ## the site, in docs/_build/html
	$(SPHINX) -b html docs docs/_build/html
	$(SPHINX) -b doctest docs docs/_build/doctest

# What takes too long for every change: archives, threads, long stories of calls.
release-check: test  ## tests, then the slow proofs: archives, threads, long stories of calls
	$(INSTALL) build hatchling
	$(BIN)/python -m pytest -m slow tests/test_packaging.py tests/test_determinism.py tests/test_stateful.py

# Old libraries warn about each other, so that warnings are no errors here.
oldest: $(VENV)/python-ready  ## tests of maps, files and the linearizer with the oldest libraries, in .venv-oldest
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet --constraint constraints-oldest.txt --editable . hypothesis pytest
	.venv-oldest/bin/python -m pytest -o filterwarnings=default tests/test_persistence.py tests/test_estimator.py \
		tests/test_linearize_operations.py tests/test_linearize_refusals.py tests/test_explanation_contrasts.py

pictures: $(VENV)/installed  ## draw the pictures of the README again
	cd docs/images && $(CURDIR)/$(BIN)/python ../../examples/plot_digits.py

clean:  ## remove the environment and what tools leave behind
	rm -rf $(VENV) .venv-oldest .mypy_cache .pytest_cache .ruff_cache .coverage .coverage.* ptsne-demo
	rm -rf docs/_build docs/gallery docs/reference/generated

# The stamps make a second call instant; a change of the requirements installs again.
$(VENV)/python-ready:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "ptsne needs Python 3.10 or newer, this is " + sys.version.split()[0] + "; say make PYTHON=/path/to/python3")'
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/installed: pyproject.toml constraints.txt | $(VENV)/python-ready
	@echo "Installing ptsne and what it needs into $(VENV) (once, some minutes) ..."
	$(INSTALL) --editable '.[report]'
	@touch $@

$(VENV)/installed-test: pyproject.toml constraints.txt | $(VENV)/python-ready
	@echo "Installing ptsne with its test tools into $(VENV) (once, some minutes) ..."
	$(INSTALL) --editable '.[test]'
	@touch $@ $(VENV)/installed

$(VENV)/installed-docs: pyproject.toml constraints.txt | $(VENV)/python-ready
	@echo "Installing ptsne with what its site needs into $(VENV) (once, some minutes) ..."
	$(INSTALL) --editable '.[docs,test]'
	@touch $@ $(VENV)/installed $(VENV)/installed-test
