# Every target makes the environment it needs: .venv, built once and again when pyproject.toml changes.
PYTHON ?= python3
STUDY ?= studies/lr_vs_batch.yaml
ARGS ?=

# A study and its tests start many processes, and each would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE

BIN := .venv/bin
READY := .venv/.ready
DOCS := .venv/.docs
# Tests marked gpu run by themselves, where there is one and ARGS names no others: tests/gpus.py.
GPU_TESTS := $(if $(ARGS),,$(if $(shell nvidia-smi -L 2>/dev/null),$(BIN)/python -m pytest -m gpu))

# Two at once, since that is what most machines have of cores; see tests/conftest.py.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder

.PHONY: env study gallery docs check test test-fast test-ci test-all constraints clean

env: $(READY)

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; $(PYTHON) is $$($(PYTHON) -V 2>&1). \
	Name another with: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet -e ".[g2p,pos,treebank,lora,deepspeed,lightning]" --group dev
	@touch $@

study: $(READY)  ## make study STUDY=studies/noisy_quadratic.yaml ARGS="--resume"
	$(BIN)/python -m scaling.study $(STUDY) $(ARGS)

gallery: $(READY)  ## make gallery NAME=ladder: one of studies/gallery, into reports/gallery
	$(BIN)/python -m scaling.study studies/gallery/$(NAME).yaml --output reports/gallery/$(NAME) $(ARGS)

$(DOCS): $(READY)
	$(BIN)/python -m pip install --quiet --group docs
	@touch $@

docs: $(DOCS)  ## the site, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict $(ARGS)
	@echo "look at it:  $(BIN)/python -m http.server --bind 127.0.0.1 --directory site"

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

test: $(READY)  ## everything but the tests marked slow
	$(PYTEST) -m "not slow and not gpu" $(ARGS)
	$(GPU_TESTS)

test-fast: $(READY)  ## no Ray: what to run while working
	$(PYTEST) -m "not slow and not ray and not gpu" $(ARGS)

test-ci: $(DOCS)  ## what .ci/run adds to `make test`: faults, studies cut off and extended, fsdp and tp, pages
	$(PYTEST) -m "ci and not gpu" $(ARGS)

test-all: $(DOCS)  ## all there is: every fault, every combination, the browser
	$(PYTEST) -m "(slow or not slow) and not gpu" $(ARGS)
	$(GPU_TESTS)

constraints: $(READY)  ## the versions of this environment, for who wants just these: pip install -c
	@echo "# What the tests of this release ran with; written by: make constraints" > constraints.txt
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' >> constraints.txt

# Studies' results (runs/, reports/, mlflow.db) stay.
clean:
	rm -rf .venv build dist site *.egg-info .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
