#!/bin/sh
# What the tool costs, as ratios against peers in one invocation. Results: target/bench/.
set -eu
cd "$(dirname "$0")/.."
mkdir -p target/bench
if [ "$(id -u)" != 0 ]; then
	echo "bench: measuring needs root: sudo make bench" >&2
	exit 40
fi
for name in "${@:-}"; do
	[ -z "$name" ] || exec cargo bench --locked --bench "$name"
done
cargo bench --locked
