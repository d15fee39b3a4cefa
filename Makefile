# Each target sets up what it needs; that is instant when nothing changed.
# ARGS is passed on to the command: make test ARGS="-k schedule -x"

ENV := .venv
CLASSIC := .venv-classic
MIM := .venv-mim
DEMO := .venv-demo
DOCS := .venv-docs
ARGS ?=
# As many processes as cores; a file's tests stay together, as they share what
# is slow to build. `make test WORKERS=0` runs all in one process (for -s, pdb).
WORKERS ?= logical
PYTEST = python -m pytest -n $(WORKERS) --maxprocesses 8 --dist loadfile

# Threads that wait must not spin: on a busy machine that costs several times
# the work itself.
export OMP_WAIT_POLICY ?= PASSIVE

.DEFAULT_GOAL := help
.PHONY: help demo docs test test-classic lint format env env-demo \
        env-classic mim-env clean-env

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / \
	    {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: env-demo  ## Search, export and compare a small model on the CPU
	@$(DEMO)/bin/python -W ignore demo/demo.py $(ARGS)

docs: env-demo  ## Build the documentation into docs/_build/html
	@.dev_scripts/setup_docs.sh
	@$(DOCS)/bin/python -m sphinx -q -W --keep-going -b html docs \
	    docs/_build/html $(ARGS)
	@echo docs/_build/html/index.html

test: env  ## Run all tests (modern set: Python 3.11, torch 2.11)
	@$(ENV)/bin/$(PYTEST) $(ARGS)

test-classic: env-classic  ## Run all tests (classic set: Python 3.10, torch 1.13)
	@$(CLASSIC)/bin/$(PYTEST) $(ARGS)

lint: env  ## Check style
	@$(ENV)/bin/python -m ruff check .
	@$(ENV)/bin/python -m ruff format --check .

format: env  ## Mend style where that is automatic
	@$(ENV)/bin/python -m ruff check --fix .
	@$(ENV)/bin/python -m ruff format .

env:  ## Set up .venv, the modern set
	@.dev_scripts/setup_env.sh modern

env-demo:  ## Set up .venv-demo, where nothing is compiled
	@.dev_scripts/setup_env.sh demo

env-classic:  ## Set up .venv-classic, the classic set
	@.dev_scripts/setup_env.sh classic

mim-env: env  ## Set up .venv-mim, the mim command on top of .venv
	@.dev_scripts/setup_mim.sh

clean-env:  ## Remove all environments
	rm -rf $(ENV) $(CLASSIC) $(MIM) $(DEMO) $(DOCS)
