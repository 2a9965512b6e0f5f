# make demo   sets up the environment and runs the main job
# make test   sets up the environment and passes the tests
# make env    sets up the environment alone: .venv, by uv where it is installed, else by venv and pip
#
# EXTRAS=dev,cuda adds optional dependencies; PYTHON=python3.12 chooses the interpreter.

PYTHON ?= python3
EXTRAS ?= dev
ENV := .venv
READY := $(ENV)/ready-$(EXTRAS)

.PHONY: demo test env

demo: $(READY)
	$(ENV)/bin/python -m vrl_jax.main --config=configs/synthetic_detrend.py

test: $(READY)
	$(ENV)/bin/python -m pytest

env: $(READY)

# Made again when the dependencies have changed.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("error: Python 3.11 or newer is needed, this is " + sys.version.split()[0] + ": make PYTHON=python3.12 ...")'
	if command -v uv > /dev/null; then \
	  uv venv --quiet --allow-existing --python=$(PYTHON) $(ENV) && \
	  uv pip install --quiet --python=$(ENV)/bin/python -c constraints.txt -e '.[$(EXTRAS)]'; \
	else \
	  $(PYTHON) -m venv $(ENV) && \
	  $(ENV)/bin/python -m pip install --quiet -c constraints.txt -e '.[$(EXTRAS)]'; \
	fi
	touch $@
