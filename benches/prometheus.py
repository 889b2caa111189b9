#!/usr/bin/env python3
"""Rule evaluation beside Prometheus, in one run: the CPU that the same work costs each of them.

The work: 10,000 series with a new value every 5 s, and 20 rules, one per quantile from 0.9 to 0.995,
over the last minute of every single series, evaluated every 5 s: 40,000 evaluations a second. No rule
ever holds, so nothing but the evaluation is seen, and both get the same values.

- Prometheus scrapes them from a small server in this process and evaluates alerting rules
  `quantile_over_time(0.9, m_ms[1m]) > 1e9`.
- `streamgauge run` (embedded, so each value is on disk before it is acknowledged) gets them as NDJSON
  by POST /api/v1/events and evaluates rules `quantile(0.9, m_ms[1m]) > 1000000s`.

They run one after the other. After a warm-up that fills the one-minute windows, utime + stime of the
process, all threads, is taken over the measured time and divided by it: cores. What produces the
values is this process and not counted; taking them in is part of the work of both, and `--split`
tells it apart by a second run of each without rules. Quantiles of Prometheus are exact, those of
streamgauge within 1 %. With --seconds 60 each minute's windows are sealed once in the measured time;
Prometheus's compaction of its head, every two hours, is not in it.

usage: cargo build --release && python3 benches/prometheus.py [--split]
Needs Linux, Python 3.11 and Debian's package `prometheus`; takes 260 s, with --split 410 s.
"""
import argparse
import contextlib
import http.client
import http.server
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

SERIES, INTERVAL, ROUNDS, BODIES = 10_000, 5, 24, 4
QUANTILES = [f"{0.9 + 0.005 * n:.3f}" for n in range(20)]
EXPECTED = SERIES * len(QUANTILES) / INTERVAL
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def values():
    """ROUNDS rounds of one log-normal latency in milliseconds per series; used in turn."""
    draw = random.Random(7)
    centres = [draw.uniform(2.0, 6.0) for _ in range(SERIES)]
    return [[round(draw.lognormvariate(centre, 0.5), 3) for centre in centres] for _ in range(ROUNDS)]


def request(address, path, body=None, connection=None):
    """The body of the answer; anything but 200 and 202 is an error."""
    connection = connection or http.client.HTTPConnection(address, timeout=10)
    headers = {} if body is None else {"content-type": "application/x-ndjson"}
    connection.request("GET" if body is None else "POST", path, body, headers)
    answer = connection.getresponse()
    text = answer.read().decode()
    if answer.status not in (200, 202):
        raise RuntimeError(f"{path} answered {answer.status}: {text[:300]}")
    return text


def counter(address, name):
    """Sum of a counter over its labels."""
    found = re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", request(address, "/metrics"), re.MULTILINE)
    return sum(map(float, found))


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


@contextlib.contextmanager
def process(command, log):
    """A process that is killed at the end, however it ends; `log` gets what it prints."""
    environment = {"PATH": os.environ.get("PATH", ""), "RUST_LOG": "info"}
    with open(log, "wb") as out:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment)
    try:
        yield child
    finally:
        child.kill()
        child.wait()


def wait_for(child, log, found):
    """Asks until there is an answer, for ten seconds at most."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and child.poll() is None:
        with contextlib.suppress(OSError, RuntimeError, http.client.HTTPException):
            if answer := found():
                return answer
        time.sleep(0.05)
    raise RuntimeError(f"{child.args[0]} does not get ready:\n{log.read_text()[-2000:]}")


def measure(child, warmup, seconds, evaluated):
    """Cores, and rules or keys evaluated a second as `evaluated` counts them."""
    time.sleep(warmup)
    evaluations, begun, cpu = evaluated(), time.monotonic(), cpu_seconds(child.pid)
    time.sleep(seconds)
    cpu, elapsed = cpu_seconds(child.pid) - cpu, time.monotonic() - begun
    return cpu / elapsed, (evaluated() - evaluations) / elapsed


@contextlib.contextmanager
def exposition(rounds):
    """A server whose every scrape shows the next round of values; gives its address."""
    pages = ["".join(f'm_ms{{source="s-{n}"}} {v}\n' for n, v in enumerate(r)).encode() for r in rounds]
    scrapes = 0

    class Page(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            nonlocal scrapes
            page = pages[scrapes % ROUNDS]
            scrapes += 1
            self.send_response(200)
            self.send_header("content-type", "text/plain; version=0.0.4")
            self.send_header("content-length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield "127.0.0.1:%d" % server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def prometheus(binary, rounds, quantiles, warmup, seconds):
    """Cores, evaluations a second, milliseconds a rule."""
    with tempfile.TemporaryDirectory() as name, exposition(rounds) as target:
        work = pathlib.Path(name)
        rules = [{"alert": f"r{n}", "expr": f"quantile_over_time({q}, m_ms[1m]) > 1e9"} for n, q in enumerate(quantiles)]
        (work / "rules.yml").write_text(json.dumps({"groups": [{"name": "g", "rules": rules}]}))  # JSON is YAML
        (work / "prometheus.yml").write_text(json.dumps({
            "global": {"scrape_interval": f"{INTERVAL}s", "evaluation_interval": f"{INTERVAL}s"},
            "rule_files": ["rules.yml"],
            "scrape_configs": [{"job_name": "m", "static_configs": [{"targets": [target]}]}]}))
        with socket.create_server(("127.0.0.1", 0)) as free:
            address = "127.0.0.1:%d" % free.getsockname()[1]
        command = [binary, f"--config.file={work}/prometheus.yml", f"--storage.tsdb.path={work}/data",
                   f"--web.listen-address={address}", "--log.level=warn"]
        log = work / "log"
        with process(command, log) as child:
            wait_for(child, log, lambda: request(address, "/-/ready"))
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
    size = SERIES // BODIES
    line = '{"type":"metric","time":@,"source":"s-%d","name":"m_ms","value":%s}\n'
    bodies = [["".join(line % (n, r[n]) for n in range(at, at + size)).encode() for at in range(0, SERIES, size)]
              for r in rounds]
    try:
        connection = http.client.HTTPConnection(address, timeout=10)
        begun, turn = time.monotonic(), 0
        while not stop.wait(max(0.0, begun + turn * INTERVAL - time.monotonic())):
            now = str(int(time.time() * 1000)).encode()
            for body in bodies[turn % ROUNDS]:
                request(address, "/api/v1/events", body.replace(b"@", now), connection)
            turn += 1
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        failures.append(error)


def streamgauge(binary, rounds, quantiles, warmup, seconds):
    """Cores, evaluations a second."""
    with tempfile.TemporaryDirectory() as name:
        work, stop, failures = pathlib.Path(name), threading.Event(), []
        (work / "pipelines").mkdir()
        rules = [{"id": f"r{n}", "expr": f"quantile({q}, m_ms[1m]) > 1000000s", "severity": "info"}
                 for n, q in enumerate(quantiles)]
        (work / "pipelines/rules.yaml").write_text(json.dumps({"version": 1, "rules": rules}))
        command = [binary, "run", "--listen", "127.0.0.1:0", "--evaluation-interval", f"{INTERVAL}s",
                   "--data-dir", f"{work}/data", "--pipelines", f"{work}/pipelines"]
        log = work / "log"
        with process(command, log) as child:
            address = wait_for(child, log, lambda: re.search(r'"address":"([^"]+)"', log.read_text()))[1]
            feeder = threading.Thread(target=feed, args=(address, rounds, stop, failures))
            feeder.start()
            try:
                cores, rate = measure(child, warmup, seconds,
                                      lambda: counter(address, "streamgauge_rule_evaluations_total"))
            finally:
                stop.set()
                feeder.join()
            if failures or counter(address, "streamgauge_events_refused_total"):
                raise RuntimeError(f"streamgauge refused values: {failures}")
            return cores, rate


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--warmup", type=float, default=70, help="seconds before measuring [70]")
    parser.add_argument("--seconds", type=float, default=60, help="seconds measured, each [60]")
    parser.add_argument("--prometheus", default="prometheus", metavar="PATH")
    parser.add_argument("--streamgauge", metavar="PATH", help="[target/release/streamgauge]",
                        default=str(pathlib.Path(__file__).resolve().parent.parent / "target/release/streamgauge"))
    parser.add_argument("--split", action="store_true", help="also measure both without rules")
    given = parser.parse_args()
    peer, binary = shutil.which(given.prometheus), shutil.which(given.streamgauge)
    if not peer:
        sys.exit(f"{given.prometheus}: not found; apt-get install prometheus (the Debian package)")
    if not binary:
        sys.exit(f"{given.streamgauge}: not found; cargo build --release")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started is stopped
    rounds = values()
    theirs, their_rate, took = prometheus(peer, rounds, QUANTILES, given.warmup, given.seconds)
    print(f"Prometheus:  {theirs:.4f} cores, {their_rate:.0f} evaluations/s of {EXPECTED:.0f}", flush=True)
    ours, our_rate = streamgauge(binary, rounds, QUANTILES, given.warmup, given.seconds)
    print(f"streamgauge: {ours:.4f} cores, {our_rate:.0f} evaluations/s of {EXPECTED:.0f}", flush=True)
    if given.split:
        short = min(given.warmup, 15)
        idle = prometheus(peer, rounds, [], short, given.seconds)[0]
        own = streamgauge(binary, rounds, [], short, given.seconds)[0]
        print(f"without rules: Prometheus {idle:.4f} cores, streamgauge {own:.4f} cores; "
              f"the rules alone: {theirs - idle:.4f} and {ours - own:.4f}")
    print(f"Prometheus {theirs:.3f} cores, streamgauge {ours:.3f} cores, ratio {theirs / max(ours, 1e-9):.1f}; "
          f"Prometheus takes {took:.1f} ms a rule")


if __name__ == "__main__":
    main()
