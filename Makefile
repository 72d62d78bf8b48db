# `make help` lists the targets: the text after ## in this file.
# Each brings what it needs: packages of the distribution, then .venv. The tests have a
# second environment, .venv-tflite-runtime: that runtime is for numpy 1, all else is for numpy 2.

DEMO_SECONDS ?= 30
CHAOS_SECONDS ?= 1200
SOAK_SECONDS ?= 1800

# The interpreter of .venv. In the order of how much was tested on it; each is started once,
# because a name on the PATH can be a shim for a Python that is not there.
ifndef PYTHON
PYTHON := $(shell for p in python3.11 python3.12 python3.10 python3.13 python3; do \
    $$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' 2>/dev/null \
    && { echo $$p; break; }; done)
endif

# mosquitto's place, which is not on the PATH of a Debian user.
export PATH := $(PATH):/usr/sbin:/sbin

install = .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e

# The interpreter of the service: the distribution's, which the agent's user can read.
SERVICE_PYTHON ?= /usr/bin/python3

.PHONY: demo test check chaos soak setup setup-edge clean system-demo system-test system-systemd
.PHONY: install uninstall deb test-systemd audit help docs figures hooks test-fast test-all coverage
# Two apt-get or two pip at a time would only hinder each other.
.NOTPARALLEL:

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*  ## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 14

demo: .venv/.stamp-demo | system-demo  ## the whole way from a trained model to alerts on a broker (DEMO_SECONDS=)
	@.venv/bin/python -m benchmarks.demo --seconds $(DEMO_SECONDS)

# Two processes, since this is meant for two cores; a file stays whole, so that what it shares by
# module is made once. A change of TEST_PROCESSES to 0 runs all in one.
TEST_PROCESSES ?= 2
parallel = -n $(TEST_PROCESSES) --dist loadfile

test: .venv/.stamp-dev .venv-tflite-runtime/.stamp | system-test  ## the tests
	.venv/bin/python -m pytest $(parallel) -m "not long"

test-all: .venv/.stamp-dev .venv-tflite-runtime/.stamp | system-test  ## the tests, and those that take many minutes
	.venv/bin/python -m pytest $(parallel)

# No package of the distribution: a unit test starts nothing. Tests by themselves, not by file,
# because the long ones lie together.
test-fast: .venv/.stamp-dev  ## the unit tests, under a minute
	.venv/bin/python -m pytest tests/unit -n $(TEST_PROCESSES) -m "not slow" \
	    --hypothesis-profile=derandomised

# Of the unit tests alone: what processes and real brokers reach is proved in other tiers.
coverage: .venv/.stamp-dev  ## the lines of the agent that the unit tests run
	.venv/bin/python -m pytest tests/unit -n $(TEST_PROCESSES) -m "not slow" \
	    --hypothesis-profile=derandomised --cov=edge_agent --cov-report=term:skip-covered

check: .venv/.stamp-dev  ## linter, formatter, types, layers
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/lint-imports --no-logo

audit: .venv/.stamp-dev  ## known vulnerabilities in the pinned packages, as far as the network reaches
	@.venv/bin/python scripts/audit.py constraints.txt
	@.venv/bin/python scripts/audit.py constraints-tflite-runtime.txt

docs: .venv/.stamp-docs  ## the documentation as a site, in build/site; a warning is an error
	.venv/bin/mkdocs build --strict

figures: .venv/.stamp-dev  ## docs/figures*.md from benchmarks/results
	.venv/bin/python -m benchmarks.pages

hooks: .venv/.stamp-dev  ## run the linter, formatter and types before each commit
	.venv/bin/pre-commit install

install:  ## the agent as a service, from this folder; needs root
	PYTHON=$(SERVICE_PYTHON) sh scripts/install.sh

uninstall:  ## remove that service; needs root
	sh scripts/uninstall.sh

deb: build/deb/.built  ## the package for machines like this one, in build/deb

build/deb/.built: setup.cfg constraints.txt README.md LICENSE $(wildcard scripts/*.sh systemd/* systemd/*/* docs/*.md) \
    $(shell find edge_agent export calibration benchmarks training workshop -name '*.py')
	PYTHON=$(SERVICE_PYTHON) sh scripts/build-deb.sh build/deb
	@touch $@

test-systemd: .venv/.stamp-dev build/deb/.built | system-test system-systemd  ## that package on a real systemd in a container; needs root
	@if [ "$$(id -u)" != 0 ]; then echo "test-systemd: skipped, only root can boot a machine"; \
	elif ! unshare --mount --pid --uts --ipc --fork true 2>/dev/null; then \
	    echo "test-systemd: skipped, root may not boot a machine here (namespaces are closed)"; else \
	    machine=$$(sh scripts/test-machine.sh) && \
	    LINEGATE_MACHINE=$$machine LINEGATE_PACKAGE=$$(ls $(CURDIR)/build/deb/linegate_*.deb) \
	    .venv/bin/python -m pytest tests/system/test_service.py; \
	fi

chaos: .venv/.stamp-dev | system-test  ## 20 minutes of faults around an agent (CHAOS_SECONDS=, SEED=), then the promises
	.venv/bin/python -m tests.support.chaos --seconds $(CHAOS_SECONDS) $(if $(SEED),--seed $(SEED))

soak: .venv/.stamp-dev | system-test  ## 30 minutes without faults: memory and files over time (SOAK_SECONDS=)
	.venv/bin/python -m tests.support.chaos --soak --seconds $(SOAK_SECONDS)

setup: .venv/.stamp-dev .venv-tflite-runtime/.stamp  ## what tests and checks need, in .venv

setup-edge: .venv/.stamp-edge  ## what a box on the line needs, no more

clean:  ## remove all that make made
	rm -rf .venv .venv-tflite-runtime demo/out build dist *.egg-info
	rm -rf .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache .coverage
	find . -name .git -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

# Quiet and quick when all is there, so it runs each time.
system-demo system-test system-systemd: system-%:
ifeq ($(PYTHON),)
	@echo "no Python from 3.10 to 3.13 found; say which with PYTHON=..." >&2; exit 1
endif
	@PYTHON=$(PYTHON) sh scripts/system-packages.sh $*

# pip is the last thing that venv writes: a set-up cut short starts again.
.venv/bin/pip: | system-demo
	@$(PYTHON) -m venv --clear .venv

# Stamps, because pip takes seconds to find that there is nothing to do. The larger set holds
# the smaller ones, so it stamps them too.
.venv/.stamp-edge: setup.cfg constraints.txt | .venv/bin/pip
	@echo "installing the edge agent into .venv"
	@$(install) .
	@touch $@

.venv/.stamp-demo: setup.cfg constraints.txt | .venv/bin/pip
	@echo "installing the demo into .venv (some 2 GB, mostly TensorFlow)"
	@$(install) .[export,calibration,benchmarks]
	@touch .venv/.stamp-edge $@

.venv/.stamp-dev: setup.cfg constraints.txt | .venv/bin/pip
	@echo "installing the development tools into .venv (some 2 GB, mostly TensorFlow)"
	@$(install) .[development]
	@touch .venv/.stamp-edge .venv/.stamp-demo $@

# Beside the others: the site needs no TensorFlow.
.venv/.stamp-docs: setup.cfg constraints.txt | .venv/bin/pip
	@echo "installing the documentation tools into .venv"
	@$(install) .[docs]
	@touch $@

# export/conversion/minimum_runtime.py looks for it in this place. Without wheels it stays empty,
# and the tests that need it skip with the reason.
.venv-tflite-runtime/.stamp: setup.cfg constraints-tflite-runtime.txt | system-demo
	@mkdir -p $(@D)
	@if $(PYTHON) -c 'import sys; sys.exit(sys.version_info >= (3, 12))'; then \
	    echo "installing tflite-runtime into $(@D) (some 500 MB)" && \
	    $(PYTHON) -m venv --clear $(@D) && $(@D)/bin/python -m pip install --quiet \
	        --disable-pip-version-check -c constraints-tflite-runtime.txt -e '.[tflite-runtime]'; \
	else echo "no tflite-runtime: it has wheels up to Python 3.11, this is $(PYTHON)"; fi
	@touch $@
