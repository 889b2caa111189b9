#!/usr/bin/env bash
# The one test command. Needs Rust; installs what else it needs, stops what it starts.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v cc >/dev/null; then
  echo 'installing a C linker'
  apt-get update -qq && apt-get install -y -qq gcc libc6-dev
fi

# One build for everything: the tests drive the binary that is built beside them.
cargo build --locked --quiet
cargo test --locked --quiet
target/debug/streamgauge check pipelines
target/debug/streamgauge test pipelines
