#!/bin/sh
# All tests. Those that need root or eBPF say SKIPPED and why where the machine has none; with
# ASSAY_GATES_NO_SKIP=1 such a skip is a failure.
set -eu
cd "$(dirname "$0")/.."
cargo build --locked
target/debug/assay-gates dependencies --install >/dev/null
exec cargo test --locked --no-fail-fast "$@"
