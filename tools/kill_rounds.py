#!/usr/bin/env python3
"""Interrupts and kills every verb of m3ret at random moments, and looks for what is left.

    M3RET=target/release/m3ret tools/kill_rounds.py --rounds 300 --seed 1

A round prepares a folder, starts one verb with a TMPDIR of its own, and sends SIGINT, SIGTERM, SIGHUP or SIGKILL at a
random moment of its run, whose length is measured first. In every second round an earlier run has left its results,
and the input has changed since. Checked:

left      after SIGINT, SIGTERM and SIGHUP: a file in TMPDIR, an unfinished file beside results, a file in a gallery
          that its catalog does not name; after SIGKILL: the same, once the next run of the verb has ended
broken    a result that is neither the old one nor a whole new one; an input that changed
alive     a process that the verb started and that did not end with it
stuck     a next run of the verb that ends with another status than an undisturbed run

Without ffmpeg, videos are left out. The seed decides everything but times. Status 1 if anything is found.
"""

import argparse
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zlib

PROGRAM = os.path.abspath(os.environ.get("M3RET", "target/release/m3ret"))
SIGNALS = ["INT", "TERM", "HUP", "KILL"]
N_IMAGES, SIDE = 24, 96


def png(seed):
    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    chance = random.Random(seed)
    noise = bytes(chance.randrange(256) for _ in range(SIDE))

    def row(y):
        return bytes((x * (seed + 3) + y * 5 + noise[(x + y) % SIDE] // 3) % 251 for x in range(SIDE))

    rows = b"".join(b"\0" + row(y) for y in range(SIDE))
    head = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def nifti():
    """A block of water in air, 48 x 48 x 32."""
    sides, head = (48, 48, 32), bytearray(352)
    struct.pack_into("<i", head, 0, 348)
    struct.pack_into("<8h", head, 40, 3, *sides, 1, 1, 1, 1)
    struct.pack_into("<hh", head, 70, 4, 16)
    struct.pack_into("<8f", head, 76, 1, 2, 2, 3, 1, 1, 1, 1)
    struct.pack_into("<fff", head, 108, 352, 1, 0)
    head[123] = 2
    struct.pack_into("<h", head, 254, 1)
    for at, step in ((280, -2), (300, -2), (320, 3)):
        struct.pack_into("<f", head, at, step)
    head[344:348] = b"n+1\0"
    values = (
        0 if 10 < x < 30 and 10 < y < 36 and z > 8 else -1000
        for z in range(sides[2])
        for y in range(sides[1])
        for x in range(sides[0])
    )
    return bytes(head) + b"".join(struct.pack("<h", value) for value in values)


def film_in_dicom(film):
    """An MPEG-4 film of 160 x 120 as the pixels of a DICOM object."""

    def element(group, number, kind, value):
        value += b"" if len(value) % 2 == 0 else b"\0" if kind == b"UI" else b" "
        return struct.pack("<HH2sH", group, number, kind, len(value)) + value

    def short(number, value):
        return element(0x28, number, b"US", struct.pack("<H", value))

    film += b"\0" * (len(film) % 2)
    syntax = element(2, 0x10, b"UI", b"1.2.840.10008.1.2.4.102")
    head = element(2, 0, b"UL", struct.pack("<I", len(syntax))) + syntax + element(8, 0x60, b"CS", b"ES")
    head += element(0x10, 0x10, b"PN", b"Doe^Jane") + short(2, 3) + element(0x28, 4, b"CS", b"YBR_PARTIAL_420")
    head += short(6, 0) + element(0x28, 8, b"IS", b"25") + short(0x10, 120) + short(0x11, 160)
    head += short(0x100, 8) + short(0x101, 8) + short(0x102, 7) + short(0x103, 0)
    pixels = struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OB", 0, 0xFFFFFFFF) + b"\xfe\xff\x00\xe0\0\0\0\0"
    pixels += struct.pack("<HHI", 0xFFFE, 0xE000, len(film)) + film + b"\xfe\xff\xdd\xe0\0\0\0\0"
    return b"\0" * 128 + b"DICM" + head + pixels


TRAINING = """out = 'run'
manifests = ['m.csv']
method = 'mae'
[model]
preset = 'tiny'
embed_dim = 24
num_heads = 2
depth = 1
patch = [4, 8, 8]
side = 32
max_depth = 4
[images]
validation = 0.0
[views]
side = 32
depth = 4
local_side = 16
local_depth = 4
n_local = 1
[mae]
decoder_dim = 32
decoder_depth = 1
decoder_heads = 2
[train]
steps = 24
batch = 6
checkpoint_every = 4
[monitor]
knn_every = 0
"""
STUDY = """out = 'study'
pretrain = 'train.toml'
evaluate = 'm.csv'
allow_overlap = true
fractions = [1.0]
[[sizes]]
name = 's'
set = ['train.steps=4']
"""


def write(path, content):
    with open(path, "wb") as out:
        out.write(content if isinstance(content, bytes) else content.encode())


def make_inputs(folder, has_films):
    """Writes everything that verbs read into a folder."""
    for name in ("a", "b", "out"):
        os.makedirs(os.path.join(folder, name))
    rows = "path,modality,dims,source,body_part,patient_id\n"
    for i in range(N_IMAGES):
        write(f"{folder}/a/{i:02}.png", png(i))
        rows += f"a/{i:02}.png,DX,2d,s{i % 2},part{i % 3},p{i // 2}\n"
    for i in range(6):
        write(f"{folder}/b/{i}.png", png(100 + i))
    write(f"{folder}/m.csv", rows)
    write(f"{folder}/ct.nii", nifti())
    write(f"{folder}/train.toml", TRAINING)
    write(f"{folder}/study.toml", STUDY)
    if has_films:
        film = f"{folder}/film.mp4"
        source = ["-f", "lavfi", "-i", "testsrc=size=160x120:rate=25:duration=1"]
        made = ["ffmpeg", "-v", "error", *source, "-c:v", "libx264", "-pix_fmt", "yuv420p", film]
        if subprocess.run(made, check=False).returncode != 0:
            made[made.index("libx264")] = "mpeg4"
            subprocess.run(made, check=True)
        with open(film, "rb") as opened:
            content = opened.read()
        os.makedirs(f"{folder}/films")
        for i in range(2):
            write(f"{folder}/films/{i}.dcm", film_in_dicom(content))
        write(f"{folder}/films/2.mp4", content)
        os.remove(film)


GALLERY = ["index", "build", "g.m3i", "a", "--model", "pixels"]
MODEL = ["--model", "hog"]
# Of each verb: its words, what is run before it, and whether it may be told to write over earlier results.
VERBS = {
    "check": (["check", "a"], [], False),
    "inspect": (["inspect", "a", "--npy", "out/i.npy", "--thumbnail", "out/i.png"], [], True),
    "embed npy": (["embed", "a", *MODEL, "-o", "out/o.npy", "--save-every", "0"], [], True),
    "embed parquet": (["embed", "m.csv", *MODEL, "-o", "out/o.parquet"], [], True),
    "search": (["search", "-i", "a/01.png", "-d", "a", "--cache", "c", *MODEL, "--html", "out/s.html"], [], True),
    "map": (["map", "a", "--cache", "c", *MODEL, "--html", "out/map.html"], [], True),
    "dedup": (["dedup", "a", "--cache", "c"], [], False),
    "split": (["split", "m.csv", "--cache", "c", "--out", "out/s.csv"], [], True),
    "evaluate": (["evaluate", "m.csv", "-o", "e", *MODEL], [], True),
    "compare": (
        ["compare", "e1", "e2", "-o", "out/t.md"],
        [["evaluate", "m.csv", "-o", "e1", "-m", "pixels"], ["evaluate", "m.csv", "-o", "e2", "-m", "hog"]],
        True,
    ),
    "simulate": (["simulate", "radiographs", "ct.nii", "--out", "sim"], [], True),
    "pretrain": (["pretrain", "train.toml"], [], False),
    "study": (["study", "scaling", "study.toml"], [], False),
    "index build": (["index", "build", "new.m3i", "a", *MODEL, "--thumbnails"], [], False),
    "index add": (["index", "add", "g.m3i", "b", "--model", "pixels"], [GALLERY], False),
    "index remove": (["index", "remove", "g.m3i", "01.png", "02.png"], [GALLERY], False),
    "index relabel": (["index", "relabel", "g.m3i", "m.csv"], [GALLERY], False),
    "index move": (
        ["index", "move", "g.m3i", "gone", "b"],
        [["index", "build", "g.m3i", "gone", "-m", "pixels"]],
        False,
    ),
    "index prune": (["index", "prune", "g.m3i"], [GALLERY, "rm a/03.png"], False),
    "index compact": (["index", "compact", "g.m3i"], [GALLERY, ["index", "remove", "g.m3i", "01.png"]], False),
    "index repair": (["index", "verify", "g.m3i", "--repair"], [GALLERY, "damage"], False),
}
FILMS = {
    "inspect film": (["inspect", "films/0.dcm", "--npy", "out/f.npy"], [], True),
    "check films": (["check", "films"], [], False),
    "embed films": (["embed", "films", "-m", "pixels", "-o", "out/f.npy", "--save-every", "0"], [], True),
    "search films": (["search", "-i", "films/1.dcm", "-d", "films", "--cache", "c", "-m", "pixels"], [], False),
}


def run(folder, words, temporary):
    environment = {**os.environ, "TMPDIR": temporary}
    done = subprocess.run([PROGRAM, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


def prepare(folder, steps, temporary):
    for step in steps:
        if step == "damage":
            name = next(name for name in sorted(os.listdir(f"{folder}/g.m3i")) if name.startswith("segment-"))
            with open(f"{folder}/g.m3i/{name}", "r+b") as segment:
                segment.seek(4096)
                segment.write(b"\xff" * 64)
        elif isinstance(step, str):
            os.remove(f"{folder}/{step.removeprefix('rm ')}")
        else:
            if "gone" in step:
                shutil.copytree(f"{folder}/b", f"{folder}/gone")
            status, told = run(folder, step, temporary)
            if status != 0:
                sys.exit(f"{step}: {told}")
            shutil.rmtree(f"{folder}/gone", ignore_errors=True)


def change_inputs(folder):
    write(f"{folder}/a/05.png", png(55))
    shutil.copy(f"{folder}/a/01.png", f"{folder}/a/zz.png")


def files_in(folder):
    found = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            with open(path, "rb") as opened:
                found[os.path.relpath(path, folder)] = opened.read()
    return found


def is_input(path):
    return path.split("/")[0] in ("a", "b", "films", "m.csv", "ct.nii", "train.toml", "study.toml")


def is_whole(path, content):
    """Says whether a file has the end that its kind has."""
    if path.endswith(".npy"):
        n_head = 10 + struct.unpack("<H", content[8:10])[0] if len(content) > 10 else 0
        shape = content[10:n_head].split(b"(")[1].split(b")")[0].replace(b" ", b"")
        n_values = 1
        for side in filter(None, shape.split(b",")):
            n_values *= int(side)
        return len(content) == n_head + 4 * n_values
    if path.endswith(".html"):
        return content.rstrip().endswith(b"</html>")
    if path.endswith(".parquet"):
        return content[:4] == content[-4:] == b"PAR1"
    if path.endswith(".png"):
        return content.endswith(b"IEND\xaeB`\x82")
    if path.endswith(".safetensors"):
        n_head = 8 + struct.unpack("<Q", content[:8])[0]
        head = json.loads(content[8:n_head])
        ends = [value["data_offsets"][1] for name, value in head.items() if name != "__metadata__"]
        return len(content) == n_head + max(ends)
    if path.endswith(".json") and ".m3i/" not in path and not path.startswith("c/"):
        json.loads(content)
    if path.endswith((".csv", ".md", ".toml", ".jsonl")):
        return content.endswith(b"\n") or path.endswith(".jsonl")
    return True


def unfinished(folder, galleries, temporary):
    """Files that nothing but an unfinished run explains."""
    left = [f"TMPDIR/{name}" for name in os.listdir(temporary)]
    for parent, _, names in os.walk(folder):
        inside = os.path.relpath(parent, folder)
        left += [os.path.join(inside, name) for name in names if name.endswith(".part")]
        left += [os.path.join(inside, name) for name in names if name.startswith((".m3ret", ".tmp"))]
    for gallery in galleries:
        before = set(os.listdir(gallery))
        # A writer that is opened removes what its catalog does not name, and then refuses this id.
        run(folder, ["index", "remove", gallery, "no such id"], temporary)
        left += [os.path.join(os.path.relpath(gallery, folder), name) for name in before - set(os.listdir(gallery))]
    return left


def galleries_in(folder):
    found = []
    for parent, _, names in os.walk(folder):
        if any(name.startswith("catalog-") for name in names):
            found.append(parent)
    return found


def alive(session):
    """Processes of a session, but for zombies."""
    found = []
    for number in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{number}/stat") as opened:
                words = opened.read().rpartition(")")[2].split()
        except OSError:
            continue
        if int(words[3]) == session and words[0] not in "ZX":
            found.append(int(number))
    return found


def start(folder, words, temporary):
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "stdin": subprocess.DEVNULL}
    environment = {**os.environ, "TMPDIR": temporary}
    return subprocess.Popen([PROGRAM, *words], cwd=folder, env=environment, start_new_session=True, **quiet)


class Verb:
    """One verb, what an undisturbed run of it takes and returns, and a folder in which it is run."""

    def __init__(self, name, described, template, root):
        self.name, (self.words, self.steps, self.has_force) = name, described
        self.template, self.folder = template, os.path.join(root, "work")
        self.temporary = os.path.join(root, "temporary")
        self.prepared()
        begun = time.monotonic()
        self.status, told = run(self.folder, self.words, self.temporary)
        self.seconds = time.monotonic() - begun
        self.is_resumed = name == "pretrain"
        # A change that was made cannot be made again: the next run says so, with status 1, or finds nothing to do.
        self.is_once = name in ("index remove", "index move", "index repair")
        if self.status not in (0, 1):
            sys.exit(f"{name}: status {self.status}: {told}")

    def prepared(self):
        for folder in (self.folder, self.temporary):
            shutil.rmtree(folder, ignore_errors=True)
        os.mkdir(self.temporary)
        shutil.copytree(self.template, self.folder)
        prepare(self.folder, self.steps, self.temporary)

    def again(self, has_force=True):
        """Runs the verb to its end, as a person would who finds that it was killed."""
        force = ["--force"] if has_force and self.has_force and self.words[0] != "embed" else []
        if self.is_resumed:
            status, told = run(self.folder, [*self.words, "--resume"], self.temporary)
            if status == 0 or os.path.exists(f"{self.folder}/run/log.jsonl"):
                return status, told
        status, told = run(self.folder, [*self.words, *force], self.temporary)
        if status == 1 and "`m3ret index add` adds what is new" in told:
            return run(self.folder, ["index", "add", *self.words[2:]], self.temporary)
        return status, told

    def round(self, chance, has_earlier):
        """Returns what was sent, whether it came before the end, and what was found."""
        self.prepared()
        if has_earlier:
            self.again()
            change_inputs(self.folder)
        before = files_in(self.folder)
        sent = chance.choice(SIGNALS)
        words = [*self.words, "--force"] if self.has_force and self.words[0] != "embed" else self.words
        started = start(self.folder, words, self.temporary)
        time.sleep(chance.random() * self.seconds)
        started.send_signal(getattr(signal, f"SIG{sent}"))
        try:
            status = started.wait(timeout=120)
        except subprocess.TimeoutExpired:
            started.kill()
            return sent, True, [("stuck", f"still running 120 s after SIG{sent}")]
        was_hit = status in (130, -getattr(signal, f"SIG{sent}"))
        found = self.look(started.pid, sent, status, before)
        return sent, was_hit, found

    def look(self, session, sent, status, before):
        found = []
        for _ in range(100):
            if not alive(session):
                break
            time.sleep(0.02)
        found += [("alive", f"process {number}") for number in alive(session)]
        now = files_in(self.folder)
        for path, content in before.items():
            if is_input(path) and now.get(path) != content:
                found.append(("broken", f"the input {path}"))
        is_old_state = self.has_force or self.name in ("check", "compare")
        for path, content in now.items():
            try:
                is_good = before.get(path) == content or is_whole(path, content)
            except (ValueError, IndexError, struct.error):
                is_good = False
            # A killed run may leave its unfinished files until the next one.
            if not is_good and not (sent == "KILL" and os.path.basename(path).startswith(".m3ret-")):
                found.append(("broken", path))
        for path in before:
            # The list of an array is removed before the array is replaced, as docs/embeddings.md says.
            if is_old_state and path.startswith("out/") and path not in now and not path.endswith(".rows.csv"):
                found.append(("broken", f"{path} is gone"))
        if sent != "KILL":
            found += [("left", path) for path in unfinished(self.folder, galleries_in(self.folder), self.temporary)]
        again, told = self.again()
        if again != self.status and not (self.is_once and again in (0, 1)):
            found.append(("stuck", f"the next run ends with {again}, after {status}: {told.strip()[-300:]}"))
        left = unfinished(self.folder, galleries_in(self.folder), self.temporary)
        left += [path for path in os.listdir(f"{self.folder}/out") if path.endswith(".part")]
        found += [("left", f"{path} after the next run") for path in left]
        for gallery in galleries_in(self.folder):
            status, told = run(self.folder, ["index", "verify", gallery], self.temporary)
            if status != 0:
                found.append(("broken", f"{os.path.relpath(gallery, self.folder)}: {told.strip()[-300:]}"))
        return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--verbs", default="", help="only the verbs whose names hold this")
    arguments = parser.parse_args()
    has_films = shutil.which("ffmpeg") is not None
    chance = random.Random(arguments.seed)
    described = {**VERBS, **(FILMS if has_films else {})}
    sums = dict.fromkeys(["left", "broken", "alive", "stuck"], 0)
    n_hit = dict.fromkeys(SIGNALS, 0)
    with tempfile.TemporaryDirectory() as root:
        template = os.path.join(root, "template")
        make_inputs(template, has_films)
        verbs = [Verb(name, words, template, root) for name, words in described.items() if arguments.verbs in name]
        for number in range(arguments.rounds):
            verb = verbs[number % len(verbs)]
            has_earlier = number // len(verbs) % 2 == 1
            sent, was_hit, found = verb.round(chance, has_earlier)
            n_hit[sent] += was_hit
            for kind, what in found:
                sums[kind] += 1
                again = ", again" if has_earlier else ""
                print(f"round {number}: {verb.name}, SIG{sent}{again}: {kind}: {what}", flush=True)
    hits = ", ".join(f"{n} SIG{name}" for name, n in n_hit.items())
    counts = ", ".join(f"{n} {name}" for name, n in sums.items())
    films = "" if has_films else " (no ffmpeg: no videos)"
    done = f"{arguments.rounds} rounds of {len(verbs)} verbs, seed {arguments.seed}{films}"
    print(f"{done}: {hits} came before the end; {counts}")
    sys.exit(1 if any(sums.values()) else 0)


if __name__ == "__main__":
    main()
