# Every target sets up what it needs: on a fresh Debian, as root, `make demo` and `make test` are enough.
PYTHON3 ?= /usr/bin/python3
VENV    := .venv/bin
TIERS   := unit,contract,faults,system,criu
# Several files at a time, in the order of the tiers; one at a time: make test SPREAD=
SPREAD  ?= --numprocesses=auto --dist=loadfile --no-loadscope-reorder
SOURCES := agent migrate tests bench

.DEFAULT_GOAL := help
.PHONY: help setup venv protos fmt check test test-unit demo bench chaos test-vm doctor clean

help:          ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-11s %s\n", $$1, $$2}' Makefile

setup:         ## packages, .venv, CRIU, the command migrate: only what is missing
	@$(PYTHON3) -m agent.setup

venv:          ## only .venv: enough for test-unit, and needs no root
	@$(PYTHON3) -m agent.setup venv

test: setup    ## all tiers; fails where a tier that should run here was skipped
	@$(VENV)/python -m pytest $(SPREAD) --require-tiers=$(TIERS) $(PYTEST_ARGS)

test-unit: venv ## the unit tier: no root, seconds
	@$(VENV)/python -m pytest $(SPREAD) -m unit --require-tiers=unit $(PYTEST_ARGS)

demo: setup    ## a fleet on this machine, a container moved live (DEMO_SIZE_MB=N)
	@$(VENV)/python -m migrate.lab.demo

bench: setup   ## the benchmarks
	@$(VENV)/python -m bench

chaos: setup   ## random faults in real moves (SECONDS=600, SEED=n)
	@$(VENV)/python -m bench.chaos --seconds $(or $(SECONDS),600) $(if $(SEED),--seed $(SEED)) $(CHAOS_ARGS)

check: venv    ## ruff, formatting, mypy
	$(VENV)/ruff check $(SOURCES)
	$(VENV)/ruff format --check $(SOURCES)
	$(VENV)/mypy

fmt: venv      ## format, and repair what ruff can
	$(VENV)/ruff check --fix-only --quiet $(SOURCES)
	$(VENV)/ruff format $(SOURCES)

protos: venv   ## regenerate the code in protos/
	$(VENV)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. --grpc_python_out=. protos/*.proto

test-vm: setup ## real Debian 13 machines, where the VM tools are at hand (MIGRATE_VM)
	@tests/vm/run

doctor:        ## what this host can and cannot do
	@$(PYTHON3) -m agent.setup.doctor

clean:         ## the checkout's own products (not /opt/migrate)
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
