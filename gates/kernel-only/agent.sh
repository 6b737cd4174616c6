#!/bin/sh
# Writes a file, reads it back, writes the result, executes a program. Nothing depends on time, host or cache.
set -eu
cd "$ASSAY_GATES_WORK"
printf 'kernel only fixture input\n' > input.txt
cat input.txt > output.txt
/usr/bin/env > /dev/null
