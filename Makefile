# The README's commands. Everything is installed into .venv, from requirements.lock.
SHELL := /bin/sh
# The first Python that runs and is of a version that every dependency has wheels for.
PYTHON ?= $(shell for name in python3 python3.13 python3.12 python3.11 python; do \
	"$$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
	&& command -v "$$name" && break; done)
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help install demo test check format lock clean

help: ## list these commands
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile

install: ## install everything into .venv (the first step of the others)
	@test -n "$(PYTHON)" || { echo "Dartboard needs Python 3.11, 3.12 or 3.13 and found none on the PATH; install one, or name it: make PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" bootstrap.py

demo: install ## search an architecture for handwritten digits, live, and draw it
	@$(BIN)/dartboard demo

# Two at a time: much of the suite waits for processes that it started. A file stays together, and
# those with the longest tests come first (tests/conftest.py), lest one core waits for them at last.
test: install ## run the whole test suite
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

check: install ## run the linters, the type checker, the import rules and the migration check
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --config pyproject.toml
	@$(BIN)/python -m migrations.check

format: install ## format the code and mend what ruff can mend
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

lock: install ## choose the newest versions again and pin them
	@"$(PYTHON)" bootstrap.py --lock

clean: ## remove what was installed; the data under .dartboard stays
	rm -rf .venv .tools .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
