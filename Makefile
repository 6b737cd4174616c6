# make run    set everything up and run the main job
# make test   set everything up and pass the tests
# make bench  measure what the tool costs
# make lint   formatting, clippy, licences and bans, workflows

# Measuring needs root; building doesn't.
AS_ROOT := $(if $(filter 0,$(shell id -u)),,sudo --preserve-env=ASSAY_REDACTION_KEY_FILE,CI,GITHUB_ACTIONS)
BINARY := target/release/assay-gates
GATES ?= all

.PHONY: run build setup fixtures test test-tools lint bench clean

run: build
	$(AS_ROOT) $(BINARY) run --gates $(GATES) --install

build: setup
	cargo build --release --locked

setup:
	@scripts/setup.sh build

# What the fixtures of the gates need, from their lockfiles.
fixtures: build
	$(BINARY) dependencies --install

test: setup test-tools
	scripts/test.sh

test-tools:
	@scripts/setup.sh test

lint: setup
	scripts/lint.sh

bench: build test-tools
	scripts/bench.sh

clean:
	cargo clean
