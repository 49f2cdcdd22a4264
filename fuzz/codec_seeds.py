"""Small streams for the targets `jpeg2000` and `jpeg_ls`: those of testdata, and more where encoders are there.

opj_compress (OpenJPEG) makes JPEG 2000, the Python package imagecodecs HTJ2K, pyjpegls JPEG-LS. Each is optional.
The first byte of a seed is the target's choice of file or frame; see fuzz_targets.
"""

import math
import pathlib
import shutil
import subprocess
import tempfile

# One line each: tiles, precincts, orders, levels, code-blocks, styles, packets, parts, layers, regions.
OPTIONS = """
-t 16,16
-t 13,9 -TP R
-c [16,16],[8,8]
-p RPCL
-p CPRL -n 3
-p PCRL
-p RLCP -r 20,5,1
-n 1
-n 5
-b 4,4
-b 16,64
-SOP -EPH
-M 1
-M 2
-M 4
-M 8
-M 16
-M 32
-M 63
-d 5,3
-t 16,16 -T 3,2 -d 5,3
-PLT -TLM
-I
-I -t 16,12 -r 10
-I -q 40
-ROI c=0,U=5
-n 4 -POC T0=0,0,1,4,1,RLCP/T0=0,0,1,4,3,LRCP
-GuardBits 5
"""


def samples(height, width, depth, n):
    """A smooth pattern with an edge, by pixel."""
    most = 2 ** depth - 1
    for y in range(height):
        for x in range(width):
            for channel in range(n):
                wave = 0.5 + 0.4 * math.sin(x / 5 + channel) * math.cos(y / 7)
                yield most if x == y else int(most * wave)


def portable(height, width, depth, n):
    """The same as PGM or PPM."""
    size = 1 if depth <= 8 else 2
    body = b"".join(v.to_bytes(size, "big") for v in samples(height, width, depth, n))
    return f"P{5 if n == 1 else 6}\n{width} {height}\n{2 ** depth - 1}\n".encode() + body


def jpeg_2000():
    """Yields names and streams of OpenJPEG."""
    if not shutil.which("opj_compress"):
        print("no opj_compress: no further seeds of JPEG 2000")
        return
    with tempfile.TemporaryDirectory() as folder:
        for depth, n in ((8, 1), (12, 1), (16, 1), (8, 3)):
            source = pathlib.Path(folder, "a.pgm" if n == 1 else "a.ppm")
            source.write_bytes(portable(27, 35, depth, n))
            for number, line in enumerate(["", *OPTIONS.strip().splitlines()]):
                for end in ("j2k", "jp2"):
                    if end == "jp2" and number % 8:
                        continue
                    result = pathlib.Path(folder, f"a.{end}")
                    # Small tiles hold few resolutions.
                    few = [] if "-n " in line else ["-n", "3"]
                    command = ["opj_compress", "-i", source, "-o", result, *few, *line.split()]
                    done = subprocess.run(command, capture_output=True)
                    if done.returncode == 0 and result.is_file():
                        yield f"{depth}_{n}_{number}.{end}", result.read_bytes()
                        result.unlink()


def array(height, width, depth, n):
    import numpy
    kind = numpy.uint8 if depth <= 8 else numpy.uint16
    made = numpy.array(list(samples(height, width, depth, n)), kind)
    return made.reshape((height, width) if n == 1 else (height, width, n))


def high_throughput():
    """Yields names and streams of OpenJPH."""
    try:
        import imagecodecs
    except ImportError:
        print("no imagecodecs: no further seeds of HTJ2K")
        return
    ways = [{}, {"reversible": False, "level": 0.01}, {"resolutions": 3}, {"resolutions": 1}]
    ways += [{"tlm": True}, {"tile": (16, 16)}]
    for depth, n in ((8, 1), (12, 1), (16, 1), (8, 3)):
        for number, way in enumerate(ways):
            try:
                yield f"ht_{depth}_{n}_{number}", bytes(imagecodecs.htj2k_encode(array(27, 35, depth, n), **way))
            except (RuntimeError, ValueError, TypeError) as error:
                print(f"HTJ2K {way}: {error}")


def jpeg_ls():
    """Yields names and streams of CharLS."""
    try:
        import jpeg_ls
    except ImportError:
        print("no pyjpegls: no further seeds of JPEG-LS")
        return
    for depth, n in ((8, 1), (12, 1), (16, 1), (8, 3)):
        for near in (0, 1, 5):
            for interleaving in ([0] if n == 1 else [1, 2]):
                image = array(19, 23, depth, n)
                made = jpeg_ls.encode_array(image, near, interleaving)
                yield f"{depth}_{n}_{near}_{interleaving}", bytes(made)


def all_seeds():
    """Yields target, name and content."""
    for name, stream in [*jpeg_2000(), *high_throughput()]:
        yield "jpeg2000", name + "_file", b"\0" + stream
        yield "jpeg2000", name + "_frame", bytes([7 if name.startswith("ht") else 1]) + stream
    for name, stream in jpeg_ls():
        yield "jpeg_ls", name, b"\0" + stream
