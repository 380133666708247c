# make demo: train on a real slide on this machine.  make test: set everything up and run every test.  Nothing else is needed first.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export OMP_NUM_THREADS ?= 1
PARALLEL := --numprocesses auto --maxprocesses 4 --no-loadscope-reorder

.PHONY: help demo native test check lint bench learn chaos fuzz audit cluster-up cluster-down constraints generate clean
help:
	@sed -n 1p Makefile; grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 16

$(READY): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; set PYTHON=python3.11" >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) || { echo "no venv module: on Debian, apt-get install python3-venv" >&2; exit 1; }
	@echo "installing the pinned packages into $(VENV) (5.5 GB with torch; once)"
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r constraints.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@

demo: $(READY) ## train, probe and look: a real slide through a real object-store server (about 3 minutes after set-up)
	@$(BIN)/patho demo

native: $(READY) ## the optional native core, which fetches, plans and decodes for a fraction of the CPU time; wants cargo, nasm and cmake
	@native/build.sh "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("platlib"))')"

test: lint ## every test that can run here; ends with what was not run and why
	@tests/prepare.sh
	@$(BIN)/pytest -q tests -m "not bench and not chaos" $(PARALLEL)

check: lint ## the fast loop: lint, types, import contracts, unit tests
	@$(BIN)/pytest -q tests -m "not cluster and not node and not bench and not chaos and not slow" $(PARALLEL)

lint: $(READY)
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

bench: $(READY) ## the measurements of tests/bench
	@$(BIN)/pytest -q tests/bench -m bench -s

learn: $(READY) ## train without labels with five seeds, probe, draw docs/learning.svg (about 5 CPU-minutes)
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && $(BIN)/python -m tests.bench.learning "$$folder" 5 docs/learning.svg

chaos: $(READY) ## every fault at every call of a run's life, outages, edits; prints counts (about 40 minutes)
	@$(BIN)/pytest tests/cluster -m chaos -s

fuzz: $(READY) ## 1,000 damaged slides: no crash, no hang, no wrong pixel (about 4 minutes)
	@FUZZ_SLIDES=1000 $(BIN)/pytest -q tests/trainer/data/test_fuzz.py -s

audit: $(READY) ## known vulnerabilities of the pinned packages (asks pypi.org for each; licences: /opt/venv/sbom.json in an image)
	@test -x $(VENV)/audit/bin/pip-audit || { $(PYTHON) -m venv $(VENV)/audit && $(VENV)/audit/bin/pip install --quiet --disable-pip-version-check pip-audit==2.10.1; }
	@$(VENV)/audit/bin/pip-audit --strict --require-hashes --disable-pip --progress-spinner off --requirement constraints.txt

cluster-up: $(READY) ## a local control plane with fake nodes, to play with
	@$(BIN)/python -m tests.cluster.up

cluster-down: $(READY) ## stop it, leave nothing
	@$(BIN)/python -m tests.cluster.down

constraints: $(READY) ## resolve the versions anew
	@$(BIN)/pip install --quiet uv
	@$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  --no-emit-index-url --no-emit-find-links --quiet --upgrade -o constraints.new
	@{ echo '# The tested set of versions, with hashes. Made by `make constraints`.'; cat constraints.new; } > constraints.txt; rm constraints.new

generate: $(READY) ## write the CRDs, the chart's copies and the API reference from the pydantic models; the dashboards
	@$(BIN)/python -m patho_api.crd
	@$(BIN)/python -m charts.dashboards

clean: ## remove the environment and what runs left
	rm -rf $(VENV) native/target native/Cargo.lock runs .pytest_cache .mypy_cache .ruff_cache .hypothesis
