"""Native pixels in every layout, palettes, colour models and modality transforms."""

import struct

import numpy as np
from pydicom.dataset import Dataset

from .common import (BIG, DEFLATED, DEFLATED_FRAMES, EXPLICIT, IMPLICIT, UNCOMPRESSED, encapsulated,
                     image, pixels, planes, raw_deflate, rng, to_bytes)

ROWS, COLUMNS = 7, 10
SYNTAXES = {"implicit": IMPLICIT, "explicit": EXPLICIT, "big": BIG, "deflated": DEFLATED}


def swapped(raw):
    """Bytes in big endian words."""
    raw = bytes(raw) + b"\0" * (len(raw) % 2)
    return np.frombuffer(raw, "u1").reshape(-1, 2)[:, ::-1].tobytes()


def stored(name, bits, signed, shape):
    """Random stored values that use the whole range, ends included."""
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    values = rng(name).integers(low, high, shape, np.int64 if signed else np.uint64, endpoint=True)
    values.flat[0], values.flat[-1] = low, high
    return values


def words(values, allocated, stored_bits, high, overlay, order):
    """Stored values shifted to their high bit; `overlay` bits fill what is unused."""
    shift = high - (stored_bits - 1)
    mask = np.uint64(((1 << stored_bits) - 1) << shift)
    full = np.uint64((1 << allocated) - 1)
    raw = (values.astype(np.uint64) << np.uint64(shift)) & mask
    raw |= overlay.astype(np.uint64) & full & ~mask
    return raw.astype(f"{order}u{allocated // 8}").tobytes()


def native(cases):
    layouts = [
        (8, 8, 7), (8, 5, 4), (8, 5, 6), (16, 16, 15), (16, 12, 11), (16, 12, 13), (16, 12, 15),
        (16, 8, 7), (16, 1, 0), (32, 32, 31), (32, 20, 25), (64, 64, 63), (64, 40, 50),
    ]
    for allocated, bits, high in layouts:
        for signed in (False, True):
            if signed and bits == 1:
                continue
            for syntax_name, syntax in SYNTAXES.items():
                name = f"native_{allocated}_{bits}_{high}_{'su'[not signed]}_{syntax_name}"
                values = stored(name, bits, signed, (1, ROWS, COLUMNS))
                overlay = rng(name).integers(0, 1 << 62, values.shape)
                ds = image(ROWS, COLUMNS, allocated, stored=bits, high=high, signed=signed)
                order = ">" if syntax == BIG else "<"
                raw = words(values, allocated, bits, high, overlay, order)
                ship = (allocated, bits, high) in ((16, 12, 13), (32, 20, 25)) and syntax_name == "big"
                cases.file(name, to_bytes(pixels(ds, raw), syntax), cases.expect(planes(values)),
                           ship=ship)
    eight_bits_in_words(cases)
    single_bits(cases)
    floats(cases)
    bare(cases)


def eight_bits_in_words(cases):
    for samples in (1, 3):
        for frames in (1, 3):
            name = f"big_8_in_words_{samples}_{frames}"
            # An odd number of bytes: the last word is half padding.
            values = stored(name, 8, False, (frames, 5, 7) + ((3,) if samples == 3 else ()))
            photometric = "RGB" if samples == 3 else "MONOCHROME2"
            ds = image(5, 7, 8, samples=samples, photometric=photometric, frames=frames,
                       planar=0 if samples == 3 else None)
            content = to_bytes(pixels(ds, swapped(values.astype("u1").tobytes()), "OW"), BIG)
            cases.file(name, content, cases.expect(planes(values, samples)), ship=samples == 3)


def single_bits(cases):
    for frames in (1, 3):
        for syntax_name, syntax in SYNTAXES.items():
            # 7 x 5 = 35 bits: frames do not start on bytes.
            name = f"bits_{frames}_{syntax_name}"
            bits = rng(name).integers(0, 2, (frames, 7, 5), np.uint8)
            ds = image(7, 5, 1, frames=frames, modality="SEG")
            raw = np.packbits(bits.reshape(-1), bitorder="little").tobytes()
            ship = frames == 3 and syntax_name == "explicit"
            cases.file(name, to_bytes(pixels(ds, raw, "OB"), syntax),
                       cases.expect(planes(bits), reasons=["label_map"]), ship=ship)
            words_name = f"bits_{frames}_{syntax_name}_words"
            raw = swapped(raw) if syntax == BIG else raw
            ds = pixels(image(7, 5, 1, frames=frames, modality="SEG"), raw, "OW")
            cases.file(words_name, to_bytes(ds, syntax), cases.expect(planes(bits)))
    name = "bits_deflated_frames"
    bits = rng(name).integers(0, 2, (3, 7, 5), np.uint8)
    ds = image(7, 5, 1, frames=3, modality="SEG")
    frames = [raw_deflate(np.packbits(b.reshape(-1), bitorder="little").tobytes()) for b in bits]
    cases.file(name, to_bytes(encapsulated(ds, frames), DEFLATED_FRAMES),
               cases.expect(planes(bits)), ship=True)


def floats(cases):
    for dtype, tag, vr in (("f4", 0x7FE00008, "OF"), ("f8", 0x7FE00009, "OD")):
        for syntax_name, syntax in SYNTAXES.items():
            name = f"float_{dtype}_{syntax_name}"
            values = (rng(name).normal(size=(1, ROWS, COLUMNS)) * 1e3).astype(dtype)
            values[0, 0, :3] = np.nan, np.inf, -0.0
            ds = image(ROWS, COLUMNS, 8 * int(dtype[1]), modality="MR")
            for keyword in ("BitsStored", "HighBit", "PixelRepresentation"):
                delattr(ds, keyword)
            ds.add_new(tag, vr, values.astype((">" if syntax == BIG else "<") + dtype).tobytes())
            cases.file(name, to_bytes(ds, syntax), cases.expect(planes(values)),
                       ship=syntax_name == "big")


def bare(cases):
    for name, syntax, has_meta in (("no_meta_implicit", IMPLICIT, False),
                                   ("no_meta_explicit", EXPLICIT, False),
                                   ("no_preamble", EXPLICIT, True)):
        values = stored(name, 12, False, (1, ROWS, COLUMNS))
        ds = pixels(image(ROWS, COLUMNS, 16, stored=12), values.astype("<u2").tobytes())
        content = to_bytes(ds, syntax, meta=has_meta)
        content = content[132:] if has_meta else content
        cases.file(name, content, cases.expect(planes(values)), ship=True)
    name = "stated_explicit_is_implicit"
    values = stored(name, 12, False, (1, ROWS, COLUMNS))
    ds = pixels(image(ROWS, COLUMNS, 16, stored=12), values.astype("<u2").tobytes())
    meta, body = to_bytes(ds, EXPLICIT), to_bytes(ds, IMPLICIT, meta=False)
    start = 132 + 12 + struct.unpack_from("<I", meta, 140)[0]
    cases.file(name, meta[:start] + body, cases.expect(planes(values)))
    truncated = to_bytes(ds, EXPLICIT)[:-3]
    cases.file("native_truncated", truncated, refused="truncated", ship=True)
    extra = pixels(image(ROWS, COLUMNS, 16, stored=12, frames=1), values.astype("<u2").tobytes() * 2)
    cases.file("native_extra_frame", to_bytes(extra),
               cases.expect(planes(values), reasons=["extra_frames"]), ship=True)


def encapsulated_native(cases):
    for frames in (1, 3):
        for bits, dtype in ((8, "u1"), (16, "<u2")):
            name = f"encapsulated_{bits}_{frames}"
            values = stored(name, bits, False, (frames, ROWS, COLUMNS))
            raw = [frame.astype(dtype).tobytes() for frame in values]
            ds = encapsulated(image(ROWS, COLUMNS, bits, frames=frames), raw)
            cases.file(name, to_bytes(ds, UNCOMPRESSED), cases.expect(planes(values)))
            name = f"deflated_frames_{bits}_{frames}"
            ds = encapsulated(image(ROWS, COLUMNS, bits, frames=frames), [raw_deflate(r) for r in raw])
            cases.file(name, to_bytes(ds, DEFLATED_FRAMES), cases.expect(planes(values)))


def to_rgb(ybr, full=255):
    """PS3.3 C.7.6.3.1.2, inverted, to whole levels."""
    y, cb, cr = (ybr[..., i].astype(np.float64) for i in range(3))
    cb, cr = cb - (full + 1) / 2, cr - (full + 1) / 2
    rgb = np.stack([y + 1.402 * cr, y - 0.114 * 1.772 / 0.587 * cb - 0.299 * 1.402 / 0.587 * cr,
                    y + 1.772 * cb], -1)
    return np.clip(np.floor(rgb + 0.5), 0, full)


def colours(cases):
    for bits, order in ((8, "<"), (16, "<"), (16, ">")):
        for planar in (0, 1):
            for photometric in ("RGB", "YBR_FULL"):
                for frames in (1, 2):
                    kind = "big" if order == ">" else "little"
                    name = f"colour_{photometric}_{bits}_{kind}_{planar}_{frames}"
                    values = stored(name, bits, False, (frames, ROWS, COLUMNS, 3))
                    layout = values if planar == 0 else np.moveaxis(values, -1, 1)
                    ds = image(ROWS, COLUMNS, bits, samples=3, photometric=photometric,
                               planar=planar, frames=frames)
                    raw = layout.astype(f"{order}u{bits // 8}").tobytes()
                    rgb = values if photometric == "RGB" else to_rgb(values, (1 << bits) - 1)
                    content = to_bytes(pixels(ds, raw), BIG if order == ">" else EXPLICIT)
                    # 16 bits of YBR: our arithmetic is in f32, 0.01 of a level off at most.
                    tolerance = 1.0 if photometric != "RGB" and bits == 16 else 0.0
                    cases.file(name, content, cases.expect(
                        planes(rgb, 3), tolerance, full_scale=float((1 << bits) - 1)),
                        ship=bits == 8 and frames == 2 and planar == 1)
    for frames in (1, 2):
        name = f"colour_422_{frames}"
        values = stored(name, 8, False, (frames, ROWS, COLUMNS, 3)).astype(np.uint8)
        values[:, :, 1::2, 1:] = values[:, :, ::2, 1:]
        pairs = np.stack([values[:, :, ::2, 0], values[:, :, 1::2, 0], values[:, :, ::2, 1],
                          values[:, :, ::2, 2]], -1)
        ds = image(ROWS, COLUMNS, 8, samples=3, photometric="YBR_FULL_422", planar=0, frames=frames)
        cases.file(name, pixels(ds, pairs.tobytes()), cases.expect(planes(to_rgb(values), 3)),
                   ship=frames == 1)
    cases.file("colour_cmyk", pixels(image(2, 2, 8, samples=4, photometric="CMYK", planar=0), b"x" * 16),
               refused="unsupported")


def palette_tags(ds, tables, first, bits, raw_of, segmented=False):
    for name, table in zip(("Red", "Green", "Blue"), tables):
        prefix = "Segmented" if segmented else ""
        n = len(table) % 65536
        vr = "SS" if ds.PixelRepresentation else "US"
        # pydicom decides US or SS by the sign of the pixels, for all three numbers.
        numbers = [n - 65536 if vr == "SS" and n > 32767 else n, first, bits]
        ds.add_new(f"{name}PaletteColorLookupTableDescriptor", vr, numbers)
        ds.add_new(f"{prefix}{name}PaletteColorLookupTableData", "OW", raw_of(table))


def looked_up(values, tables, first):
    index = np.clip(values.astype(np.int64) - first, 0, len(tables[0]) - 1)
    return np.stack([np.asarray(table)[index] for table in tables], -1)


def palettes(cases):
    shape = (2, ROWS, COLUMNS)
    for big in (False, True):
        syntax, order, end = (BIG, ">", "big") if big else (EXPLICIT, "<", "little")

        def words16(table):
            return np.asarray(table).astype(order + "u2").tobytes()

        def bytes8(table):
            raw = np.asarray(table).astype("u1").tobytes() + b"\0" * (len(table) % 2)
            return swapped(raw) if big else raw

        def case(name, bits, signed, n, first, entry_bits, raw_of, full, ship=False):
            name = f"palette_{name}_{end}"
            values = stored(name, bits, signed, shape)
            tables = rng(name).integers(0, 1 << entry_bits, (3, n))
            tables[:, -1] = (1 << entry_bits) - 1
            ds = image(ROWS, COLUMNS, 16 if bits > 8 else 8, stored=bits, signed=signed, frames=2,
                       photometric="PALETTE COLOR")
            palette_tags(ds, tables, first, 8 if full == 255 else 16, raw_of)
            raw = values.astype(f"{order}{'i' if signed else 'u'}{ds.BitsAllocated // 8}").tobytes()
            expected = cases.expect(planes(looked_up(values, tables, first), 3), full_scale=full)
            cases.file(name, to_bytes(pixels(ds, raw), syntax), expected, ship=ship)

        case("16", 8, False, 256, 0, 16, words16, 65535.0, ship=big)
        case("8", 8, False, 256, 0, 8, bytes8, 255.0, ship=not big)
        case("8_odd", 8, False, 201, 0, 8, bytes8, 255.0, ship=big)
        case("8_in_words", 8, False, 256, 0, 8, words16, 255.0, ship=not big)
        case("offset", 8, False, 100, 70, 16, words16, 65535.0)
        case("signed", 8, True, 100, -50, 16, words16, 65535.0, ship=not big)
        case("16_index", 16, False, 65536, 0, 16, words16, 65535.0)
        case("12_index_signed", 12, True, 4096, -2048, 8, words16, 255.0)
        segmented(cases, syntax, order, end)
    broken_palettes(cases)


def segmented(cases, syntax, order, end):
    """Discrete, linear and indirect segments, in 16 and in 8 bits."""
    for bits, width in ((16, 2), (8, 1)):
        name = f"palette_segmented_{bits}_{end}"
        top = (1 << bits) - 1
        discrete = [0, 4, 5, top // 3, 7, top]
        linear = [1, 100, 11]
        offset = 2 * len(discrete) if bits == 16 else len(discrete)
        # The linear segment starts where the third lies: bytes from the start of the table.
        parts = [discrete, linear, [0, 2, top // 2, 9], [1, 48, top]]
        target = width * sum(map(len, parts[:2]))
        pointer = ([target & 0xFFFF, target >> 16] if bits == 16
                   else [target & 255, target >> 8, 0, 0])
        parts.append([2, 2] + pointer)
        parts.append([0, 52] + [(i * 37) % (top + 1) for i in range(52)])
        coded = [number for part in parts for number in part]
        ramp1 = top + np.arange(1, 101) * (11 - top) / 100
        ramp2 = 9 + np.arange(1, 49) * (top - 9) / 48
        again = [top // 2, 9, *ramp2]
        table = np.array([5, top // 3, 7, top, *ramp1, *again, *again, *parts[-1][2:]])
        table = np.round(table)
        assert len(table) == 256, (len(table), offset)
        values = stored(name, 8, False, (1, ROWS, COLUMNS))
        ds = image(ROWS, COLUMNS, 8, photometric="PALETTE COLOR")

        def raw_of(_):
            raw = np.array(coded).astype(f"{order}u{width}").tobytes()
            return swapped(raw) if width == 1 and order == ">" else raw + b"\0" * (len(raw) % 2)

        palette_tags(ds, [table] * 3, 0, bits, raw_of, segmented=True)
        raw = values.astype("u1").tobytes()
        # The standard leaves the rounding of a ramp open: half a level.
        expected = cases.expect(planes(looked_up(values, [table] * 3, 0), 3), 1.0,
                                full_scale=float(top))
        cases.file(name, to_bytes(pixels(ds, raw), syntax), expected, ship=True)


def broken_palettes(cases):
    for name, n, raw in (("short", 256, b"\0" * 100), ("empty", 256, b"")):
        ds = image(2, 2, 8, photometric="PALETTE COLOR")
        palette_tags(ds, [[0] * n] * 3, 0, 16, lambda _, raw=raw: raw)
        cases.file(f"palette_{name}", pixels(ds, b"abcd"), refused="malformed")
    ds = pixels(image(2, 2, 8, photometric="PALETTE COLOR"), b"abcd")
    cases.file("palette_missing", ds, refused="malformed")


def modality(cases):
    for name, slope, intercept, signed in (("integer", 1, -1024, False), ("real", 0.37, 12.5, True),
                                           ("fine", 1.25e-5, 0, False), ("negative", -2, 3, False)):
        values = stored(name, 12, signed, (1, ROWS, COLUMNS))
        ds = image(ROWS, COLUMNS, 16, stored=12, signed=signed, modality="CT")
        ds.RescaleSlope, ds.RescaleIntercept = str(slope), str(intercept)
        pixels(ds, words(values, 16, 12, 11, values * 0, "<"))
        expected = values.astype(np.float64) * slope + intercept
        cases.file(f"rescale_{name}", ds, cases.expect(planes(expected), unit="HU"), ship=name == "integer")
    for big in (False, True):
        for signed, first in ((False, 0), (False, 100), (True, -128)):
            name = f"modality_lut_{'us'[signed]}_{first}_{'big' if big else 'little'}"
            values = stored(name, 8, signed, (1, ROWS, COLUMNS))
            table = rng(name).integers(0, 65536, 256 if first < 100 else 100)
            ds = image(ROWS, COLUMNS, 8, signed=signed, modality="CR")
            item = Dataset()
            item.add_new(0x00283002, "SS" if signed else "US", [len(table), first, 16])
            item.ModalityLUTType = "US"
            item.add_new(0x00283006, "OW", table.astype(">u2" if big else "<u2").tobytes())
            ds.ModalityLUTSequence = [item]
            pixels(ds, values.astype("i1" if signed else "u1").tobytes())
            index = np.clip(values.astype(np.int64) - first, 0, len(table) - 1)
            cases.file(name, to_bytes(ds, BIG if big else EXPLICIT),
                       cases.expect(planes(table[index])), ship=signed)
    values = stored("inverted", 8, False, (1, ROWS, COLUMNS))
    ds = pixels(image(ROWS, COLUMNS, 8, photometric="MONOCHROME1"), values.astype("u1").tobytes())
    cases.file("monochrome1", ds, cases.expect(planes(values), inverted=True))


def add(cases):
    native(cases)
    encapsulated_native(cases)
    colours(cases)
    palettes(cases)
    modality(cases)
