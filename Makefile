# Everything runs in one virtual environment, .venv. `make demo` and `make test` need nothing else.

TORCH ?= torch==2.13.0
DEMO ?= glmpatch-demo

BIN := .venv/bin
STAMP := .venv/installed-$(shell printf '%s' '$(TORCH)' | cksum | cut -d' ' -f1)
SHELL_SCRIPTS = .ci/run $(wildcard templates/demo/upstream/ptuning/*.sh)

.PHONY: demo test lint bench clean

demo: $(STAMP)
	$(BIN)/glmpatch demo $(DEMO)

test: $(STAMP)
	$(BIN)/pytest --cov --cov-report=term

lint: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/shellcheck --shell=bash $(SHELL_SCRIPTS)

bench: $(STAMP)
	$(BIN)/python -m tests.bench

clean:
	rm -rf .venv .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache dist glmpatch-demo

# The training side needs Python 3.10 or 3.11: tokenizers 0.13.3 has no wheel for a newer one. A name on PATH can be a
# stub that does not start, so each is asked for its version.
$(STAMP): pyproject.toml
	@for python in "$(PYTHON)" python3.11 python3.10 python3; do \
	    if "$$python" -c 'import sys; sys.exit(sys.version_info[:2] not in [(3, 10), (3, 11)])' 2>/dev/null; then \
	        echo "$$python: the virtual environment is made with it"; \
	        exec "$$python" -m venv --clear .venv; \
	    fi; \
	done; \
	echo "error: Python 3.10 or 3.11 is needed, and neither python3.11 nor python3.10 starts here" >&2; \
	echo "hint: install one of them (Debian: apt-get install python3.11 python3.11-venv), or: make PYTHON=/path/to/python" >&2; \
	exit 3
	$(BIN)/pip install --quiet --upgrade 'pip>=24'
	$(BIN)/pip install --quiet $(TORCH)
	$(BIN)/pip install --quiet --editable '.[train,dev]'
	@touch $@
