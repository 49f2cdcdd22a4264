"""Times the encoder on a CPU: m3ret against PyTorch, ONNX Runtime and OpenVINO, all in one go.

Every engine computes the same ViT (random weights, same layers, same shapes), in a child process of
its own that loads once and warms up; then they run in turn, one forward pass each. CPU time of all
threads of a child is read from the kernel's process clock. Ratios are to PyTorch f32 of the same
round; the table gives medians. Linux only.

Run from the repository root, in a Python with torch onnx onnxscript onnxruntime openvino:
    cargo build --release -p m3ret-encoder --examples
    python benches/compare/encode.py --json encode.json
Set CARGO_TARGET_DIR if the build did, or give --binaries, the folder of embed_bench and
machine_peak. `--from encode.json` prints the tables of an earlier run again, and
`--docs docs/benchmarks.md` puts them there. The first run exports the networks, taking minutes;
`--exports FOLDER` keeps them for the next.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", HERE.parents[1] / "target"))

BASE = {"model": "base", "width": 768, "heads": 12, "depth": 12}
SMALL = {"model": "small", "width": 384, "heads": 6, "depth": 12}
CASES = {
    "ViT-B/16, 197 tokens, batch 1": BASE | {"frames": 1, "batch": 1, "tokens": 197},
    "ViT-B/16, 197 tokens, batch 8": BASE | {"frames": 1, "batch": 8, "tokens": 197},
    "ViT-B, 1569 tokens, batch 1": BASE | {"frames": 32, "batch": 1, "tokens": 1569},
    "ViT-S/16, 197 tokens, batch 1": SMALL | {"frames": 1, "batch": 1, "tokens": 197},
    "ViT-S/16, 197 tokens, batch 8": SMALL | {"frames": 1, "batch": 8, "tokens": 197},
}
REFERENCE = "torch f32"
ENGINES = [REFERENCE, "torch bf16", "onnxruntime f32", "onnxruntime int8, dynamic",
           "openvino f32", "openvino bf16", "openvino int8, static",
           "m3ret f32", "m3ret bf16", "m3ret int8"]


def gigaflops(case):
    """Multiply-adds, two each, of all products of one forward pass; a training step has three."""
    length, width = case["tokens"], case["width"]
    patch = 3 * 16 * 16 * (1 if case["frames"] == 1 else 4)
    blocks = case["depth"] * (12 * length * width**2 + 2 * length**2 * width)
    n_passes = 3 if case.get("is_training") else 1
    return n_passes * 2 * case["batch"] * (blocks + (length - 1) * patch * width) / 1e9


def command_of(name, case, folder, n_threads, binaries):
    """What runs an engine: a program of ours, or encode_engines.py."""
    if name.startswith("m3ret"):
        program = "train_bench" if case.get("is_training") else "embed_bench"
        return [binaries / program, case["model"], case["frames"], case["batch"],
                "-", name.split()[1], n_threads]
    return [sys.executable, HERE / "encode_engines.py", "run", name,
            folder / "case.json", folder, n_threads]


class Engine:
    """A child process that runs one pass for each line it is sent."""

    def __init__(self, name, case, folder, n_threads, binaries):
        command = command_of(name, case, folder, n_threads, binaries)
        threads = {f"{library}_NUM_THREADS": str(n_threads)
                   for library in ["OMP", "MKL", "OPENBLAS", "RAYON"]}
        self.log = tempfile.TemporaryFile("w+")
        self.child = subprocess.Popen(
            [str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self.log, text=True, env=os.environ | threads)
        # The kernel's clock of another process: see clock_getcpuclockid(3).
        self.clock = ~self.child.pid << 3 | 2
        while (line := self.child.stdout.readline()) != "ready\n":
            if not line:
                self.log.seek(0)
                raise RuntimeError(f"{name} did not start: {self.log.read()[-2000:]}")

    def run(self):
        before = time.clock_gettime(self.clock)
        self.child.stdin.write("\n")
        self.child.stdin.flush()
        wall = float(self.child.stdout.readline().split()[0])
        time.sleep(0.001)  # until it sleeps: only then is its clock exact
        return wall, time.clock_gettime(self.clock) - before

    def stop(self):
        status = Path(f"/proc/{self.child.pid}/status").read_text()
        peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        self.child.stdin.close()
        self.child.wait()
        return int(peak.split()[1]) / 1024


def time_case(case, n_threads, folder, options):
    engines, failed = {}, {}
    for name in options.engines:
        try:
            engines[name] = Engine(name, case, folder, n_threads, options.binaries)
        except RuntimeError as error:
            failed[name] = str(error)
            print(error, file=sys.stderr)
    runs = {name: [] for name in engines}
    for number in range(options.rounds):
        names = list(engines)
        for name in names if number % 2 == 0 else reversed(names):
            runs[name].append(engines[name].run())
    peaks = {name: engine.stop() for name, engine in engines.items()}
    return {"threads": n_threads, "runs": runs, "peak_mib": peaks, "failed": failed}


def rows(result):
    """One row an engine: medians of wall, CPU, ratio to the reference of the same round."""
    runs, reference = result["runs"], result["runs"].get(REFERENCE)
    for name, taken in runs.items():
        row = {"engine": name, "wall": statistics.median(wall for wall, _ in taken),
               "cpu": statistics.median(cpu for _, cpu in taken),
               "peak_mib": result["peak_mib"][name]}
        if reference:
            for key, place in [("wall_ratio", 0), ("cpu_ratio", 1)]:
                row[key] = statistics.median(
                    ours[place] / theirs[place] for ours, theirs in zip(taken, reference))
        yield row


def tables(report):
    """The report as Markdown: a table for each number of threads and each thing measured."""
    peak = report["peak_gflops"]
    yield (f"Machine: {report['machine']}, shared with other work; load average "
           f"{report['load'][0]:.1f} before and {report['load'][-1]:.1f} after. "
           f"Medians of {report['rounds']} rounds.")
    yield "Versions: " + ", ".join(f"{name} {v}" for name, v in report["versions"].items()) + "."
    yield ("Peak of one core, measured by `machine_peak`, in 10^9 operations a second: "
           + ", ".join(f"{name} {rate:.0f}" for name, rate in peak.items()) + ".")

    def milliseconds(key):
        return lambda row, _: f"{row[key] * 1e3:.0f} ({row.get(key + '_ratio', 0):.2f})"

    def rate(row, case):
        rate = case["gflop"] / row["cpu"]
        most = peak[next(name for name in peak if name in row["engine"])]
        return f"{rate:.0f} ({rate / most if most else 0:.0%})"

    cases = report["cases"]
    for n_threads in sorted({r["threads"] for case in cases.values() for r in case["results"]}):
        on = "one thread" if n_threads == 1 else f"{n_threads} threads"
        cells = {
            f"CPU ms, {on} (ratio to {REFERENCE})": milliseconds("cpu"),
            f"Wall ms, {on} (ratio to {REFERENCE})": milliseconds("wall"),
        }
        if n_threads == 1:
            cells["10^9 operations a second (share of the core's peak)"] = rate
            cells[f"Peak memory MiB, {on}"] = lambda row, _: f"{row['peak_mib']:.0f}"
        by_engine = {}
        for title, case in cases.items():
            for result in case["results"]:
                if result["threads"] == n_threads:
                    for row in rows(result):
                        by_engine.setdefault(row["engine"], {})[title] = row
        for heading, cell in cells.items():
            lines = [f"| {heading} | " + " | ".join(cases) + " |", "|---" * (len(cases) + 1) + "|"]
            for engine, found in by_engine.items():
                line = [cell(found[t], cases[t]) if t in found else "" for t in cases]
                lines.append(f"| {engine} | " + " | ".join(line) + " |")
            yield "\n".join(lines)


def write_docs(path, report, script):
    """Puts the tables between the two comments of a document that name a script."""
    begin, end = f"<!-- {script} -->\n", f"<!-- end of {script} -->"
    text = path.read_text()
    if begin not in text or end not in text:
        sys.exit(f"{path} lacks the lines {begin.strip()} and {end}")
    before, rest = text.split(begin, 1)
    after = rest.split(end, 1)[1]
    path.write_text(before + begin + "\n\n".join(tables(report)) + "\n" + end + after)


def versions():
    code = ("import importlib.metadata as m\n"
            "for p in ['torch', 'onnxruntime', 'openvino']: print(p, m.version(p))")
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=HERE,
                            capture_output=True, text=True).stdout.strip()
    found = dict(line.split() for line in printed.stdout.splitlines())
    return found | {"Python": platform.python_version(), "m3ret": commit}


def measure(options, cases):
    program = options.binaries / "machine_peak"
    if not program.exists():
        sys.exit(f"{program} is missing: see the first lines of {Path(__file__).name}")
    rates = subprocess.run([program], check=True, capture_output=True, text=True).stdout.split()
    model = next((line.split(": ")[1] for line in Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), "unknown")
    report = {
        "machine": f"{os.cpu_count()} cores of {model}", "versions": versions(),
        "rounds": options.rounds, "load": [os.getloadavg()[0]],
        "peak_gflops": dict(zip(["f32", "bf16", "int8"], map(float, rates))), "cases": {},
    }
    with tempfile.TemporaryDirectory() as scratch:
        for title, case in cases.items():
            if not any(word in title for word in options.cases):
                continue
            folder = (options.exports or Path(scratch)) / title.replace("/", "-")
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "case.json").write_text(json.dumps(case))
            needs_export = any(name.startswith(("onnx", "openvino")) for name in options.engines)
            if needs_export and not (folder / "static.onnx").exists():
                subprocess.run(
                    [sys.executable, HERE / "encode_engines.py", "export", folder / "case.json",
                     folder], check=True, stdout=subprocess.DEVNULL)
            results = []
            for n_threads in options.threads:
                print(f"{title}, {n_threads} threads ...", file=sys.stderr, flush=True)
                results.append(time_case(case, n_threads, folder, options))
            report["cases"][title] = {"gflop": gigaflops(case), "results": results}
            report["load"][1:] = [os.getloadavg()[0]]
            if options.json:
                options.json.write_text(json.dumps(report, indent=1))
    return report


def main(description=__doc__, cases=CASES, engines=ENGINES, script="encode.py"):
    """Measures or repeats; train.py calls it with cases and engines of its own."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--binaries", type=Path, default=TARGET / "release" / "examples")
    parser.add_argument("--cases", nargs="+", default=[""], metavar="WORD",
                        help="only cases whose title holds one of these words")
    parser.add_argument("--engines", nargs="+", default=engines,
                        help="also: 'torch.compile f32', 'torch.compile bf16'")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--exports", type=Path, help="folder that keeps the exported networks")
    parser.add_argument("--json", type=Path, help="file for every single time")
    parser.add_argument("--docs", type=Path, help="document to write the tables into")
    parser.add_argument("--from", dest="earlier", type=Path, help="print the table of this file")
    options = parser.parse_args()
    report = json.loads(options.earlier.read_text()) if options.earlier else measure(options, cases)
    print("\n\n".join(tables(report)))
    if options.docs:
        write_docs(options.docs, report, script)


if __name__ == "__main__":
    main()
