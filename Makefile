VENV := .venv
BIN := $(VENV)/bin
PLUGINS := $(patsubst %/pyproject.toml,%,$(wildcard plugins/*/pyproject.toml))

.DEFAULT_GOAL := help
.PHONY: help install demo test format clean

help:  ## show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 18

install: $(VENV)/.installed  ## make .venv with the core, all plugins and the development tools

$(VENV)/.installed: pyproject.toml $(addsuffix /pyproject.toml,$(PLUGINS))
	python3 -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade 'pip>=25.1'  # which knows dependency groups
	$(BIN)/pip install --quiet --group dev --group docs -e . $(addprefix -e ./,$(PLUGINS))
	touch $@

demo: install  ## compose and understand a few scenes; pictures go to demo/
	mkdir -p demo
	$(BIN)/python examples/demo.py

# Ray and a server of S3, which the tests of clusters start. Where they cannot be installed, these tests are skipped.
$(VENV)/.ray: $(VENV)/.installed
	$(BIN)/pip install --quiet -e './plugins/energycomp-batch[test]' || echo "Ray cannot be installed: its tests are skipped"
	touch $@

test: install $(VENV)/.ray  ## everything that CI checks
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
# With bytecode, or each worker and each process that a test starts compiles what it imports again. No worker is started
# in place of one that ended: the run would give it the same test once more, and then wait for it without end.
	OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n auto --maxprocesses 4 --max-worker-restart 0 --dist loadfile --no-loadscope-reorder

format: install  ## format, and fix what ruff can fix
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:  ## remove everything that is built, .venv included
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache site dist build demo
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
