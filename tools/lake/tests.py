"""Lakes on a real S3 server: writers that are killed, a store that dies, readers meanwhile, erasure.

    tests.py PROGRAM WEED FOLDER

Exit status 0 if nothing was found.
"""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import numpy

import parts
import store

PROGRAM, WEED, FOLDER = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3])
STORE = store.Store(WEED, FOLDER / "store")
WIDTH = 64


def lake(name):
    return f"s3://{store.BUCKET}/{name}"


def environment(**more):
    return STORE.environment() | {"XDG_CONFIG_HOME": str(FOLDER / "config"), **more}


def start(*words, **more):
    return subprocess.Popen([PROGRAM, "-q", *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(**more), cwd=FOLDER)


def run(*words, status=0, **more):
    child = start(*words, **more)
    out, err = child.communicate(timeout=600)
    assert child.returncode == status, (words, child.returncode, out[-2000:], err[-2000:])
    return (out, err)


def json_of(*words, **more):
    return json.loads(run(*words, "--json", **more)[0].splitlines()[-1])


def made(name, n_rows, n_parts, seed, first=0, patients=50, with_labels=False):
    """Parts of a run; returns their folder, vectors and ids."""
    vectors = parts.mixture(n_rows, WIDTH, seed)
    ids = [f"archive/{first + row:08}.dcm" for row in range(n_rows)]
    chosen = numpy.random.default_rng(seed)
    columns = {"modality": list(chosen.choice(["CT", "MR", "US"], n_rows)), "patient_id": [f"P{number}" for number in chosen.integers(0, patients, n_rows)]}
    if with_labels:
        columns["body_part"] = list(chosen.choice(["chest", "head"], n_rows))
    return parts.write(FOLDER / name, vectors, ids, columns, n_parts, name), vectors, ids


def is_whole(name, n_rows):
    """Nothing is lost, doubled or phantom."""
    checked = json_of("lake", "verify", lake(name))
    assert checked["faults"] == [] and checked["n_rows"] == n_rows, (checked, n_rows)


def killed(child, seconds):
    """Kills a child after some time; returns whether it was still there."""
    try:
        child.communicate(timeout=seconds)
        return False
    except subprocess.TimeoutExpired:
        child.send_signal(signal.SIGKILL)
        child.communicate()
        return True


def parts_are_committed_once():
    folder, vectors, ids = made("once", 3000, 3, 1)
    done = json_of("lake", "commit", folder, lake("once"))
    assert (done["n_rows"], done["n_parts"]) == (3000, 3), done
    again = json_of("lake", "commit", folder, lake("once"))
    assert (again["n_rows"], again["n_parts_before"], again["version"]) == (0, 3, done["version"]), (done, again)
    is_whole("once", 3000)
    # Another run that brings the same images is refused as a whole.
    other, _, _ = made("other", 10, 1, 2)
    assert "in the lake already" in run("lake", "commit", other, lake("once"), status=1)[1]
    # A part that is missing, and one that was changed.
    (folder / "1-of-3.done").rename(folder / "kept")
    assert "--array=1" in run("lake", "commit", folder, lake("twice"), status=1)[1]
    (folder / "kept").rename(folder / "1-of-3.done")
    table = folder / "1-of-3.parquet"
    content = bytearray(table.read_bytes())
    content[len(content) // 2] ^= 1
    table.write_bytes(content)
    assert "BLAKE3" in run("lake", "commit", folder, lake("twice"), status=1)[1]
    assert "no meta.json" in run("lake", "verify", lake("nothing"), status=1)[1]
    # A lake without its key is closed.
    told = run("search", "-d", lake("once"), "-i", ids[0], status=1, XDG_CONFIG_HOME=str(FOLDER / "elsewhere"))[1]
    assert "M3RET_LAKE_KEY" in told, told


def search_is_the_gallery_of_the_same_parts():
    folder, vectors, ids = made("alike", 2500, 2, 3, with_labels=True)
    run("lake", "commit", folder, lake("alike"))
    run("lake", "export", lake("alike"), FOLDER / "alike.m3i")
    found = []
    for place in (lake("alike"), FOLDER / "alike.m3i"):
        words = ["search", "-d", place, "-k", "10", "--exact", "--json", "--exclude", "same_patient"]
        for idx in (5, 700, 2400):
            words += ["-i", ids[idx]]
        lines = [json.loads(line) for line in run(*words)[0].splitlines()]
        found.append([[(hit["id"], hit["score"]) for hit in line["hits"]] for line in lines if "hits" in line])
    assert found[0] == found[1] and len(found[0]) == 3 and len(found[0][0]) == 10, found
    scores = vectors @ vectors[5]
    assert abs(found[0][0][0][1] - numpy.sort(scores)[-2]) < 0.2


def first_hits_are_measured():
    """How often first hits agree, where an index is searched for it: labels are drawn, so about every second does."""
    folder, _, ids = made("labelled", 22000, 2, 90, patients=500, with_labels=True)
    run("lake", "commit", folder, lake("labelled"))
    began = time.monotonic()
    run("lake", "maintain", lake("labelled"))
    seconds = time.monotonic() - began
    lines = [json.loads(line) for line in run("search", "-d", lake("labelled"), "-i", ids[5], "--json")[0].splitlines()]
    told = next(line for line in lines if "hits" in line)["agreement"]
    assert told and 0.2 < told["value"] < 0.8, told
    print(f"  upkeep of 22,000 rows with labels: {seconds:.0f} s")


def one_run_by_two_committers():
    for round_number in range(4):
        folder, _, _ = made(f"race{round_number}", 4000, 4, 10 + round_number)
        name = f"race{round_number}"
        children = [start("lake", "commit", folder, lake(name)) for _ in range(2)]
        statuses = [child.wait(300) for child in children]
        # One of two that make the lake at the same time may find it made, and is repeated.
        if any(statuses):
            run("lake", "commit", folder, lake(name))
        json_of("lake", "maintain", lake(name))
        is_whole(name, 4000)


def writers_are_killed():
    n_writers, n_rows = 4, 20000
    folders = [made(f"killed{writer}", n_rows, 4, 30 + writer, first=writer * n_rows)[0] for writer in range(n_writers)]
    run("lake", "commit", folders[0], lake("killed"))
    base = time.monotonic()
    run("lake", "commit", made("timing", n_rows, 4, 29)[0], lake("timing"))
    seconds = time.monotonic() - base
    n_kills, random_ = 0, random.Random(5)
    waiting = folders[1:]
    stop, errors, n_read = threading.Event(), [], [0, 0]

    def read(reader):
        while not stop.is_set():
            child = start("search", "-d", lake("killed"), "-i", "archive/00000003.dcm", "-k", "5", "--json", M3RET_LAKE_DEADLINE="20")
            out, err = child.communicate()
            if child.returncode != 0:
                errors.append(err)
            n_read[reader] += 1
    readers = [threading.Thread(target=read, args=(reader,)) for reader in range(2)]
    for reader in readers:
        reader.start()
    while n_kills < 20:
        children = [start("lake", "commit", folder, lake("killed")) for folder in waiting]
        for child in children:
            n_kills += killed(child, random_.uniform(0.1, 1.0) * seconds)
    for folder in waiting:
        run("lake", "commit", folder, lake("killed"))
    stop.set()
    for reader in readers:
        reader.join()
    assert not errors, errors[:3]
    maintained = json_of("lake", "maintain", lake("killed"), "--prune", "0", "--alone")
    assert maintained["n_rows"] == n_writers * n_rows, maintained
    is_whole("killed", n_writers * n_rows)
    print(f"  {n_kills} kills of writers, {sum(n_read)} searches by two readers meanwhile, {maintained['n_doubled']} vectors doubled and removed")


def store_dies():
    folder, _, ids = made("dies", 2000, 2, 50)
    run("lake", "commit", folder, lake("dies"))
    more, _, _ = made("dies2", 30000, 2, 51, first=2000)
    writer = start("lake", "commit", more, lake("dies"))
    time.sleep(0.5)
    STORE.kill()
    began = time.monotonic()
    out, err = run("search", "-d", lake("dies"), "-i", ids[0], "-k", "5", status=1)
    seconds = time.monotonic() - began
    time.sleep(max(0, 10 - seconds))
    STORE.start()
    out, err = writer.communicate(timeout=600)
    first = writer.returncode
    run("lake", "commit", more, lake("dies"))
    run("search", "-d", lake("dies"), "-i", ids[0], "-k", "5")
    is_whole("dies", 32000)
    print(f"  a reader gave up after {seconds:.1f} s; the writer ended with {first} and is completed by the same command")


def erased():
    folder, vectors, ids = made("erased", 30000, 3, 60)
    run("lake", "commit", folder, lake("erased"))
    run("lake", "maintain", lake("erased"))
    table = parts.pyarrow.parquet.read_table(folder / "0-of-3.parquet")
    row = 0
    patient = table["patient_id"][row].as_py()
    vector = vectors[row].tobytes()
    before = [name for name, content in STORE.objects("erased/") if vector[:64] in content]
    assert before, "the vector is there before"
    (FOLDER / "number").write_text(patient)
    words = ["erase", "-d", lake("erased"), "--patient-file", FOLDER / "number", "--receipt", FOLDER / "receipt.json"]
    done = json_of(*words)
    place = done["places"][0]
    assert place["scan"]["n_found"] == 0 and place["counts"]["n_rows"] > 300, place["counts"]
    of_patient = [i for part in range(3) for i, text in enumerate(parts.pyarrow.parquet.read_table(folder / f"{part}-of-3.parquet")["patient_id"].to_pylist()) if text == patient]
    assert len(of_patient) == place["counts"]["n_rows"]
    # Asked independently: no object holds a vector of the patient, nor an id, nor the number.
    first = [i for i, text in enumerate(table["patient_id"].to_pylist()) if text == patient][:40]
    needles = [vectors[i].tobytes()[:64] for i in first] + [ids[i].encode() for i in first]
    for name, content in STORE.objects("erased/"):
        assert not any(needle in content for needle in needles), name
    is_whole("erased", 30000 - len(of_patient))
    run("erase", "-d", lake("erased"), "--verify", FOLDER / "receipt.json")
    # Rows of the patient are not added again.
    again, _, _ = made("erased again", 300, 1, 61, first=40000)
    committed = json_of("lake", "commit", again, lake("erased"))
    theirs = parts.pyarrow.parquet.read_table(again / "0-of-1.parquet")["patient_id"].to_pylist().count(patient)
    assert committed["n_erased"] == theirs > 0, (committed, theirs)
    run("erase", "-d", lake("erased"), "--verify", FOLDER / "receipt.json")
    print(f"  {len(of_patient)} images erased; {place['scan']['n_files']} objects, {place['scan']['n_bytes'] / 1e6:.1f} MB searched")


def asked(address, token, path, body=None):
    request = urllib.request.Request(address + path, data=None if body is None else json.dumps(body).encode())
    request.add_header("Authorization", f"Bearer {token}")
    request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read() or b"null")


def two_servers_read_while_rows_come():
    folder, vectors, ids = made("served", 5000, 1, 80)
    run("lake", "commit", folder, lake("served"))
    more, later, new_ids = made("served more", 5000, 1, 81, first=5000)
    patients = parts.pyarrow.parquet.read_table(folder / "0-of-1.parquet")["patient_id"].to_pylist()
    others = [name for name, patient in zip(ids, patients) if patient != "P7"]
    (FOLDER / "served-number").write_text("P7")
    servers = []
    for _ in range(2):
        words = ["serve", "-d", lake("served"), "--listen", "127.0.0.1:0", "--max-patients-per-hour", "1000000"]
        child = subprocess.Popen([PROGRAM, *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment(M3RET_LAKE_DEADLINE="20"), cwd=FOLDER)
        address, _, token = child.stdout.readline().strip().partition("/#token=")
        servers.append((child, address, token))
    stop, statuses = threading.Event(), []

    def search(address, token):
        random_ = random.Random(address)
        while not stop.is_set():
            body = {"id": others[random_.randrange(len(others))], "k": 5}
            statuses.append(asked(address, token, "/v1/indexes/served/search", body)[0])
    threads = [threading.Thread(target=search, args=(address, token)) for _, address, token in servers]
    for thread in threads:
        thread.start()
    try:
        run("lake", "commit", more, lake("served"))
        time.sleep(6)
        for _, address, token in servers:
            status, answer = asked(address, token, "/v1/indexes/served/search", {"id": new_ids[17], "k": 5})
            assert status == 200, (status, answer)
            status, answer = asked(address, token, "/v1/indexes/served/items/archive%2F00000003.dcm", None)
            assert status in (405, 404), status
        # The version that both servers hold is gone as soon as this ends.
        run("erase", "-d", lake("served"), "--patient-file", FOLDER / "served-number")
        time.sleep(7)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        for child, _, _ in servers:
            child.terminate()
            child.wait(30)
    assert statuses and set(statuses) == {200}, {status: statuses.count(status) for status in set(statuses)}
    print(f"  {len(statuses)} searches by two servers while 5,000 rows came and a patient was erased")


def appends_deletes_and_upkeep():
    folder, _, _ = made("busy", 25000, 1, 70)
    run("lake", "commit", folder, lake("busy"))
    run("lake", "maintain", lake("busy"))
    adds = [made(f"busy{i}", 2000, 1, 71 + i, first=25000 + 2000 * i)[0] for i in range(4)]
    (FOLDER / "busy-number").write_text("P7")
    failed = []

    def upkeep():
        for _ in range(3):
            child = start("lake", "maintain", lake("busy"))
            out, err = child.communicate()
            if child.returncode:
                failed.append(err)

    def add():
        for folder in adds:
            run("lake", "commit", folder, lake("busy"))
    eraser = start("erase", "-d", lake("busy"), "--patient-file", FOLDER / "busy-number", "--json")
    threads = [threading.Thread(target=upkeep), threading.Thread(target=add)]
    for thread in threads:
        thread.start()
    out, err = eraser.communicate()
    for thread in threads:
        thread.join()
    # Whoever lost a race is repeated.
    json_of("lake", "maintain", lake("busy"))
    status = subprocess.run([PROGRAM, "-q", "erase", "-d", lake("busy"), "--patient-file", str(FOLDER / "busy-number")], env=environment(), capture_output=True, text=True)
    assert status.returncode == 0, status.stderr
    n_theirs = 0
    for part in [folder / "0-of-1.parquet", *[add / "0-of-1.parquet" for add in adds]]:
        n_theirs += parts.pyarrow.parquet.read_table(part)["patient_id"].to_pylist().count("P7")
    is_whole("busy", 25000 + 8000 - n_theirs)
    print(f"  upkeep that lost a race: {len(failed)} of 3; the eraser ended with {eraser.returncode}")


def main():
    STORE.start()
    try:
        with open(FOLDER / "log", "w"):
            pass
        tests = [crate_on_the_store, parts_are_committed_once, search_is_the_gallery_of_the_same_parts, first_hits_are_measured, one_run_by_two_committers, writers_are_killed,
                 store_dies, erased, two_servers_read_while_rows_come, appends_deletes_and_upkeep]
        wanted = sys.argv[4:]
        for test in tests:
            if wanted and test.__name__ not in wanted:
                continue
            began = time.monotonic()
            print(test.__name__.replace("_", " "), flush=True)
            test()
            print(f"  passed, {time.monotonic() - began:.1f} s", flush=True)
    finally:
        STORE.kill()


def crate_on_the_store():
    """The tests of the crate with lakes in the bucket."""
    words = ["cargo", "test", "-p", "m3ret-lake", "-p", "m3ret-cli", "--features", "m3ret-cli/lake", "--locked", "--quiet", "--test", "suite"]
    subprocess.run(words, env=environment(M3RET_TEST_BUCKET=store.BUCKET, M3RET_LAKE_DEADLINE="60"), check=True)


if __name__ == "__main__":
    main()
