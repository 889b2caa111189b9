#!/usr/bin/env python3
"""3.6 M metric events of 1,000 series over one hour, one log-normal latency a second each.

usage: workload.py OUT.ndjson
"""
import datetime
import json
import sys

import numpy

SERIES, SECONDS = 1000, 3600
random = numpy.random.default_rng(7)
centre = random.uniform(2.0, 6.0, SERIES)
heads = [
    json.dumps({"type": "metric", "source": f"svc-{n % 50}", "name": "latency_ms", "unit": "ms",
                "labels": {"stage": f"stage-{n % 10}", "host": f"host-{n}"}})[:-1]
    for n in range(SERIES)
]
start = datetime.datetime(2026, 11, 1, tzinfo=datetime.timezone.utc)
with open(sys.argv[1], "w") as out:
    for second in range(SECONDS):
        time = (start + datetime.timedelta(seconds=second)).strftime("%Y-%m-%dT%H:%M:%SZ")
        values = numpy.round(numpy.exp(centre + 0.5 * random.standard_normal(SERIES)), 3)
        out.writelines(f'{head}, "time": "{time}", "value": {value}}}\n' for head, value in zip(heads, values))
