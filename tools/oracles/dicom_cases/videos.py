"""Video transfer syntaxes, encoded and decoded again by ffmpeg."""

import pathlib
import shutil
import subprocess
import tempfile

import numpy as np

from .common import encapsulated, image, planes, to_bytes

N, ROWS, COLUMNS = 8, 48, 64
BASE = "1.2.840.10008.1.2.4."
# Transfer syntax, encoder, container.
STREAMS = {
    "mpeg2_stream": (BASE + "100", ["-c:v", "mpeg2video", "-q:v", "2"], "mpeg2video"),
    "mpeg2_transport": (BASE + "101", ["-c:v", "mpeg2video", "-q:v", "2"], "mpegts"),
    "h264_stream": (BASE + "102", ["-c:v", "libx264", "-qp", "10"], "h264"),
    "h264_transport": (BASE + "102.1", ["-c:v", "libx264", "-qp", "10"], "mpegts"),
    "h264_mp4": (BASE + "104", ["-c:v", "libx264", "-qp", "10"], "mp4"),
    "hevc_stream": (BASE + "107", ["-c:v", "libx265", "-x265-params", "qp=10:log-level=none"], "hevc"),
    "hevc_mp4": (BASE + "108", ["-c:v", "libx265", "-x265-params", "qp=10:log-level=none"], "mp4"),
}


def scene():
    """A disc that moves over a gradient: [D, H, W, 3]."""
    y, x = np.mgrid[:ROWS, :COLUMNS]
    frames = []
    for t in range(N):
        disc = (x - 15 - 4 * t) ** 2 + (y - 24) ** 2 < 80
        frames.append(np.stack([3 * x, 4 * y, 60 + 80 * disc], -1) + 20 * disc[..., None])
    return np.clip(frames, 0, 255).astype("u1")


def ffmpeg(*arguments, feed=None):
    command = ["ffmpeg", "-v", "error", "-y", *map(str, arguments)]
    return subprocess.run(command, input=feed, capture_output=True, check=True).stdout


def add(cases):
    if not shutil.which("ffmpeg"):
        print("left out: videos, for want of ffmpeg")
        return
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{COLUMNS}x{ROWS}"]
    with tempfile.TemporaryDirectory() as folder:
        for name, (syntax, encoder, container) in STREAMS.items():
            path = pathlib.Path(folder) / name
            try:
                ffmpeg(*raw, "-r", "25", "-i", "-", *encoder, "-pix_fmt", "yuv420p", "-f", container, path,
                       feed=scene().tobytes())
            except subprocess.CalledProcessError:
                print(f"left out: {name}, which this ffmpeg does not encode")
                continue
            shown = ffmpeg("-i", path, "-fps_mode", "passthrough", *raw[:4], "-")
            expected = np.frombuffer(shown, "u1").reshape(N, ROWS, COLUMNS, 3)
            stream = path.read_bytes()
            for pieces in (1, 2):
                ds = image(ROWS, COLUMNS, 8, samples=3, photometric="YBR_PARTIAL_420", planar=0,
                           frames=N, modality="ES")
                ds.FrameTime = "40"
                content = to_bytes(encapsulated(ds, [stream], pieces), syntax)
                volume = cases.expect(planes(expected, 3), 3.0, kind="video", spacing=[0.04, None, None])
                cases.file(f"video_{name}_{pieces}", content, volume, needs="video")
