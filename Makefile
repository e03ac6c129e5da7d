# Two commands: `make optimize` and `make test`. Both set up .venv on first use.
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready

.PHONY: optimize test lint clean
.DEFAULT_GOAL := optimize

optimize: $(READY)
	$(VENV)/bin/lmopt optimize --target velvet-apu

test: $(READY)
	$(VENV)/bin/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "lmopt needs Python 3.11 or newer: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@echo "Setting up $(VENV): about 2.3 GB of packages, one to three minutes"
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(VENV)/bin/uv pip install --quiet --python $(VENV)/bin/python --compile-bytecode --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) out build dist *.egg-info
