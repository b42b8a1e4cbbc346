# `make demo` and `make test` need Python 3.11 or newer and make; the first of them makes the environment.

VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
CONSTRAINTS := requirements/constraints.txt
SOURCES := src tests benchmarks recipes
# Each test worker computes on one thread: two workers on two cores, no fight.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
PYTEST := $(ONE_THREAD) $(PY) -m pytest -q -n auto --maxprocesses 4 --dist worksteal

# Without bytecode each of the hundreds of processes that tests start compiles torch again: 5 s instead of 2.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help env demo test test-all check format lint types layers docs site audit sbom constraints clean

help:  ## Say what can be made
	@sed -n 's/^\([a-z-]*\):.*##/\1\t/p' Makefile | expand -t 14

env: $(READY)  ## Make the environment in .venv (once)

$(READY): $(CONSTRAINTS) pyproject.toml requirements/python
	@sh requirements/python $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check "uv>=0.9"
	$(PY) -m uv pip install --python $(PY) --compile-bytecode --require-hashes -r $(CONSTRAINTS)
	$(PY) -m uv pip install --python $(PY) --no-deps --no-build-isolation -e .
	@touch $@

demo: env  ## Train a small model on the digits, evaluate, predict, look inside, report (a minute)
	$(PY) recipes/demo.py

test: env  ## Run the fast tests
	$(PYTEST) -m "not slow"

test-all: env  ## Run every test
	$(PYTEST)

# The tests of the documentation are among the fast tests.
check: format lint types layers site test  ## All that CI runs

format: env
	$(PY) -m ruff format --check --quiet .

lint: env
	$(PY) -m ruff check --quiet .

types: env
	$(PY) -m pyright --warnings

layers: env
	$(VENV)/bin/lint-imports

docs: site  ## Build the site (build/docs), check spelling and every example and link of the pages
	$(PYTEST) tests/house/test_documents.py tests/house/test_doctests.py

site: env
	$(PY) -m codespell_lib $$(git ls-files | grep -v '^$(CONSTRAINTS)$$')
	$(PY) -m sphinx -q -W --keep-going -b html docs build/docs

audit: env  ## Known weaknesses of the pinned packages (needs a network)
	$(PY) -m uv tool run pip-audit --strict --disable-pip --require-hashes --progress-spinner off -r $(CONSTRAINTS)

sbom: env  ## Write the bill of materials of the pinned packages (CycloneDX), the same bytes each time, to build/sbom.json
	@mkdir -p build
	$(PY) -m uv tool run --from cyclonedx-bom cyclonedx-py requirements $(CONSTRAINTS) --output-reproducible -o build/sbom.json

constraints: env  ## Pin every dependency again, with hashes and without addresses
	$(PY) -m uv pip compile pyproject.toml --extra dev --universal --generate-hashes --upgrade \
		--no-header --no-annotate --quiet -o $(CONSTRAINTS)

clean:  ## Remove the environment and what tools left behind
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
