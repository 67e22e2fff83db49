# Everything is made inside the checkout: .venv, dist/, .cache/. Only system packages go elsewhere.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help demo test lint format rpm deb deb-test rollout release vm-test fault-test fresh-test bench clean

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

demo: ## Exhaust a real host-local pool, cut the power, boot, allocate again
	@tools/system-packages demo
	@PYTHONPATH=. $(PYTHON) tests/demo.py

test: lint ## Run all tests but the virtual machines'
	@$(RUN)/coverage erase
	@$(RUN)/coverage run -m pytest -q
	@$(RUN)/coverage combine -q
	@$(RUN)/coverage report --show-missing --skip-covered --fail-under=100

lint: $(READY) ## Check style and types
	@$(RUN)/ruff check -q
	@$(RUN)/ruff format -q --check
	@$(RUN)/mypy
	@cd tests/vm && MYPYPATH="$(CURDIR):$(CURDIR)/tests" "$(CURDIR)/$(RUN)/mypy" --config-file "$(CURDIR)/pyproject.toml" *.py

format: $(READY) ## Format the code
	@$(RUN)/ruff format -q
	@$(RUN)/ruff check -q --fix

rpm: $(READY) ## Build the RPM and its source into dist/ (RELEASE=2: a newer one)
	@URL="$(URL)" RELEASE="$(RELEASE)" packaging/rpm/build

deb: ## Build the Debian package and its source into dist/ (RELEASE=2)
	@tools/system-packages deb
	@URL="$(URL)" RELEASE="$(RELEASE)" packaging/deb/build

deb-test: $(READY) ## Lint, install, upgrade, remove and purge it (SUITE=bookworm|trixie)
	@tools/system-packages deb fresh-test
	@SUITE="$(SUITE)" tests/packaging/deb-bare
	@SUITE="$(SUITE)" $(RUN)/pytest -q tests/packaging/deb_on_a_node.py

rollout: $(READY) ## Write what installs both packages on each node of a cluster
	@$(foreach name,IMAGE NAMESPACE AT_ONCE DEB RPM,$(if $(filter undefined,$(flavor $(name))),,$(name)="$($(name))")) \
		packaging/rancher/build

release: $(READY) ## Build deb, rpm, rollout and their checksums from a clean tree
	@tools/release

vm-test: $(READY) ## Cut the power of virtual machines (SUITE=trixie, SET=core, ONLY=x)
	@tools/system-packages vm-test
	@PYTHON="$(CURDIR)/$(RUN)/python" SUITE="$(SUITE)" SET="$(SET)" ONLY="$(ONLY)" tests/vm/run

fault-test: $(READY) ## Crash, break and fuzz it at length, and write docs/RELIABILITY.md
	@FAULT_TEST_LONG=1 $(RUN)/pytest -q tests/faults

fresh-test: ## Run demo and tests in a fresh clone on a bare Debian (SUITE=trixie)
	@tools/system-packages fresh-test
	@SUITE="$(SUITE)" tests/fresh/run

bench: $(READY) ## Time a boot beside what else one could do: docs/PERFORMANCE.md
	@tools/system-packages bench
	@$(RUN)/python tests/bench/run.py

clean: ## Remove all that was made here
	rm -rf $(VENV) .cache dist build *.egg-info .coverage* .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml requirements-dev.txt tools/system-packages
	@tools/system-packages demo test deb
	@$(PYTHON) -m venv $(VENV)
	@$(RUN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@$(RUN)/pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@
