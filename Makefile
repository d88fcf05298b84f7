# `make demo` and `make test` do all set-up; the others are for development. `make help` lists them.
# Written for POSIX sh and for GNU make 3.81 (macOS).

VENV = .venv
# The interpreter that makes the environment: the first of 3.13, 3.12, 3.11 and python3 that will do.
PYTHON ?=
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check --quiet install
LOCK = $(BIN)/uv --quiet pip compile --no-config --universal --python-version 3.11 --generate-hashes --no-build \
	--custom-compile-command "make lock" --overrides requirements/overrides.txt --no-emit-package torch

.PHONY: help demo test lint format types imports check lock upgrade wheel bench hooks env dev clean

help:
	@echo "make demo    set up, and distil the built-in CartPole teacher into a small student"
	@echo "make test    set up for development, and run every test"
	@echo "make check   lint, types, imports and tests: all that CI runs"
	@echo "make lint | format | types | imports | wheel | bench | hooks | lock | upgrade | clean"
	@echo "VENV=folder and PYTHON=interpreter choose where the environment goes and what makes it"

demo: env
	$(BIN)/policykd distill

test: dev
	$(BIN)/python -m pytest -n auto --dist loadgroup --durations 10 --cov

lint: dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: dev
	$(BIN)/mypy

imports: dev
	$(BIN)/lint-imports

check: lint types imports test

# `lock` follows pyproject.toml and changes no version without need; `upgrade` takes the newest of everything.
# --constraints keeps the second file in step with the first.
upgrade: LOCK += --upgrade
upgrade: lock

lock: dev
	$(LOCK) --extra envs --output-file requirements/lock.txt pyproject.toml requirements/lock.in
	$(LOCK) --extra dev --constraints requirements/lock.txt --output-file requirements/dev.txt \
		pyproject.toml requirements/lock.in

wheel: env
	$(BIN)/python -m hatchling build

bench: env
	$(BIN)/python -m benchmarks --out docs/benchmarks

hooks: dev
	$(BIN)/pre-commit install

env: $(VENV)/.env-stamp

dev: $(VENV)/.dev-stamp

$(VENV)/.python-stamp:
	@python=$$(sh scripts/dev/find_python.sh "$(PYTHON)") && echo "Making $(VENV) with $$python" && \
		"$$python" -m venv $(VENV)
	@touch $@

$(VENV)/.env-stamp: $(VENV)/.python-stamp pyproject.toml requirements/lock.txt requirements/torch.txt
	@echo "Installing the locked packages into $(VENV) (torch is the large one; this may take minutes, once) ..."
	$(PIP) --require-hashes --no-deps -r requirements/lock.txt
	$(PIP) -r requirements/torch.txt
	$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev-stamp: $(VENV)/.env-stamp requirements/dev.txt
	@echo "Installing the locked development tools into $(VENV) ..."
	$(PIP) --require-hashes --no-deps -r requirements/dev.txt
	@touch $@

clean:
	rm -rf $(VENV) build dist .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
