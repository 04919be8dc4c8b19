# Two commands do all the set-up: `make demo` runs the main job, `make test` passes the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help install demo test lint bench fuzz audit cluster-test clean
help:
	@echo "make demo   fetch real text, search its mixture, compare three (about ten minutes after the installation)"
	@echo "make test   every test; make lint runs ruff, mypy and the import contracts alone"
	@echo "make bench  measure what docs/benchmarks.md claims; prints a table, writes bench.json"
	@echo "make fuzz   post 10,000 specs that went wrong; make audit asks whether a locked package is withdrawn or known to be vulnerable"
	@echo "make cluster-test  the same on Kubernetes: needs KUBECONFIG, SOLFA_TEST_REGISTRY, SOLFA_TEST_HOST (tests/cluster/README.md)"

$(VENV)/installed: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Solfa needs Python 3.11 or newer; name one with make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

install: $(VENV)/installed

demo: install
	$(BIN)/python -m examples.demo

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(BIN)/pytest -n 2 --cov --cov-report=term:skip-covered

bench: install
	$(BIN)/python -m tests.benchmarks $(BENCH)

fuzz: install
	SOLFA_FUZZ=10000 $(BIN)/pytest -n 0 -s --timeout 3600 tests/services/test_fuzz.py

audit: install
	$(BIN)/python -m tests.audit

cluster-test: install
	$(BIN)/pytest -n 0 --durations 0 --durations-min 1 tests/cluster tests/charts $(CLUSTER_ARGS)

clean:
	rm -rf $(VENV) .cache
