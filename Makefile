# Everything a developer runs. Only python3 (3.11+), pip, make and git are presumed.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check
PROTOS := $(wildcard protos/pointsman/v1/*.proto)
SERVICES := $(wildcard protos/pointsman/v1/*_service.proto)
# An old generator, in an environment of its own: what it writes runs with protobuf 4.25 to 7 and with grpcio from 1.62 on.
GENERATOR := grpcio-tools==1.62.3 setuptools==80.9.0
PROTOC = $(VENV)/protoc/bin/python -m grpc_tools.protoc -Iprotos --plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc
GENERATE = $(PROTOC) --python_out=$(1) --pyi_out=$(1) $(PROTOS) && \
	$(PROTOC) --grpc_python_out=$(1) --mypy_grpc_out=quiet:$(1) $(SERVICES)
export PYTHONDONTWRITEBYTECODE := 1

.PHONY: help
help: ## What can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.PHONY: demo
demo: $(VENV)/.demo ## Install, start the service, route real prompts through it, show the result
	@$(BIN)/python demo/run.py $(if $(KEEP),--keep $(KEEP))

.PHONY: test
test: $(VENV)/.dev ## What every change must pass: style, types, import arrows, contract, tests
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target lint types imports buf-lint buf-breaking protos-check
	@$(MAKE) --no-print-directory unit

.PHONY: unit
unit: $(VENV)/.dev ## The tests alone
	@$(BIN)/python -m pytest -q -n 2 --dist loadgroup --ignore=tests/packaging $(ARGS)

.PHONY: test-laws
test-laws: $(VENV)/.dev ## The property tests with ten times the examples, other ones each time
	@LAWS=more $(BIN)/python -m pytest -q -n 2 -m hypothesis $(ARGS)

.PHONY: test-packaging
test-packaging: $(VENV)/.dev ## What is built: installed beside other things, and from the index with the oldest and newest dependencies
	@$(BIN)/python -m pytest -q -m 'index or not index' tests/packaging $(ARGS)

.PHONY: lint
lint: $(VENV)/.dev ## Style
	@$(BIN)/ruff check . && $(BIN)/ruff format --check --quiet .

.PHONY: format
format: $(VENV)/.dev ## Put the style right
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format --quiet .

.PHONY: types
types: $(VENV)/.dev ## mypy --strict
	@$(BIN)/mypy

.PHONY: imports
imports: $(VENV)/.dev ## Who may import whom
	@said=$$($(BIN)/lint-imports --no-cache 2>&1) || failed=1; \
	echo "$$said" | grep -E 'Contracts|BROKEN|KEPT|->' || echo "$$said"; exit $${failed:-0}

.PHONY: buf-lint
buf-lint: $(VENV)/.dev ## The contract's style (buf STANDARD)
	@$(BIN)/buf lint && $(BIN)/buf format --diff --exit-code

.PHONY: buf-breaking
buf-breaking: $(VENV)/.dev ## The contract against the last release
	@tag=$$(git tag --list 'v*' --sort=-v:refname | head -1); \
	if [ -n "$$tag" ]; then $(BIN)/buf breaking --against ".git#tag=$$tag"; \
	else echo "buf breaking: no release yet to compare with"; fi

.PHONY: protos
protos: $(VENV)/.protoc ## Generate the stubs of the contract anew
	@rm -f pointsman/v1/*_pb2*.py* && $(call GENERATE,.)

.PHONY: protos-check
protos-check: $(VENV)/.dev ## Whether the committed stubs are those of the contract
	@if $(BIN)/python -c 'import sys; sys.exit(sys.version_info >= (3, 13))'; then $(MAKE) -s protos-compare; \
	else echo "protos-check: left out, the generator has no wheel for this Python"; fi

.PHONY: protos-compare
protos-compare: $(VENV)/.protoc
	@new=$$(mktemp -d) && trap 'rm -r "$$new"' EXIT && { $(call GENERATE,$$new); } || exit 1; \
	diff -rq -x __init__.py -x __pycache__ "$$new/pointsman/v1" pointsman/v1 || \
	{ echo "pointsman/v1 is not what the contract gives: run make protos"; exit 1; }

.PHONY: bench-core
bench-core: $(VENV)/.dev ## Time of a decision and of a fold, error of the propensities, against peers
	@$(PIP) install -e '.[peers]' || echo "peers are not to be had here: measuring without them"
	@$(BIN)/python benchmarks/core/decide.py

.PHONY: bench-scale
bench-scale: $(VENV)/.dev ## Memory and time with 100,000 buckets (10 GB)
	@$(BIN)/python benchmarks/core/scale.py

.PHONY: bench-numerics
bench-numerics: $(VENV)/.dev ## Precision after ten million updates, against a batch solve in extended precision (half an hour)
	@$(BIN)/python benchmarks/core/numerics.py

.PHONY: bench-service
bench-service: $(VENV)/.dev ## Throughput and latency over gRPC against an empty echo
	@$(BIN)/python benchmarks/service/throughput.py

.PHONY: bench-routing
bench-routing: $(VENV)/.dev ## Six experiments on real prompts, side by side with published bandits and hindsight (an hour)
	@$(PIP) install -e '.[peers]'
	@$(BIN)/python benchmarks/routing/experiments.py $(ARGS)

.PHONY: bench-generality
bench-generality: $(VENV)/.dev ## Defaults in worlds they were not made for, against tuned bandits and hindsight (three quarters of an hour)
	@$(BIN)/python benchmarks/generality/generality.py $(ARGS)

.PHONY: bench-shapes
bench-shapes: $(VENV)/.dev ## Shapes of what comes: costs and latencies, features in wrong units and with gaps, texts in any writing
	@$(PIP) install -e '.[peers]'
	@for run in benchmarks/shapes/*.py; do $(BIN)/python $$run $(ARGS) || exit 1; done

.PHONY: bench-priors
bench-priors: $(VENV)/.dev ## What buckets learn from each other, and what right and wrong warm starts and list prices do (an hour)
	@for run in pooling.py warm_starts.py list_prices.py; do $(BIN)/python benchmarks/priors/$$run $(ARGS) || exit 1; done

.PHONY: bench-trials
bench-trials: $(VENV)/.dev ## Unlucky starts under quality floors, models that are never judged, circuit breakers
	@for run in $(filter-out %/kit.py,$(wildcard benchmarks/trials/*.py)); do $(BIN)/python $$run $(ARGS) || exit 1; done

.PHONY: bench-pacing
bench-pacing: $(VENV)/.dev ## Budgets and floors on mean quality: whether they are kept, and at what cost (an hour)
	@for run in requests.py rhythms.py quality_floors.py; do $(BIN)/python benchmarks/pacing/$$run $(ARGS) || exit 1; done

.PHONY: bench-simulator
bench-simulator: $(VENV)/.dev ## Speed of replays and estimators beside others, a million rounds, coverage of intervals (an hour)
	@$(PIP) install -e '.[peers]' && $(PIP) install --no-deps obp==0.4.1 || echo "peers are not to be had here: measuring without them"
	@for run in replay.py estimators.py stream.py coverage.py; do $(BIN)/python benchmarks/simulator/$$run || exit 1; done

.PHONY: soak
soak: $(VENV)/.dev ## 200 kills, 100,000 odd requests, odd bytes, half load, clocks that jump (40 minutes); FLAGS go to the server
	@$(PIP) install -e '.[soak]' || echo "atheris is not to be had here: odd bytes without its guidance"
	@failed=0; for run in 'kills.py' 'fuzz.py' 'decoders.py' 'steady.py'; do \
	flags=; [ $$run = decoders.py ] || flags="$(if $(FLAGS),-- $(FLAGS))"; \
	$(BIN)/python benchmarks/soak/$$run $$flags || failed=1; done; exit $$failed

.PHONY: clean
clean: ## Remove the virtual environment and caches
	@rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=python3.11")'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(BIN)/python pyproject.toml
	@echo "installing into $(VENV) …" && $(PIP) install --editable '.[demo]' && touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml
	@echo "installing into $(VENV) …" && $(PIP) install --editable '.[demo,dev]' && touch $@ $(VENV)/.demo

$(VENV)/.protoc: $(VENV)/.dev Makefile
	@$(BIN)/python -m venv --clear $(VENV)/protoc
	@$(VENV)/protoc/bin/python -m pip -qq --disable-pip-version-check install --only-binary :all: $(GENERATOR) || \
	{ echo "the generator of the stubs runs on Python 3.11 and 3.12 only: make clean, then PYTHON=python3.11"; exit 1; }
	@touch $@
