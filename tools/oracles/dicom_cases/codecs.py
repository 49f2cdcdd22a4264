"""Compressed frames: every codec, with fragments and offset tables. Needs imagecodecs and pyjpegls."""

import io

import imagecodecs
import jpeg_ls
import numpy as np
from PIL import Image
from pydicom.encaps import encapsulate_extended

from .common import RLE, encapsulated, image, pixels, planes, rng, to_bytes
from .layouts import to_rgb

JPEG = "1.2.840.10008.1.2.4."
BASELINE, EXTENDED, LOSSLESS, LOSSLESS_FIRST = JPEG + "50", JPEG + "51", JPEG + "57", JPEG + "70"
JPEG_LS, JPEG_LS_NEAR, J2K_LOSSLESS, J2K = JPEG + "80", JPEG + "81", JPEG + "90", JPEG + "91"
HT_LOSSLESS, HT = JPEG + "201", JPEG + "203"
JXL_LOSSLESS, JXL = JPEG + "110", JPEG + "112"
ROWS, COLUMNS = 37, 45


def smooth(name, bits, samples=1, signed=False, shape=(ROWS, COLUMNS)):
    """A gradient with a disc and a little noise: what lossy codecs are made for."""
    y, x = np.mgrid[:shape[0], :shape[1]] / max(shape)
    disc = ((x - 0.4) ** 2 + (y - 0.3) ** 2 < 0.05) * 0.2
    channels = [0.2 + 0.5 * x + 0.1 * c * y + disc for c in range(samples)]
    values = np.stack(channels, -1) + rng(name).normal(size=shape + (samples,)) * 0.004
    values = np.round(np.clip(values, 0, 1) * ((1 << bits) - 1)).astype(np.int64)
    values -= (1 << (bits - 1)) if signed else 0
    return values if samples == 3 else values[..., 0]


def module(bits, samples=1, signed=False, photometric=None, frames=None):
    photometric = photometric or ("RGB" if samples == 3 else "MONOCHROME2")
    fields = {"frames": frames} if frames else {}
    return image(ROWS, COLUMNS, 8 if bits <= 8 else 16, stored=bits, signed=signed, samples=samples,
                 photometric=photometric, planar=0 if samples == 3 else None, **fields)


def unsigned(values, bits):
    raw = np.asarray(values).astype(np.int64) & ((1 << bits) - 1)
    return raw.astype("u1" if bits <= 8 else "u2")


def one(cases, name, ds, syntax, frame, expected, tolerance=0.0, **more):
    ship = more.pop("ship", False)
    samples = 3 if np.ndim(expected) == 3 else 1
    volume = cases.expect(planes(np.asarray(expected)[None], samples), tolerance, **more)
    cases.file(name, to_bytes(encapsulated(ds, [bytes(frame)]), syntax), volume, ship=ship)


def rle(cases):
    for bits, signed, samples in ((8, False, 1), (12, True, 1), (16, False, 1), (16, True, 1),
                                  (8, False, 3), (16, False, 3), (32, False, 1)):
        name = f"rle_{bits}_{'us'[signed]}_{samples}"
        values = smooth(name, bits, samples, signed)
        values.flat[:200] = values.flat[0]
        ds = module(bits, samples, signed)
        n_bytes = (bits + 7) // 8
        ds.BitsAllocated = 8 * n_bytes
        raw = np.ascontiguousarray(values.reshape(-1, samples).T.astype(f">u{n_bytes}"))
        raw = raw.view("u1").reshape(samples, -1, n_bytes)
        segments = [imagecodecs.packbits_encode(raw[c, :, b].tobytes())
                    for c in range(samples) for b in range(n_bytes)]
        segments = [segment + b"\0" * (len(segment) % 2) for segment in segments]
        starts = np.cumsum([64] + [len(segment) for segment in segments[:-1]])
        head = np.zeros(16, "<u4")
        head[0], head[1:len(segments) + 1] = len(segments), starts
        frame = head.tobytes() + b"".join(segments)
        one(cases, name, ds, RLE, frame, values, ship=bits == 12)


def jpeg_dct(cases):
    """Baseline and 12-bit, grey and colour, with every subsampling, with and without markers."""
    for bits in (8, 12):
        for samples, sampling in ((1, None), (3, "444"), (3, "422"), (3, "420")):
            name = f"jpeg_dct_{bits}_{samples}_{sampling}"
            values = unsigned(smooth(name, bits, samples), bits)
            more = {"subsampling": sampling, "colorspace": "RGB", "outcolorspace": "YCbCr"} if sampling else {}
            frame = imagecodecs.jpeg8_encode(values, 95, bitspersample=bits, **more)
            expected = imagecodecs.jpeg8_decode(frame)
            photometric = {None: "MONOCHROME2", "444": "YBR_FULL"}.get(sampling, "YBR_FULL_422")
            ds = module(bits, samples, photometric=photometric)
            syntax = BASELINE if bits == 8 else EXTENDED
            one(cases, name, ds, syntax, frame, expected, 3.0, reasons=["lossy_compression"],
                ship=(bits, sampling) in ((8, "420"), (12, None)))
    name = "jpeg_dct_rgb"
    values = unsigned(smooth(name, 8, 3), 8)
    frame = imagecodecs.jpeg8_encode(values, 95, colorspace="RGB", outcolorspace="RGB")
    one(cases, name, module(8, 3), BASELINE, frame, imagecodecs.jpeg8_decode(frame, colorspace="RGB",
        outcolorspace="RGB"), 3.0)
    for name, options in (("restart", {"restart_marker_blocks": 1}), ("progressive", {"progressive": True}),
                          ("optimised", {"optimize": True, "quality": 100}), ("coarse", {"quality": 20})):
        for mode in ("L", "RGB"):
            values = unsigned(smooth(name, 8, 3 if mode == "RGB" else 1), 8)
            out = io.BytesIO()
            Image.fromarray(values).save(out, "JPEG", **({"quality": 90} | options))
            expected = np.asarray(Image.open(io.BytesIO(out.getvalue())))
            samples = 3 if mode == "RGB" else 1
            ds = module(8, samples, photometric="YBR_FULL_422" if samples == 3 else None)
            # 4:2:0 of a coarse picture: chroma is interpolated in another way by each decoder.
            syntax = JPEG + "55" if name == "progressive" else BASELINE
            one(cases, f"jpeg_dct_{name}_{mode}", ds, syntax, out.getvalue(), expected, 3.0)


def jpeg_lossless(cases):
    for bits, signed, samples in ((8, False, 1), (12, False, 1), (12, True, 1), (16, False, 1),
                                  (16, True, 1), (8, False, 3)):
        for predictor in range(1, 8):
            name = f"jpeg_lossless_{bits}_{'us'[signed]}_{samples}_{predictor}"
            values = smooth(name, bits, samples, signed)
            raw = unsigned(values, bits)
            more = {"colorspace": "RGB", "outcolorspace": "RGB"} if samples == 3 else {}
            frame = imagecodecs.jpeg8_encode(raw, lossless=True, predictor=predictor,
                                             bitspersample=bits, **more)
            syntax = LOSSLESS_FIRST if predictor == 1 else LOSSLESS
            one(cases, name, module(bits, samples, signed), syntax, frame, values,
                ship=predictor == 1 and bits == 12 and signed)


def jpegls(cases):
    for bits, signed in ((8, False), (10, False), (12, True), (16, False), (16, True)):
        for near in (0, 2):
            if near and signed:
                continue  # DICOM advises against it: near values cross the sign
            name = f"jpegls_{bits}_{'us'[signed]}_{near}"
            values = smooth(name, bits, 1, signed)
            raw = unsigned(values, bits)
            frame = jpeg_ls.encode_buffer(raw.tobytes(), ROWS, COLUMNS, 1, bits, lossy_error=near)
            one(cases, name, module(bits, 1, signed), JPEG_LS_NEAR if near else JPEG_LS, frame, values,
                float(near), ship=bits == 12)
    for bits in (8, 12, 16):
        for mode in (0, 1, 2):
            name = f"jpegls_rgb_{bits}_{mode}"
            values = smooth(name, bits, 3)
            raw = unsigned(values, bits)
            raw = np.moveaxis(raw, -1, 0) if mode == 0 else raw
            frame = jpeg_ls.encode_buffer(np.ascontiguousarray(raw).tobytes(), ROWS, COLUMNS, 3, bits,
                                          interleave_mode=mode)
            one(cases, name, module(bits, 3), JPEG_LS, frame, values, ship=bits == 8 and mode == 0)


def jpeg_2000(cases):
    for bits, signed, samples in ((8, False, 1), (12, False, 1), (12, True, 1), (16, False, 1),
                                  (16, True, 1), (8, True, 1), (8, False, 3), (16, False, 3)):
        for box in ("j2k", "jp2"):
            name = f"j2k_{bits}_{'us'[signed]}_{samples}_{box}"
            values = smooth(name, bits, samples, signed)
            typed = values.astype(f"{'i' if signed else 'u'}{1 if bits <= 8 else 2}")
            frame = imagecodecs.jpeg2k_encode(typed, codecformat=box, reversible=True, bitspersample=bits)
            photometric = "YBR_RCT" if samples == 3 else None
            one(cases, name, module(bits, samples, signed, photometric), J2K_LOSSLESS, frame, values,
                ship=(bits, signed, box) == (12, True, "jp2"))
        name = f"j2k_lossy_{bits}_{'us'[signed]}_{samples}"
        frame = imagecodecs.jpeg2k_encode(typed, 45, codecformat="j2k", reversible=False, bitspersample=bits)
        expected = imagecodecs.jpeg2k_decode(frame)
        one(cases, name, module(bits, samples, signed, "YBR_ICT" if samples == 3 else None), J2K, frame,
            expected, 3.0)
    # The codestream says unsigned, the header signed: the bits are two's complement.
    values = smooth("j2k_sign", 12, 1, True)
    frame = imagecodecs.jpeg2k_encode(unsigned(values, 12), codecformat="j2k", reversible=True, bitspersample=12)
    one(cases, "j2k_unsigned_stream_signed_header", module(12, 1, True), J2K_LOSSLESS, frame, values,
        reasons=["sign_mismatch"], ship=True)
    positive = smooth("j2k_sign2", 11)
    frame = imagecodecs.jpeg2k_encode(positive.astype("i2"), codecformat="j2k", reversible=True, bitspersample=12)
    one(cases, "j2k_signed_stream_unsigned_header", module(12), J2K_LOSSLESS, frame, positive,
        reasons=["sign_mismatch"])
    values = smooth("j2k_truncated", 12)
    frame = imagecodecs.jpeg2k_encode(unsigned(values, 12), codecformat="j2k", reversible=True, bitspersample=12)
    cases.file("j2k_truncated", to_bytes(encapsulated(module(12), [bytes(frame[:len(frame) // 2 & ~1])]),
                                         J2K_LOSSLESS), refused="malformed")


def htj2k(cases):
    for bits, signed, samples in ((8, False, 1), (16, False, 1), (16, True, 1), (8, False, 3)):
        name = f"htj2k_{bits}_{'us'[signed]}_{samples}"
        values = smooth(name, bits, samples, signed)
        typed = values.astype(f"{'i' if signed else 'u'}{1 if bits <= 8 else 2}")
        frame = imagecodecs.htj2k_encode(typed, reversible=True)
        one(cases, name, module(bits, samples, signed, "YBR_RCT" if samples == 3 else None), HT_LOSSLESS,
            frame, values, ship=signed)
    values = smooth("htj2k_tiles", 16)
    frame = imagecodecs.htj2k_encode(values.astype("u2"), reversible=True, tile=(16, 16))
    one(cases, "htj2k_tiles", module(16), HT_LOSSLESS, frame, values)
    values = unsigned(smooth("htj2k_lossy", 8), 8)
    frame = imagecodecs.htj2k_encode(values, 0.005, reversible=False)
    one(cases, "htj2k_lossy", module(8), HT, frame, imagecodecs.htj2k_decode(frame), 3.0)


def jpeg_xl(cases):
    for bits, samples in ((8, 1), (12, 1), (16, 1), (8, 3), (16, 3)):
        for container in (False, True):
            name = f"jxl_{bits}_{samples}_{container}"
            values = smooth(name, bits, samples)
            frame = imagecodecs.jpegxl_encode(unsigned(values, bits), lossless=True, bitspersample=bits,
                                              usecontainer=container)
            one(cases, name, module(bits, samples), JXL_LOSSLESS, frame, values,
                ship=bits == 16 and samples == 1 and not container)
    for samples in (1, 3):
        values = unsigned(smooth("jxl_lossy", 8, samples), 8)
        frame = imagecodecs.jpegxl_encode(values, distance=0.8)
        one(cases, f"jxl_lossy_{samples}", module(8, samples), JXL, frame, imagecodecs.jpegxl_decode(frame), 3.0)


def fragments(cases):
    """Three frames, each in one or several fragments, with and without tables of offsets."""
    values = np.stack([smooth(f"fragments{i}", 12) for i in range(3)])
    frames = [bytes(imagecodecs.jpeg2k_encode(unsigned(v, 12), codecformat="j2k", reversible=True,
                                              bitspersample=12)) for v in values]
    for pieces in (1, 3):
        for has_table in (False, True):
            ds = encapsulated(module(12, frames=3), frames, pieces, has_table)
            name = f"fragments_{pieces}_{'table' if has_table else 'none'}"
            cases.file(name, to_bytes(ds, J2K_LOSSLESS), cases.expect(planes(values)),
                       ship=pieces == 3 and has_table)
    ds = module(12, frames=3)
    content, ds.ExtendedOffsetTable, ds.ExtendedOffsetTableLengths = encapsulate_extended(frames)
    pixels(ds, content, "OB")
    ds["PixelData"].is_undefined_length = True
    cases.file("fragments_extended", to_bytes(ds, J2K_LOSSLESS), cases.expect(planes(values)))
    ds = encapsulated(module(12), frames[:1], 3, False)
    cases.file("fragments_single_frame", to_bytes(ds, J2K_LOSSLESS), cases.expect(planes(values[:1])))
    ds = encapsulated(module(12, frames=4), frames)
    cases.file("fragments_frame_missing", to_bytes(ds, J2K_LOSSLESS), refused="truncated")
    ds = encapsulated(module(12, frames=2), frames)
    cases.file("fragments_frame_too_many", to_bytes(ds, J2K_LOSSLESS),
               cases.expect(planes(values[:2]), reasons=["extra_frames"]))
    wide = module(12)
    wide.Columns = COLUMNS + 1
    cases.file("j2k_other_sides", to_bytes(encapsulated(wide, frames[:1]), J2K_LOSSLESS), refused="malformed")


def add(cases):
    for codec in (rle, jpeg_dct, jpeg_lossless, jpegls, jpeg_2000, htj2k, jpeg_xl, fragments):
        codec(cases)
