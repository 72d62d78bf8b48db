# make demo     the whole way from a trained model to alerts on a broker, on this machine
# make test     the tests                    make check    linter, formatter, types, layers
# make test-fast   the unit tests, in seconds  make coverage the lines of the agent that they run
# make test-all    the tests, and those that take many minutes
# make setup    what the two above need      make clean    remove all that make made
# make setup-edge   what a box on the line needs, no more
# make chaos    20 minutes of faults around an agent (CHAOS_SECONDS=, SEED=), and what then must hold
# make soak     30 minutes without: memory and file descriptors over time (SOAK_SECONDS=)
# make deb      the package for machines like this one, in build/deb
# make test-systemd   that package on a real systemd in a container; needs root
# make audit    known holes in the packages we pin, as far as the network reaches; check has it too
# sudo make install, sudo make uninstall   the agent as a service, from this folder
#
# Each brings what it needs: packages of the distribution, then .venv.

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
.PHONY: install uninstall deb test-systemd audit test-fast test-all coverage
# Two apt-get or two pip at a time would only hinder each other.
.NOTPARALLEL:

demo: .venv/.stamp-demo | system-demo
	@.venv/bin/python -m benchmarks.demo --seconds $(DEMO_SECONDS)

# Two processes, since this is meant for two cores; a file stays whole, so that what it shares by
# module is made once. A change of TEST_PROCESSES to 0 runs all in one.
TEST_PROCESSES ?= 2
parallel = -n $(TEST_PROCESSES) --dist loadfile

test: .venv/.stamp-dev | system-test
	.venv/bin/python -m pytest $(parallel) -m "not long"

test-all: .venv/.stamp-dev | system-test
	.venv/bin/python -m pytest $(parallel)

# No package of the distribution: a unit test starts nothing. Tests by themselves, not by file,
# because the long ones lie together.
test-fast: .venv/.stamp-dev
	.venv/bin/python -m pytest tests/unit -n $(TEST_PROCESSES) -m "not slow" \
	    --hypothesis-profile=derandomised

# Of the unit tests alone: what processes and real brokers reach is proved in other tiers.
coverage: .venv/.stamp-dev
	.venv/bin/python -m pytest tests/unit -n $(TEST_PROCESSES) -m "not slow" \
	    --hypothesis-profile=derandomised --cov=edge_agent --cov-report=term:skip-covered

check: .venv/.stamp-dev
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/lint-imports --no-logo
	@.venv/bin/python scripts/audit.py constraints.txt

audit: .venv/.stamp-dev
	@.venv/bin/python scripts/audit.py constraints.txt

install:
	PYTHON=$(SERVICE_PYTHON) sh scripts/install.sh

uninstall:
	sh scripts/uninstall.sh

deb: build/deb/.built

build/deb/.built: setup.cfg constraints.txt README.md LICENSE $(wildcard scripts/*.sh systemd/* systemd/*/* docs/*.md) \
    $(shell find edge_agent export calibration benchmarks training -name '*.py')
	PYTHON=$(SERVICE_PYTHON) sh scripts/build-deb.sh build/deb
	@touch $@

test-systemd: .venv/.stamp-dev build/deb/.built | system-test system-systemd
	@if [ "$$(id -u)" != 0 ]; then echo "test-systemd: skipped, only root can boot a machine"; \
	elif ! unshare --mount --pid --uts --ipc --fork true 2>/dev/null; then \
	    echo "test-systemd: skipped, root may not boot a machine here (namespaces are closed)"; else \
	    machine=$$(sh scripts/test-machine.sh) && \
	    LINEGATE_MACHINE=$$machine LINEGATE_PACKAGE=$$(ls $(CURDIR)/build/deb/linegate_*.deb) \
	    .venv/bin/python -m pytest tests/system/test_service.py; \
	fi

chaos: .venv/.stamp-dev | system-test
	.venv/bin/python -m tests.support.chaos --seconds $(CHAOS_SECONDS) $(if $(SEED),--seed $(SEED))

soak: .venv/.stamp-dev | system-test
	.venv/bin/python -m tests.support.chaos --soak --seconds $(SOAK_SECONDS)

setup: .venv/.stamp-dev

setup-edge: .venv/.stamp-edge

clean:
	rm -rf .venv demo/out build dist *.egg-info
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
