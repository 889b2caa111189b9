#!/usr/bin/env python3
"""DuckDB computing the same windows from the same file in batch; prints its seconds.

usage: peer_duckdb.py EVENTS.ndjson THREADS
"""
import sys
import time

import duckdb

events, threads = sys.argv[1], int(sys.argv[2])
connection = duckdb.connect()
connection.execute(f"set threads={threads}")
begun = time.time()
connection.execute(f"""
    create table e as
    select source, name, labels.stage as stage, labels.host as host, time::timestamptz as time, value
    from read_json('{events}', format='newline_delimited', columns={{
        type: 'varchar', source: 'varchar', name: 'varchar', unit: 'varchar',
        labels: 'struct(stage varchar, host varchar)', time: 'varchar', value: 'double'}})
""")
for window in ("1 minute", "5 minutes", "1 hour"):
    connection.execute(f"""
        select source, name, stage, host, epoch(time_bucket(interval '{window}', time)) as start,
            count(*), sum(value), min(value), max(value), quantile_disc(value, [0.5, 0.95, 0.99])
        from e group by all
    """).fetchall()
print(time.time() - begun)
