"""Tries the API of `m3ret serve` as others would: schemathesis by its OpenAPI document, tokens that joserfc signed, a disk that is full.

    tests.py PROGRAM REAL_IMAGES FOLDER

Exit status 0 if nothing was found.
"""

import base64
import contextlib
import csv
import hmac
import json
import os
import pathlib
import subprocess
import sys
import time
import urllib.error
import urllib.request

from joserfc import jwk, jwt

PROGRAM, IMAGES, FOLDER = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
HERE = pathlib.Path(__file__).resolve().parent


@contextlib.contextmanager
def served(*words, folder=FOLDER):
    """A server as a child process: its address and its random token, if it has one."""
    child = subprocess.Popen([PROGRAM, "serve", "-d", "g.m3i", "--listen", "127.0.0.1:0", *words], cwd=folder, stdout=subprocess.PIPE,
                             stderr=subprocess.DEVNULL, text=True)
    try:
        line = child.stdout.readline().strip()
        address, _, token = line.partition("/#token=")
        yield address.rstrip("/"), token
    finally:
        child.terminate()
        child.wait(30)


def status(address, path, token=None, body=None, headers=()):
    """The status of an answer, and its body."""
    request = urllib.request.Request(address + path, data=body, headers=dict(headers))
    if token is not None:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def by_schema():
    with served("--audit", "audit", "--max-patients-per-hour", "100000", "--key-file", "key", "--dicom-into", "g") as (address, token):
        program = pathlib.Path(sys.executable).parent / "st"
        words = [program, "--config-file", HERE / "schemathesis.toml", "run", f"{address}/v1/openapi.json", "-H", f"Authorization: Bearer {token}",
                 "--phases", "examples,coverage,fuzzing", "-n", "30", "--continue-on-failure", "--warnings", "off", "--no-color"]
        done = subprocess.run(words, cwd=FOLDER, capture_output=True, text=True)
        told = [line for line in done.stdout.splitlines() if "generated" in line or "Tested:" in line or "❌" in line]
        print("\n".join(told))
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def bodies():
    with served("--audit", "audit", "--max-patients-per-hour", "100000") as (address, token):
        image = first_id(address, token).decode()
        subprocess.run([sys.executable, HERE / "fuzz.py", address, token, "g", image, "--seconds", "20"], check=True)


def tokens():
    key, other = jwk.RSAKey.generate_key(2048, private=True), jwk.RSAKey.generate_key(2048, private=True)
    public = key.as_dict(private=False) | {"kid": "k1", "use": "sig", "alg": "RS256"}
    (FOLDER / "jwks.json").write_text(json.dumps({"keys": [public]}))
    now = int(time.time())
    good = {"iss": "https://id.example", "aud": "m3ret", "sub": "u-1", "exp": now + 600, "roles": ["reader"]}
    header = {"alg": "RS256", "kid": "k1"}
    pem = key.as_pem(private=False)
    with served("--auth", "oidc", "--oidc-issuer", "https://id.example", "--oidc-jwks", "jwks.json") as (address, _):
        def asked(token, path="/v1/indexes"):
            return status(address, path, token)[0]

        def signed(claims, by=key, header=header):
            return jwt.encode(header, claims, by, algorithms=["RS256", "RS512", "PS256"])
        found = {
            "valid": asked(signed(good)),
            "no token": asked(None),
            "alg none": asked(".".join([*jwt_parts({"alg": "none", "typ": "JWT"}, good), ""])),
            "HS256 by the public key": asked(by_hmac(pem, {"alg": "HS256", "kid": "k1"}, good)),
            "RS512": asked(signed(good, header={"alg": "RS512", "kid": "k1"})),
            "PS256": asked(signed(good, header={"alg": "PS256", "kid": "k1"})),
            "expired": asked(signed(good | {"exp": now - 120})),
            "not valid yet": asked(signed(good | {"nbf": now + 120})),
            "wrong audience": asked(signed(good | {"aud": "m3ret-2"})),
            "wrong issuer": asked(signed(good | {"iss": "https://id.example.org"})),
            "another key": asked(signed(good, by=other)),
            "no role": asked(signed(good | {"roles": []})),
            "auditor searches": asked(signed(good | {"roles": ["auditor"]})),
            "reader erases": status(address, "/v1/erasures", signed(good), b'{"patient_id":"x"}', [("Content-Type", "application/json")])[0],
        }
    print(json.dumps(found, indent=1))
    forbidden = ("no role", "auditor searches", "reader erases")
    wanted = {name: 200 if name == "valid" else 403 if name in forbidden else 401 for name in found}
    assert found == wanted, {name: (found[name], wanted[name]) for name in found if found[name] != wanted[name]}


def by_hmac(secret, header, claims):
    """The attack that joserfc itself refuses to make: a public key as the secret of HS256."""
    message = ".".join(jwt_parts(header, claims))
    signature = hmac.digest(secret, message.encode(), "sha256")
    return message + "." + base64.urlsafe_b64encode(signature).rstrip(b"=").decode()


def jwt_parts(*parts):
    return [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts]


def full_disk():
    """An audit trail that cannot be written: nothing is answered."""
    disk = FOLDER / "small"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True).returncode != 0:
        print("a small disk cannot be mounted here: the test of a full audit disk is skipped")
        return
    try:
        with served("--audit", "small/audit") as (address, token):
            search = b'{"id": "%s"}' % first_id(address, token)
            ask = lambda: status(address, "/v1/indexes/g/search", token, search, [("Content-Type", "application/json")])
            assert ask()[0] == 200
            with contextlib.suppress(OSError), open(disk / "filler", "wb", 0) as filler:
                while True:
                    filler.write(b"0" * 512)
            answers = [ask() for _ in range(20)]
            assert answers[-1][0] == 503 and b"hits" not in answers[-1][1], answers[-1]
            assert status(address, "/readyz")[0] == 503
            os.remove(disk / "filler")
            assert ask()[0] == 200 and status(address, "/readyz")[0] == 200
        done = subprocess.run([PROGRAM, "audit", "verify", "small/audit"], cwd=FOLDER, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        print("full audit disk: 503 and no hits; 200 again with room; the trail is whole")
    finally:
        subprocess.run(["umount", disk], check=True)


def first_id(address, token):
    rows = list(csv.DictReader((FOLDER / "in" / "manifest.csv").open()))
    for row in rows:
        body = json.dumps({"id": row["path"]}).encode()
        if status(address, "/v1/indexes/g/search", token, body, [("Content-Type", "application/json")])[0] == 200:
            return row["path"].encode()
    raise SystemExit("no image of the manifest is in the index")


def bill_of_materials():
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator
    text = subprocess.run([HERE.parent / "sbom"], check=True, capture_output=True, text=True).stdout
    fault = JsonStrictValidator(SchemaVersion.V1_5).validate_str(text)
    assert fault is None, fault
    print(f"bill of materials: {len(json.loads(text)['components'])} components, valid CycloneDX 1.5")


def main():
    subprocess.run(["cp", "-r", IMAGES, FOLDER / "in"], check=True)
    subprocess.run([PROGRAM, "index", "build", "g.m3i", "in", "--quiet"], cwd=FOLDER, check=True)
    for test in (tokens, full_disk, bill_of_materials, bodies, by_schema):
        print(f"-- {test.__name__}", flush=True)
        test()


main()
