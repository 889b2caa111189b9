#!/usr/bin/env bash
# Replay against DuckDB on the same file, side by side in one run, medians of five.
# usage: benches/compare.sh [DIR for the workload and results; default: a temporary one]
# Needs python3 with `pip install duckdb numpy`; the workload takes 640 MB.
set -euo pipefail
cd "$(dirname "$0")/.."
work=${1:-$(mktemp -d)}
mkdir -p "$work"
cargo build --release --locked --quiet
events=$work/events.ndjson
[ -f "$events" ] || python3 benches/workload.py "$events"

median() { sort -n | sed -n '3p'; }
ours() { # threads pipelines
  for _ in 1 2 3 4 5; do
    target/release/streamgauge replay "$events" --threads "$1" --pipelines "$2" --windows-out "$work/windows" --json |
      python3 -c 'import json,sys; print(json.load(sys.stdin)["seconds"])'
  done | median
}
peer() { # threads
  for _ in 1 2 3 4 5; do python3 benches/peer_duckdb.py "$events" "$1"; done | median
}
mkdir -p "$work/no-rules"
for threads in 1 2; do
  duck=$(peer "$threads")
  plain=$(ours "$threads" "$work/no-rules")
  ruled=$(ours "$threads" pipelines)
  python3 - "$threads" "$duck" "$plain" "$ruled" <<'PY'
import sys
threads, (duck, plain, ruled) = sys.argv[1], map(float, sys.argv[2:])
rate = lambda seconds: f"{3.6 / seconds:.2f} M/s"
print(f"threads {threads}: DuckDB {rate(duck)}, replay {rate(plain)} = {duck / plain:.1f} x, with rules {rate(ruled)} = {duck / ruled:.1f} x")
PY
done
