# Short names for what `./trireme` and pytest do; `make check` is what a change must pass before it is pushed.
PYTHON := .venv/bin/python

.PHONY: help setup proto check test contract sim sim-many robustness docker-test e2e clean

help:            ## this list
	@sed -n 's/^\([a-z0-9-]*\): *[a-z-]* *## /\1\t/p' Makefile | expand -t 14

setup:           ## virtual environment and stubs
	./trireme --help >/dev/null

proto: setup     ## generate the stubs of proto/ anew
	$(PYTHON) proto/generate.py --force

check:           ## linters, types, import rules, and all tests without Docker
	./trireme test --quick

test:            ## everything, Docker and end-to-end tests included
	./trireme test

contract:        ## the store beside a real etcd, and both under their real clients
	./trireme test tests/contract/kv

sim: setup       ## simulate one seed, and shrink it if it breaks: make sim SEED=7 [WORLD=raft|clock|storm|store] [VERBOSE=1]
	$(PYTHON) -m raft_store.simulation --seed $(or $(SEED),1) --world $(or $(WORLD),all) $(if $(VERBOSE),--verbose)

sim-many: setup  ## simulate seeds until one breaks: make sim-many SEED=1 COUNT=2000 [WORLD=raft|clock|storm|store]
	$(PYTHON) -m raft_store.simulation --seed $(or $(SEED),1) --count $(or $(COUNT),2000) --jobs 2 --world $(or $(WORLD),all)

robustness: setup  ## torment real members of the store: make robustness MINUTES=60 [MEMBERS=5] [SEED=3] [ENGINE=raftos]
	$(PYTHON) -m deploy.experiments.robustness --minutes $(or $(MINUTES),1) --members $(or $(MEMBERS),3) --engine $(or $(ENGINE),native) --seed $(or $(SEED),1)

docker-test:     ## only the tests that need a Docker engine
	./trireme test -m docker

e2e:             ## only the tests that drive a whole lab with real clients
	./trireme test -m e2e

clean:           ## what the tools left in the checkout
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build results
