"""Send mutated JSON bodies to a running `m3ret serve`: none may be answered with 500, hang, or end the server.

    python tools/api/fuzz.py http://127.0.0.1:8000/ TOKEN INDEX ID [--seconds 60] [--seed 1]

INDEX and ID name an index and an image of it, so that bodies that are left valid are searched with. Erasures are sent with
a number that no patient has. Prints one line: requests by status. Needs no package.
"""

import argparse
import collections
import http.client
import json
import random
import sys
import time
import urllib.parse

# Answers that are allowed; 500 never is.
ALLOWED = {200, 202, 204, 400, 401, 404, 408, 413, 415, 422, 429, 503}
# Longest time of an answer, seconds: an index of some thousand rows is searched in milliseconds.
PATIENCE = 20

TOKENS = [b"null", b"true", b"-0", b"1e999", b"-1e999", b"1E-400", b"18446744073709551616", b"0.1e+1", b"NaN", b'""', b'"\\u0000"',
          b'"\\ud800"', b'"\xff"', b"[]", b"{}", b"[[[[[[[[", b"}", b"]", b",", b":", b'"', b"\\", b"//", b"\x00", b"\xef\xbb\xbf",
          b'{"id":"a"}', b'"same_patient"', b'"patient_id"', b'"modality!"', b"0", b"101", b"4294967296", b"-1"]


def seeds(index, image):
    """Bodies that are right, with their routes."""
    search, vector = f"/v1/indexes/{index}/search", [0.5] * 8
    return [
        (search, {"id": image, "k": 10, "filter": {"modality": ["CT", "MR"], "body_part!": ["head"]}, "exclude": ["same_patient"],
                  "group_by": "patient_id", "exact": False}),
        (search, {"vector": vector, "k": 3}),
        (search, {"like": [image, image], "unlike": [image], "k": 5}),
        (search, {"id": image, "region": [0.1, 0.2, 0.6, 0.9], "k": 2}),
        (search, {"id": image, "region": [0, 0, 0, 1, 1, 1], "min_score": 0.1, "offset": 1}),
        ("/v1/session", {"token": "0" * 64}),
        ("/v1/erasures", {"patient_id": "nobody-of-this-name", "issuer": "none", "reason": "a trial", "snapshots": False}),
        (f"/v1/indexes/{index}/images", {"ids": [image, "none"]}),
    ]


def numbers_of(text):
    """Where numbers, texts and brackets of a body begin, to cut it there."""
    return [i for i, byte in enumerate(text) if byte in b'{}[]",:0123456789']


def mutated(body, others, rng):
    text = bytearray(body)
    for _ in range(rng.choice([1, 1, 1, 2, 3, 8])):
        at = rng.choice(numbers_of(text) or [0]) if rng.random() < 0.7 else rng.randrange(len(text) + 1)
        match rng.randrange(7):
            case 0:
                text[at:at] = rng.choice(TOKENS)
            case 1:
                del text[at:at + rng.randrange(1, 12)]
            case 2:
                text[at:at + rng.randrange(1, 6)] = rng.choice(TOKENS)
            case 3 if at < len(text):
                text[at] ^= 1 << rng.randrange(8)
            case 4:
                other = rng.choice(others)
                begin = rng.randrange(len(other))
                text[at:at] = other[begin:begin + rng.randrange(1, 60)]
            case 5:
                piece = bytes(text[at:at + rng.randrange(1, 20)])
                text[at:at] = piece * rng.choice([2, 3, 50, 2000])
            case _:
                text[at:at] = rng.choice([b"[", b'{"a":', b'"']) * rng.choice([10, 130, 5000])
    return bytes(text[:1_200_000])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("address")
    parser.add_argument("token")
    parser.add_argument("index")
    parser.add_argument("image")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    place = urllib.parse.urlsplit(arguments.address)
    rng = random.Random(arguments.seed)
    all_seeds = [(route, json.dumps(body).encode()) for route, body in seeds(arguments.index, arguments.image)]
    bodies = [body for _, body in all_seeds]
    counts, slowest = collections.Counter(), 0.0
    connection = None
    until = time.monotonic() + arguments.seconds
    while time.monotonic() < until:
        route, body = rng.choice(all_seeds)
        sent = mutated(body, bodies, rng)
        headers = {"Authorization": f"Bearer {arguments.token}", "Content-Type": "application/json"}
        began = time.monotonic()
        try:
            if connection is None:
                connection = http.client.HTTPConnection(place.hostname, place.port, timeout=PATIENCE)
            connection.request("POST", route, sent, headers)
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            sys.exit(f"no answer ({error!r}) to {route}: {sent[:2000]!r}")
        if answer.getheader("Connection") == "close":
            connection.close()
            connection = None
        slowest = max(slowest, time.monotonic() - began)
        counts[answer.status] += 1
        if answer.status not in ALLOWED:
            sys.exit(f"status {answer.status} to {route}: {sent[:2000]!r}\n{text[:500]!r}")
        if answer.status >= 400 and not json.loads(text).get("code"):
            sys.exit(f"status {answer.status} without a code to {route}: {sent[:2000]!r}")
    told = ", ".join(f"{status}: {n}" for status, n in sorted(counts.items()))
    print(f"{sum(counts.values())} bodies ({told}); slowest answer {slowest:.2f} s")


if __name__ == "__main__":
    main()
