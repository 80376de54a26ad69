# Needs python3 with venv, a C compiler and make; everything else goes into .venv. See CONTRIBUTING.md.
VENV := .venv
PY := $(VENV)/bin/python
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

KERNELS := CMakeLists.txt $(wildcard src/fastgen/*.pxd src/fastgen/_kernels/*.h src/fastgen/_kernels/*.pyx src/fastgen/_kernels/*.pxd)
HEADERS := $(wildcard src/fastgen/_kernels/*.h)
QUICK ?=

.PHONY: help build demo test bench lint format sanitize dist clean

help:
	@echo "make demo      fit, score, sample and complete handwritten digits"
	@echo "make test      run the tests"
	@echo "make bench     compare with pure NumPy and others (QUICK=1: small sizes, answers only)"
	@echo "make lint      ruff, mypy, stubtest, cython-lint, clang-format"
	@echo "make format    let the formatters write"
	@echo "make sanitize  run the kernels' tests under AddressSanitizer and UBSan"
	@echo "make dist      build and check sdist and wheel"
	@echo "make clean     remove .venv and everything built"

# The environment: made once, and again when the requirements change.
$(VENV)/installed: pyproject.toml
	python3 -m venv $(VENV)
	$(PY) tools/install_requirements.py
	touch $@

# The kernels: compiled again, incrementally, when their sources change. Python files need no step.
$(VENV)/built: $(VENV)/installed $(KERNELS)
	sh tools/python_headers.sh $(PY) $(VENV)/include-python > $(VENV)/cmake-args
	CMAKE_ARGS="$$(cat $(VENV)/cmake-args)" $(PY) -m pip install -q --no-build-isolation --no-deps -e .
	touch $@

build: $(VENV)/built

demo: build
	$(PY) -m fastgen demo

test: build
	$(PY) -m pytest -q tests

bench: build
	mkdir -p bench-output
	$(PY) -m pytest -q benchmarks --benchmark-json=bench-output/benchmark.json $(if $(QUICK),--quick)
	$(PY) benchmarks/report.py bench-output/benchmark.json

lint: build
	ruff check .
	ruff format --check .
	mypy
	stubtest --concise --allowlist tools/stubtest_allow.txt fastgen._kernels._cpu fastgen._kernels._simd fastgen._kernels._gaussian fastgen._kernels._mixture fastgen._kernels._hmm fastgen._kernels._naive_bayes fastgen._kernels._messages
	cython-lint src tests
	clang-format --dry-run --Werror $(HEADERS)

format: build
	ruff check --fix .
	ruff format .
	clang-format -i $(HEADERS)

sanitize: build
	sh tools/sanitize.sh $(PY)

dist: build
	rm -rf dist
	CMAKE_ARGS="$$(cat $(VENV)/cmake-args)" $(PY) -m build --outdir dist .
	$(PY) tools/check_dist.py dist

clean:
	rm -rf $(VENV) build dist bench-output demo-output .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find . -name __pycache__ -prune -exec rm -rf {} +
