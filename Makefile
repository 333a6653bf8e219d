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
CHAPTERS := [0-9][0-9]
$(if $(filter $(DATA),embedded geo),,$(error DATA is '$(DATA)', expected embedded or geo))
$(if $(filter $(PROFILE),smoke quick paper),,$(error PROFILE is '$(PROFILE)', expected smoke, quick or paper))

# --- where things are ---------------------------------------------------------------------------------------------
export ATSDP_BUILD := $(abspath $(or $(ATSDP_BUILD),build))
export ATSDP_FIGURES := $(abspath $(or $(ATSDP_FIGURES),figures))
RUN := $(ATSDP_BUILD)/$(DATA)-$(PROFILE)
MANIFEST := $(ATSDP_FIGURES)/$(DATA)-$(PROFILE)/manifest.json
VENV := $(CURDIR)/.venv
PY := $(VENV)/bin/python
# Named after the content of the pins: installation runs once, and again only when one changes.
INSTALLED := $(VENV)/.installed-$(shell cat requirements.lock pyproject.toml | cksum | cut -d' ' -f1)
LOCKED = $(PYTHON) book/lock.py $(ATSDP_BUILD)/.lock
SOURCES := $(sort $(foreach n,$(CHAPTERS),$(or $(wildcard notebooks/$(n)_*.ipynb),$(error \
  CHAPTERS is '$(CHAPTERS)': there is no notebooks/$(n)_*.ipynb, expected numbers such as 05 06))))
TRAINED := $(RUN)/trainings$(subst $(subst ,, ),,$(filter-out [0-9][0-9],$(CHAPTERS)))
EXECUTED := $(SOURCES:notebooks/%=$(RUN)/notebooks/%)

# --- the same surroundings for every process: one thread each, no configuration of the user's -----------------------
export OMP_NUM_THREADS := 1
export OPENBLAS_NUM_THREADS := 1
export MKL_NUM_THREADS := 1
export NUMBA_NUM_THREADS := 1
export PYTHONHASHSEED := 0
# Libraries choose code by processor, whose last bits differ; twins and trainings amplify them. With the choices below
# they choose alike on every x86 processor with AVX2, by any maker (see the book's page on reliability).
export MKL_CBWR := COMPATIBLE
CPU := $(shell grep -m1 ^flags /proc/cpuinfo 2>/dev/null)
ifneq ($(filter avx2,$(CPU)),)
export OPENBLAS_CORETYPE := Haswell
ifneq ($(ATSDP_BF16),1)  # whose products are slow without AVX-512; they have digits of their own
export ATEN_CPU_CAPABILITY := avx2
export ONEDNN_MAX_CPU_ISA := AVX2
endif
endif
ifneq ($(filter avx512f,$(CPU)),)
export NPY_DISABLE_CPU_FEATURES := X86_V4 AVX512_ICL AVX512_SPR
endif
export PYTHONNOUSERSITE := 1
export PYTHONUTF8 := 1
export PYDEVD_DISABLE_FILE_VALIDATION := 1
export TZ := UTC
export JUPYTER_PREFER_ENV_PATH := 1
export JUPYTER_CONFIG_DIR := $(ATSDP_BUILD)/jupyter/config
export JUPYTER_DATA_DIR := $(ATSDP_BUILD)/jupyter/data
export IPYTHONDIR := $(ATSDP_BUILD)/jupyter/ipython
export MPLCONFIGDIR := $(ATSDP_BUILD)/jupyter/matplotlib
unexport MPLBACKEND PYTHONPATH PYTHONSTARTUP JUPYTER_PATH

.PHONY: help install doctor reproduce run-notebooks run-install book check data plan bench lab lint unit test mutants
.PHONY: clean handout FORCE

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo 'DATA=embedded|geo  PROFILE=smoke|quick|paper  JOBS=$(JOBS)  BACKEND=loky|dask  CHAPTERS="05 06"'

# --- installation ---------------------------------------------------------------------------------------------------
install: ## only set up .venv
	@test -f $(INSTALLED) || $(LOCKED) $(MAKE) run-install

run-install: $(INSTALLED)

$(INSTALLED):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'Python 3.11 or newer is needed; choose one with: make install PYTHON=python3.11'; exit 1; }
	@echo 'Setting up .venv (once; some minutes, and over 2 GB, more with a CUDA build of torch)'
	@test -x $(PY) || $(PYTHON) -m venv $(VENV) || \
	  { echo 'No virtual environment could be made; on Debian and Ubuntu: apt install python3-venv'; exit 1; }
	@pip() { echo "  $$1"; shift; $(PY) -m pip install -qq --disable-pip-version-check --no-input "$$@" || \
	  { echo 'The step above failed; nothing is lost. See the message, then run the same make command again.'; \
	    echo 'Behind a proxy or mirror, set pip up as usual (pip config); see README, "Environment".'; exit 1; }; }; \
	pip 'torch' "$$(sed -n 's/^ *"\(torch==[^"]*\)".*/\1/p' pyproject.toml)"; \
	pip 'everything else, from the hashed lock' --no-deps --require-hashes -r requirements.lock; \
	pip 'this package' --no-deps --no-build-isolation -e .
	@rm -f $(VENV)/.installed-*; touch $@

doctor: install ## check Python, packages, data files, disk and kernel, one line each
	@$(PY) -m atsdp_utils.own_cells.doctor

# --- one run --------------------------------------------------------------------------------------------------------
reproduce: install ## set up on first use, run every notebook, build the book, print a summary
	@mkdir -p $(RUN) && touch $(RUN)/asked
	@$(LOCKED) $(MAKE) -j$(JOBS) run-notebooks DATA=$(DATA) PROFILE=$(PROFILE) JOBS=$(JOBS) BACKEND=$(BACKEND)

run-notebooks: $(RUN)/html/index.html
	@test $(RUN)/html/index.html -nt $(RUN)/asked || echo 'Nothing to run: every notebook and the book are up to date.'
	@$(PY) -m book.record summary $(DATA) $(PROFILE)
	@printf '\nTables and figures: %s\nBook:               file://%s\n' $(dir $(MANIFEST)) $(RUN)/html/index.html

# What decides results: names and contents. JOBS and BACKEND do not, so changing them is no reason to run again.
$(RUN)/inputs: FORCE
	@mkdir -p $(@D) $(IPYTHONDIR) && { echo '$(DATA) $(PROFILE) $(ATSDP_FIGURES)'; find atsdp_utils data requirements.lock \
	  -type f ! -path '*/__pycache__/*' ! -name '.*' ! -name '*.md' | LC_ALL=C sort | xargs cksum; } > $@.new
	@cmp -s $@.new $@ && rm $@.new || mv $@.new $@

# The trainings that tables list first, in one pool; notebooks then find them in the cache.
$(TRAINED): $(RUN)/inputs
	@$(PY) -m book.train $(DATA) $(PROFILE) $(JOBS) $(BACKEND) $(notdir $(basename $(SOURCES)))
	@touch $@

$(RUN)/notebooks/%.ipynb: notebooks/%.ipynb $(RUN)/inputs | $(TRAINED)
	@$(PY) -m book.build run $< $@ $(DATA) $(PROFILE) 1 $(BACKEND)

# Notebooks that read tables of others wait for them; one line each. Chapter 11 compares the runs of all profiles.
OTHER_RUNS := $(filter-out $(MANIFEST),$(wildcard $(ATSDP_FIGURES)/embedded-*/manifest.json))
$(RUN)/notebooks/11_scorecard.ipynb: $(filter-out %/11_scorecard.ipynb,$(EXECUTED)) $(OTHER_RUNS)
$(RUN)/notebooks/14_peers.ipynb: $(filter %/07_baselines.ipynb,$(EXECUTED))
# Corrected p-values of questions that chapters 4 and 5 put first are taken from their tables.
$(filter %/07_baselines.ipynb %/12_taking_the_method_apart.ipynb %/14_peers.ipynb,$(EXECUTED)): \
  $(filter %/04_transfer.ipynb %/05_cv_evaluation.ipynb,$(EXECUTED))
# These two explain the same networks: the second finds them in the cache.
$(RUN)/notebooks/10_pseudotime.ipynb: | $(filter %/09_cisplatin_key_genes.ipynb,$(EXECUTED))

$(MANIFEST): $(EXECUTED)
	@$(PY) -m book.record manifest $(DATA) $(PROFILE)

$(RUN)/html/index.html: $(MANIFEST) $(shell find book -type f ! -path '*/__pycache__/*')
	@$(PY) -m book.build book $(DATA) $(PROFILE)

book: install ## build the book again from the notebooks that have run
	@$(LOCKED) $(PY) -m book.build book $(DATA) $(PROFILE)

check: install ## compare the run with the committed one of its profile, quick or paper, within tolerances
	@$(PY) -m book.record check $(DATA) $(PROFILE)

data: install ## check the embedded files; with DATA=geo download and check the sets of the paper
	@$(PY) -m $(if $(filter geo,$(DATA)),atsdp_utils.data.geo check,atsdp_utils.foundation.checksums)

plan: install ## list the trainings of a run, those left, and the projected time
	@$(PY) -m tests.bench.plan $(DATA) $(PROFILE) $(JOBS)

bench: install ## time the stages on this machine; writes figures/bench.csv and the page on cost
	@$(PY) -m tests.bench.bench $(JOBS)

lab: install ## JupyterLab with exercise copies of the notebooks, in build/lab
	@$(PY) -m book.build lab $(ATSDP_BUILD)/lab
	@$(VENV)/bin/jupyter lab --notebook-dir=$(ATSDP_BUILD)/lab

# Explanations of profile paper, on all genes, are 22 MB each; those that a class reads are below 4 MB.
handout: ## pack what has been computed for a class, without the networks, into build/cache.tar.gz
	@cd $(ATSDP_BUILD) && find -L cache -type f ! -path 'cache/pretrained/*' ! -path 'cache/downloads/*' \
	  ! '(' -path 'cache/explained/*' -size +8M ')' | LC_ALL=C sort | tar -chzf cache.tar.gz -T -
	@du -h $(ATSDP_BUILD)/cache.tar.gz

# --- checks ---------------------------------------------------------------------------------------------------------
lint: install ## ruff over all code and notebooks, the direction of imports, the shape of the notebooks
	@$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check .
	@$(VENV)/bin/lint-imports --no-cache
	@$(PY) -m book.build check

unit: install ## the unit tests of the rooms alone, one to two minutes
	@$(PY) -m pytest -q -m unit -n $(JOBS) --maxprocesses 4 --dist loadfile

# The smoke run comes first: tests/book looks at the book it builds.
test: lint ## lint, a whole run at PROFILE=smoke, and every test
	@$(MAKE) reproduce DATA=embedded PROFILE=smoke
	@$(PY) -m pytest -n $(JOBS) --maxprocesses 4 --dist loadfile --no-loadscope-reorder

mutants: install ## plant known faults one at a time in a copy and name those that no test notices; resumable
	@$(PY) tests/mutants/run.py --jobs $(JOBS)

clean: ## remove runs, cached trainings and caches under build/ (not the downloads or the copies of make lab)
	@rm -rf $(wildcard $(addprefix $(ATSDP_BUILD)/,mutants numba cache.tar.gz \
	  $(foreach d,embedded geo,$(addprefix $d-,smoke quick paper)) $(addprefix jupyter/,config data ipython matplotlib) \
	  $(addprefix cache/,datasets explained pretrained ranking results searches splits)))
	@echo 'Removed the runs and caches under $(ATSDP_BUILD); kept downloads and lab. .venv stays: delete it by hand.'
