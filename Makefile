# The two commands are `make demo` and `make test`. Both make .venv first when it is missing or
# when requirements.lock or pyproject.toml changed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BENCH := .venv-bench
BENCH_STAMP := $(BENCH)/.installed
# KServe's client pins packages that the service has in other versions.
KSERVE := .venv-kserve
KSERVE_STAMP := $(KSERVE)/.installed
# MLServer, too.
MLSERVER := .venv-mlserver
MLSERVER_STAMP := $(MLSERVER)/.installed
# Tests run in this many processes; PYTEST_ARGS goes to pytest as it is.
TEST_PROCESSES ?= 2
PYTEST_ARGS ?=
# Of make fuzz: mutants of requests, and requests made up for each operation.
FUZZ_CASES ?= 10000000
CONTRACT_EXAMPLES ?= 200

.DEFAULT_GOAL := help
.PHONY: help bench bench-formats bench-jobs bench-serving browser crash demo format fuzz lint lock openapi screenshots serve test tests types vendor clean

help: ## List the commands.
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

demo: $(STAMP) ## Fit Old Faithful and iris over HTTP; print and draw what was found.
	@$(BIN)/python examples/demo.py

test: lint types tests ## Run everything that CI runs.

lint: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/hadolint Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
	$(BIN)/shellcheck .ci/run

types: $(STAMP)
	$(BIN)/mypy

# One BLAS thread to a process: threads of several processes that wait for each other by spinning
# made these tests take three times as long on two cores.
tests: $(STAMP) $(KSERVE_STAMP) browser
	OPENBLAS_NUM_THREADS=1 $(BIN)/pytest -n $(TEST_PROCESSES) $(PYTEST_ARGS)

# An hour or so; the same in a short form is part of the tests.
crash: $(STAMP) ## Kill, fail and cut the power of the registry and the service, thousands of times.
	CRASH_TESTS=long OPENBLAS_NUM_THREADS=1 $(BIN)/pytest -n 0 -s -m crash $(PYTEST_ARGS)

# Where it can't be installed the tests that need it are skipped, and say so.
browser: ## Install Chromium for the tests of the page, where there is none.
	@for name in chromium chromium-browser google-chrome; do command -v $$name >/dev/null && exit 0; done; \
	  { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && echo "Installing Chromium ..." \
	       && apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null; } \
	  || echo "No Chromium, and no way to install it here: the tests of the page are skipped."

screenshots: $(STAMP) browser ## Take the pictures of the page in docs/page anew.
	$(BIN)/python -m tests.e2e.screenshots

vendor: $(STAMP) ## Fetch what the page brings along, as service/ui/vendor/lock.json pins it.
	$(BIN)/python .ci/vendor_ui.py

# Hours; the same in a short form is part of the tests. make fuzz FUZZ_CASES=300000 is a part of it.
fuzz: $(STAMP) ## Send ten million mutants of requests to the service, and what Schemathesis makes up.
	FUZZ_CASES=$(FUZZ_CASES) OPENBLAS_NUM_THREADS=1 $(BIN)/pytest -n $(TEST_PROCESSES) tests/fuzz $(PYTEST_ARGS)
	CONTRACT_EXAMPLES=$(CONTRACT_EXAMPLES) $(BIN)/pytest -n 0 tests/e2e/test_contract.py $(PYTEST_ARGS)

serve: $(STAMP) ## Start the service on http://127.0.0.1:8000.
	@echo "Starting the service; a few seconds ..."
	@GMM_PRELOAD_EXTRAS=true $(BIN)/gmm-service serve

openapi: $(STAMP) ## Write openapi.json anew from the code.
	$(BIN)/gmm-service openapi --output openapi.json

bench: $(BENCH_STAMP) ## Measure the engine beside its peers.
	$(BENCH)/bin/python -m benchmarks.engine

bench-serving: $(STAMP) $(MLSERVER_STAMP) ## Measure the service beside MLServer and a bare application (needs wrk).
	$(BIN)/python -m benchmarks.serving

bench-jobs: $(STAMP) ## Measure small fits, and predictions beside long ones.
	$(BIN)/python -m benchmarks.jobs

bench-formats: $(STAMP) ## Measure the formats, and ten million rows streamed.
	$(BIN)/python -m benchmarks.formats
	$(BIN)/python -m benchmarks.formats --numbers
	$(BIN)/python -m benchmarks.formats --streams

format: $(STAMP) ## Format the code and mend what the linter can.
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

# Keeps the pins that still fit (delete requirements.lock first to take newer ones), one version of
# each package for every Python, so that types and numbers are the same on all. uv alone is not in
# the lock: it makes it.
lock: $(STAMP) ## Resolve pyproject.toml into requirements.lock anew.
	$(BIN)/python -m pip install --quiet 'uv>=0.10'
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest \
	  --all-extras --generate-hashes --no-emit-index-url --no-header pyproject.toml \
	  --output-file requirements.lock

clean: ## Remove the environment, caches and the demo's output.
	rm -rf $(VENV) $(KSERVE) $(MLSERVER) .mypy_cache .pytest_cache .ruff_cache .hypothesis demo-output

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed; this is %d.%d. Say make PYTHON=python3.13, for example." % sys.version_info[:2])'
	@echo "Installing the locked dependencies into $(VENV) (a minute or two the first time) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@echo "Compiling the passes (about a minute the first time) ..."
	@$(BIN)/gmm-service warm-up
	@touch $@

$(BENCH_STAMP): benchmarks/requirements.lock
	@$(PYTHON) -m venv $(BENCH)
	@$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r benchmarks/requirements.lock
	@touch $@

$(KSERVE_STAMP): tests/clients/kserve.lock
	@echo "Installing KServe's client for the tests into $(KSERVE) (a minute the first time) ..."
	@$(PYTHON) -m venv $(KSERVE)
	@$(KSERVE)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r tests/clients/kserve.lock
	@touch $@

$(MLSERVER_STAMP): benchmarks/mlserver.lock
	@echo "Installing MLServer for the benchmark into $(MLSERVER) (a minute the first time) ..."
	@$(PYTHON) -m venv $(MLSERVER)
	@$(MLSERVER)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r benchmarks/mlserver.lock
	@touch $@
