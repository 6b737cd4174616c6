# make run    set everything up and run the main job
# make test   set everything up and pass the tests
# make kernels  measure on other kernels under qemu (KERNELS="6.1 newest", KERNELS_ARCH=arm64; KERNELS=native: on this one, without qemu);
#             kernels-fast: the part that every change must pass
# make hosts  units, stops, a power cut and the gates of the SDK on whole systems under qemu (HOSTS="bookworm trixie"); hours, and root
# make bench  measure what the tool costs
# make lint   formatting, clippy, licences and bans, workflows
# make fresh  run the first two on fresh Debian systems in a scratch folder; takes an hour or more, and root

# Measuring needs root; building doesn't.
AS_ROOT := $(if $(filter 0,$(shell id -u)),,sudo --preserve-env=ASSAY_REDACTION_KEY_FILE,CI,GITHUB_ACTIONS)
BINARY := target/release/assay-gates
GATES ?= all
# Where rustup puts its programs, and setup its links to those of the distribution.
export PATH := $(CURDIR)/target/tools/rust:$(or $(CARGO_HOME),$(HOME)/.cargo)/bin:$(PATH)

.PHONY: run kernels kernels-fast build setup fixtures test test-tools hosts lint bench fresh clean

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

kernels: setup
	@KERNELS="$(KERNELS)" scripts/setup.sh kernels
	scripts/kernels.sh $(KERNELS)

kernels-fast: setup
	@KERNELS="$(KERNELS)" scripts/setup.sh kernels
	scripts/kernels.sh fast $(KERNELS)

lint: setup
	scripts/lint.sh

hosts: setup fixtures
	@scripts/setup.sh hosts
	HOSTS_BINARY=$(BINARY) scripts/hosts.sh $(HOSTS)

bench: build test-tools
	scripts/bench.sh

fresh:
	scripts/fresh.sh

clean:
	cargo clean
