"""An archive of many small images from end to end: embedded by eight array tasks that are killed, committed to a lake, indexed, and searched
through two servers. Prints one line of JSON for each step.

    million.py PROGRAM WEED FOLDER N_IMAGES
"""

import json
import pathlib
import random
import signal
import struct
import subprocess
import sys
import threading
import time
import urllib.request
import zlib

import numpy

import store

PROGRAM, WEED, FOLDER, N_IMAGES = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3]), int(sys.argv[4])
FOLDER.mkdir(parents=True, exist_ok=True)
STORE = store.Store(WEED, FOLDER / "store")
N_TASKS, N_TOGETHER = 8, 2


def png(pixels):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    height, width = pixels.shape
    rows = numpy.hstack([numpy.zeros((height, 1), numpy.uint8), pixels]).tobytes()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b"")


def tell(what, **figures):
    print(json.dumps({"what": what} | {name: round(value, 3) if isinstance(value, float) else value for name, value in figures.items()}), flush=True)


def environment():
    return STORE.environment() | {"XDG_CONFIG_HOME": str(FOLDER / "config"), "M3RET_LAKE_DEADLINE": "20"}


def make():
    random_ = numpy.random.default_rng(1)
    bases = random_.integers(0, 200, (500, 8, 8)).astype(numpy.uint8)
    with open(FOLDER / "m.csv", "w") as manifest:
        manifest.write("path,modality,patient_id\n")
        for number in range(N_IMAGES):
            folder = FOLDER / "in" / f"{number // 1000:04}"
            folder.mkdir(parents=True, exist_ok=True)
            pixels = bases[number % 500] + random_.integers(0, 56, (8, 8)).astype(numpy.uint8)
            path = folder / f"{number:07}.png"
            path.write_bytes(png(numpy.kron(pixels, numpy.ones((3, 3), numpy.uint8))))
            manifest.write(f"in/{folder.name}/{path.name},{('DX', 'US', 'CT')[number % 3]},P{number // 4}\n")


def embed(source, out, task, n_tasks):
    words = [PROGRAM, "-q", "embed", source, "--out", out, "--shard", f"{task}/{n_tasks}", "--model", "pixels", "--save-every", "2", "--threads", "1"]
    return subprocess.Popen(words, cwd=FOLDER, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def tasks():
    random_, n_kills = random.Random(3), 0
    waiting = list(range(N_TASKS))
    kills = {task: 2 for task in waiting}
    began = time.monotonic()
    running = {}
    while waiting or running:
        while waiting and len(running) < N_TOGETHER:
            task = waiting.pop(0)
            until = time.monotonic() + random_.uniform(0.3, 3) if kills[task] else None
            running[task] = (embed("m.csv", "parts", task, N_TASKS), until)
        time.sleep(0.2)
        for task, (child, until) in list(running.items()):
            if child.poll() is not None:
                assert child.returncode == 0, child.stderr.read()[-2000:]
                del running[task]
            elif until and time.monotonic() > until:
                child.send_signal(signal.SIGKILL)
                child.wait()
                kills[task] -= 1
                n_kills += 1
                del running[task]
                waiting.append(task)
    return time.monotonic() - began, n_kills


def run(*words):
    began = time.monotonic()
    done = subprocess.run([PROGRAM, "-q", *map(str, words)], cwd=FOLDER, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, (words, done.stderr[-2000:])
    return time.monotonic() - began, done.stdout


def ask(address, token, body):
    request = urllib.request.Request(address + "/v1/indexes/million/search", data=json.dumps(body).encode())
    request.add_header("Authorization", f"Bearer {token}")
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


def serve(seconds):
    servers, counts, times = [], [0, 0], []
    for _ in range(2):
        words = [PROGRAM, "serve", "-d", place, "--listen", "127.0.0.1:0", "--max-patients-per-hour", "100000000"]
        child = subprocess.Popen(words, cwd=FOLDER, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        address, _, token = child.stdout.readline().strip().partition("/#token=")
        servers.append((child, address, token))
    until = time.monotonic() + seconds

    def search(reader):
        random_ = random.Random(reader)
        _, address, token = servers[reader]
        while time.monotonic() < until:
            number = random_.randrange(N_IMAGES)
            began = time.monotonic()
            answer = ask(address, token, {"id": f"../in/{number // 1000:04}/{number:07}.png", "k": 10})
            times.append(time.monotonic() - began)
            assert len(answer["hits"]) == 10, answer
            counts[reader] += 1
    threads = [threading.Thread(target=search, args=(reader,)) for reader in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for child, _, _ in servers:
        child.terminate()
        child.wait(30)
    times.sort()
    tell("two servers", seconds=seconds, searches=counts, ms_p50=times[len(times) // 2] * 1000, ms_p99=times[len(times) * 99 // 100] * 1000)


STORE.start()
place = f"s3://{store.BUCKET}/million"
try:
    began = time.monotonic()
    make()
    tell("images", n=N_IMAGES, s_wall=time.monotonic() - began)
    seconds, n_kills = tasks()
    tell("embed, 8 tasks", s_wall=seconds, n_kills=n_kills, images_per_s=N_IMAGES / seconds)
    seconds, output = run("lake", "commit", "parts", place, "--json")
    committed = json.loads(output.splitlines()[-1])
    assert committed["n_rows"] == N_IMAGES, committed
    tell("commit", s_wall=seconds, **committed)
    seconds, output = run("lake", "maintain", place, "--json", "--prune", "0")
    tell("maintain", s_wall=seconds, plans=json.loads(output.splitlines()[-1])["plans"])
    seconds, output = run("lake", "verify", place, "--json")
    checked = json.loads(output.splitlines()[-1])
    assert checked["faults"] == [] and checked["n_rows"] == N_IMAGES
    tell("verify", s_wall=seconds, n_rows=checked["n_rows"])
    serve(20)
finally:
    STORE.kill()
