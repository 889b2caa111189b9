#!/usr/bin/env python3
"""Rule evaluation beside Prometheus, in one run: the CPU that the same work costs each of them.

The work: 10,000 series with a new value every 5 s, and 20 rules, one per quantile from 0.9 to 0.995,
over the last minute of every single series, every 5 s: 40,000 evaluations a second. No rule ever
holds, so only evaluation is seen. Both get the same values, produced by this process (not counted):

- Prometheus scrapes them and evaluates alerting rules `quantile_over_time(0.9, m_ms[1m]) > 1e9`;
- `streamgauge run` (embedded: on disk before it is acknowledged) gets them as NDJSON by
  POST /api/v1/events and evaluates rules `quantile(0.9, m_ms[1m]) > 1000000s`.

They run one after the other. After a warm-up that fills the windows: cores = (utime + stime of all
threads of the process) / seconds. Taking the values in is part of the work of both; `--split` tells it
apart by a second run of each without rules. Quantiles of Prometheus are exact, those of streamgauge
within 1 %, over windows that move in panes of 10 s (11 or 12 values, Prometheus 12). 60 s seal every
minute once; the two-hourly compaction of Prometheus's head is not in them.

usage: cargo build --release && python3 benches/prometheus.py [--split]
Needs Linux, Python 3.11 and Debian's package `prometheus`; takes 260 s, with --split 410 s.
"""
import argparse
import contextlib
import http.client
import http.server
import itertools
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

SERIES, INTERVAL, ROUNDS, BODIES = 10_000, 5, 24, 4  # INTERVAL in seconds
QUANTILES = [f"{0.9 + 0.005 * n:.3f}" for n in range(20)]
EXPECTED = SERIES * len(QUANTILES) / INTERVAL


def values():
    """ROUNDS rounds, used in turn, of one log-normal latency in milliseconds per series."""
    draw = random.Random(7)
    centres = [draw.uniform(2.0, 6.0) for _ in range(SERIES)]
    return [[round(draw.lognormvariate(centre, 0.5), 3) for centre in centres] for _ in range(ROUNDS)]


def request(address, path, body=None, connection=None):
    """The body of the answer; anything but 200 and 202 is an error."""
    connection = connection or http.client.HTTPConnection(address, timeout=10)
    connection.request("POST" if body else "GET", path, body, {"content-type": "application/x-ndjson"})
    answer = connection.getresponse()
    text = answer.read().decode()
    if answer.status not in (200, 202):
        raise RuntimeError(f"{path} answered {answer.status}: {text[:300]}")
    return text


def counter(address, name):
    """Sum of a counter over its labels."""
    return sum(map(float, re.findall(rf"(?m)^{name}(?:{{[^}}]*}})? (\S+)$", request(address, "/metrics"))))


@contextlib.contextmanager
def started(command, log, found):
    """A process that prints to `log`, and what `found` finds once it is ready; killed however it ends."""
    environment = {"PATH": os.environ.get("PATH", ""), "RUST_LOG": "info"}
    with open(log, "wb") as out:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment)
    try:
        deadline, answer = time.monotonic() + 10, None
        while not answer:
            if time.monotonic() > deadline or child.poll() is not None:
                raise RuntimeError(f"{command[0]} does not get ready:\n{log.read_text()[-2000:]}")
            time.sleep(0.05)
            with contextlib.suppress(OSError, RuntimeError, http.client.HTTPException):
                answer = found()
        yield child, answer
    finally:
        child.kill()
        child.wait()


def measure(child, warmup, seconds, evaluated):
    """Cores (all threads, user and system), and evaluations a second as `evaluated` counts them."""
    def cpu_seconds():
        fields = pathlib.Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    time.sleep(warmup)
    evaluations, begun, cpu = evaluated(), time.monotonic(), cpu_seconds()
    time.sleep(seconds)
    cpu, elapsed = cpu_seconds() - cpu, time.monotonic() - begun
    return cpu / elapsed, (evaluated() - evaluations) / elapsed


@contextlib.contextmanager
def exposition(rounds):
    """A server whose every scrape shows the next round of values; gives its address."""
    line = 'm_ms{source="s-%d"} %s\n'
    pages = itertools.cycle(["".join(line % one for one in enumerate(r)).encode() for r in rounds])

    class Page(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        log_message = lambda *_: None

        def do_GET(self):
            page = next(pages)
            self.send_response(200)
            self.send_header("content-length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield "127.0.0.1:%d" % server.server_address[1]
        server.shutdown()


def prometheus(binary, rounds, quantiles, warmup, seconds):
    """Cores, evaluations a second, milliseconds a rule."""
    with tempfile.TemporaryDirectory() as name, exposition(rounds) as target:
        work, log = pathlib.Path(name), pathlib.Path(name, "log")
        rules = [{"alert": q, "expr": f"quantile_over_time({q}, m_ms[1m]) > 1e9"} for q in quantiles]
        (work / "rules.yml").write_text(json.dumps({"groups": [{"name": "g", "rules": rules}]}))  # JSON is YAML
        (work / "prometheus.yml").write_text(json.dumps({
            "global": {"scrape_interval": f"{INTERVAL}s", "evaluation_interval": f"{INTERVAL}s"},
            "rule_files": ["rules.yml"],
            "scrape_configs": [{"job_name": "m", "static_configs": [{"targets": [target]}]}]}))
        with socket.create_server(("127.0.0.1", 0)) as free:
            address = "127.0.0.1:%d" % free.getsockname()[1]
        command = [binary, f"--config.file={work}/prometheus.yml", f"--storage.tsdb.path={work}/data",
                   f"--web.listen-address={address}", "--log.level=warn"]
        with started(command, log, lambda: request(address, "/-/ready")) as (child, _):
            cores, rate = measure(child, warmup, seconds,
                                  lambda: counter(address, "prometheus_rule_evaluations_total"))
            if counter(address, "prometheus_rule_evaluation_failures_total"):
                raise RuntimeError("Prometheus could not evaluate: " + log.read_text()[-2000:])
            query = json.loads(request(address, "/api/v1/query?query=count(quantile_over_time(0.9,m_ms[1m]))"))
            series = sum(int(one["value"][1]) for one in query["data"]["result"])
            groups = json.loads(request(address, "/api/v1/rules"))["data"]["groups"]
            took = [rule["evaluationTime"] for group in groups for rule in group["rules"]]
            return cores, rate * series, 1000 * sum(took) / max(len(took), 1)


def feed(address, rounds, stop, failures):
    """Posts a round of values every INTERVAL until told to stop."""
    line, size = '{"type":"metric","time":@,"source":"s-%d","name":"m_ms","value":%s}\n', SERIES // BODIES
    bodies = [["".join(line % (n, r[n]) for n in range(at, at + size)).encode()
               for at in range(0, SERIES, size)] for r in rounds]
    connection, due = http.client.HTTPConnection(address, timeout=10), time.monotonic()
    try:
        for round_bodies in itertools.cycle(bodies):
            now = str(int(time.time() * 1000)).encode()
            for body in round_bodies:
                request(address, "/api/v1/events", body.replace(b"@", now), connection)
            due += INTERVAL
            if stop.wait(max(0.0, due - time.monotonic())):
                return
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        failures.append(error)


def streamgauge(binary, rounds, quantiles, warmup, seconds):
    """Cores, evaluations a second."""
    with tempfile.TemporaryDirectory() as name:
        work, log, stop, failures = pathlib.Path(name), pathlib.Path(name, "log"), threading.Event(), []
        (work / "pipelines").mkdir()
        rules = [{"id": f"r{n}", "expr": f"quantile({q}, m_ms[1m]) > 1000000s", "severity": "info"}
                 for n, q in enumerate(quantiles)]
        (work / "pipelines/rules.yaml").write_text(json.dumps({"version": 1, "rules": rules}))
        command = [binary, "run", "--listen", "127.0.0.1:0", "--evaluation-interval", f"{INTERVAL}s",
                   "--data-dir", f"{work}/data", "--pipelines", f"{work}/pipelines"]
        listening = lambda: re.findall('"address":"([^"]+)"', log.read_text())
        with started(command, log, listening) as (child, [address]):
            threading.Thread(target=feed, args=(address, rounds, stop, failures), daemon=True).start()
            cores, rate = measure(child, warmup, seconds,
                                  lambda: counter(address, "streamgauge_rule_evaluations_total"))
            stop.set()
            if failures or counter(address, "streamgauge_events_refused_total"):
                raise RuntimeError(f"streamgauge refused values: {failures}")
            return cores, rate


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--warmup", type=float, default=70, help="seconds before measuring [70]")
    parser.add_argument("--seconds", type=float, default=60, help="seconds measured, each [60]")
    parser.add_argument("--prometheus", default="prometheus", metavar="PATH")
    parser.add_argument("--streamgauge", default="target/release/streamgauge", metavar="PATH")
    parser.add_argument("--split", action="store_true", help="also measure both without rules")
    given = parser.parse_args()
    peer, binary = shutil.which(given.prometheus), shutil.which(given.streamgauge)
    if not peer:
        sys.exit(f"{given.prometheus} not found: install Debian's package (apt-get install prometheus)")
    if not binary:
        sys.exit(f"{given.streamgauge} not found: cargo build --release")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the started processes are stopped
    rounds = values()
    theirs, their_rate, took = prometheus(peer, rounds, QUANTILES, given.warmup, given.seconds)
    print(f"Prometheus:  {theirs:.4f} cores, {their_rate:.0f} evaluations/s of {EXPECTED:.0f}", flush=True)
    ours, our_rate = streamgauge(binary, rounds, QUANTILES, given.warmup, given.seconds)
    print(f"streamgauge: {ours:.4f} cores, {our_rate:.0f} evaluations/s of {EXPECTED:.0f}", flush=True)
    if given.split:
        idle = prometheus(peer, rounds, [], min(given.warmup, 15), given.seconds)[0]
        own = streamgauge(binary, rounds, [], min(given.warmup, 15), given.seconds)[0]
        print(f"without rules: Prometheus {idle:.4f} cores, streamgauge {own:.4f} cores; "
              f"the rules alone: {theirs - idle:.4f} and {ours - own:.4f}")
    print(f"Prometheus {theirs:.3f} cores, streamgauge {ours:.3f} cores, ratio {theirs / max(ours, 1e-9):.1f}; "
          f"Prometheus takes {took:.1f} ms a rule")


if __name__ == "__main__":
    main()
