# Everything runs in one virtual environment, .venv. `make demo` and `make test` need nothing else.

TORCH ?= torch==2.13.0
DEMO ?= glmpatch-demo
# What the demo's ranks talk through: intel, openmpi or mpich.
MPI ?= intel

BIN := .venv/bin
STAMP := .venv/installed-$(shell printf '%s' '$(TORCH)' | cksum | cut -d' ' -f1)
WITH_MPIS = GLMPATCH_MPI_ROOTS='$(CURDIR)/.venv/mpi'
WITH_BACKENDS = $(WITH_MPIS) GLMPATCH_BACKENDS='$(CURDIR)/.venv/backends'
SHELL_SCRIPTS = .ci/run $(wildcard templates/demo/upstream/ptuning/*.sh)

# The tests use all three, each in a folder of its own: all have a bin/mpirun. The folder alone may be half an MPI.
MPIS = $(patsubst %,.venv/mpi/%/installed,intel openmpi mpich)

# Of each MPI the backend that the ranks of the tests use. To compile one takes a minute of a core.
BACKENDS = $(patsubst %,.venv/backends/%/built,intel openmpi mpich)
MAKES_BACKENDS = $(wildcard $(addprefix build/mpi_backend/,*.cpp *.hpp *.py */*.py) glmpatch/building/*.py)

# What starts no ranks, or none that mind to share their cores.
QUICK = $(addprefix tests/,building checking commands doctor machine patching reporting) $(wildcard tests/test_*.py) \
    tests/mpi_backend/test_endings.py
MARKED = -m 'not conformance and not torch_source'

.PHONY: demo test conformance test-torch-source sanitize lint bench clean

# The MPI is the tests', in its own folder: in that of the environment, it would stand in the way of another one.
demo: .venv/mpi/$(MPI)/installed
	$(BIN)/glmpatch build-backend --mpi $(MPI) --mpi-root .venv/mpi/$(MPI)
	$(BIN)/glmpatch demo $(DEMO)

# First what can run on every core at once, then what needs all of them for its ranks.
test: $(MPIS) $(BACKENDS)
	$(WITH_BACKENDS) $(BIN)/pytest $(MARKED) -n auto --dist loadscope --cov --cov-report= $(QUICK)
	$(WITH_BACKENDS) $(BIN)/pytest $(MARKED) --cov --cov-append --cov-report=term \
	    $(addprefix --ignore=,$(QUICK)) tests

# All of torch's own distributed tests, with every MPI and two to four ranks: a quarter of an hour.
conformance: $(MPIS) $(BACKENDS)
	$(WITH_BACKENDS) $(BIN)/pytest -m conformance tests/conformance tests/mpi_backend

# PyTorch 2.6.0 itself, as Debian packages its source: configured with Intel MPI, its patched MPI backend compiled. Needs
# root, debootstrap, 20 GB of disk, and some ten minutes the first time.
test-torch-source: $(STAMP)
	$(BIN)/pytest -m torch_source tests/torch_source

# The tests of the MPI backend on a build with the address and undefined behaviour sanitizers.
sanitize: $(MPIS)
	$(WITH_MPIS) GLMPATCH_SANITIZE=1 $(BIN)/pytest tests/mpi_backend

lint: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/shellcheck --shell=bash $(SHELL_SCRIPTS)
	$(BIN)/actionlint -shellcheck $(BIN)/shellcheck
	$(BIN)/clang-format --dry-run --Werror $(wildcard build/mpi_backend/*.?pp)

bench: $(MPIS)
	$(WITH_MPIS) $(BIN)/python -m tests.bench

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
	echo "hint: install one of them (Debian: apt-get install python3.11 python3.11-venv python3.11-dev), or: make PYTHON=/path/to/python" >&2; \
	exit 3
	$(BIN)/pip install --quiet --upgrade 'pip>=24'
	$(BIN)/pip install --quiet $(TORCH)
	$(BIN)/pip install --quiet --editable '.[train,dev]'
	@touch $@

PACKAGES_OF = $(BIN)/python -c 'import sys; from glmpatch.building.packages import mpi_packages; print(*mpi_packages(sys.argv[1]))'

.venv/mpi/%/installed: $(STAMP) build/mpi.toml
	rm -rf $(@D)
	$(BIN)/pip install --quiet --no-warn-script-location --ignore-installed --prefix $(@D) $$($(PACKAGES_OF) $*)
	@touch $@

.venv/backends/%/built: .venv/mpi/%/installed $(MAKES_BACKENDS)
	$(RM) -r $(@D)
	$(BIN)/glmpatch build-backend --mpi $* --mpi-root .venv/mpi/$* --wheel-dir $(@D)/dist
	$(BIN)/python -m zipfile --extract $(@D)/dist/*.whl $(@D)
	@touch $@
