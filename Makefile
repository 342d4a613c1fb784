# make test       set up and run the tests (10 minutes on two cores)
# make lint       style
# make test-slow  the tests that take minutes each
# VENV=DIR and PYTHON=python3.12 choose the environment.

PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python

.PHONY: setup test test-slow lint format clean

setup: $(VENV)/.installed

$(VENV)/.installed: setup.cfg pyproject.toml
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(v < (3, 11) and "error: Python %d.%d found, 3.11 or newer is needed; give one: make PYTHON=python3.11" % v)'
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --editable '.[dev]'
	touch $@

test: setup
	$(RUN) -m pytest -n 2 --dist loadgroup

test-slow: setup
	$(RUN) -m pytest -m slow

lint: setup
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

format: setup
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

clean:
	rm -rf $(VENV) *.egg-info build dist .pytest_cache .ruff_cache
