#!/usr/bin/env bash
# All figures of the README's table, one after the other on an otherwise idle machine; takes 10 minutes.
# Needs python3 with `pip install duckdb numpy` and Debian's package prometheus.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --release --locked --quiet
benches/compare.sh "$@"
cargo bench --quiet --bench replay
python3 benches/footprint.py
python3 benches/prometheus.py
