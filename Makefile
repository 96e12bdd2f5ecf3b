# `make demo` and `make test` need only Python 3.11+ (on Debian with python3-venv) and make.
# `make test PYTHON=python3.13` uses another Python, in an environment of its own (.venv-3.13).
PYTHON ?= python3
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
VENV := .venv$(if $(filter-out python3,$(PYTHON)),-$(VERSION))
BIN := $(VENV)/bin
TOOLS := .venv-tools
# The version is in these names: an environment is made again for another version of Python.
READY := $(VENV)/.ready-$(VERSION)
TOOLS_READY := $(TOOLS)/.ready-$(VERSION)
# Each process would compile its modules for seconds, and `make test` starts hundreds.
export PYTHONDONTWRITEBYTECODE :=
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check
COMPILE := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
  --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"
# For one target, as in: make test ARGS="tests/worker -x"
ARGS :=
SBOM := sbom.json

.DEFAULT_GOAL := help
.PHONY: help demo up python tools test test-wide test-hapi types check format fuzz bench profile chaos sbom lock clean

help: ## Show these targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "Uplift needs Python 3.11 or newer as '$(PYTHON)'. Install it, or name it: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "Python's venv module is missing. On Debian or Ubuntu: apt-get install python3-venv" >&2; exit 1; }

$(READY): requirements-dev.lock pyproject.toml | python
	@echo "Setting up $(VENV) (once; about half a minute)"
	@test -e $@ || $(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python $(PIP_INSTALL) --require-hashes -r requirements-dev.lock
	@$(BIN)/python $(PIP_INSTALL) --no-deps --no-build-isolation -e .
	@touch $@

$(TOOLS_READY): requirements-tools.lock | python
	@echo "Setting up $(TOOLS) (once)"
	@$(PYTHON) -m venv --clear $(TOOLS)
	@$(TOOLS)/bin/python $(PIP_INSTALL) --require-hashes -r requirements-tools.lock
	@touch $@

demo: $(READY) ## Push a synthetic person's records through the whole system, then stop
	@$(BIN)/uplift demo

up: $(READY) ## The same system, staying up until Ctrl-C
	@$(BIN)/uplift up

tools: $(TOOLS_READY) ## Set up the tools that cannot share our lock, in .venv-tools

test: $(READY) ## What runs on a bare machine: real servers on loopback (about 7 minutes on 2 cores)
	$(BIN)/pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder $(ARGS)

test-wide: $(READY) $(TOOLS_READY) ## What wants other people's programs (.ci/wide-packages)
	$(BIN)/pytest tests/wide $(ARGS)

test-hapi: $(READY) ## The example export at a real HAPI FHIR server, R4 and DSTU2 (wants a JDK and Maven)
	$(BIN)/pytest tests/hapi $(ARGS)

types: $(READY) ## Write the types of clients/typescript from our OpenAPI (needs npm)
	$(BIN)/python -m tests.wide.typescript_types

check: $(READY) ## Format, lint, types and import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(READY) ## Format, and fix what ruff can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

fuzz: $(READY) ## The API against its OpenAPI and push against bad exports, longer than `make test`
	UPLIFT_FUZZ_EXAMPLES=2000 UPLIFT_FUZZ_PARTS=12 UPLIFT_MUTATIONS=2000 \
	  $(BIN)/pytest --numprocesses 2 --dist load --maxfail 1 tests/api/test_openapi_fuzz.py tests/uplift/cli/push/test_mutations.py

bench: $(READY) ## Bounded benchmarks on loopback; ARGS="--help" lists the options
	$(BIN)/python -m bench $(ARGS)

profile: $(READY) $(TOOLS_READY) ## What a worker computes for each record, by function
	$(BIN)/python -m bench.profile $(ARGS)

chaos: $(READY) ## Kill and freeze every process while uploads come in, then count (about 5 minutes)
	$(BIN)/python -m chaos $(CHAOS)

sbom: $(TOOLS_READY) ## The bill of materials (CycloneDX) of what Uplift runs with, in sbom.json
	$(TOOLS)/bin/cyclonedx-py requirements --pyproject pyproject.toml --mc-type application \
	  --output-reproducible --of JSON -o $(SBOM) requirements.lock

lock: ## Resolve all pins again (needs uv)
	$(COMPILE) --extra traces pyproject.toml -o requirements.lock
	$(COMPILE) --extra embedded --extra traces --extra dev -c requirements.lock pyproject.toml -o requirements-dev.lock
	$(COMPILE) requirements-tools.in -o requirements-tools.lock

clean: ## Remove the environments and the embedded servers' data
	rm -rf .venv .venv-* .uplift build *.egg-info
