#!/usr/bin/env python3
"""Loads a manifest of 1,000,000 rows with m3ret, pandas and pyarrow, all in one run.

Needs pandas and pyarrow. Each load is a process of its own, so that its peak memory (VmHWM) is
its own; the time is that of the load alone, without starting the interpreter.

Usage: benches/compare/manifest.py [--rows 1000000] [--repeats 3]
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[2]

PRELUDE = """
import json, sys, time
def peak():
    lines = open('/proc/self/status').read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith('VmHWM'))
def report(load):
    before = peak()
    start = time.perf_counter()
    rows = load(sys.argv[1])
    seconds = time.perf_counter() - start
    print(json.dumps({'rows': len(rows), 'seconds': seconds, 'peak_kib': peak(), 'idle_kib': before}))
"""

PYTHON = {
    "pandas, objects": {
        "csv": "import pandas as pd\nreport(lambda f: pd.read_csv(f, dtype=str, keep_default_na=False))",
        "parquet": "import pandas as pd\nreport(pd.read_parquet)",
    },
    "pandas, categories": {
        "csv": "import pandas as pd\nreport(lambda f: pd.read_csv(f, dtype={c: 'category' for c in "
        "pd.read_csv(f, nrows=0).columns if c != 'path'}, keep_default_na=False))",
        "parquet": "import pyarrow.parquet as pq\nreport(lambda f: pq.read_table(f, read_dictionary="
        "[c for c in pq.read_schema(f).names if c != 'path']).to_pandas())",
    },
    "pyarrow": {
        "csv": "import pyarrow.csv as pc\nreport(pc.read_csv)",
        "parquet": "import pyarrow.parquet as pq\nreport(pq.read_table)",
    },
}


def run(command):
    done = subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    build = ["cargo", "build", "--release", "--example", "manifest", "-p", "m3ret-imaging"]
    built = subprocess.run(
        [*build, "--message-format=json"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    messages = [json.loads(line) for line in built.stdout.splitlines()]
    ours = next(
        m["executable"] for m in messages if m.get("target", {}).get("name") == "manifest" and m.get("executable")
    )
    print("| reader | format | seconds | peak memory, MiB | of it before the load |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("csv", "parquet"):
            table = pathlib.Path(folder) / f"table.{kind}"
            run([ours, "make", args.rows, table])
            n_bytes = table.stat().st_size
            readers = {"m3ret, whole table": [ours, "load"], "m3ret, batches": [ours, "stream"]}
            for name, code in PYTHON.items():
                readers[name] = [sys.executable, "-c", PRELUDE + code[kind]]
            for name, command in readers.items():
                runs = [run([*command, table]) for _ in range(args.repeats)]
                assert all(r["rows"] == args.rows for r in runs), name
                seconds = statistics.median(r["seconds"] for r in runs)
                peak = max(r["peak_kib"] for r in runs) / 1024
                idle = max(r.get("idle_kib", 0) for r in runs) / 1024
                size = f"{kind}, {n_bytes / 1e6:.0f} MB"
                print(f"| {name} | {size} | {seconds:.2f} | {peak:.0f} | {idle:.0f} |", flush=True)


if __name__ == "__main__":
    main()
