# Every target makes what it needs: see tools/. Say which Python with `make PYTHON=python3.13 test`.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$python" && break; done)
ARGS ?=
# The test project and the acceptance tests read it.
export TESTPROJECT_BROKER ?= $(BROKER)
export TESTPROJECT_RESULTS ?= $(RESULTS)

SOURCES = $(wildcard django_tasks testproject benchmarks tools tests noxfile.py)

.PHONY: help demo test lint bench format clean

help:
	@echo "make demo    a real job on SQLite; ONCE=1 ends after it, BROKER=redis or amqp and RESULTS=redis use that"
	@echo "make test    every test; ARGS='-k claim' goes to pytest; BROKER and RESULTS are for the acceptance tests"
	@echo "make lint    style, types and floors"
	@echo "make bench   how fast it is; ARGS='--help' shows the choices"
	@echo "make format  what can be mended by itself"
	@echo "make clean   remove environments and caches"

demo: .python
	@$(PYTHON) -m tools.environment .venv-demo $(if $(TESTPROJECT_BROKER)$(TESTPROJECT_RESULTS),test)
	@.venv-demo/bin/python -m testproject.demo $(ARGS)

test: .python
	@$(PYTHON) -m tools.suite $(ARGS)

lint: .python
	@$(PYTHON) -m tools.environment .venv lint
	.venv/bin/ruff check $(SOURCES)
	.venv/bin/ruff format --check $(SOURCES)
	.venv/bin/mypy $(SOURCES)
	.venv/bin/lint-imports

bench: .python
	@$(PYTHON) -m tools.servers benchmarks $(ARGS)

format: .python
	@$(PYTHON) -m tools.environment .venv lint
	.venv/bin/ruff check --fix $(SOURCES)
	.venv/bin/ruff format $(SOURCES)

clean:
	rm -rf .venv .venv-* .nox .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .coverage .coverage.* htmlcov build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: .python
.python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed, and none was found on PATH."; \
		echo "On Debian and Ubuntu: apt-get install python3 python3-venv. Or say where it is: make PYTHON=/path/to/python3"; exit 1; } >&2
