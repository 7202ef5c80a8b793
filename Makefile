# The two commands of the README: make demo, make test. Each sets up what it needs. CONTRIBUTING.md says when to run which.
PYTHON ?= python3
VENV ?= .venv
# Empty: the newest releases that pyproject.toml admits.
CONSTRAINTS ?= constraints.txt
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# One thread per test process: two processes share two cores.
WORKERS ?= 2

.PHONY: demo table test test-unlinted test-lowest test-all lint install mutants test-gpu browser clean

install: $(STAMP)

$(STAMP): pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(addprefix -c ,$(CONSTRAINTS)) -e '.[dev,features,onnx,play,ray,remote]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps lpips==0.1.4 # a test compares; it asks for torchvision
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/hm demo --out demo

# Rows of the paper's table at the size of recipes/nano, for HOURS (25) of the clock; goes on where it was stopped.
table: $(STAMP)
	PATH="$(CURDIR)/$(BIN):$$PATH" bash recipes/table/all.sh table

PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test: lint
	$(PYTEST)

# The tests alone: linters say other things in other releases.
test-unlinted: $(STAMP)
	$(PYTEST)

# The oldest releases that pyproject.toml admits, in an environment of their own.
test-lowest:
	$(MAKE) test-unlinted VENV=.venv-lowest CONSTRAINTS=constraints-lowest.txt

# A server as S3 is, in an environment of its own: it asks for older packages than others here.
MOTO := .venv-moto/bin/moto_server

$(MOTO):
	$(PYTHON) -m venv .venv-moto
	.venv-moto/bin/python -m pip install --quiet --disable-pip-version-check 'moto[s3]' flask flask-cors

# With what takes minutes; without what needs a GPU, weights or a browser.
test-all: lint $(MOTO)
	$(PYTEST) -m 'not gpu and not weights and not browser'

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Small faults in a copy of the code: does a test notice? MUTANTS="--count 50 --seed 3"; goes on where it was stopped.
mutants: $(STAMP)
	OMP_NUM_THREADS=1 PYTHONPATH=tools nice -n 15 $(BIN)/python -m mutants $(MUTANTS)

# What only a GPU shows, in one JSON line to paste into an issue; at most four minutes. Says so where there is none.
test-gpu: $(STAMP)
	$(BIN)/python benchmarks/gpu.py

# Needs Chromium (Debian: apt-get install chromium).
browser: $(STAMP)
	$(BIN)/python -m pytest -m browser

clean:
	rm -rf $(VENV) .venv-lowest .mutants demo .pytest_cache .mypy_cache .ruff_cache
