# edgeface: `make help` lists every target.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || echo python3)
VENV := .venv
RUN := $(VENV)/bin/python
STAMP := $(VENV)/.installed
TEST_JOBS ?= 2

# Of the command line alone: the environment has such names for other things, and one of these is a
# folder that `clean` removes.
MODEL = edgeface-n
TARGET = onnx
PRECISION = fp32
SIZE = 640x480
DATA = ../shared/wider
OUT = dist
MAX_DROP = 0.5
CALIBRATION =
PEERS = ../shared/peers
DEVICE =
BENCH =
MEASURE =
MODEL_OPTIONS =
BUDGET_MS =
SEED = 0
SEARCH =
SEARCH_DIR = runs/search-$(TARGET)-$(PRECISION)
RUN_DIR = runs/$(MODEL)

# One word of the shell, whatever it holds; BENCH, SEARCH and MODEL_OPTIONS are several.
quoted = '$(subst ','\'',$(1))'
BENCH_OPTIONS = --model $(call quoted,$(MODEL)) --out $(call quoted,$(OUT)) --peers $(call quoted,$(PEERS)) \
  --data $(call quoted,$(DATA)) --max-drop $(call quoted,$(MAX_DROP)) \
  $(if $(CALIBRATION),--calibration $(call quoted,$(CALIBRATION))) $(BENCH)

.PHONY: help setup lint test test-slow test-apps train eval export quantize bench bench-pi \
  bench-tables bench-export bench-model search package lock clean

help: ## list the targets
	@echo "edgeface: tiny face detectors for ARM and x86 CPUs"; echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo; echo $(call quoted,  Options: MODEL=$(MODEL) TARGET=$(TARGET) PRECISION=$(PRECISION) SIZE=$(SIZE)) \
	  $(call quoted,DATA=$(DATA) OUT=$(OUT) MAX_DROP=$(MAX_DROP) CALIBRATION=folder)

setup: $(STAMP) ## make .venv with everything the checkout needs

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
	  { echo "error: the pins are for Python 3.11: install it, or pass PYTHON=/path/to/python3.11" >&2; exit 2; }
	@echo "making $(VENV): about 3 GB, a few minutes"
	$(PYTHON) -m venv $(VENV)
	PIP_CONSTRAINT=constraints.txt $(RUN) -m pip install $(if $(CI),--quiet) --disable-pip-version-check \
	  torch==2.13.0 -e '.[dev]'
	@touch $@

lint: $(STAMP) ## ruff (lint) and mypy (types)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy edgeface export quantize benchmarks tests

test: lint ## lint, types and the quick tests (minutes)
	$(RUN) -m pytest -n $(TEST_JOBS) --dist loadfile

test-slow: $(STAMP) ## the full matrix: every network, fresh environments, training (up to an hour)
	$(RUN) -m pytest -n $(TEST_JOBS) --dist loadfile -m slow

test-apps: $(STAMP) ## the decoders in examples/ (Python, JavaScript, C++, Kotlin, Swift) against the golden vectors
	PYTHON="$$PWD/$(RUN)" sh examples/test.sh

train: $(STAMP) ## train MODEL on DATA (WIDER FACE layout) into RUN_DIR; resumes by itself
	$(RUN) -m edgeface train --model $(call quoted,$(MODEL)) --data $(call quoted,$(DATA)) \
	  --out $(call quoted,$(RUN_DIR))

eval: $(STAMP) ## official WIDER FACE figures of MODEL on DATA
	$(RUN) -m edgeface eval --model $(call quoted,$(MODEL)) --data $(call quoted,$(DATA))

export: $(STAMP) ## MODEL to TARGET (onnx, tflite, openvino, ncnn) as PRECISION (fp32, fp16), proven equal to torch
	$(RUN) -m edgeface export --model $(call quoted,$(MODEL)) --target $(call quoted,$(TARGET)) \
	  --precision $(call quoted,$(PRECISION)) --size $(call quoted,$(SIZE)) --out $(call quoted,$(OUT))

quantize: $(STAMP) ## MODEL to TARGET as INT8, at most MAX_DROP AP points below float on DATA
	$(RUN) -m edgeface quantize --model $(call quoted,$(MODEL)) --target $(call quoted,$(TARGET)) \
	  --size $(call quoted,$(SIZE)) --max-drop $(call quoted,$(MAX_DROP)) --out $(call quoted,$(OUT)) \
	  --data $(call quoted,$(DATA)) $(if $(CALIBRATION),--calibration $(call quoted,$(CALIBRATION)))

bench-export: $(STAMP) ## every file of MODEL: size, parity, AP, latency, into docs
	$(RUN) -m benchmarks.export_table --model $(call quoted,$(MODEL)) --data $(call quoted,$(DATA)) \
	  --size $(call quoted,$(SIZE)) --max-drop $(call quoted,$(MAX_DROP)) --out $(call quoted,$(OUT))

bench: $(STAMP) ## latency of MODEL on every runtime and of PEERS, into OUT/bench; BENCH='--again' and the like
	$(RUN) -m benchmarks.bench $(BENCH_OPTIONS)

bench-pi: $(STAMP) ## the same on DEVICE=ssh://user@host or adb://serial
	@[ -n $(call quoted,$(DEVICE)) ] || { echo "error: name the device: make bench-pi DEVICE=ssh://user@host" >&2; exit 2; }
	$(RUN) -m benchmarks.bench --device $(call quoted,$(DEVICE)) $(BENCH_OPTIONS)

bench-model: $(STAMP) ## how well latency is predicted; MEASURE=1: measured anew, on DEVICE if named (10 minutes a table)
	$(RUN) -m benchmarks.latency_model --plot $(call quoted,$(OUT)/bench/latency_model.png) \
	  $(if $(MEASURE),--measure --tables $(call quoted,$(OUT)/latency_tables) \
	    --bundles $(call quoted,$(OUT)/candidates)) \
	  $(if $(DEVICE),--device $(call quoted,$(DEVICE))) $(MODEL_OPTIONS)

bench-tables: $(STAMP) ## what postprocessing costs, and how fast training is
	$(RUN) -m benchmarks --out $(call quoted,$(OUT))

search: $(STAMP) ## best detector within BUDGET_MS on DEVICE in TARGET and PRECISION, into SEARCH_DIR; resumes by itself
	$(RUN) -m edgeface search --device $(call quoted,$(or $(DEVICE),local)) --target $(call quoted,$(TARGET)) \
	  --precision $(call quoted,$(PRECISION)) --size $(call quoted,$(SIZE)) \
	  $(if $(BUDGET_MS),--budget-ms $(call quoted,$(BUDGET_MS))) --seed $(call quoted,$(SEED)) \
	  --out $(call quoted,$(SEARCH_DIR)) $(SEARCH)

package: ## build the wheel that devices install; needs no .venv
	$(or $(wildcard $(RUN)),$(PYTHON)) -m pip wheel --quiet --no-deps --wheel-dir $(call quoted,$(OUT)) .

lock: $(STAMP) ## requirements.lock: this environment with hashes, for a release
	$(RUN) -m benchmarks.lock

clean: ## remove OUT and what the tools left (not .venv, not runs)
	@out=$(call quoted,$(OUT)); out=$${out#./}; ours=yes; \
	case "/$$out/" in //* | /.* | */../* | /runs/*) ours= ;; esac; \
	if [ -n "$$ours" ] && [ -d "$$out" ]; then \
	  case "$$(cd -P "./$$out" && pwd -P)" in "$$(pwd -P)"/?*) ;; *) ours= ;; esac; \
	  [ -z "$$(git ls-files -- "./$$out" 2>/dev/null)" ] || ours=; \
	fi; \
	if [ -z "$$ours" ]; then \
	  echo "error: OUT=$$out: clean removes a folder of results inside the checkout alone, such as dist:" \
	    "remove this one by hand" >&2; exit 2; \
	fi; \
	[ ! -d "$$out" ] || rm -rf "./$$out"
	rm -rf build .pytest_cache .mypy_cache .ruff_cache .hypothesis
