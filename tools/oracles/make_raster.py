"""Writes raster files of many variants and what an independent decoder makes of each.

Usage: python make_raster.py OUT

Needs numpy and Pillow; TIFF variants need tifffile and imagecodecs as well and are left out without.
OUT/cases.json lists the cases; each expected Volume is an .npy of [C, D, H, W] f32.
"""

import json
import pathlib
import struct
import sys
import zlib

import numpy as np
from PIL import Image, ImageOps

try:
    import imagecodecs  # tifffile needs it for compression
    import tifffile
except ImportError:
    tifffile = None

OUT = pathlib.Path(sys.argv[1])
RNG = np.random.default_rng(20)
CASES = []


def case(name, *volumes, tolerance=0):
    """Registers OUT/name; each volume is (array [C, D, H, W], dict of expected fields)."""
    entries = []
    for index, (array, fields) in enumerate(volumes):
        array = np.ascontiguousarray(array, dtype=np.float32)
        assert array.ndim == 4, (name, array.shape)
        npy = f"{name}.{index}.npy"
        np.save(OUT / npy, array)
        entries.append({"npy": npy, **fields})
    CASES.append({"file": name, "tolerance": tolerance, "volumes": entries})


def planes(array):
    """[H, W] or [H, W, C] -> [C, 1, H, W]."""
    array = np.asarray(array)
    if array.ndim == 2:
        array = array[..., None]
    return array.transpose(2, 0, 1)[:, None]


def image(array, full_scale=255, **fields):
    return planes(array), {"kind": "image", "full_scale": full_scale, **fields}


def noise(*shape, dtype=np.uint8):
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        return RNG.normal(0, 100, shape).astype(dtype)
    limits = np.iinfo(dtype)
    return RNG.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)


def smooth(height, width, n_channels):
    y, x = np.mgrid[0:height, 0:width]
    channels = [
        128 + 100 * np.sin(x / (7 + 3 * c)) * np.cos(y / (9 + c)) for c in range(n_channels)
    ]
    return np.stack(channels, -1).clip(0, 255).astype(np.uint8)


# PNG, written by hand: Pillow writes neither 16-bit colour nor interlacing.


def png_chunk(name, body):
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def pack_row(row, bits):
    row = row.reshape(-1)
    if bits == 16:
        return row.astype(">u2").tobytes()
    if bits == 8:
        return row.astype(np.uint8).tobytes()
    spread = (row[:, None] >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(spread.astype(np.uint8).reshape(-1)).tobytes()


def write_png(name, samples, color_type, bits, interlaced=False, extra=b""):
    height, width = samples.shape[:2]
    passes = [(0, 0, 1, 1)]
    if interlaced:
        passes = [
            (0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4),
            (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1),
        ]
    raw = b""
    for top, left, down, right in passes:
        part = samples[top::down, left::right]
        if part.size:
            raw += b"".join(b"\0" + pack_row(row, bits) for row in part)
    header = struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, int(interlaced))
    body = png_chunk(b"IHDR", header) + extra + png_chunk(b"IDAT", zlib.compress(raw))
    (OUT / name).write_bytes(b"\x89PNG\r\n\x1a\n" + body + png_chunk(b"IEND", b""))


def make_png():
    alpha = {"codes": ["alpha_dropped"]}
    for interlaced in (False, True):
        suffix = "_adam7" if interlaced else ""
        for bits in (1, 2, 4, 8, 16):
            top = 2**bits - 1
            grey = RNG.integers(0, top, (13, 17), endpoint=True)
            scale = 255 // top if bits < 8 else 1
            full = 65535 if bits == 16 else 255
            name = f"grey{bits}{suffix}.png"
            write_png(name, grey, 0, bits, interlaced)
            case(name, image(grey * scale, full))
        for bits in (8, 16):
            top = 2**bits - 1
            samples = RNG.integers(0, top, (9, 14, 4), endpoint=True)
            samples[2:5, 3:7, 3] = 0
            for n, color_type in ((2, 4), (3, 2), (4, 6)):
                name = f"color{color_type}_{bits}{suffix}.png"
                chosen = samples[..., [0, 3]] if n == 2 else samples[..., :n]
                kept = chosen[..., :1] if n == 2 else chosen[..., :3]
                write_png(name, chosen, color_type, bits, interlaced)
                case(name, image(kept, top, **(alpha if n != 3 else {})))
    palette = noise(16, 3)
    indices = RNG.integers(0, 16, (11, 7))
    chunk = png_chunk(b"PLTE", palette.tobytes())
    write_png("palette4.png", indices, 3, 4, extra=chunk)
    case("palette4.png", image(palette[indices]))
    transparent = png_chunk(b"tRNS", bytes([0, 128, 255]))
    write_png("palette4_alpha.png", indices, 3, 4, extra=chunk + transparent)
    case("palette4_alpha.png", image(palette[indices], **alpha))
    grey_ramp = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, 1)
    write_png("grey_as_rgb.png", grey_ramp[noise(5, 6)], 2, 8)
    written = np.asarray(Image.open(OUT / "grey_as_rgb.png"))
    case("grey_as_rgb.png", image(written))
    write_png("grey_key.png", noise(6, 5), 0, 8, extra=png_chunk(b"tRNS", b"\0\7"))
    case("grey_key.png", image(np.asarray(Image.open(OUT / "grey_key.png")), **alpha))


def make_oriented():
    source = smooth(24, 40, 3)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        for name, options in (
            ("png", {}),
            ("jpg", {"quality": 95, "subsampling": 0}),
            ("webp", {"lossless": True}),
            ("tif", {}),
        ):
            file = f"orientation{orientation}.{name}"
            if name == "tif":
                Image.fromarray(source).save(OUT / file, tiffinfo={274: orientation})
            else:
                Image.fromarray(source).save(OUT / file, exif=exif.tobytes(), **options)
            upright = ImageOps.exif_transpose(Image.open(OUT / file))
            codes = {"codes": ["lossy_compression"]} if name == "jpg" else {}
            case(file, image(np.asarray(upright), **codes), tolerance=3 if name == "jpg" else 0)


def make_late_exif():
    """An eXIf chunk behind the pixels, as some writers place it."""
    source = smooth(24, 40, 3)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(source).save(OUT / "late.png")
    written = (OUT / "late.png").read_bytes()
    chunk = png_chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    (OUT / "late.png").write_bytes(written[:-12] + chunk + written[-12:])
    case("late.png", image(np.rot90(source, -1)))


def make_jpeg():
    lossy = {"codes": ["lossy_compression"]}
    for subsampling in (0, 1, 2):
        for progressive in (False, True):
            name = f"color_s{subsampling}_p{int(progressive)}.jpg"
            picture = Image.fromarray(smooth(45, 67, 3))
            picture.save(OUT / name, subsampling=subsampling, progressive=progressive)
            case(name, image(np.asarray(Image.open(OUT / name)), **lossy), tolerance=3)
    Image.fromarray(smooth(45, 67, 1)[..., 0]).save(OUT / "grey.jpg", dpi=(300, 300))
    case("grey.jpg", image(np.asarray(Image.open(OUT / "grey.jpg")), **lossy), tolerance=3)
    Image.fromarray(smooth(45, 67, 4), "CMYK").save(OUT / "cmyk.jpg", quality=95)
    rgb = np.asarray(Image.open(OUT / "cmyk.jpg").convert("RGB"))
    case("cmyk.jpg", image(rgb, **lossy), tolerance=3)
    Image.fromarray(noise(40, 40, 3)).save(OUT / "restart.jpg", restart_marker_blocks=2)
    case("restart.jpg", image(np.asarray(Image.open(OUT / "restart.jpg")), **lossy), tolerance=3)


def make_bmp_gif_webp():
    alpha = {"codes": ["alpha_dropped"]}
    for mode, array in (
        ("L", noise(7, 9)),
        ("RGB", noise(7, 9, 3)),
        ("1", noise(7, 9) > 99),
    ):
        name = f"mode_{mode}.bmp"
        Image.fromarray(array).save(OUT / name)
        opened = np.asarray(Image.open(OUT / name))
        case(name, image(opened.astype(np.float32) * (255 if mode == "1" else 1)))
    picture = Image.fromarray(noise(12, 10, 3)).quantize(16)
    for name in ("palette.bmp", "palette.gif"):
        picture.save(OUT / name)
        case(name, image(np.asarray(Image.open(OUT / name).convert("RGB"))))
    indices = noise(8, 8) % 4
    keyed = Image.fromarray(indices)
    keyed = keyed.convert("P")
    keyed.putpalette(noise(256, 3).tobytes())
    keyed.save(OUT / "transparent.gif", transparency=2)
    opened = Image.open(OUT / "transparent.gif")
    palette = np.array(opened.getpalette()).reshape(-1, 3)
    case("transparent.gif", image(palette[np.asarray(opened)], **alpha))
    rgba = noise(20, 30, 4)
    rgba[5:9, 5:9, 3] = 0
    Image.fromarray(rgba).save(OUT / "alpha.webp", lossless=True, exact=True)
    case("alpha.webp", image(rgba[..., :3], **alpha))
    Image.fromarray(smooth(33, 47, 3)).save(OUT / "lossy.webp", quality=90)
    opened = np.asarray(Image.open(OUT / "lossy.webp").convert("RGB"))
    case("lossy.webp", image(opened, codes=["lossy_compression"]), tolerance=3)


def make_animations():
    def film(name, spacing, codes, tolerance=0, frames=None):
        opened = Image.open(OUT / name)
        shown = []
        for index in range(opened.n_frames):
            opened.seek(index)
            shown.append(np.asarray(opened.convert("RGBA"))[..., :3])
        stack = np.stack(shown)[frames] if frames is not None else np.stack(shown)
        fields = {"kind": "video", "full_scale": 255, "spacing": [spacing, None, None]}
        volume = (stack.transpose(3, 0, 1, 2), {**fields, "codes": codes})
        case(name, volume, tolerance=tolerance)

    base = smooth(24, 32, 3) // 2
    frames = []
    for index in range(6):
        frame = base.copy()
        frame[4 + index : 12 + index, 5 : 9 + index] = [index * 40, 255 - index * 40, 90]
        frames.append(Image.fromarray(frame))
    quantized = [frame.quantize(32) for frame in frames]
    options = {"save_all": True, "loop": 0}
    quantized[0].save(OUT / "film.gif", append_images=quantized[1:], duration=80, **options)
    film("film.gif", 0.08, [])
    durations = [80, 200, 80, 80, 40, 80]
    quantized[0].save(OUT / "uneven.gif", append_images=quantized[1:], duration=durations, **options)
    film("uneven.gif", None, [])
    frames[0].save(OUT / "film.png", append_images=frames[1:], duration=50, **options)
    film("film.png", 0.05, [])
    rest = frames[1:]
    frames[0].save(OUT / "film.webp", append_images=rest, duration=40, lossless=True, **options)
    # The decoder rounds when it blends, even where the upper pixel is opaque.
    film("film.webp", 0.04, [], tolerance=1)
    many = []
    for index in range(80):
        many.append(Image.fromarray(np.roll(base[..., 0], index * 3, 1)).convert("P"))
    many[0].save(OUT / "long.gif", append_images=many[1:], duration=20, **options)
    assert Image.open(OUT / "long.gif").n_frames == 80
    chosen = [(2 * i + 1) * 80 // 64 for i in range(32)]
    film("long.gif", 0.05, ["frames_sampled"], frames=chosen)


# TIFF


def write_packed_tiff(name, samples, bits, photometric, order="<", fill_order=1):
    """One strip of grey samples of any depth, written by hand."""
    height, width = samples.shape
    raw = b""
    for row in samples:
        spread = (row[:, None] >> np.arange(bits - 1, -1, -1)) & 1
        raw += np.packbits(spread.astype(np.uint8).reshape(-1)).tobytes()
    if fill_order == 2:
        raw = bytes(int(f"{byte:08b}"[::-1], 2) for byte in raw)
    tags = [
        (256, 3, width), (257, 3, height), (258, 3, bits), (259, 3, 1), (262, 3, photometric),
        (266, 3, fill_order), (273, 4, 8), (277, 3, 1), (278, 3, height), (279, 4, len(raw)),
    ]
    mark = b"II*\0" if order == "<" else b"MM\0*"
    body = mark + struct.pack(order + "I", 8 + len(raw)) + raw
    body += struct.pack(order + "H", len(tags))
    for tag, kind, value in tags:
        body += struct.pack(order + "HHI", tag, kind, 1)
        body += struct.pack(order + "HH", value, 0) if kind == 3 else struct.pack(order + "I", value)
    (OUT / name).write_bytes(body + struct.pack(order + "I", 0))


def make_tiff_numbers():
    scales = {"uint8": 255, "uint16": 65535, "uint32": 2**32 - 1, "uint64": 2**64 - 1}
    for name in "uint8 int8 uint16 int16 uint32 int32 uint64 int64 float16 float32 float64".split():
        for order in "<>":
            file = f"{name}_{'le' if order == '<' else 'be'}.tif"
            array = noise(9, 11, dtype=name)
            tifffile.imwrite(OUT / file, array, byteorder=order, photometric="minisblack")
            assert np.array_equal(tifffile.imread(OUT / file), array)
            # Wide integers round once, through f64, as everywhere in m3ret.
            case(file, image(array.astype(np.float64), scales.get(name)))
    for bits in range(1, 17):
        for order in "<>":
            if bits == 16 and order == "<":
                continue  # whole bytes follow the byte order; the writer above packs big first
            top = 2**bits - 1
            file = f"bits{bits}_{'le' if order == '<' else 'be'}.tif"
            samples = RNG.integers(0, top, (5, 9), endpoint=True)
            write_packed_tiff(file, samples, bits, 1, order)
            scale = 255 // top if bits in (1, 2, 4, 8) else 1
            case(file, image(samples * scale, 255 if bits in (1, 2, 4, 8) else top))
    for bits in (1, 8, 16):
        samples = RNG.integers(0, 2**bits - 1, (5, 9), endpoint=True)
        file = f"white_is_zero{bits}.tif"
        write_packed_tiff(file, samples, bits, 0, ">")
        scale = 255 if bits == 1 else 1
        full = 65535 if bits == 16 else 255
        case(file, image(samples * scale, full, inverted=True))
    samples = RNG.integers(0, 1, (5, 19), endpoint=True)
    write_packed_tiff("fill_order2.tif", samples, 1, 1, fill_order=2)
    case("fill_order2.tif", image(samples * 255))


def make_tiff_layouts():
    for kind in ("uint8", "uint16", "float32"):
        full = {"uint8": 255, "uint16": 65535, "float32": 1}[kind]
        for n in (1, 3, 4):
            array = noise(50, 70, n, dtype=kind)
            if n == 1:
                array = array[..., 0]
            for compression in ("none", "lzw", "deflate", "packbits"):
                for predictor in (False, True):
                    if predictor and compression in ("none", "packbits"):
                        continue
                    for tiled in (False, True):
                        for planar in ("contig", "separate") if n > 1 else ("contig",):
                            file = f"{kind}_{n}_{compression}_{'p' if predictor else ''}"
                            file += f"{'t' if tiled else ''}{'s' if planar == 'separate' else ''}.tif"
                            stored = array if planar == "contig" else array.transpose(2, 0, 1)
                            tifffile.imwrite(
                                OUT / file,
                                stored,
                                photometric="minisblack" if n == 1 else "rgb",
                                planarconfig=planar if n > 1 else None,
                                compression=None if compression == "none" else compression,
                                predictor=predictor or None,
                                tile=(32, 16) if tiled else None,
                                rowsperstrip=None if tiled else 7,
                                extrasamples=["unassalpha"] if n == 4 else None,
                                byteorder="<" if tiled else ">",
                                bigtiff=tiled and predictor,
                            )
                            assert np.array_equal(tifffile.imread(OUT / file), stored), file
                            kept = array[..., :3] if n == 4 else array
                            codes = {"codes": ["alpha_dropped"]} if n == 4 else {}
                            scale = None if (kind, n) == ("float32", 1) else full
                            case(file, image(kept, scale, **codes))


def make_tiff_codecs():
    lossy = {"codes": ["lossy_compression"]}
    grey, color = smooth(64, 80, 1)[..., 0], smooth(64, 80, 3)
    for name, array, options in (
        ("jpeg_grey", grey, {"photometric": "minisblack"}),
        ("jpeg_ycbcr", color, {"photometric": "rgb"}),
        ("jpeg_rgb", color, {"photometric": "rgb", "compressionargs": {"outcolorspace": "rgb"}}),
        ("jpeg_tiles", color, {"photometric": "rgb", "tile": (32, 32)}),
    ):
        tifffile.imwrite(OUT / f"{name}.tif", array, compression="jpeg", **options)
        decoded = tifffile.imread(OUT / f"{name}.tif")
        case(f"{name}.tif", image(decoded, **lossy), tolerance=3)
    # libtiff shares the tables of all strips in tag 347.
    Image.fromarray(color).save(OUT / "jpeg_libtiff.tif", compression="jpeg")
    decoded = np.asarray(Image.open(OUT / "jpeg_libtiff.tif").convert("RGB"))
    case("jpeg_libtiff.tif", image(decoded, **lossy), tolerance=3)
    bilevel = Image.fromarray(noise(40, 37) > 128)
    bilevel.save(OUT / "group4.tif", compression="group4")
    # Pillow shows WhiteIsZero inverted; the stored samples are the other way round.
    inverted = Image.open(OUT / "group4.tif").tag_v2[262] == 0
    shown = np.asarray(Image.open(OUT / "group4.tif")).astype(np.float32) * 255
    case("group4.tif", image(255 - shown if inverted else shown, inverted=inverted))
    cmyk = Image.fromarray(noise(12, 10, 4), "CMYK")
    for compression in ("raw", "tiff_lzw"):
        cmyk.save(OUT / f"cmyk_{compression}.tif", compression=compression)
        rgb = np.asarray(Image.open(OUT / f"cmyk_{compression}.tif").convert("RGB"))
        case(f"cmyk_{compression}.tif", image(rgb), tolerance=1)
    palette = Image.fromarray(noise(12, 10, 3)).quantize(200)
    palette.save(OUT / "palette.tif", compression="tiff_lzw")
    case("palette.tif", image(np.asarray(palette.convert("RGB"))))


def make_tiff_pages():
    unknown = ["stack_axis_unknown", "spacing_unknown"]

    def stack(array, full_scale=255, kind="volume", **fields):
        return array, {"kind": kind, "full_scale": full_scale, **fields}

    pages = noise(5, 9, 12, dtype=np.uint16)
    tifffile.imwrite(OUT / "stack.tif", pages, photometric="minisblack", metadata=None)
    case("stack.tif", stack(pages[None], 65535, codes=unknown))
    color = noise(4, 9, 12, 3)
    tifffile.imwrite(OUT / "stack_rgb.tif", color, photometric="rgb", compression="lzw")
    case("stack_rgb.tif", stack(color.transpose(3, 0, 1, 2), codes=unknown))
    with tifffile.TiffWriter(OUT / "unequal.tif") as writer:
        small, large = noise(5, 7), noise(8, 6, 3)
        writer.write(small, photometric="minisblack")
        writer.write(large, photometric="rgb")
    case("unequal.tif", image(small, part="page=0"), image(large, part="page=1"))
    with tifffile.TiffWriter(OUT / "thumbnail.tif") as writer:
        writer.write(large, photometric="rgb")
        writer.write(large[::2, ::2], photometric="rgb", subfiletype=1)
    case("thumbnail.tif", image(large))

    def imagej(name, array, axes, volumes, **metadata):
        tifffile.imwrite(
            OUT / name,
            array,
            imagej=True,
            resolution=(4.0, 2.0),
            metadata={"axes": axes, "unit": "mm", **metadata},
        )
        case(name, *volumes)

    def calibrated(array, depth_spacing, **fields):
        spacing = [depth_spacing, 0.5, 0.25]
        return stack(array, 65535, spacing=spacing, **fields)

    flat = noise(9, 12, dtype=np.uint16)
    imagej("imagej_2d.tif", flat, "YX", [calibrated(flat[None, None], None, kind="image")])
    volume = noise(6, 9, 12, dtype=np.uint16)
    imagej("imagej_z.tif", volume, "ZYX", [calibrated(volume[None], 1.5)], spacing=1.5)
    film = [calibrated(volume[None], 0.2, kind="video")]
    imagej("imagej_t.tif", volume, "TYX", film, finterval=0.2)
    hyper = noise(2, 3, 2, 9, 12, dtype=np.uint16)
    parts = [
        calibrated(hyper[t, :, c][None], 3.0, part=f"channel={c},t={t}")
        for t in range(2)
        for c in range(2)
    ]
    imagej("imagej_tzc.tif", hyper, "TZCYX", parts, spacing=3.0)


def make_imagej_one_directory():
    """`ImageJ` above 4 GB: the first page has a directory, the others lie behind it."""

    def one_directory(name, array, counts, volumes, **keywords):
        pages = array.reshape((-1,) + keywords.pop("page", array.shape[-2:]))
        description = f"ImageJ=1.53\nimages={len(pages)}\n{counts}\nunit=mm\n"
        with tifffile.TiffWriter(OUT / name, **keywords) as writer:
            writer.write(pages[0], resolution=(4.0, 2.0), description=description, metadata=None,
                         contiguous=False)
        with open(OUT / name, "ab") as file:
            assert file.tell() % 2 == 0
            file.write(np.ascontiguousarray(pages[1:], array.dtype).tobytes())
        with tifffile.TiffFile(OUT / name) as opened:
            read = opened.series[0].asarray()
        # The oracle's own reading, not what was written.
        assert read.size == array.size, (name, read.shape)
        case(name, *volumes(read.reshape(array.shape)))

    def calibrated(array, depth_spacing, full_scale=65535, **fields):
        spacing = [depth_spacing, 0.5, 0.25]
        return array, {"kind": "volume", "full_scale": full_scale, "spacing": spacing, **fields}

    z = noise(6, 9, 12, dtype=np.uint16)
    for name, keywords in [("z", {}), ("z_big", {"bigtiff": True})]:
        one_directory(f"imagej_one_{name}.tif", z, "slices=6\nspacing=1.5",
                      lambda read: [calibrated(read[None], 1.5)], **keywords)
    one_directory("imagej_one_be.tif", z.astype(">u2"), "slices=6\nspacing=1.5",
                  lambda read: [calibrated(read[None], 1.5)], byteorder=">")
    one_directory("imagej_one_t.tif", z, "frames=6\nfinterval=0.2",
                  lambda read: [calibrated(read[None], 0.2, kind="video")])
    hyper = noise(3, 2, 9, 12, dtype=np.uint8)
    one_directory(
        "imagej_one_zc.tif", hyper, "channels=2\nslices=3\nspacing=3",
        lambda read: [calibrated(read[:, c][None], 3.0, 255, part=f"channel={c}")
                      for c in range(2)],
    )


def make_jpeg2000():
    lossy = {"codes": ["lossy_compression"]}
    alpha = {"codes": ["alpha_dropped"]}

    def write(name, array, full_scale, kept=None, **fields):
        options = {"level": 0, "reversible": True, **fields.pop("options", {})}
        encoded = imagecodecs.jpeg2k_encode(array, **options)
        (OUT / name).write_bytes(encoded)
        decoded = imagecodecs.jpeg2k_decode(encoded)
        assert "lossy_compression" in fields.get("codes", []) or np.array_equal(decoded, array)
        case(name, image(decoded if kept is None else decoded[..., :kept], full_scale, **fields))

    bare = {"codecformat": "j2k"}
    write("grey8.jp2", noise(13, 17), 255)
    write("grey8.j2k", noise(13, 17), 255, options=bare)
    write("grey16.jp2", noise(13, 17, dtype=np.uint16), 65535)
    write("grey12.j2k", noise(13, 17, dtype=np.uint16) >> 4, 4095,
          options={**bare, "bitspersample": 12})
    write("signed16.j2k", noise(13, 17, dtype=np.int16), None, options=bare)
    write("rgb8.jp2", noise(13, 17, 3), 255)
    write("rgb16.jp2", noise(13, 17, 3, dtype=np.uint16), 65535)
    write("rgba8.jp2", noise(13, 17, 4), 255, kept=3, **alpha)
    ramp = (np.add.outer(np.arange(40), np.arange(48)) * 2).astype(np.uint8)
    write("lossy.jp2", ramp, 255, options={"level": 30, "reversible": False}, **lossy)
    tiled = noise(70, 50, 3)
    Image.fromarray(tiled).save(OUT / "tiled.jp2", tile_size=(32, 32), irreversible=False)
    case("tiled.jp2", image(tiled))
    grey_alpha = Image.fromarray(noise(13, 17)).convert("LA")
    grey_alpha.save(OUT / "la.jp2")
    case("la.jp2", image(np.asarray(grey_alpha)[..., :1], **alpha))


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    make_png()
    make_oriented()
    make_late_exif()
    make_jpeg()
    make_bmp_gif_webp()
    make_animations()
    if tifffile is not None:
        make_tiff_numbers()
        make_tiff_layouts()
        make_tiff_codecs()
        make_tiff_pages()
        make_imagej_one_directory()
        make_jpeg2000()
    (OUT / "cases.json").write_text(json.dumps(CASES))
    print(f"{len(CASES)} cases, tifffile {'present' if tifffile else 'absent'}")


main()
