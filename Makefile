# Every target sets up what it needs: a virtual environment in .venv, the pinned dependencies, the build.
#
#   make demo         train an MLP by BCD and by Adam, print a table, write the curves
#   make test         build and run what can be tested without a GPU
#   make test-all     with the combinations that `make test` samples, too (30 min more of a core)
#   make lint         clang-format, ruff, mypy
#   make bench        time sweeps against the published formulas and the floor, and write the table of docs/speed.md
#   make docs         build the pages of docs/ into build/docs/html, every warning an error; runs the gallery
#   make cuda-check   beside torch's CUDA build: build and train without a toolkit; compile and link the CUDA kernels
#   make gpu-test     on a machine with a GPU: build for it with the python at hand, run what needs it, time it
#   make install-check  install in every way, each in an environment of its own, and provoke what goes wrong (an hour)
#   make sanitize     build the library under AddressSanitizer and UBSan, run the tests on it
#   make format       rewrite the sources in the project's style
#   make clean        remove what was built

PYTHON ?= python3
VENV := .venv
CUDA_VENV := .venv-cuda
CUDA_SITE := build/cuda-site
PLAIN_SITE := build/plain-site
CUDA_TORCH := 2.14.1
CUDA_DISK_GB := 14

BIN := $(VENV)/bin
LIBRARY_SOURCES := $(shell find csrc -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')
CPP_SOURCES := $(LIBRARY_SOURCES) $(shell find examples tests -name '*.cpp' -o -name '*.h' -o -name '*.cu')
COMPILED := $(filter %.cpp,$(LIBRARY_SOURCES))
# Minutes, at five seconds of a core a file, unity build and torch's headers included.
BUILD_MINUTES = $$(( ($(words $(COMPILED)) * 5 / $${MAX_JOBS:-$$(getconf _NPROCESSORS_ONLN)} + 59) / 60 ))
BUILD_INPUTS := $(LIBRARY_SOURCES) CMakeLists.txt $(wildcard cmake/*) setup.py pyproject.toml
PYTHON_SOURCES := setup.py torchbcd tests examples benchmarks docs

.PHONY: demo test test-all lint bench docs cuda-check gpu-test install-check sanitize format clean build
.DELETE_ON_ERROR:

demo: build
	@echo "==> training"
	$(BIN)/python examples/python/train_mlp.py

test: build
	$(BIN)/python -m pytest -n auto --dist loadgroup

test-all: build
	$(BIN)/python -m pytest -n auto --dist loadgroup -m ""

lint: $(VENV)/.installed
	$(BIN)/clang-format --dry-run --Werror $(CPP_SOURCES)
	$(BIN)/ruff check $(PYTHON_SOURCES)
	$(BIN)/ruff format --check $(PYTHON_SOURCES)
	$(BIN)/mypy

format: $(VENV)/.installed
	$(BIN)/clang-format -i $(CPP_SOURCES)
	$(BIN)/ruff format $(PYTHON_SOURCES)
	$(BIN)/ruff check --fix $(PYTHON_SOURCES)

bench: build
	$(BIN)/python benchmarks/bench_sweep.py --threads 1
	$(BIN)/python benchmarks/bench_dlam.py --threads 1
	$(BIN)/python benchmarks/bench_relaxed.py --threads 1
	$(BIN)/python benchmarks/speed_report.py

# Sphinx, in the same environment, since it imports torchbcd. All pages anew, since one that has not changed would keep its
# warnings to itself. Doxygen reads the C++ headers where the machine has it; where not, the C++ reference says so.
docs: build $(VENV)/.docs-installed
	@command -v doxygen > /dev/null || echo "==> no doxygen: the C++ reference is left out (apt-get install doxygen)"
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -q -E -a -b html -j1 -W --keep-going -n -d build/docs/doctrees docs build/docs/html
	@echo "==> build/docs/html/index.html"

$(VENV)/.docs-installed: docs/requirements.txt $(VENV)/.installed
	@$(BIN)/pip install --quiet --requirement docs/requirements.txt
	@touch $@

build: $(VENV)/.built

# setuptools would hide the compiler's output behind pip's; warnings are errors of ours to see.
$(VENV)/.built: $(VENV)/.installed $(BUILD_INPUTS)
	@echo "==> building $(words $(COMPILED)) files of C++ (about $(BUILD_MINUTES) min)"
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/pip install --quiet --no-build-isolation --no-deps --editable .
	@$(BIN)/python -c "from torchbcd import _build_info as b; \
	  print(f'==> built for torch {b.TORCH_VERSION},', f'no CUDA kernels: {b.WITHOUT_CUDA}' if b.WITHOUT_CUDA else 'with CUDA kernels')"
	@touch $@

$(VENV)/.installed: requirements-dev.txt
	@echo "==> creating the environment in $(VENV), with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV)
	@echo "==> installing requirements-dev.txt, torch among them (1 to 5 min)"
	@$(BIN)/pip install --quiet --requirement requirements-dev.txt
	@touch $@

# A second environment with torch's CUDA build (5.5 GB), skipped with a word where the disk has no room. What most
# people have comes first: that torch, and no CUDA toolkit. Kernels that nothing runs are compiled with less
# optimisation, in two thirds of the time.
cuda-check:
	@if [ ! -f $(CUDA_VENV)/.installed ] && \
	    [ $$(df --output=avail --block-size=1G . | tail -n 1) -lt $(CUDA_DISK_GB) ]; then \
	  echo "cuda-check: SKIPPED, it needs $(CUDA_DISK_GB) GB of free disk"; exit; \
	fi; \
	$(MAKE) --no-print-directory $(PLAIN_SITE)/.checked || exit; \
	if ! command -v nvcc > /dev/null && [ -z "$$CUDA_HOME" ]; then \
	  echo "cuda-check: kernels SKIPPED, there is no CUDA toolkit (no nvcc on the PATH, no CUDA_HOME)"; exit; \
	fi; \
	$(MAKE) --no-print-directory $(CUDA_SITE)/.built && \
	cd build && PYTHONPATH=cuda-site ../$(CUDA_VENV)/bin/python ../tests/cuda/check_build.py 80 90 90+PTX

# The environment without the folders that hold an nvcc. TORCHBCD_CUDA is left at auto.
WITHOUT_TOOLKIT = env -u CUDA_HOME -u CUDA_PATH -u FORCE_CUDA -u TORCHBCD_CUDA \
  PATH="$(abspath $(CUDA_VENV)/bin)$$(echo "$$PATH" | tr : '\n' | while read -r folder; do \
    [ -x "$$folder/nvcc" ] || printf ':%s' "$$folder"; done)"

$(PLAIN_SITE)/.checked: $(CUDA_VENV)/.installed $(BUILD_INPUTS) $(wildcard torchbcd/*.py) tests/cuda/check_build.py
	rm -rf $(PLAIN_SITE) build/plain-program build/lib* build/bdist*
	$(WITHOUT_TOOLKIT) $(CUDA_VENV)/bin/pip install --quiet --no-build-isolation --no-deps --target $(PLAIN_SITE) .
	cd build && $(WITHOUT_TOOLKIT) PYTHONPATH=plain-site \
	  python ../tests/cuda/check_build.py --without-toolkit plain-program
	touch $@

$(CUDA_SITE)/.built: $(CUDA_VENV)/.installed $(BUILD_INPUTS) $(wildcard torchbcd/*.py)
	rm -rf $(CUDA_SITE) build/lib* build/bdist*
	PATH="$(abspath $(CUDA_VENV)/bin):$$PATH" TORCHBCD_CUDA=1 TORCH_CUDA_ARCH_LIST="8.0;9.0+PTX" \
	  CUDAFLAGS=--Ofast-compile=max $(CUDA_VENV)/bin/pip install --quiet --no-build-isolation --no-deps --target $(CUDA_SITE) .
	touch $@

$(CUDA_VENV)/.installed: requirements-dev.txt
	$(PYTHON) -m venv $(CUDA_VENV)
	$(CUDA_VENV)/bin/pip install --quiet torch==$(CUDA_TORCH) numpy \
	  $$(grep -E '^(cmake|ninja|setuptools)==' requirements-dev.txt)
	touch $@

# With $(PYTHON) itself: its torch is the CUDA build that the GPU's machine has, and there may be no network.
gpu-test:
	$(PYTHON) tests/cuda/gpu_test.py

# Eight builds: through ccache, where the machine has it, they take three's time (pip unpacks an archive elsewhere each
# time, and another CMake writes other commands). INSTALL="--only uv", say,
# or INSTALL="--torch 2.11.0 2.14.1 --only pip cmake", chooses.
install-check:
	$(PYTHON) tests/install/try_install.py $(if $(shell command -v ccache),--ccache) $(INSTALL)

# Python itself is not instrumented, so the runtimes are loaded before it, and leaks are not looked for. The C++
# programs that the tests build are instrumented too.
SANITIZE_SITE := build/sanitize-site
SANITIZERS := -fsanitize=address,undefined
SANITIZE_TESTS ?= tests/python

sanitize: $(SANITIZE_SITE)/.built
	PYTHONPATH=$(abspath $(SANITIZE_SITE)) CXXFLAGS="$(SANITIZERS)" LDFLAGS="$(SANITIZERS)" \
	  LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libubsan.so)" \
	  ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
	  $(BIN)/pytest -q -p no:cacheprovider $(SANITIZE_TESTS)

$(SANITIZE_SITE)/.built: $(VENV)/.installed $(BUILD_INPUTS) $(wildcard torchbcd/*.py)
	rm -rf $(SANITIZE_SITE) build/lib* build/bdist*
	PATH="$(abspath $(BIN)):$$PATH" TORCHBCD_SANITIZE=1 \
	  $(BIN)/pip install --quiet --no-build-isolation --no-deps --target $(SANITIZE_SITE) .
	touch $@

clean:
	rm -rf build dist *.egg-info $(VENV)/.built torchbcd/_C*.so torchbcd/_build_info.py torchbcd/lib \
	  torchbcd/include torchbcd/share docs/auto_gallery
