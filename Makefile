# What people type. Every target may be run at any time: what is done already is not done again.

.DEFAULT_GOAL := help
.PHONY: help serve test chaos soak coverage mutants images gateway-image bench lint engine tools constraints clean
PY := .venv/bin/python
# How `make test` is cut: file by file, in more processes than a small machine has cores, as many tests wait most of
# their time, and in the order of tests/turns.py.
SIDE_BY_SIDE := --numprocesses=3 --dist=loadfile --no-loadscope-reorder
# Say that .venv holds what serving needs, and what development needs as well.
SERVING := .venv/.serving
DEVELOPING := .venv/.developing
# Tests in these folders need Python only. If ARGS names no other place, `make test` sets up no engine.
NEED_NOTHING := tests/unit% tests/property%
PLACES := $(filter tests%,$(ARGS))
TESTED_WITH := $(if $(PLACES),$(if $(filter-out $(NEED_NOTHING),$(PLACES)),images tools),images tools)

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

serve: $(SERVING) images ## set up what is missing, then serve on http://127.0.0.1:8080 (ARGS="--port 9000")
	@exec .venv/bin/hearth serve $(ARGS)

test: $(DEVELOPING) $(TESTED_WITH) ## run every test, or some (ARGS="tests/unit -k ledger": without an engine)
	@$(PY) -m pytest $(SIDE_BY_SIDE) $(ARGS)

chaos: $(DEVELOPING) images tools ## ten minutes of random faults under load; every answer is looked at (ARGS="--seed=2")
	@$(PY) -m pytest tests/endurance -k chaos -s --timeout=0 --seconds=600 $(ARGS)

soak: $(DEVELOPING) images tools ## half an hour of load; memory, files and tasks stay as they are
	@$(PY) -m pytest tests/endurance -k memory -s --timeout=0 --seconds=1800 $(ARGS)

images: $(SERVING) ## have an engine, and build the images that are missing or outdated
	@.venv/bin/hearth setup --yes >/dev/null

gateway-image: engine ## build the gateway's own image, hearth/gateway:latest
	@$(PY) -m gateway.setup.images --gateway

coverage: $(DEVELOPING) images tools ## run the tests and fail where fewer than 95 % of the branches of pool/ and scheduler/ were taken
	@$(PY) -m pytest --timeout=900 --cov --cov-report= $(ARGS)
	@$(PY) -m coverage report
	@$(PY) -m coverage json -q -o build/coverage.json
	@$(PY) -m tests.branches build/coverage.json 95

mutants: $(DEVELOPING) ## change what decides and what counts, mutant by mutant, and see whether a test notices
	@$(PY) -m deploy.dependencies mutants
	@nice -n 19 .venv/bin/mutmut run
	@nice -n 19 .venv/bin/mutmut results

bench: $(DEVELOPING) images ## measure gateways of its own beside nginx and the raw engine (ARGS="--quick")
	@sh bench/tools.sh
	@$(PY) bench/load.py --start $(ARGS)

lint: $(DEVELOPING) ## style, types and the architecture's contracts
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports

engine: $(SERVING) ## have a container engine: use the one that answers, else install and start one
	@.venv/bin/hearth setup --yes --engine >/dev/null

# The page's tests drive a real browser, those of the engine copy busybox into an image and make a bridge, those of
# completion ask three shells, those of init compile it for two machines, and those of sources start message brokers of
# their own: a service that their packages have brought is stopped. Without root, the tests use what is installed.
BROKERS := redis-server nats-server mosquitto
PROGRAMS := chromium ip curl jq valgrind docker-compose zsh fish gcc aarch64-linux-gnu-gcc qemu-aarch64
PROGRAM_PACKAGES := chromium busybox-static iproute2 curl jq valgrind docker-compose zsh fish gcc libc6-dev \
	gcc-aarch64-linux-gnu qemu-user
tools:
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		wanted=""; for broker in $(BROKERS); do \
			command -v $$broker >/dev/null || wanted="$$wanted $$broker"; \
		done; \
		if [ -n "$$wanted" ]; then \
			echo "Installing$$wanted for the tests"; \
			apt-get -qq update && DEBIAN_FRONTEND=noninteractive \
				apt-get -qq install -y --no-install-recommends $$wanted >/dev/null || exit 1; \
			for broker in $$wanted; do \
				if test -d /run/systemd/system; then systemctl -q disable --now $$broker; \
				else service $$broker stop; fi >/dev/null 2>&1 || true; \
			done; \
		fi; \
	fi
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		for program in $(PROGRAMS); do command -v $$program >/dev/null || missing=1; done; \
		if [ "$$missing" ] || ! test -x /bin/busybox || ! test -e /usr/include/stdint.h; then \
			echo "Installing $(PROGRAM_PACKAGES) for the tests"; \
			apt-get -qq update && DEBIAN_FRONTEND=noninteractive \
				apt-get -qq install -y --no-install-recommends $(PROGRAM_PACKAGES) >/dev/null; \
		fi; \
	fi

constraints: ## pin the newest dependencies that fit anew
	@sh deploy/pin.sh > constraints.new && mv constraints.new constraints.txt

clean: ## remove what make put into this folder (images and engine stay)
	@rm -rf .venv build mutants .coverage *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(SERVING): pyproject.toml constraints.txt deploy/venv.sh deploy/dependencies.py
	@sh deploy/venv.sh
	@touch $@

$(DEVELOPING): $(SERVING)
	@$(PY) -m deploy.dependencies dev
	@touch $@
