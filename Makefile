# Two commands for a newcomer: `make demo` and `make test`. Everything happens in .venv; nothing else is touched.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
STAMP   = $(VENV)/.installed
PEERS   = $(VENV)/peers/.installed

.PHONY: help setup demo test lint bench wheel clean

help:
	@echo "make demo   train on real pictures, draw new ones, write a report to look at (about 5 minutes)"
	@echo "make test   run the tests            make lint   style, types, spelling of the rules"
	@echo "make bench  speed and agreement beside the peers (about 20 minutes; some of it: PARTS='frechet inception')"
	@echo "make wheel  build the package"

setup: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "unnoise needs Python 3.11 or newer; name one with: make PYTHON=python3.12"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(STAMP)

demo: setup
	$(BIN)/unnoise demo

# One process a core, each of one thread: the tests are many and small. Files stay whole, for what they set up once.
test: setup
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Aside from the other packages: they ask for a torchvision whose operators may not fit the torch at hand.
$(PEERS): benchmarks/requirements-metrics.txt | $(STAMP)
	rm -rf $(@D)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $(@D) -r $<
	@touch $@

bench: setup $(PEERS)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r benchmarks/requirements.txt
	$(BIN)/python -m benchmarks $(PARTS)

wheel: setup
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation -w dist .

clean:
	rm -rf $(VENV) dist build
