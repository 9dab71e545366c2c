# Whatever needs an environment makes it first, from nothing, in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DIST := dist
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
TEST := $(BIN)/python -m pytest --dist loadfile --no-loadscope-reorder
# One process more than there are cores: many tests wait for others.
ALL_WORKERS := $(shell $(PYTHON) -c 'import os; print(os.cpu_count() + 1)')

.PHONY: demo test quick check wheel picture clean

demo: $(VENV)/ready-run  ## the embedded study, from nothing to a report (offline, no GPU)
	$(BIN)/ablate run studies/tiny.yaml
	@echo "Open reports/tiny/report.html"

test: $(VENV)/ready-test check  ## all checks and all tests
	$(TEST) -n $(ALL_WORKERS) $(if $(filter true,$(CI)),--durations=30)

quick: $(VENV)/ready-test  ## the tests that take no process, no kill and no whole study: what to run while you write
	$(TEST) -n auto -m 'not soak and not slow' tests/unit tests/contracts

check: $(VENV)/ready-test  ## formatting, lint, floors and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy

wheel: $(BIN)/python  ## dist/ablate-VERSION-py3-none-any.whl
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir $(DIST) .

picture: $(BIN)/python  ## docs/packages.svg, from the imports
	$(BIN)/python tools/draw_packages.py

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/ready-run: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) --editable .
	touch $@

$(VENV)/ready-test: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV)
