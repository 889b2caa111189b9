#!/usr/bin/env bash
# The one test command. Needs Rust; installs what else it needs, stops what it starts.
set -euo pipefail
cd "$(dirname "$0")/.."

# Debian keeps servers in /usr/sbin, which is not on everybody's path.
export PATH="$PATH:/usr/sbin"
missing=()
command -v cc >/dev/null || missing+=(gcc libc6-dev)
command -v nats-server >/dev/null || missing+=(nats-server)
command -v redis-server >/dev/null || missing+=(redis-server)
command -v prlimit >/dev/null || missing+=(util-linux)
if [ ${#missing[@]} -gt 0 ]; then
  echo "installing ${missing[*]}"
  sudo=$([ "$(id -u)" = 0 ] || echo sudo)
  # Packages must not start servers of their own: the tests start theirs.
  $sudo apt-get update -qq
  RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq "${missing[@]}"
fi

# One build for everything: the tests drive the binary that is built beside them.
cargo build --locked --quiet
cargo test --locked --quiet
target/debug/streamgauge check pipelines
target/debug/streamgauge test pipelines
