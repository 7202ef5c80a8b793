# The two commands of the README: make demo, make test. Each sets up what it needs. CONTRIBUTING.md says when to run which.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# One thread per test process: two processes share two cores.
WORKERS ?= 2

.PHONY: demo test test-all lint install browser clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/hm demo --out demo

PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

test: lint
	$(PYTEST)

# With what takes minutes; without what needs a GPU, weights or a browser.
test-all: lint
	$(PYTEST) -m 'not gpu and not weights and not browser'

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Needs Chromium (Debian: apt-get install chromium).
browser: $(STAMP)
	$(BIN)/python -m pytest -m browser

clean:
	rm -rf $(VENV) demo .pytest_cache .mypy_cache .ruff_cache
