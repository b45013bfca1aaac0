# The two commands of the README are `make demo` and `make test`; `make help` lists the rest.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
DEV    := $(VENV)/.ready-dev
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-data test-network test-rest test-slow check format docs bench bench-full clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  %-10s %s\n", $$1, $$2}'

setup: $(DEV) ## create .venv with the locked versions, this package and the tools to test it

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, found " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -r requirements.lock
	$(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

$(DEV): $(READY) requirements-dev.lock
	$(INSTALL) -r requirements-dev.lock
	@touch $@

demo: $(READY) ## train, evaluate, predict and export on the images that ship here (about 10 minutes; FULL=1: over an hour)
	$(BIN)/python examples/demo.py $(if $(FULL),--full)

check: $(DEV) ## lint and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# In three processes, for Parquet, object stores and the runtimes in a single one end in a crash of native code, and two
# at a time, each with one thread.
DATA := tests/automl tests/benchmarks tests/data
NETWORK := tests/model tests/oracle tests/story tests/train tests/trt

test: check ## lint, types and the whole quick test suite
	OMP_NUM_THREADS=1 $(MAKE) --no-print-directory --output-sync=line --jobs=2 test-rest test-network test-data

test-data:
	$(BIN)/python -m pytest $(DATA)

test-network:
	$(BIN)/python -m pytest $(NETWORK)

test-rest:
	$(BIN)/python -m pytest $(addprefix --ignore=,$(DATA) $(NETWORK))

test-slow: $(DEV) ## full-size networks against their oracles, overfitting, kill and resume (an hour or more)
	$(BIN)/python -m pytest -m slow --timeout=14400

format: $(DEV) ## let ruff format the code
	$(BIN)/ruff format . && $(BIN)/ruff check --fix .

docs: $(DEV) ## write the schemas, the reference and who reads each key from the source (a minute)
	PYTHONPATH=tests $(BIN)/python -m house.write_readers
	$(BIN)/python docs/reference/build.py

bench: $(DEV) ## speed beside Hugging Face transformers (8 minutes; ARGS=--update stores the ratios)
	$(BIN)/python benchmarks/run.py $(ARGS)

bench-full: $(DEV) ## the same with Swin-L, larger and larger images, and exported files (half an hour)
	$(BIN)/python benchmarks/run.py --full $(ARGS)

clean: ## remove what was built; results stay
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
