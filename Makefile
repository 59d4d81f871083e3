# spikebridge: `make train` does everything, `make test` checks everything, `make help` lists the rest.

PYTHON     ?= python3
DATASET    ?= digits
EVENTS     ?= data/raw/$(DATASET)/events
STATIC     ?= data/raw/$(DATASET)/static
RECIPE     ?= $(DATASET)
OUT        ?= data
SECONDS    ?= 60
SEED       ?= 0
AT_ONCE    ?= 1
PARSERS    ?= aedat2 aedat3 aedat4 bin40 camera cifar cifar_bin dat ecf event_stream evt gzip hdf5 idx image lz4 mat mat_events \
              nomniglot_table npy npz shard_codec shard_hdf5 shard_index shard_manifest shard_static shard_tar text \
              user_tables zip_members
PREPROCESS ?=
TRAIN      ?=
METHODS    ?= event_only,kt
SEEDS      ?= 0,1,2
GPU_PYTHON ?= $(PYTHON)
SPIKINGJELLY ?=
READERS    ?=
SIZES      ?= 2000,10000,40000
GRID       ?= $(DATASET)
ABLATE     ?=

TODAY := $(shell date -u +%F)
VENV  := .venv
READY := $(VENV)/.ready
# The build of torch: cpu, cuda, or none for the one that the package index gives; the last choice is remembered.
TORCH ?=
BUILT := $(shell cat $(READY) 2>/dev/null)
ifeq ($(strip $(TORCH)),)
override TORCH := $(BUILT)
endif
CUDA  ?= cu130
BUILD  = $(patsubst cuda,$(CUDA),$(TORCH))
TORCH_INDEX ?= https://download.pytorch.org/whl/$(BUILD)
TORCH_PIN = $(shell sed -n 's/^torch==//p' requirements.lock)
CLI   := $(VENV)/bin/spikebridge
NAME   = $(notdir $(basename $(RECIPE)))

# A folder's name holds the hash of the settings that made it: a changed setting makes a new folder.
SHARDS  = $(OUT)/shards/$(DATASET)-$(shell $(CLI) preprocess --dataset $(DATASET) --recipe $(RECIPE) $(PREPROCESS) --settings-hash)
RUNHASH = $(shell $(CLI) train --recipe $(RECIPE) $(TRAIN) --settings-hash)

.DEFAULT_GOAL := help
.PHONY: help setup raw preprocess verify train evaluate compare ablate leak report bench bench-pipeline bench-train bench-scale bench-gpu check-gpu fuzz chaos docs lint test pytest test-long clean distclean

help: ## list the targets and variables
	@echo "Usage: make TARGET [VARIABLE=value ...]"
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  \1|\2/p' Makefile | awk -F'|' '{printf "%-14s %s\n", $$1, $$2}'
	@echo "Variables: DATASET=$(DATASET) EVENTS=$(EVENTS) STATIC=$(STATIC) RECIPE=$(RECIPE) OUT=$(OUT)"
	@echo "           METHODS=$(METHODS) SEEDS=$(SEEDS) PREPROCESS='more options' TRAIN='more options'"
	@echo "           GRID=$(GRID) ABLATE='more options'"
	@echo "           PYTHON=$(PYTHON) TORCH=cpu|cuda CUDA=$(CUDA) TORCH_INDEX='where its builds are'"

setup: $(READY) ## make the environment .venv with everything in it

ifneq ($(TORCH),$(BUILT))
.PHONY: $(READY)
endif
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15) and "Python 3.11 to 3.14 is needed; choose one with PYTHON=")'
	@case "$(TORCH)" in \
	  cpu) size="0.8 GB" ;; \
	  cuda) size="3.0 GB" ;; \
	  "") size="0.8 GB with a CPU build of torch, 3.0 GB with a CUDA build" ;; \
	  *) echo "TORCH=$(TORCH): expected cpu or cuda, or none for the build that the package index gives" >&2; exit 2 ;; \
	esac; \
	echo "Downloading the packages of requirements.lock to $(VENV), about $$size (Linux x86-64)."; \
	echo "torch $(TORCH_PIN): $(if $(TORCH),build $(BUILD) from $(TORCH_INDEX),the build that the package index gives; TORCH=cpu or TORCH=cuda chooses)"
	@$(PYTHON) -m venv $(VENV)
	$(if $(TORCH),@$(VENV)/bin/pip install --quiet --disable-pip-version-check --extra-index-url $(TORCH_INDEX) torch==$(TORCH_PIN)+$(BUILD))
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check --requirement requirements.lock
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@echo "$(TORCH)" > $@

raw: $(READY) ## make the built-in raw data (DATASET=digits only)
ifeq ($(DATASET)$(EVENTS),digitsdata/raw/digits/events)
	@$(CLI) simulate digits --out data/raw/digits
endif

preprocess: raw ## raw data to shards
	@$(CLI) preprocess --dataset $(DATASET) --recipe $(RECIPE) --events $(EVENTS) --static $(STATIC) --out $(SHARDS) $(PREPROCESS) \
	|| { code=$$?; [ $$code -eq 3 ] && echo "warning: some recordings were dropped (exit code 3)" >&2 || exit $$code; }

verify: preprocess ## check the shards: bytes, counts, leaks
	@$(CLI) verify $(SHARDS)

train: preprocess ## everything: raw data, shards, training, test, report
	@$(CLI) train --shards $(SHARDS) --recipe $(RECIPE) --run $(OUT)/runs/$(NAME)-$(RUNHASH) $(TRAIN)

evaluate: train ## score the trained network again
	@$(CLI) evaluate $(OUT)/runs/$(NAME)-$(RUNHASH) --shards $(SHARDS)

compare: preprocess ## METHODS over SEEDS, and the table
	@$(CLI) compare --shards $(SHARDS) --recipe $(RECIPE) --methods $(METHODS) --seeds $(SEEDS) --out $(OUT)/runs/$(NAME)-$(RUNHASH)-compare $(TRAIN)

ablate: preprocess ## GRID of methods and switches: one table, under 3 hours on 2 cores; ABLATE="--seeds 0,1" for less
	@$(CLI) ablate --grid $(GRID) --shards $(SHARDS) --out $(OUT)/runs/$(notdir $(basename $(GRID)))-ablation $(ABLATE)

leak: preprocess ## what leakage is worth: the same recordings with a strict and with a LEAKY pool
	@$(CLI) preprocess --dataset $(DATASET) --recipe $(RECIPE) --events $(EVENTS) --static $(STATIC) --protocol leaky \
	  --out $(SHARDS)-LEAKY $(PREPROCESS) && $(CLI) verify $(SHARDS)-LEAKY
	@$(CLI) ablate --grid leak --shards $(SHARDS) --shards $(SHARDS)-LEAKY --out $(OUT)/runs/leak-ablation $(ABLATE)

report: train ## write the run's report again
	@$(CLI) report $(OUT)/runs/$(NAME)-$(RUNHASH) --shards $(SHARDS)

bench: bench-pipeline bench-train ## speed beside tonic and the published way of training, as ratios; takes SPIKINGJELLY=
	@$(VENV)/bin/python tests/bench/bench_simulation.py

bench-pipeline: $(READY) ## speed of the pipeline, bytes on disk, beside tonic, webdataset, SPIKINGJELLY=python, READERS=python (RVT, too); writes docs/results/
	@$(VENV)/bin/python tests/bench/bench_pipeline.py --json docs/results/bench-pipeline-$(TODAY).json $(if $(SPIKINGJELLY),--spikingjelly $(SPIKINGJELLY)) $(if $(READERS),--readers $(READERS)) $(if $(RECORDINGS),--recordings $(RECORDINGS))

bench-train: $(READY) ## speed and memory of training on the CPU beside SPIKINGJELLY=python, and in bf16; writes docs/results/
	@$(VENV)/bin/python tests/bench/bench_train.py --json docs/results/bench-train-$(TODAY).json $(if $(SPIKINGJELLY),--spikingjelly $(SPIKINGJELLY))

bench-scale: $(READY) ## CPU and memory as a set grows, over SIZES recordings; writes docs/results/
	@$(VENV)/bin/python tests/bench/bench_scale.py --sizes $(SIZES) --json docs/results/bench-scale-$(TODAY).json

bench-gpu: ## speed and memory of training on a CUDA machine; GPU_PYTHON=python whose torch has CUDA
	@$(GPU_PYTHON) tests/bench/bench_gpu.py --json docs/results/bench-gpu-$(TODAY).json $(if $(SPIKINGJELLY),--spikingjelly $(SPIKINGJELLY))

check-gpu: ## whether training works on this machine's GPU: a verdict a line; GPU_PYTHON=python whose torch has CUDA
	@$(GPU_PYTHON) tests/bench/check_gpu.py --json docs/results/bench-gpu-$(TODAY).json

fuzz: $(READY) ## add atheris, and feed PARSERS damaged files for SECONDS each
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check 'atheris>=3.0'
	@mkdir -p $(OUT)/runs/fuzz && cd $(OUT)/runs/fuzz && for parser in $(PARSERS); do \
	  $(abspath $(VENV))/bin/python $(CURDIR)/tests/fuzz/fuzz_formats.py $$parser -max_total_time=$(SECONDS) || exit; done

chaos: $(READY) ## cross random verbs, faults and places for SECONDS, AT_ONCE at a time; SEED chooses which
	@$(VENV)/bin/python tests/chaos/crossings.py --seconds $(SECONDS) --seed $(SEED) --at-once $(AT_ONCE) $(if $(REPORT),--out $(REPORT))

docs: $(READY) ## the documentation, in build/docs; a warning or a broken link fails
	@$(VENV)/bin/python -m sphinx -W --keep-going --quiet --builder html --doctree-dir build/doctrees docs build/docs
	@echo "open build/docs/index.html"

lint: $(READY) ## style and types
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy

test: $(READY) ## lint, types and all tests but the long ones
	@$(MAKE) --no-print-directory --jobs 2 lint pytest

pytest: $(READY)
	@$(VENV)/bin/pytest -n 3 --dist worksteal -m "not long"

test-long: lint ## every test, then fuzzing and random crossings; writes a summary to docs/results/
	@$(VENV)/bin/python tests/long_run.py --seconds $(SECONDS) --out docs/results/test-long-$(shell date -u +%F).md

clean: ## remove what `make train` made (raw digits, shards, runs), docs and caches
	rm -rf data/raw/digits data/shards data/runs build .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -exec rm -rf {} +

distclean: clean ## and the environment
	rm -rf $(VENV) *.egg-info
