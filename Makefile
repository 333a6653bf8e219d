# An executable companion to ATSDP-NET. `make help` lists what it does.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.SUFFIXES:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Make cuts names at spaces: what it then touches or removes is somebody else's file.
ifneq ($(words $(CURDIR) $(ATSDP_BUILD) $(ATSDP_FIGURES)),$(words x $(if $(ATSDP_BUILD),x) $(if $(ATSDP_FIGURES),x)))
$(error '$(CURDIR)' or ATSDP_BUILD or ATSDP_FIGURES has a space in it, which Make cannot handle; move it to a path without)
endif

# --- what may be chosen on the command line -----------------------------------------------------------------------
DATA := embedded
PROFILE := quick
JOBS := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
BACKEND := loky
PYTHON := python3

ifeq ($(filter $(DATA),embedded geo),)
$(error DATA is '$(DATA)', expected embedded or geo)
endif
ifeq ($(filter $(PROFILE),smoke quick paper),)
$(error PROFILE is '$(PROFILE)', expected smoke, quick or paper)
endif

# --- where things are ---------------------------------------------------------------------------------------------
BUILD := $(abspath $(or $(ATSDP_BUILD),build))
FIGURES := $(abspath $(or $(ATSDP_FIGURES),figures))/$(DATA)-$(PROFILE)
RUN := $(BUILD)/$(DATA)-$(PROFILE)
VENV := $(CURDIR)/.venv
PY := $(VENV)/bin/python
# Named after the content of the lock: installation runs once, and again only when a pin changes.
INSTALLED := $(VENV)/.installed-$(shell cat requirements.lock pyproject.toml | cksum | cut -d' ' -f1)
LOCKED = $(PYTHON) atsdp_utils/foundation/lock.py $(BUILD)/.lock
SOURCES := $(sort $(wildcard notebooks/[0-9][0-9]_*.ipynb))
# Those that take longest first, so that the end, where the scorecard waits for all, keeps every core busy.
FIRST := 07 12 10 13 09 08 05 06 01 04
FOUND := $(foreach n,$(FIRST),$(filter notebooks/$(n)_%,$(SOURCES)))
EXECUTED := $(patsubst notebooks/%,$(RUN)/notebooks/%,$(FOUND) $(filter-out $(FOUND),$(SOURCES)))

# --- the same surroundings for every process: one thread each, no configuration of the user's -----------------------
export OMP_NUM_THREADS := 1
export OPENBLAS_NUM_THREADS := 1
export MKL_NUM_THREADS := 1
export NUMBA_NUM_THREADS := 1
export PYTHONHASHSEED := 0
# glibc gives every megabyte of a training step back to the system and fetches it again, unless told to keep it.
export MALLOC_MMAP_THRESHOLD_ := 1073741824
export MALLOC_TRIM_THRESHOLD_ := 1073741824
export GLIBC_TUNABLES := glibc.malloc.hugetlb=1
export PYTHONNOUSERSITE := 1
export PYTHONUTF8 := 1
export PYDEVD_DISABLE_FILE_VALIDATION := 1
export TZ := UTC
export ATSDP_BUILD := $(BUILD)
export ATSDP_FIGURES := $(abspath $(or $(ATSDP_FIGURES),figures))
export JUPYTER_PREFER_ENV_PATH := 1
export JUPYTER_CONFIG_DIR := $(BUILD)/jupyter/config
export JUPYTER_DATA_DIR := $(BUILD)/jupyter/data
export IPYTHONDIR := $(BUILD)/jupyter/ipython
export MPLCONFIGDIR := $(BUILD)/jupyter/matplotlib
unexport MPLBACKEND PYTHONPATH PYTHONSTARTUP JUPYTER_PATH

.PHONY: help install doctor data reproduce test mutants lint lab book check plan bench clean
.PHONY: run-notebooks run-install FORCE

help:
	@echo 'make reproduce   set up on first use, run every notebook, build the book, print a summary'
	@echo 'make book        build the book again from the notebooks that have run'
	@echo 'make check       compare the run with the committed figures/embedded-quick, within tolerances'
	@echo 'make plan        list the trainings of a run, those left, and the projected time'
	@echo 'make data        check the embedded files; with DATA=geo download and check the sets of the paper'
	@echo 'make lab         JupyterLab with exercise copies of the notebooks, in build/lab'
	@echo 'make doctor      check Python, packages, data files, disk and kernel, one line each'
	@echo 'make test        lint, unit tests, structure of the notebooks, and a whole run at PROFILE=smoke'
	@echo 'make mutants     plant known faults one at a time in a copy and name those that no test notices'
	@echo 'make lint        ruff over package, tests and notebooks'
	@echo 'make bench       time the stages on this machine; writes figures/bench.csv'
	@echo 'make install     only set up .venv'
	@echo 'make clean       remove the runs under build/ (not the downloads)'
	@echo
	@echo 'DATA=embedded|geo  PROFILE=smoke|quick|paper  JOBS=$(JOBS)  BACKEND=loky|dask'

# --- installation ---------------------------------------------------------------------------------------------------
install:
	@test -f $(INSTALLED) || $(LOCKED) $(MAKE) run-install

run-install: $(INSTALLED)

$(INSTALLED):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'Python 3.11 or newer is needed; choose one with: make install PYTHON=python3.11'; exit 1; }
	@echo 'Setting up .venv (once; some minutes, and about 2 GB with a CPU build of torch)'
	@test -x $(PY) || $(PYTHON) -m venv $(VENV) || \
	  { echo 'No virtual environment could be made; on Debian and Ubuntu: apt install python3-venv'; exit 1; }
	@pip() { echo "  $$1"; shift; $(PY) -m pip install -qq --disable-pip-version-check --no-input "$$@" || \
	  { echo 'The step above failed; nothing is lost. See the message, then run the same make command again.'; \
	    echo 'Behind a proxy or mirror, set pip up as usual (pip config); see README, "Environment".'; exit 1; }; }; \
	pip 'torch' 'torch==2.13.0'; \
	pip 'everything else, from the hashed lock' --no-deps --require-hashes -r requirements.lock; \
	pip 'this package' --no-deps --no-build-isolation -e .
	@rm -f $(VENV)/.installed-*; touch $@

doctor: install
	@$(PY) -m atsdp_utils.own_cells.doctor

# With all trainings done a notebook keeps at most one core busy: one more at once than cores, in memory for five.
AT_ONCE := $(shell echo $$(( $(JOBS) == 1 ? 1 : $(JOBS) < 4 ? $(JOBS) + 1 : 5 )))
WORKERS := $(shell echo $$(( ($(JOBS) + $(AT_ONCE) - 1) / $(AT_ONCE) )))

# --- one run --------------------------------------------------------------------------------------------------------
reproduce: install
	@mkdir -p $(RUN) && touch $(RUN)/asked
	@$(LOCKED) $(MAKE) -j$(AT_ONCE) run-notebooks DATA=$(DATA) PROFILE=$(PROFILE) JOBS=$(JOBS) BACKEND=$(BACKEND)

run-notebooks: $(RUN)/html/index.html
	@test $(RUN)/html/index.html -nt $(RUN)/asked || echo 'Nothing to run: every notebook and the book are up to date.'
	@$(PY) -m atsdp_utils.reporting.report summary $(DATA) $(PROFILE)
	@echo
	@echo 'Tables and figures: $(FIGURES)'
	@echo 'Book:               file://$(RUN)/html/index.html'

# JOBS and BACKEND are left out: results do not depend on them, so changing them is no reason to run again.
$(RUN)/parameters: FORCE
	@mkdir -p $(@D) $(IPYTHONDIR) && echo 'DATA=$(DATA) PROFILE=$(PROFILE) FIGURES=$(FIGURES)' > $@.new && \
	  { cmp -s $@.new $@ && rm $@.new || mv $@.new $@; }

$(RUN)/inputs: FORCE
	@mkdir -p $(@D) && find atsdp_utils data requirements.lock -type f ! -path '*/__pycache__/*' ! -name '.*' ! -name '*.md' | \
	  LC_ALL=C sort | xargs cksum > $@.new && { cmp -s $@.new $@ && rm $@.new || mv $@.new $@; }

# Every training of every notebook first, in one pool; notebooks then find them in the cache.
$(RUN)/trainings: $(RUN)/parameters $(RUN)/inputs
	@$(PY) -m atsdp_utils.experiments.plan train $(DATA) $(PROFILE) $(JOBS) $(BACKEND) $(notdir $(basename $(SOURCES)))
	@touch $@

$(RUN)/notebooks/%.ipynb: notebooks/%.ipynb $(RUN)/parameters $(RUN)/inputs $(RUN)/trainings
	@$(PY) -m book.build run $< $@ $(DATA) $(PROFILE) $(WORKERS) $(BACKEND)

# Which notebook reads tables that others write. A line counts only where all of them are there.
nb = $(filter $(RUN)/notebooks/$(1)_%,$(EXECUTED))
define needs
ifneq ($(call nb,$(1)),)
$(call nb,$(1)): $(foreach n,$(2),$(call nb,$(n)))
endif
endef
$(eval $(call needs,11,12 10 09 08 07 06 05 04 03 02 01))

$(FIGURES)/manifest.json: $(EXECUTED)
	@$(PY) -m atsdp_utils.reporting.report manifest $(DATA) $(PROFILE)

$(RUN)/html/index.html: $(EXECUTED) $(FIGURES)/manifest.json $(shell find book -type f ! -path '*/__pycache__/*')
	@$(PY) -m book.build book $(DATA) $(PROFILE)

book: install
	@$(LOCKED) $(PY) -m book.build book $(DATA) $(PROFILE)
	@echo 'Book: file://$(RUN)/html/index.html'

check: install
	@$(PY) -m atsdp_utils.reporting.report check $(DATA) $(PROFILE)

data: install
ifeq ($(DATA),geo)
	@$(PY) -m atsdp_utils.data.geo check
else
	@$(PY) -m atsdp_utils.foundation.checksums
endif

plan: install
	@$(PY) -m atsdp_utils.experiments.plan plan $(DATA) $(PROFILE) $(JOBS)

bench: install
	@$(PY) -m tests.bench.bench $(JOBS)

lab: install
	@$(PY) -m book.build lab $(BUILD)/lab
	@$(VENV)/bin/jupyter lab --notebook-dir=$(BUILD)/lab

# --- checks ---------------------------------------------------------------------------------------------------------
lint: install
	@$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check .

# The smoke run comes first: tests/book/test_book.py looks at the book it builds.
test: lint
	@$(PY) -m book.build check
	@$(MAKE) reproduce DATA=embedded PROFILE=smoke
	@$(PY) -m pytest

# Not a part of `test`: about a quarter of an hour on two cores. It goes on where it was stopped.
mutants: install
	@$(PY) tests/mutants/run.py --jobs $(JOBS)

clean:
	@rm -rf $(filter-out $(BUILD)/cache,$(wildcard $(BUILD)/*))
	@rm -rf $(filter-out $(BUILD)/cache/downloads,$(wildcard $(BUILD)/cache/*))
	@echo 'Removed the runs and caches under $(BUILD); kept downloads. .venv stays: delete it by hand for a fresh one.'
