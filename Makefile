# On a fresh machine `make demo` and `make test` make the environment first; `make check` is what a change has to pass.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test unit check check-all format clean

demo: $(READY)
	$(BIN)/python -m ttctune.demo

test: $(READY)
	$(BIN)/pytest -n 2 -m "not slow"

# Every part by itself, without whole commands, several processes and the matrix of models: a minute or two.
unit: $(READY)
	$(BIN)/pytest -n 2 -m "not slow and not whole"

check: $(READY)
	$(BIN)/ruff format --check src tests benchmarks pretraining
	$(BIN)/ruff check src tests benchmarks pretraining
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -n 2 -m "not slow"

# Many minutes: everything above, then kills and memory limits, the mutants, the wheel in an environment of its own, and
# the oldest dependencies.
check-all: check
	$(BIN)/pytest -m slow
	$(BIN)/python tests/mutants.py
	bash tests/wheel.sh $(PYTHON)
	bash tests/oldest.sh $(PYTHON)

format: $(READY)
	$(BIN)/ruff format src tests benchmarks pretraining
	$(BIN)/ruff check --fix src tests benchmarks pretraining

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt torch torchvision
	$(BIN)/pip install --quiet -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
