# `make run` and `make test` are all that a fresh machine needs; `make help` says what else there is.
#
# Everything is installed in .venv. Stamp files there are newer than pyproject.toml and constraints.txt unless one of them
# has changed since, so a second call installs nothing and starts at once.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV := .venv
NPROC ?= 2
export PYTHON ?= python3
export TORCH ?=
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export OMP_NUM_THREADS ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# Build isolation would fetch an unpinned hatchling; the pinned one is in the environment already.
INSTALL := pip install --quiet --constraint $(VENV)/constraints.txt --no-build-isolation

.PHONY: help run report test test-all test-unit test-cli test-jobs lint dev docs clean

help:
	@echo 'make run       set up .venv and train the default recipe on $(NPROC) ranks: real data, no download'
	@echo 'make report    a page on the default recipe: trains it with its noise scale measured if it has not been, and writes the page'
	@echo 'make test      set up .venv, Open MPI and Horovod; then lint, types, import contracts and all quick tests'
	@echo 'make test-all  the same with the slow tests'
	@echo 'make lint      ruff, mypy and the import contracts'
	@echo 'make docs      the documentation site, in site/; a broken link is an error'
	@echo 'make clean     remove .venv and all caches'
	@echo
	@echo 'DISTTRAIN_DATA=DIR   for the tests: the folder that holds fashion-mnist/ and tinyshakespeare/; tests on that data'
	@echo '                     fail without it (.ci/run looks beside the checkout)'
	@echo 'PYTHON=python3.12    the Python of a new .venv (default python3; 3.11 or newer)'
	@echo 'TORCH=torch==2.11.0  the torch in .venv (default: as in constraints.txt); what pip install takes, options too'
	@echo 'NPROC=4              ranks of make run'

run: $(VENV)/.stamp-run
	torchrun --nproc_per_node=$(NPROC) -m disttrain

# Killed and called again, the training goes on.
REPORTED := runs/digits-report
report: $(VENV)/.stamp-report
	grep -qs '"state": "finished"' $(REPORTED)/metrics.jsonl || torchrun --nproc_per_node=$(NPROC) -m disttrain train \
		noise_scale.every_steps=1 noise_scale.slice=16 --resume auto --run-dir $(REPORTED)
	disttrain report $(REPORTED)

# CI often runs as root, which Open MPI refuses unless it is told twice.
test test-all: export OMPI_ALLOW_RUN_AS_ROOT := 1
test test-all: export OMPI_ALLOW_RUN_AS_ROOT_CONFIRM := 1

# Two at a time, the longest first: most tests use one core. What each says comes when it ends.
test: dev
	$(MAKE) --no-print-directory --jobs=2 --output-sync=target test-jobs test-unit test-cli lint

test-all: export MARKS := not gpu
test-all: test

export MARKS ?= not slow and not gpu

test-unit: $(VENV)/.stamp-dev
	pytest -m '$(MARKS)' tests/unit

test-cli: $(VENV)/.stamp-dev
	pytest -m '$(MARKS)' tests/cli

# Tests that start jobs, mostly.
test-jobs: $(VENV)/.stamp-dev
	pytest -m '$(MARKS)' tests --ignore tests/unit --ignore tests/cli

lint: $(VENV)/.stamp-dev
	ruff check .
	ruff format --check .
	mypy
	lint-imports

docs: $(VENV)/.stamp-dev
	mkdocs build --quiet

# Open MPI and Horovod look for themselves whether there is anything to do.
dev: $(VENV)/.stamp-dev
	tools/install-openmpi.sh
	PIP_CONSTRAINT=$(VENV)/constraints.txt launch/install-horovod.sh $(VENV)/bin/python

# TORCH asks for another torch than the one that was asked for last: start over from there.
ifneq ($(TORCH),)
ifneq ($(TORCH),$(file <$(VENV)/torch-request))
.PHONY: $(VENV)/.stamp-venv
endif
endif

$(VENV)/.stamp-venv: constraints.txt tools/make-venv.sh
	tools/make-venv.sh $(VENV)
	touch $@

$(VENV)/.stamp-run: $(VENV)/.stamp-venv pyproject.toml
	$(INSTALL) hatchling editables
	$(INSTALL) --editable '.[quickstart,tensorboard]'
	touch $@

$(VENV)/.stamp-report: $(VENV)/.stamp-run
	$(INSTALL) --editable '.[quickstart,tensorboard,report]'
	touch $@

$(VENV)/.stamp-dev: $(VENV)/.stamp-run tests/peers.txt
	$(INSTALL) --editable '.[dev,mpi]'
	pip install --quiet --no-deps --requirement tests/peers.txt
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis build dist site *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
