# Each target does its own set-up: a bare machine needs Python 3.11 or later, make and a compiler.
PYTHON ?= python3
BIN := .venv/bin
UV := 0.13.9

.PHONY: demo test lint docs bench faults constraints clean

# torch alone is gigabytes: uv fetches in parallel and links instead of copying.
.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV)
	$(BIN)/uv pip install --python $(BIN)/python --constraint constraints.txt --group dev --editable .
	touch $@

demo: .venv/ready
	$(BIN)/upwell demo $(ARGS)

test: .venv/ready
	$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy
	$(BIN)/pytest $(ARGS)

lint: .venv/ready
	$(BIN)/ruff format . && $(BIN)/ruff check --fix . && $(BIN)/mypy

docs: .venv/ready
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --group docs
	$(BIN)/mkdocs build --strict

bench: .venv/ready
	@for file in benchmarks/bench_*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

bench-%: .venv/ready
	$(BIN)/python benchmarks/bench_$*.py $(ARGS)

# Workers killed, files damaged, servers taken away: docs/faults.md. --quick takes minutes.
faults: .venv/ready
	$(BIN)/python -m tests.faults $(ARGS)

# What every install holds, by version. Torch is pinned here alone: GPU machines carry others.
constraints:
	echo torch==2.13.0 > .venv/pins.txt
	$(BIN)/uv pip compile --quiet --no-header --no-annotate --upgrade --group dev --group docs \
	    --constraint .venv/pins.txt pyproject.toml --output-file constraints.txt

clean:
	rm -rf .venv
