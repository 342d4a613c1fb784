# make demo       set up, render a corpus, train, lip-sync, report
# make test       set up and run the tests (10 minutes on two cores)
# make lint       style
# make test-browser  the reports in headless Chromium, which it installs
# make test-notebooks  the notebooks, from clean kernels
# make test-web   the page to try it, in headless Chromium
# make test-web-fuzz  a hundred uploads to it that nobody should make
# make compare-torch  everything against PyTorch, which it installs; a report
# make benchmark  speed beside PyTorch's, which it installs; a table
# make results-grid GRID=DIR  all recipes on GRID, with a table
# make test-slow  the tests that take minutes each
# VENV=DIR and PYTHON=python3.12 choose the environment.

# Large pages of memory: a fifth faster on CPUs (docs/DECISIONS.md).
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1
PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python

.PHONY: setup demo test test-slow chromium test-browser test-notebooks \
  test-web test-web-fuzz compare-torch benchmark \
  results-grid lint format clean

setup: $(VENV)/.installed

$(VENV)/.installed: setup.cfg pyproject.toml
	@$(PYTHON) launch/set_up.py $(VENV) '.[dev]'
	@touch $@ $(VENV)/.installed-demo

$(VENV)/.installed-demo: setup.cfg pyproject.toml
	@$(PYTHON) launch/set_up.py $(VENV) '.[demo]'
	@touch $@

demo: $(VENV)/.installed-demo
	$(RUN) -m launch.demo

test: setup
	$(RUN) -m pytest -n 2 --dist loadgroup

test-slow: setup
	$(RUN) -m pytest -m slow

# The system's, or else Playwright's own build.
chromium: setup
	$(RUN) -m pip install --quiet "playwright>=1.40"
	command -v chromium chromium-browser google-chrome >/dev/null || \
	  $(RUN) -m playwright install --with-deps chromium || \
	  { apt-get update -q && apt-get install -y -q chromium; }

test-browser: chromium
	$(RUN) -m pytest -m browser

test-notebooks: setup
	@$(PYTHON) launch/set_up.py $(VENV) '.[notebooks,torch]'
	$(RUN) -m pytest -m notebook

test-web: chromium
	@$(PYTHON) launch/set_up.py $(VENV) '.[web]'
	$(RUN) -m pytest -m "web and not slow"

test-web-fuzz: setup
	@$(PYTHON) launch/set_up.py $(VENV) '.[web]'
	$(RUN) -m pytest -s -m "web and slow"

# COMPARE=--short: narrow networks, few steps.
compare-torch: setup
	@$(PYTHON) launch/set_up.py $(VENV) '.[torch]'
	$(RUN) -m pytest tests/parity
	$(RUN) -m tests.parity.compare $(COMPARE)

# BENCHMARK=--precision=bfloat16 and other flags of launch.benchmark.
benchmark: setup
	@$(PYTHON) launch/set_up.py $(VENV) '.[torch,benchmark,demo]'
	$(RUN) -m launch.benchmark $(BENCHMARK)

# GRID=DIR: has s1/ and splits/; RESULTS=--others=DIR and other flags.
results-grid: $(VENV)/.installed-demo
	$(RUN) -m launch.results_grid --videos=$(GRID) \
	  --splits=$(GRID)/splits $(RESULTS)

lint: setup
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

format: setup
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

clean:
	rm -rf $(VENV) *.egg-info build dist .pytest_cache .ruff_cache
