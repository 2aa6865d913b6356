# Every target first sets up a virtual environment in .venv with the pinned dependencies, unless it is there and
# neither pyproject.toml nor constraints.txt has changed.
#
#   make demo    sessions and payments on real parts, in about a minute
#   make test    the tests of every day, in minutes    make test-thorough   those that show the same once more
#   make dev     everything on this machine, until Ctrl-C
#   make torture a world that tries to break it: SEED=1 MINUTES=5 PROFILE=sessions PLAN=file SHRINK=20 RECORD=1
#   make lint    style, borders make types   type checkers          make bench   benchmarks
# PYTHON=/path/to/python3.12 chooses the Python; ARGS="…" is passed on.

PYTHON ?=
ARGS ?=
VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready
TYPESCRIPT := typescript@5.9.3
# A virtual environment breaks when its folder is moved or its Python is removed.
CHECKED := $(shell [ "$$(cat $(READY) 2>/dev/null)" = "$(CURDIR)" ] && $(RUN) -c pass 2>/dev/null || rm -f $(READY))

.PHONY: demo test test-thorough torture dev lint types mypy pyright tsc bench setup clean
.DEFAULT_GOAL := help
.PHONY: help

help:
	@sed -n 's/^#   \{0,1\}//p' Makefile

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@set -e; python=""; \
	for name in $(PYTHON) python3 python3.13 python3.12 python3.11; do \
	  if "$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then python="$$name"; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	  found="$$(python3 --version 2>/dev/null || echo none)"; \
	  echo "Waystation needs Python 3.11 or newer; found: $$found." >&2; \
	  echo "Install one (Debian: apt install python3 python3-venv; macOS: brew install python), or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; \
	  exit 1; \
	fi; \
	if ! "$$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then \
	  echo "$$python can't make virtual environments: its 'venv' package is missing (Debian: apt install python3-venv)." >&2; \
	  exit 1; \
	fi; \
	echo "Setting up $(VENV) with $$("$$python" --version); this happens once and takes a minute or two."; \
	"$$python" -m venv --clear $(VENV); \
	if ! $(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]' >$(VENV)/install.log 2>&1; then \
	  grep -v '^WARNING' $(VENV)/install.log | tail -n 15 >&2; \
	  echo "Installing the dependencies failed; all of pip's output is in $(VENV)/install.log." >&2; \
	  echo "Without a network, or behind a proxy, pip's own settings apply (pip config list)." >&2; \
	  exit 1; \
	fi; \
	echo '$(CURDIR)' >$(READY)

demo: $(READY)
	@$(RUN) -m waystation demo $(ARGS)

dev: $(READY)
	@$(RUN) -m waystation dev $(ARGS)

# Tests of one file share servers, so a file stays on one process (tests/conftest.py). Four processes keep two cores
# busy, for tests wait half of their time. Tests that assert speed run afterwards, alone on the machine, also when
# others have failed; 5 is pytest's exit code for "no tests". What ARGS names is run whole, the thorough tests too.
test: ALONE = $(shell grep -rl --include='*.py' 'mark\.alone' tests)
test: $(READY)
	@failed=0; \
	$(RUN) -m pytest -n 4 --durations=10 -m "not slow and not alone$(if $(ARGS),, and not thorough)" $(ARGS) || [ $$? -eq 5 ] || failed=1; \
	$(RUN) -m pytest -m "alone and not slow" $(or $(ARGS),$(ALONE)) || [ $$? -eq 5 ] || failed=1; \
	exit $$failed

# The rest, but for the slow ones: .ci/run runs both.
test-thorough: $(READY)
	@$(RUN) -m pytest -n 4 --durations=10 -m "thorough and not slow and not alone" $(ARGS) || [ $$? -eq 5 ]

torture: $(READY)
	@$(RUN) -m tests.torture $(if $(SEED),--seed $(SEED)) $(if $(MINUTES),--minutes $(MINUTES)) \
	  $(if $(PROFILE),--profile $(PROFILE)) $(if $(PLAN),--plan $(PLAN)) $(if $(SHRINK),--shrink $(SHRINK)) $(if $(RECORD),--record) $(ARGS)

lint: $(READY)
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@PYTHONPATH=. $(VENV)/bin/lint-imports --no-logo
	@$(RUN) -m deptry .

types: mypy pyright tsc

mypy: $(READY)
	@$(RUN) -m mypy

pyright: $(READY)
	@$(RUN) -m pyright --pythonpath $(RUN)

# The types in the comments of the console's modules.
tsc:
	@if command -v npm >/dev/null; then npm exec --yes --package=$(TYPESCRIPT) -- tsc; \
	else echo "The console's types are NOT checked: npm is missing (Debian: apt install npm)."; fi

bench: $(READY)
	@$(RUN) -m benchmarks $(ARGS)

clean:
	rm -rf $(VENV) .waystation dist
