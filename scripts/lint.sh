#!/bin/sh
# Formatting, clippy with and without the measuring half, licences and bans.
set -eu
cd "$(dirname "$0")/.."
scripts/setup.sh lint
cargo fmt --all --check
cargo clippy --locked --all-targets -- -D warnings
cargo clippy --locked --no-default-features --lib --bins -- -D warnings
cargo deny --locked check bans licenses sources
