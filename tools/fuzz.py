"""Build the fuzz targets with nightly Rust and run each for some time; one line of a table a target.

    python tools/fuzz.py [--seconds 60] [--runs -1] [--folder FOLDER] [--jobs 1] [TARGET ...]

FOLDER keeps corpora, logs and findings (fuzz/run where none is given); a corpus that is missing is made by
fuzz/seeds.py. Needs neither cargo-fuzz nor clang. `config` is built only where it is named: it needs Burn.
"""

import argparse
import os
import pathlib
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

ROOT = pathlib.Path(__file__).resolve().parents[1]
TRIPLE = "x86_64-unknown-linux-gnu"
# What cargo-fuzz passes, too: coverage for libFuzzer, and AddressSanitizer.
FLAGS = """--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
 -Cllvm-args=-sanitizer-coverage-trace-compares -Clink-dead-code -Zsanitizer=address -Ccodegen-units=1"""
LIMITS = ["-rss_limit_mb=2048", "-malloc_limit_mb=1200", "-timeout=20", "-print_final_stats=1", "-detect_leaks=0"]


def has_nightly():
    try:
        shown = subprocess.run(["cargo", "+nightly", "--version"], capture_output=True, cwd=ROOT / "fuzz")
    except OSError:
        return False
    return shown.returncode == 0


def all_targets():
    return sorted(path.stem for path in (ROOT / "fuzz" / "fuzz_targets").glob("*.rs"))


def build(targets):
    """Returns the folder of the programs."""
    folder = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "fuzz" / "target"))
    environment = {**os.environ, "RUSTFLAGS": " ".join(FLAGS.split()), "CARGO_TARGET_DIR": str(folder)}
    command = ["cargo", "+nightly", "build", "--release", "--target", TRIPLE]
    if "config" in targets:
        command += ["--features", "pretrain"]
    for target in targets:
        command += ["--bin", target]
    subprocess.run(command, cwd=ROOT / "fuzz", env=environment, check=True)
    return folder / TRIPLE / "release"


def run(program, folder, arguments):
    """Runs one target and returns its line: executions, seconds, inputs of the corpus, findings."""
    target = program.name
    corpus, findings = folder / target, folder / "findings" / target
    for needed in (corpus, findings, folder / "temporary"):
        needed.mkdir(parents=True, exist_ok=True)
    shared = pathlib.Path("/dev/shm")
    # Targets that write files write many: not to a disk.
    temporary = shared if shared.is_dir() else folder / "temporary"
    before = len(list(findings.iterdir()))
    command = [program, corpus, f"-artifact_prefix={findings}/", *LIMITS]
    command += [f"-max_total_time={arguments.seconds}", f"-runs={arguments.runs}"]
    began = time.monotonic()
    with open(folder / f"{target}.log", "wb") as log:
        environment = {**os.environ, "TMPDIR": str(temporary)}
        subprocess.run(command, stdout=log, stderr=log, env=environment, cwd=folder)
    seconds = time.monotonic() - began
    text = (folder / f"{target}.log").read_text(errors="replace")
    counts = [int(n) for n in re.findall(r"number_of_executed_units: (\d+)", text)]
    # A finding ends the run before its statistics.
    counts += [int(n) for n in re.findall(r"^#(\d+)\t", text, re.MULTILINE)]
    n_findings = len(list(findings.iterdir())) - before
    return target, max(counts, default=0), round(seconds), len(list(corpus.iterdir())), n_findings


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=60, help="most seconds of each target")
    parser.add_argument("--runs", type=int, default=-1, help="most executions of each target")
    parser.add_argument("--folder", type=pathlib.Path, default=ROOT / "fuzz" / "run")
    parser.add_argument("--jobs", type=int, default=1, help="targets that run at once")
    parser.add_argument("targets", nargs="*", metavar="TARGET")
    arguments = parser.parse_args()
    if not has_nightly():
        print("no nightly toolchain: nothing is fuzzed; install one with `rustup toolchain install nightly`")
        return 0
    targets = arguments.targets or [target for target in all_targets() if target != "config"]
    programs = build(targets)
    folder = arguments.folder.resolve()
    if not all((folder / target).is_dir() for target in targets):
        subprocess.run([sys.executable, ROOT / "fuzz" / "seeds.py", folder], check=True)
    print("| target | executions | seconds | corpus | findings |\n|---|---|---|---|---|")
    n_findings = 0
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for line in pool.map(lambda target: run(programs / target, folder, arguments), targets):
            print("| " + " | ".join(map(str, line)) + " |", flush=True)
            n_findings += line[-1]
    return 1 if n_findings else 0


if __name__ == "__main__":
    sys.exit(main())
