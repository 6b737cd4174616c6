#!/bin/sh
# Formatting, clippy with and without the measuring half, licences and bans.
set -eu
cd "$(dirname "$0")/.."
scripts/setup.sh lint
cargo fmt --all --check
cargo clippy --locked --lib --bins -- -D warnings
cargo clippy --locked --no-default-features --lib --bins -- -D warnings
# Tests and benches may unwrap and print: a panic is how they fail.
cargo clippy --locked --tests --benches -- -D warnings \
	-A clippy::unwrap_used -A clippy::expect_used -A clippy::print_stdout -A clippy::print_stderr
cargo deny --locked check bans licenses sources
