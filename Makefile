# make demo    draw pictures and a map of the filesystem that comes with the package, into demo/
# make test    install what the tests need; lint, type check and test
# make lint    ruff, mypy, and for JavaScript eslint and tsc, alone
# make bench   build two large filesystems and measure on them (root, some minutes, 5 GB of disk)
# make bench-explorer  measure the explorer alone, on the same filesystems (root, chromium)
# make free-space  fill filesystems, and write the table of docs/free-space.md (root, some minutes,
#              8 GB in the folder for temporary files)
# make redundancy  damage filesystems, and write the tables of docs/redundancy.md (root, a minute)
# make fuzz    read 20,000 damaged filesystems, and see whether anything crashes (some minutes); with
#              FUZZ=--write, the figures go into docs/fuzzing.md
# make clean   remove what these made

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

.PHONY: demo test lint bench bench-explorer free-space redundancy clean debian-packages

demo: $(VENV)/installed
	@$(BIN)/python scripts/demo.py demo

test: debian-packages lint
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

lint: $(VENV)/installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy --strict
	scripts/lint-javascript

bench: debian-packages $(VENV)/installed-dev
	$(BIN)/python -m bench
	$(BIN)/python -m bench.explorer

bench-explorer: debian-packages $(VENV)/installed-dev
	$(BIN)/python -m bench.explorer

free-space: debian-packages $(VENV)/installed-dev
	$(BIN)/python -m bench.free_space

redundancy: debian-packages $(VENV)/installed-dev
	$(BIN)/python -m bench.redundancy

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
	rm -rf $(VENV) node_modules build demo dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
