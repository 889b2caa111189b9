#!/usr/bin/env python3
"""Memory and restart with 100,000 series: the whole process, not only the engine.

1. Replay of one value per series and 10 s for an hour (36 M events through a pipe, windows of all
   resolutions written out), then a few late events for every tenth minute: peak resident memory,
   and whether each late event corrected its windows.
2. `run` with 100,000 live series: time from start to ready, after SIGTERM and after kill -9.

usage: footprint.py [--series N] [--steps N] [--streamgauge PATH]
"""
import argparse
import http.client
import json
import os
import signal
import subprocess
import tempfile
import threading
import time

START = 1_793_491_200_000
LATE = 50  # late events, each of another series


def peak_mib(pid):
    with open(f"/proc/{pid}/status") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return 0.0


def replay(binary, series, steps, empty):
    """Peak memory, events a second, corrected windows seen and expected."""
    command = [binary, "replay", "-", "--threads", "2", "--pipelines", empty, "--windows-out", "-"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    corrected = []
    reader = threading.Thread(target=lambda: corrected.extend(
        line for line in process.stdout if b'"revision":1' in line))
    reader.start()
    heads = [f'{{"type":"metric","source":"svc-{n % 50}","name":"latency_ms","labels":{{"host":"h-{n}"}},"time":'
             for n in range(series)]
    begun = time.time()
    for step in range(steps):
        lines = [f'{head}{START + step * 10_000 + n * 10_000 // series},"value":{(n * 37 + step * 61) % 997}.{n % 10}}}\n'
                 for n, head in enumerate(heads)]
        process.stdin.write("".join(lines).encode())
    for late in range(LATE):
        minute = START + (late % (steps // 6)) * 60_000
        process.stdin.write(f'{heads[late * 7]}{minute},"value":5}}\n'.encode())
    process.stdin.flush()
    peak = peak_mib(process.pid)
    process.stdin.close()
    while process.poll() is None:
        peak = max(peak, peak_mib(process.pid) if os.path.exists(f"/proc/{process.pid}/status") else 0)
        time.sleep(0.02)
    reader.join()
    minutes = sum(b'"window":"1m"' in line for line in corrected)
    return peak, series * steps / (time.time() - begun), minutes


def start(binary, data, empty):
    """A running service, its port, and the seconds until it said that it is ready."""
    begun = time.time()
    command = [binary, "run", "--listen", "127.0.0.1:0", "--data-dir", data, "--pipelines", empty]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env={**os.environ, "RUST_LOG": "info"})
    for line in process.stderr:
        address = json.loads(line)["fields"].get("address") if line.startswith(b"{") else None
        if address:
            break
    port = int(address.rsplit(":", 1)[1])
    threading.Thread(target=lambda: [None for _ in process.stderr], daemon=True).start()
    while request(port, "GET", "/readyz")[0] != 200:
        pass
    return process, port, time.time() - begun


def request(port, method, path, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, body, {"Content-Type": "application/x-ndjson"})
    response = connection.getresponse()
    return response.status, response.read()


def fill(port, series):
    now = int(time.time() * 1000)
    lines = [f'{{"type":"metric","time":{now},"source":"svc-{n % 50}","name":"latency_ms","labels":{{"host":"h-{n}"}},"value":{n % 997}}}'
             for n in range(series)]
    for at in range(0, series, 5_000):
        status, answer = request(port, "POST", "/api/v1/events", "\n".join(lines[at:at + 5_000]))
        assert status == 202, answer


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--series", type=int, default=100_000)
    parser.add_argument("--steps", type=int, default=360)
    parser.add_argument("--streamgauge", default="target/release/streamgauge")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        empty, data = os.path.join(work, "none"), os.path.join(work, "data")
        os.mkdir(empty)
        peak, rate, corrected = replay(args.streamgauge, args.series, args.steps, empty)
        print(f"{args.series:,} series x {args.steps} values: peak {peak:.0f} MiB resident, "
              f"{rate / 1e6:.2f} M events/s through a pipe, {corrected} of {LATE} late events corrected their minute")
        process, port, _ = start(args.streamgauge, data, empty)
        try:
            fill(port, args.series)
            process.send_signal(signal.SIGTERM)
            process.wait()
            process, port, after_term = start(args.streamgauge, data, empty)
            fill(port, args.series)
            process.kill()
            process.wait()
            process, port, after_kill = start(args.streamgauge, data, empty)
            print(f"restart with {args.series:,} series: ready after {after_term:.2f} s (SIGTERM), "
                  f"{after_kill:.2f} s (kill -9)")
        finally:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
