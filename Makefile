# make demo               draw pictures and a map of the sample filesystem, into demo/
# make test               install what the tests need, then lint and test; measure the coverage
# make test-unprivileged  test what needs no root; if root runs it, without its rights
# make test-pythons       check types, and test what needs no root, with other versions of Python
# make lint               check style and types, of JavaScript too, and the imports between folders
# make bench              build large filesystems and measure on them (root, half an hour, 25 GB of
#                         disk, chromium)
# make bench-explorer     measure the explorer alone, on the same filesystems (root, chromium)
# make bench-ownership    measure scans for owners alone, beside the kernel and compsize (root, 25
#                         minutes the first time, 20 GB of disk)
# make bench-check        measure the check alone, beside btrfs check (root, half an hour the first
#                         time, 15 GB of disk)
# make free-space         fill filesystems, and write the table of docs/free-space.md (root, some
#                         minutes, 8 GB in the folder for temporary files)
# make redundancy         damage filesystems, and write the tables of docs/redundancy.md (root, a
#                         minute)
# make lies               put lies into filesystems, and write the tables of docs/check.md (root, some
#                         minutes)
# make check-lab          look for false alarms of the check in many more sound filesystems, and in
#                         what crashes leave (root, some minutes)
# make fuzz               read 20,000 damaged filesystems, and report crashes (some minutes); with
#                         FUZZ=--write, the figures go into docs/fuzzing.md
# make debian-packages    install the programs that tests and benchmarks use (Debian, root)
# make clean              remove everything that these targets made, but for the tables in docs/

PYTHON ?= python3
PYTHONS ?= python3.12 python3.13
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

.PHONY: demo test test-unprivileged test-pythons lint bench bench-explorer bench-ownership \
	bench-check free-space redundancy lies check-lab fuzz debian-packages clean

demo: $(VENV)/installed
	@$(BIN)/python scripts/demo.py demo

test: debian-packages lint
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --cov

test-unprivileged: $(VENV)/installed-dev
	@scripts/test-unprivileged $(BIN)/python

test-pythons:
	@scripts/test-pythons $(PYTHONS)

lint: $(VENV)/installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy --strict
	$(BIN)/lint-imports
	scripts/lint-javascript

bench: debian-packages $(VENV)/installed-dev
	$(BIN)/python -m bench
	$(BIN)/python -m bench.explorer
	$(BIN)/python -m bench.ownership
	$(BIN)/python -m bench.check

bench-explorer: debian-packages $(VENV)/installed-dev
	$(BIN)/python -m bench.explorer

bench-ownership: debian-packages $(VENV)/installed-dev
	$(BIN)/python -m bench.ownership

bench-check: debian-packages $(VENV)/installed-dev
	$(BIN)/python -m bench.check

free-space: debian-packages $(VENV)/installed-dev
	$(BIN)/python -m bench.free_space

redundancy: debian-packages $(VENV)/installed-dev
	$(BIN)/python -m bench.redundancy

lies: debian-packages $(VENV)/installed-dev
	$(BIN)/python -m bench.lies

check-lab: debian-packages $(VENV)/installed-dev
	$(BIN)/python -m pytest -m lab --numprocesses auto --maxprocesses 4

fuzz: $(VENV)/installed-dev
	$(BIN)/python -m tests.fuzz run $(FUZZ)
	$(BIN)/python -m tests.fuzz.coverage_guided

debian-packages:
	@scripts/debian-packages

$(BIN)/python:
	@scripts/make-venv $(PYTHON) $(VENV)

$(VENV)/installed: $(BIN)/python pyproject.toml
	$(PIP) install --editable '.[explorer]'
	@touch $@

$(VENV)/installed-dev: $(BIN)/python pyproject.toml
	$(PIP) install --editable '.[dev]'
	@touch $(VENV)/installed $@

clean:
	rm -rf $(VENV) node_modules build demo dist .coverage .hypothesis
	rm -rf .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
