# Works on a machine that has Python 3.11 or later, make and the package registry. `make help` lists the commands.

VENV := .venv
RUN := $(VENV)/bin/python
STAMP := $(VENV)/up-to-date
INSTALL := $(RUN) -m pip install --quiet --constraint constraints.txt
MODERN := 'import sys; sys.exit(sys.version_info < (3, 11))'
PYTHON ?= $(shell for python in python3.11 python3; do \
	"$$python" -c $(MODERN) 2>/dev/null && echo "$$python" && break; done)

# A hub that cannot be reached costs half a minute a call, and nothing here needs it: see lora_repro/fetch/.
export HF_HUB_OFFLINE ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# Where torch came from is remembered in the stamp; to ask for another place is to ask for another installation.
INSTALLED_FROM := $(shell cat $(STAMP) 2>/dev/null)
TORCH_INDEX ?= $(INSTALLED_FROM)
ifneq ($(TORCH_INDEX),$(INSTALLED_FROM))
.PHONY: $(STAMP)
endif

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup demo test test-all lint

help:
	@echo 'make setup     makes the environment in $(VENV), fetches and checks the weights and data of the default proxy'
	@echo 'make demo      trains a small Table 6 sweep, prints it beside the paper, draws Figures 3 and 4, makes a report; 2 to 4 minutes on 2 cores'
	@echo 'make test      runs the tests, in about 10 minutes'
	@echo 'make test-all  runs the long tests too (and installs Ray for them), in an hour'
	@echo 'make lint      checks style and types, as CI does'
	@echo
	@echo 'Each does the set-up itself; what is there is used again. Settings, given in front or behind:'
	@echo 'TORCH_INDEX=URL    takes torch from another wheel index (say, the CUDA wheels for your driver), and keeps it'
	@echo 'TORCH_INDEX=       takes it from the package registry again'
	@echo 'PYTHON=python3.12  makes the environment with that Python (3.11 or later)'
	@echo 'LORA_REPRO_REAL_DATA=DIR  lets the tests read the real corpora and GLUE, as far as DIR has their folders'

setup: $(STAMP)
	@$(RUN) -m lora_repro.fetch minilm movies

$(STAMP): pyproject.toml constraints.txt
	@rm -f $@
	@{ $(RUN) -m pip --version && $(RUN) -c $(MODERN); } >/dev/null 2>&1 || { \
		"$(PYTHON)" -c $(MODERN) 2>/dev/null || { \
			echo 'Python 3.11 or later is needed (found: $(or $(PYTHON),none)). Give it: make setup PYTHON=FILE' >&2; exit 1; }; \
		"$(PYTHON)" -m venv --clear $(VENV); }
	@echo 'Installing into $(VENV), which takes some minutes the first time ...'
	@$(if $(TORCH_INDEX)$(INSTALLED_FROM),$(INSTALL) --force-reinstall --no-deps $(TORCH_INDEX:%=--index-url "%") torch)
	@$(INSTALL) --editable '.[dev]'
	@echo '$(TORCH_INDEX)' > $@

demo: setup
	@$(RUN) -m lora_repro -m +sweeps=table6 scale=demo
	@$(RUN) -m analysis table 6 --scale demo
	@mkdir -p outputs/figures
	@for n in 3 4; do $(RUN) -m analysis figure $$n --scale demo \
		--out outputs/figures/figure$$n.png --out outputs/figures/figure$$n.svg || exit 1; done
	@$(RUN) -m analysis report --scale demo --out outputs/report.html

test: setup
	@$(RUN) -m pytest --numprocesses 2 --dist worksteal

test-all: setup
	@$(RUN) -c 'import hydra_plugins.hydra_ray_launcher' 2>/dev/null || $(INSTALL) --editable '.[dev,ray]'
	@$(RUN) -m pytest --numprocesses 2 --dist worksteal -m ''

lint: setup
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@$(RUN) -m pyright
