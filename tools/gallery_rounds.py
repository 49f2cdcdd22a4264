#!/usr/bin/env python3
"""Kills writers of a gallery, or lets their disk fail, while readers search it.

    M3RET=target/release/m3ret tools/gallery_rounds.py --rounds 1000 --seed 1

A round is one writer (index add, remove or compact), which is killed after a random time (kill -9), or one of whose
system calls on a file of the gallery fails with ENOSPC or EIO (strace), alone or with all calls of its kind that
follow, or which ends. Which calls a kind of writer makes, and how long it takes, is measured every 50 rounds, so
that faults fire and kills strike while it works. Readers search all the time. Checked:

lost      an id whose writer returned 0, and that is not in the gallery afterwards
phantom   an id that is there though no writer added it, or that was removed by a writer that returned 0
torn      a writer that failed or was killed and left neither the state before nor the state after
wrong     an answer that is not of a state that the gallery had
failed    a reader that ended with another status than 0, or could not read

The last line sums up. Of writers: killed; failed because their fault fired, which strace reports (faulted); ended
with status 0 although it fired (survived); their fault did not fire (missed); ended before the kill came (late); left
alone. The seed decides everything but times. Status 1 if anything of the list is not 0.
"""

import argparse
import json
import math
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time

WIDTH, N_ADDED, N_REMOVED = 16, 12, 7
CALLS = [
    "write", "writev", "pwrite64", "read", "pread64", "openat", "fsync", "fdatasync", "ftruncate", "fallocate",
    "rename", "renameat2", "unlink", "unlinkat", "mkdir", "mkdirat", "flock", "mmap", "fchmod", "getdents64",
]  # fmt: skip
N_ROUNDS_OF_A_MEASUREMENT = 50
FATES = ["killed", "faulted", "survived", "missed", "late", "alone"]


def vector(name):
    random_of = random.Random(name)
    values = [random_of.gauss(0, 1) for _ in range(WIDTH)]
    length = math.sqrt(sum(x * x for x in values))
    return [x / length for x in values]


def write_batch(folder, ids):
    rows = [vector(name) for name in ids]
    shape = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({len(rows)}, {WIDTH}), }}".ljust(117) + "\n"
    with open(os.path.join(folder, "x.npy"), "wb") as out:
        out.write(b"\x93NUMPY\x01\0" + struct.pack("<H", len(shape)) + shape.encode())
        for row in rows:
            out.write(struct.pack(f"<{WIDTH}f", *row))
    with open(os.path.join(folder, "x.csv"), "w") as out:
        out.write("path,id\n" + "".join(f"p/{name},{name}\n" for name in ids))


class Gallery:
    def __init__(self, program, folder):
        self.program, self.folder = program, folder
        self.path = os.path.join(folder, "g.m3i")

    def run(self, words, **options):
        command = [self.program, *words]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False, **options)

    def ids(self):
        """All ids, by a search for as many hits as there are rows."""
        stats = self.run(["index", "stats", self.path, "--json"])
        n_items = json.loads(stats.stdout)["n_items"] if stats.returncode == 0 else None
        if n_items is None:
            raise RuntimeError(f"index stats: {stats.stderr}")
        answer = self.search("anchor", n_items + 5)
        if answer.returncode != 0:
            raise RuntimeError(f"search: {answer.stderr}")
        return set(hits_of(answer.stdout)) | {"anchor"}

    def search(self, name, k):
        return self.run(["search", "-d", self.path, "-i", name, "-k", str(k), "--exact", "--json"])


def hits_of(text):
    found = []
    for line in text.splitlines():
        value = json.loads(line)
        found += [hit["id"] for hit in value.get("hits", [])]
    return found


class Readers:
    """Threads that search until they are stopped."""

    def __init__(self, gallery, n_threads, known):
        self.gallery, self.known = gallery, known
        self.is_stopped = threading.Event()
        self.lock = threading.Lock()
        self.n_reads, self.failed, self.wrong = 0, [], []
        self.threads = [threading.Thread(target=self.read) for _ in range(n_threads)]
        for thread in self.threads:
            thread.start()

    def read(self):
        while not self.is_stopped.is_set():
            answer = self.gallery.search("anchor", 5)
            with self.lock:
                self.n_reads += 1
                if answer.returncode != 0:
                    self.failed.append(answer.stderr.strip())
                    continue
                # Ids are never used twice, so that an id that no writer has begun to add is an invention.
                unknown = set(hits_of(answer.stdout)) - self.known
                if unknown:
                    self.wrong.append(sorted(unknown))

    def stop(self):
        self.is_stopped.set()
        for thread in self.threads:
            thread.join()


def writer_words(kind, gallery, removed):
    if kind == "add":
        return ["index", "add", gallery.path, "x.csv", "--embeddings", "x.npy", "--encoder", "e"]
    if kind == "remove":
        return ["index", "remove", gallery.path, *removed]
    return ["index", "compact", gallery.path]


class Writers:
    """Runs writers, and knows of each kind which calls on files of the gallery it makes and how long it takes."""

    def __init__(self, gallery, chance, has_strace):
        self.gallery, self.chance, self.has_strace = gallery, chance, has_strace
        self.log = os.path.join(gallery.folder, "strace.log")
        self.calls, self.seconds, self.measured_in = {}, {}, {}

    def under_strace(self, calls, inject, words):
        """The command that runs a writer under strace, which names the file of each descriptor."""
        options = ["-f", "-qq", "-y", "-o", self.log, "-e", f"trace={','.join(calls)}", *inject]
        return ["strace", *options, self.gallery.program, *words]

    def measure(self, kind, words):
        """Runs a writer on copies of the gallery."""
        copy = self.gallery.path + "-copy"
        words = [copy if word == self.gallery.path else word for word in words]

        def seconds(command):
            shutil.copytree(self.gallery.path, copy)
            begun = time.monotonic()
            subprocess.run(command, cwd=self.gallery.folder, capture_output=True, check=True)
            took = time.monotonic() - begun
            shutil.rmtree(copy)
            return took

        self.seconds[kind] = seconds([self.gallery.program, *words])
        if self.has_strace:
            # The question mark: not every machine has every call.
            seconds(self.under_strace(["?" + call for call in CALLS], [], words))
            self.calls[kind] = calls_on(self.log, copy)

    def run(self, kind, words, number):
        """Returns what became of the writer, as the last line counts it, and its status."""
        if number - self.measured_in.get(kind, -N_ROUNDS_OF_A_MEASUREMENT) >= N_ROUNDS_OF_A_MEASUREMENT:
            self.measured_in[kind] = number
            self.measure(kind, words)
        fate = self.chance.choice(["kill"] * 6 + ["fault"] * (4 if self.has_strace else 0) + ["none"])
        command = [self.gallery.program, *words]
        if fate == "fault":
            call, error = self.chance.choice(sorted(self.calls[kind])), self.chance.choice(["ENOSPC", "EIO"])
            when = f"{self.chance.choice(self.calls[kind][call])}{self.chance.choice(['', '+'])}"
            command = self.under_strace([call], ["-e", f"inject={call}:error={error}:when={when}"], words)
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        begun = subprocess.Popen(command, cwd=self.gallery.folder, **quiet)
        if fate == "kill":
            time.sleep(self.chance.random() * self.seconds[kind])
            begun.kill()
        status = begun.wait()
        if fate == "fault":
            with open(self.log, errors="replace") as lines:
                if "(INJECTED)" not in lines.read():
                    return "missed", status
            return ("survived" if status == 0 else "faulted"), status
        if fate == "kill":
            return ("killed" if status == -signal.SIGKILL else "late"), status
        return "alone", status


def calls_on(log, folder):
    """Numbers of the calls of each kind that concern a folder, within the thread that makes most of them."""
    of_threads = {}
    with open(log, errors="replace") as lines:
        for line in lines:
            thread, _, text = line.partition(" ")
            name = text.strip().partition("(")[0]
            # A call that another thread interrupts has a second line, which strace does not count.
            if name not in CALLS:
                continue
            n_calls, found = of_threads.setdefault((name, thread), [0, []])
            of_threads[name, thread][0] = n_calls + 1
            if folder in text:
                found.append(n_calls + 1)
    numbers = {}
    for (name, _), (_, found) in of_threads.items():
        if len(found) > len(numbers.get(name, [])):
            numbers[name] = found
    return numbers


def one_round(writers, state, known, number):
    """Runs one writer; returns the state afterwards, what became of the writer, and what was wrong."""
    gallery, chance = writers.gallery, writers.chance
    kind = chance.choice(["add", "add", "remove", "compact"])
    if kind == "remove" and len(state) <= N_REMOVED:
        kind = "add"
    added = {f"r{number}-{i}" for i in range(N_ADDED)} if kind == "add" else set()
    candidates = sorted(state - {"anchor"})
    removed = set(chance.sample(candidates, N_REMOVED)) if kind == "remove" else set()
    if added:
        write_batch(gallery.folder, sorted(added))
        known |= added
    fate, status = writers.run(kind, writer_words(kind, gallery, sorted(removed)), number)
    after = (state | added) - removed
    found = gallery.ids()
    faults = {"lost": 0, "phantom": 0, "torn": 0}
    if status == 0:
        faults["lost"] = len(after - found)
        faults["phantom"] = len(found - after)
    elif found not in (state, after):
        faults["torn"] = 1
        faults["lost"] = len((state - removed) - found)
        faults["phantom"] = len(found - (state | added))
    return found, fate, status, faults


def verify(gallery):
    report = gallery.run(["index", "verify", gallery.path, "--json"])
    return report.returncode == 0 and json.loads(report.stdout)["is_good"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--readers", type=int, default=2)
    arguments = parser.parse_args()
    program = os.path.abspath(os.environ.get("M3RET", "target/release/m3ret"))
    has_strace = shutil.which("strace") is not None
    chance = random.Random(arguments.seed)
    sums = dict.fromkeys(FATES + ["lost", "phantom", "torn", "damaged"], 0)
    with tempfile.TemporaryDirectory() as folder:
        gallery = Gallery(program, folder)
        state = {"anchor"} | {f"first-{i}" for i in range(40)}
        known = set(state)
        write_batch(folder, sorted(state))
        words = ["index", "build", gallery.path, "x.csv", "--embeddings", "x.npy", "--encoder", "e"]
        built = gallery.run(words)
        if built.returncode != 0:
            sys.exit(f"index build: {built.stderr}")
        readers = Readers(gallery, arguments.readers, known)
        writers = Writers(gallery, chance, has_strace)
        try:
            for number in range(arguments.rounds):
                state, fate, status, faults = one_round(writers, state, known, number)
                sums[fate] += 1
                if fate in ("missed", "late", "alone") and status != 0:
                    sys.exit(f"round {number}: a writer that nothing was done to ended with status {status}")
                for name, n_faults in faults.items():
                    sums[name] += n_faults
                if any(faults.values()):
                    print(f"round {number}: {fate}, status {status}: {faults}", flush=True)
                if number % 25 == 24 and not verify(gallery):
                    sums["damaged"] += 1
                    print(f"round {number}: verify finds damage", flush=True)
        finally:
            readers.stop()
        sums["damaged"] += not verify(gallery)
    for text in readers.failed[:5] + readers.wrong[:5]:
        print(f"reader: {text}")
    bad = sums["lost"] + sums["phantom"] + sums["torn"] + sums["damaged"] + len(readers.failed) + len(readers.wrong)
    counts = ", ".join(f"{n} {name}" for name, n in sums.items())
    print(
        f"{arguments.rounds} rounds, seed {arguments.seed}{'' if has_strace else ' (no strace)'}: {counts}; "
        f"{readers.n_reads} reads: {len(readers.failed)} failed, {len(readers.wrong)} wrong"
    )
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
