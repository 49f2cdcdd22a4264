"""Tests of `m3ret sync` and `m3ret receive` with a real Orthanc and dcmtk; tools/pacs_tests starts this in a namespace of its own."""

import base64
import contextlib
import fcntl
import json
import os
import pathlib
import random
import shutil
import signal
import struct
import subprocess
import time
import urllib.request

PROGRAM = os.environ["M3RET_PROGRAM"]
WORK = pathlib.Path(os.environ["M3RET_WORK"])
PLUGIN = os.environ["M3RET_PLUGIN"]
URL = "http://127.0.0.1:8042"
USER, PASSWORD = "m3ret", "secret"
CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
TODAY = time.strftime("%Y%m%d", time.gmtime())
SINCE = time.strftime("%Y-%m-%d", time.gmtime(time.time() - 3 * 86400))
ENVIRONMENT = {"PATH": os.environ["PATH"], "M3RET_MODELS": "weights", "HOME": str(WORK)}


def told(name, value):
    print(f"  {name}: {value}", flush=True)


# DICOM objects, written as PS3.10 says.


def element(group, number, vr, value):
    value = value.encode() if isinstance(value, str) else value
    value += (b"\0" if vr in ("UI", "OB") else b" ") * (len(value) % 2)
    head = struct.pack("<HH", group, number) + vr.encode()
    long = vr in ("OB", "OW")
    return head + (struct.pack("<HI", 0, len(value)) if long else struct.pack("<H", len(value))) + value


def instance(study, series, number, side=64, patient="P1"):
    uid = f"{series}.{number}"
    meta = element(2, 2, "UI", CT) + element(2, 3, "UI", uid) + element(2, 0x10, "UI", EXPLICIT) + element(2, 0x12, "UI", "1.2.3")
    noise = random.Random(uid)
    level = noise.randrange(500)
    pixels = b"".join(struct.pack("<h", level + 7 * (x % 16) + 3 * y + noise.randrange(40)) for y in range(side) for x in range(side))
    short = lambda number: struct.pack("<H", number)
    body = (
        element(8, 0x16, "UI", CT) + element(8, 0x18, "UI", uid) + element(8, 0x20, "DA", TODAY) + element(8, 0x60, "CS", "CT")
        + element(0x10, 0x10, "PN", "Secret^Name") + element(0x10, 0x20, "LO", patient)
        + element(0x18, 0x15, "CS", "CHEST") + element(0x18, 0x50, "DS", "2")
        + element(0x20, 0xD, "UI", study) + element(0x20, 0xE, "UI", series) + element(0x20, 0x13, "IS", str(number))
        + element(0x20, 0x32, "DS", f"0\\0\\{2 * number}") + element(0x20, 0x37, "DS", "1\\0\\0\\0\\1\\0")
        + element(0x28, 2, "US", short(1)) + element(0x28, 4, "CS", "MONOCHROME2") + element(0x28, 0x10, "US", short(side))
        + element(0x28, 0x11, "US", short(side)) + element(0x28, 0x30, "DS", "1\\1") + element(0x28, 0x100, "US", short(16))
        + element(0x28, 0x101, "US", short(16)) + element(0x28, 0x102, "US", short(15)) + element(0x28, 0x103, "US", short(1))
        + element(0x28, 0x1052, "DS", "0") + element(0x28, 0x1053, "DS", "1") + element(0x7FE0, 0x10, "OW", pixels)
    )
    return b"\0" * 128 + b"DICM" + element(2, 0, "UL", struct.pack("<I", len(meta))) + meta + body


def data_set(file):
    """Returns what follows the meta header."""
    length = struct.unpack("<I", file[140:144])[0]
    return file[144 + length :]


# Orthanc.


class Orthanc:
    def __init__(self):
        self.folder = WORK / "orthanc"
        self.folder.mkdir()
        options = {
            "StorageDirectory": str(self.folder / "storage"), "IndexDirectory": str(self.folder / "index"), "Plugins": [PLUGIN],
            "HttpPort": 8042, "RemoteAccessAllowed": True, "AuthenticationEnabled": True, "RegisteredUsers": {USER: PASSWORD},
            "DicomAet": "ORTHANC", "DicomPort": 4242, "DicomAlwaysAllowStore": True, "UnknownSopClassAccepted": True, "StableAge": 1,
            "DicomModalities": {"m3ret": {"AET": "M3RET", "Host": "127.0.0.1", "Port": 11112, "AllowFind": True, "AllowMove": True}},
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }
        (self.folder / "orthanc.json").write_text(json.dumps(options))
        self.process = None
        self.start()

    def start(self):
        with open(self.folder / "out", "ab") as out:
            self.process = subprocess.Popen(["Orthanc", str(self.folder / "orthanc.json")], stdout=out, stderr=out)
        for _ in range(300):
            with contextlib.suppress(OSError):
                return self.ask("/system")
            assert self.process.poll() is None, (self.folder / "out").read_text()
            time.sleep(0.1)
        raise AssertionError("Orthanc does not answer")

    def stop(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        self.process.wait()

    def ask(self, path, body=None, method=None, headers=None):
        request = urllib.request.Request(URL + path, data=body, method=method, headers=headers or {})
        login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        request.add_header("Authorization", f"Basic {login}")
        with urllib.request.urlopen(request) as answer:
            return answer.read()

    def json(self, path):
        return json.loads(self.ask(path))

    def put(self, files):
        body = b"".join(b"--xyz\r\nContent-Type: application/dicom\r\n\r\n" + file + b"\r\n" for file in files) + b"--xyz--\r\n"
        kind = 'multipart/related; type="application/dicom"; boundary=xyz'
        self.ask("/dicom-web/studies", body, "POST", {"Content-Type": kind, "Accept": "application/dicom+json"})

    def wait_until_stable(self):
        for _ in range(200):
            if all(series["IsStable"] for series in self.json("/series?expand")):
                return
            time.sleep(0.1)
        raise AssertionError("series do not become stable")


# m3ret.


def m3ret(*words, check=True):
    begun = time.monotonic()
    done = subprocess.run([PROGRAM, *map(str, words)], capture_output=True, text=True, env=ENVIRONMENT)
    assert not check or done.returncode == 0, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Secret" not in done.stdout + done.stderr
    done.seconds = time.monotonic() - begun
    return done


def options(gallery, *more, kind="orthanc", place=URL):
    login = [] if kind in ("folder", "dimse") else ["--user", USER, "--password-file", WORK / "password"]
    return ["sync", "--from", kind, place, "--into", gallery, "--model", "pixels", "--json", "--settle", "1s", *login, *more]


def sync(gallery, *more, **what):
    done = m3ret(*options(gallery, *more, **what))
    summary = json.loads(done.stdout.splitlines()[-1])
    summary["seconds"] = done.seconds
    return summary


def rows(gallery):
    """Returns the rows of a gallery: by id, vectors and cells."""
    out = WORK / "rows"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    m3ret("index", "export", gallery, "-o", out / "rows.npy")
    return b"".join(path.read_bytes() for path in sorted(out.iterdir()))


def n_rows(gallery):
    return json.loads(m3ret("index", "stats", gallery, "--json").stdout)["n_items"]


@contextlib.contextmanager
def locked(gallery):
    """Keeps every writer of a gallery waiting."""
    with open(gallery / "lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def contains(folder, words):
    for path in folder.rglob("*"):
        if path.is_file():
            bytes_of = path.read_bytes()
            for word in words:
                assert word.encode() not in bytes_of, f"{word} in {path}"


# The tests, in the order in which they need each other.


def compressed():
    """Makes objects of several transfer syntaxes, each with UIDs of its own."""
    files = []
    for name in ["rle_12_s_1", "j2k_12_s_1_jp2", "jpegls_12_s_0", "jpeg_dct_8_3_420", "jpeg_lossless_12_s_1_1", "native_16_12_13_s_big"]:
        path = WORK / f"{name}.dcm"
        shutil.copy(f"testdata/dicom/{name}.dcm", path)
        os.chmod(path, 0o600)
        done = subprocess.run(["dcmodify", "-nb", "-gst", "-gse", "-gin", str(path)], capture_output=True)
        if done.returncode == 0:
            files.append(path.read_bytes())
    assert len(files) >= 4
    return files


def test_twice(orthanc):
    for series in range(4):
        orthanc.put([instance("1.2.826.1.1", f"1.2.826.1.1.{series + 1}", number) for number in range(12)])
    orthanc.wait_until_stable()
    gallery = WORK / "g.m3i"
    summary = sync(gallery, "--key-file", WORK / "key", "--thumbnails")
    assert (summary["n_fetched"], summary["n_objects"], summary["n_rows"]) == (4, 48, 4), summary
    told("first sync of 4 series, 48 objects", f"{summary['seconds']:.2f} s")
    before = rows(gallery)
    summary = sync(gallery, "--key-file", WORK / "key", "--thumbnails")
    assert (summary["n_fetched"], summary["n_rows"]) == (0, 0), summary
    assert rows(gallery) == before
    told("second sync", f"{summary['seconds']:.2f} s")
    # Also without a cursor, the gallery says what it has.
    for path in (gallery / "sync").iterdir():
        path.unlink()
    summary = sync(gallery, "--key-file", WORK / "key", "--thumbnails")
    assert (summary["n_known"], summary["n_fetched"]) == (4, 0), summary
    contains(gallery, ["1.2.826", "Secret", "127.0.0.1"])
    assert not list((WORK / "g.spool").glob("[0-9a-f]*")), "the spool is erased"
    m3ret("index", "verify", gallery)
    return gallery


def test_dry_run_and_modality(orthanc):
    gallery = WORK / "dry.m3i"
    summary = sync(gallery, "--dry-run")
    assert summary["n_fetched"] == 4 and not gallery.exists()
    assert sync(gallery, "--modality", "MR")["n_listed"] == 0
    assert sync(gallery, "--since", "2200-01-01")["n_listed"] == 0
    # Whoever asks for more later gets what was passed over.
    assert sync(gallery)["n_rows"] == 4
    # A database that began anew has fewer changes than were taken.
    (cursor,) = (gallery / "sync").iterdir()
    text = json.loads(cursor.read_text())
    cursor.write_text(json.dumps({**text, "change": 10**9}))
    assert sync(gallery)["n_known"] == 4
    assert json.loads(cursor.read_text()) == text


def test_dicomweb(orthanc):
    gallery = WORK / "web.m3i"
    summary = sync(gallery, kind="dicomweb", place=f"{URL}/dicom-web")
    assert (summary["n_objects"], summary["n_rows"]) == (48, 4), summary
    summary = sync(gallery, kind="dicomweb", place=f"{URL}/dicom-web")
    assert (summary["n_known"], summary["n_fetched"]) == (4, 0), summary
    refused = m3ret(*options(gallery, kind="dicomweb", place=URL), check=False)
    assert refused.returncode == 1 and "status 40" in refused.stderr
    (WORK / "wrong").write_text("wrong\n")
    words = ["sync", "--from", "orthanc", URL, "--into", gallery, "--model", "pixels", "--user", USER, "--password-file", WORK / "wrong"]
    refused = m3ret(*words, check=False)
    assert refused.returncode == 1 and "401" in refused.stderr, refused.stderr


def test_bytes(orthanc):
    files = compressed()
    for file in files:
        orthanc.put([file])
    orthanc.wait_until_stable()
    gallery = WORK / "bytes.m3i"
    sync(gallery, "--modality", "MR")
    stored = {orthanc.ask(f"/instances/{id}/file") for id in orthanc.json("/instances")}
    assert all(file in stored for file in files)
    with locked(gallery):
        process = subprocess.Popen([PROGRAM, *map(str, options(gallery))], env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(600):
            fetched = {path.read_bytes() for path in WORK.glob("bytes.spool/*/*.dcm")}
            if len(fetched) >= len(stored):
                break
            time.sleep(0.1)
        assert fetched == stored, (len(fetched), len(stored))
    process.communicate()
    told("objects that arrived byte-identical, of 6 transfer syntaxes among them", len(stored))


def test_killed(orthanc, wanted):
    gallery = WORK / "killed.m3i"
    n_killed = 0
    for after in [0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9]:
        # Slower than it could be: whole, it takes less than the first of these times.
        process = subprocess.Popen([PROGRAM, *map(str, options(gallery, "--rate", "20/s"))], env=ENVIRONMENT, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        time.sleep(after)
        n_killed += process.poll() is None
        process.kill()
        process.wait()
    # Once more between fetching and writing.
    if gallery.exists() and (gallery / "lock").exists():
        with locked(gallery):
            process = subprocess.Popen([PROGRAM, *map(str, options(gallery))], env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(1)
            process.kill()
            process.wait()
    sync(gallery)
    assert n_rows(gallery) == wanted
    before = rows(gallery)
    sync(gallery)
    assert rows(gallery) == before
    m3ret("index", "verify", gallery)
    assert n_killed > 0, "every sync ended before it was killed"
    told("kill -9 in the middle", f"{n_killed} times, {wanted} rows as without")


def test_restart(orthanc, wanted):
    gallery = WORK / "restart.m3i"
    process = subprocess.Popen([PROGRAM, *map(str, options(gallery, "--rate", "4/s"))], env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(1.0)
    orthanc.stop(signal.SIGKILL)
    time.sleep(1.0)
    orthanc.start()
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert n_rows(gallery) == wanted, (n_rows(gallery), wanted, out)
    told("Orthanc killed and started again in the middle", "all rows there")


def test_reconcile(orthanc, gallery):
    sync(gallery)
    before = n_rows(gallery)
    gone = [series for series in orthanc.json("/series?expand") if series["MainDicomTags"]["SeriesInstanceUID"] == "1.2.826.1.1.2"]
    orthanc.ask(f"/series/{gone[0]['ID']}", method="DELETE")
    summary = sync(gallery, "--reconcile", "1s")
    assert summary["n_removed"] == 1 and n_rows(gallery) == before - 1, summary
    orthanc.put([instance("1.2.826.1.1", "1.2.826.1.1.2", number) for number in range(12)])
    orthanc.wait_until_stable()
    summary = sync(gallery)
    assert summary["n_rows"] == 1 and n_rows(gallery) == before, summary
    told("a deleted series", "removed, and there again after it was stored again")


def test_folder():
    folder = WORK / "files"
    folder.mkdir()
    for number in range(6):
        (folder / str(number)).write_bytes(instance("1.2.826.2", "1.2.826.2.1", number))
    (folder / "text").write_text("no image")
    gallery = WORK / "folder.m3i"
    assert sync(gallery, kind="folder", place=folder)["n_rows"] == 1
    assert sync(gallery, kind="folder", place=folder)["n_known"] == 1


@contextlib.contextmanager
def receiving(gallery, *more):
    words = ["receive", "--into", gallery, "--model", "pixels", "--settle", "1s", "--keep", "1h", "--json", *more]
    process = subprocess.Popen([PROGRAM, *map(str, words)], env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    assert line.startswith("M3RET@127.0.0.1:11112"), line + process.stderr.read()
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
    assert process.returncode == 0, err


def run(*words):
    return subprocess.run(list(map(str, words)), capture_output=True, text=True)


def n_received(process, wanted):
    n = 0
    while n < wanted:
        line = process.stdout.readline()
        assert line, "the receiver ended"
        n += json.loads(line)["n_objects"]
    return n


def test_receive(orthanc):
    gallery, folder = WORK / "received.m3i", WORK / "small"
    folder.mkdir()
    for number in range(150):
        (folder / f"{number}.dcm").write_bytes(instance("1.2.826.3", f"1.2.826.3.{number // 30 + 1}", number, side=16))
    with receiving(gallery) as process:
        assert run("echoscu", "-aec", "M3RET", "127.0.0.1", 11112).returncode == 0
        assert run("echoscu", "-aec", "OTHER", "127.0.0.1", 11112).returncode != 0
        begun = time.monotonic()
        done = run("dcmsend", "-aec", "M3RET", "--scan-directories", "127.0.0.1", 11112, folder)
        seconds = time.monotonic() - begun
        assert done.returncode == 0, done.stderr
        told("150 small objects by C-STORE", f"{150 / seconds:.0f}/s with the start of dcmsend")
        n_received(process, 150)
        files = [path.read_bytes() for path in WORK.glob("received.received/*/*.dcm")]
        assert {data_set(file) for file in files} == {data_set(path.read_bytes()) for path in folder.iterdir()}
        assert n_rows(gallery) == 5
        # The same again changes nothing.
        assert run("dcmsend", "-aec", "M3RET", "--scan-directories", "127.0.0.1", 11112, folder).returncode == 0
        time.sleep(2)
        assert n_rows(gallery) == 5
        begun = time.monotonic()
        for series in orthanc.json("/series"):
            orthanc.ask("/modalities/m3ret/store", series.encode(), "POST")
        n = len(orthanc.json("/instances"))
        told(f"{n} objects from Orthanc by C-STORE", f"{time.monotonic() - begun:.1f} s")
        n_received(process, n)
        sent = {data_set(orthanc.ask(f"/instances/{id}/file")) for id in orthanc.json("/instances")}
        files = {data_set(path.read_bytes()) for path in WORK.glob("received.received/*/*.dcm")}
        same = len(sent & files)
        told("of these, data sets that arrived byte-identical", f"{same} of {n}")
        assert same >= 48
    contains(gallery, ["1.2.826", "Secret"])
    with receiving(gallery, "--peer", "CT1=127.0.0.1"):
        assert run("echoscu", "-aet", "CT1", "-aec", "M3RET", "127.0.0.1", 11112).returncode == 0
        assert run("echoscu", "-aet", "CT2", "-aec", "M3RET", "127.0.0.1", 11112).returncode != 0


def test_dimse(orthanc):
    gallery = WORK / "dimse.m3i"
    summary = sync(gallery, "--since", SINCE, kind="dimse", place="ORTHANC@127.0.0.1:4242")
    assert summary["n_fetched"] >= 4 and summary["n_rows"] >= 4, summary
    told("C-FIND and C-MOVE", f"{summary['n_objects']} objects in {summary['seconds']:.2f} s")
    summary = sync(gallery, "--since", SINCE, kind="dimse", place="ORTHANC@127.0.0.1:4242")
    assert summary["n_fetched"] == 0, summary


def test_all(orthanc):
    files = [instance(f"1.2.826.4.{n}", f"1.2.826.4.{n}.1", 0, side=512) for n in range(8)]
    for file in files:
        orthanc.put([file])
    orthanc.put([instance("1.2.826.5", "1.2.826.5.1", number, side=512) for number in range(60)])
    orthanc.wait_until_stable()
    gallery = WORK / "large.m3i"
    summary = sync(gallery)
    told("sync of everything", f"{summary['n_objects']} objects, {summary['seconds']:.1f} s with embedding (model pixels)")


def main():
    random.seed(1)
    (WORK / "password").write_text(PASSWORD + "\n")
    orthanc = Orthanc()
    try:
        gallery = test_twice(orthanc)
        test_dry_run_and_modality(orthanc)
        test_dicomweb(orthanc)
        test_bytes(orthanc)
        wanted = sync(WORK / "all.m3i")["n_rows"]
        test_killed(orthanc, wanted)
        test_restart(orthanc, wanted)
        test_reconcile(orthanc, gallery)
        test_folder()
        test_receive(orthanc)
        test_dimse(orthanc)
        test_all(orthanc)
    finally:
        orthanc.stop()
    print("PACS tests: all good")


main()
