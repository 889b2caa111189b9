#!/usr/bin/env bash
# Replay against DuckDB on the same file, side by side in one run, medians of seven rounds.
# usage: benches/compare.sh [DIR for the workload and results; default: a temporary one]
# Needs python3 with `pip install duckdb numpy`; the workload takes 640 MB.
set -euo pipefail
cd "$(dirname "$0")/.."
work=${1:-$(mktemp -d)}
mkdir -p "$work"
cargo build --release --locked --quiet
events=$work/events.ndjson
[ -f "$events" ] || python3 benches/workload.py "$events"

mkdir -p "$work/no-rules"
ours() { # threads pipelines
  target/release/streamgauge replay "$events" --threads "$1" --pipelines "$2" --windows-out "$work/windows" --json |
    python3 -c 'import json,sys; print(json.load(sys.stdin)["seconds"])'
}
# The three alternate, so that a slow minute of the machine affects all of them.
for threads in 1 2; do
  for _ in 1 2 3 4 5 6 7; do
    echo "$(python3 benches/peer_duckdb.py "$events" "$threads")" \
      "$(ours "$threads" "$work/no-rules")" "$(ours "$threads" pipelines)"
  done | python3 -c '
import statistics, sys
rounds = [tuple(map(float, line.split())) for line in sys.stdin]
duck, plain, ruled = (statistics.median(column) for column in zip(*rounds))
ratio = lambda at: statistics.median(one[0] / one[at] for one in rounds)
rate = lambda seconds: f"{3.6 / seconds:.2f} M/s"
print(f"threads {sys.argv[1]}: DuckDB {rate(duck)}, replay {rate(plain)} = {ratio(1):.1f} x, with rules {rate(ruled)} = {ratio(2):.1f} x")
' "$threads"
done
