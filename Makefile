# What there is to do here. `make` alone lists it.
CARGO_TARGET_DIR ?= $(CURDIR)/target
export CARGO_TARGET_DIR
# Tools that the end-to-end tests use.
export CANOPUS_TOOLS ?= $(CARGO_TARGET_DIR)/tools
CANOPUS := $(CARGO_TARGET_DIR)/fast/canopus
BENCH ?= *
# What is released is what is measured; `fast` builds in a tenth of the time.
PROFILE ?= dist

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## install the Debian packages and tools that are missing
	@scripts/setup.sh
	@scripts/tools.sh $(CANOPUS_TOOLS)

.PHONY: packages
packages:
	@scripts/setup.sh

.PHONY: build
build: packages ## build canopus, optimised
	cargo build --profile fast -p canopus

.PHONY: run
run: build ## start a cluster with a demo application; Ctrl-C removes it
	demo/demo.sh $(CANOPUS) --stay

.PHONY: demo
demo: build ## the same from start to finish, every step checked
	demo/demo.sh $(CANOPUS)

.PHONY: test
test: setup ## unit, integration and end-to-end tests (as root)
	scripts/test.sh

.PHONY: lint
lint: ## formatting, clippy and the rules of the code base
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo xtask tidy

.PHONY: bench
bench: ## benchmarks as JSON lines; one of them: make bench BENCH=name
	@scripts/setup.sh >&2
	@cargo build --profile $(PROFILE) -p canopus >&2
	@cargo bench --profile $(PROFILE) -p canopus -p canopus-benches --bench '$(BENCH)'

.PHONY: soak
soak: setup ## the tests with long counts
	CANOPUS_SOAK_KILLS=$${CANOPUS_SOAK_KILLS:-200} CANOPUS_SOAK_STORE_KILLS=$${CANOPUS_SOAK_STORE_KILLS:-1000} \
	CANOPUS_SOAK_HISTORIES=$${CANOPUS_SOAK_HISTORIES:-200} CANOPUS_SOAK_FUZZ=$${CANOPUS_SOAK_FUZZ:-600} \
	PROPTEST_CASES=$${PROPTEST_CASES:-20000} scripts/test.sh --profile fast

.PHONY: clean
clean: ## remove what was built
	cargo clean
