//! Small DICOM files that ask for much: shared by the tests of time and of memory.

use m3ret_imaging::Code;

/// A file and the code with which it must be refused.
pub(crate) struct Hostile {
    pub(crate) name: &'static str,
    pub(crate) bytes: Vec<u8>,
    pub(crate) code: Code,
}

const EXPLICIT: &str = "1.2.840.10008.1.2.1";
const DEFLATED: &str = "1.2.840.10008.1.2.1.99";
const RLE: &str = "1.2.840.10008.1.2.5";
const BASELINE: &str = "1.2.840.10008.1.2.4.50";
const LOSSLESS: &str = "1.2.840.10008.1.2.4.70";
const JPEG_LS: &str = "1.2.840.10008.1.2.4.80";
const J2K: &str = "1.2.840.10008.1.2.4.90";
const JXL: &str = "1.2.840.10008.1.2.4.110";
const DEFLATED_FRAMES: &str = "1.2.840.10008.1.2.8.1";
const UNDEFINED: u32 = u32::MAX;

fn short(tag: (u16, u16), vr: &str, value: &[u8]) -> Vec<u8> {
    let mut out = [tag.0.to_le_bytes(), tag.1.to_le_bytes()].concat();
    out.extend_from_slice(vr.as_bytes());
    out.extend_from_slice(&u16::try_from(value.len()).unwrap().to_le_bytes());
    out.extend_from_slice(value);
    out
}

fn long(tag: (u16, u16), vr: &str, length: u32, value: &[u8]) -> Vec<u8> {
    let mut out = [tag.0.to_le_bytes(), tag.1.to_le_bytes()].concat();
    out.extend_from_slice(vr.as_bytes());
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(value);
    out
}

fn item(element: u16, length: u32, value: &[u8]) -> Vec<u8> {
    let mut out = [0xFFFE_u16.to_le_bytes(), element.to_le_bytes()].concat();
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(value);
    out
}

fn file(syntax: &str, body: &[u8]) -> Vec<u8> {
    let mut uid = syntax.as_bytes().to_vec();
    uid.resize(uid.len().next_multiple_of(2), 0);
    let mut out = vec![0; 128];
    out.extend_from_slice(b"DICM");
    out.extend(short((2, 0x10), "UI", &uid));
    out.extend_from_slice(body);
    out
}

/// An image pixel module of 8 or 16 bits.
fn module(rows: u16, columns: u16, bits: u16, frames: &str, samples: u16) -> Vec<u8> {
    let us = |tag, value: u16| short(tag, "US", &value.to_le_bytes());
    let photometric: &[u8] = if samples == 3 {
        b"RGB "
    } else {
        b"MONOCHROME2 "
    };
    let mut frames = frames.as_bytes().to_vec();
    frames.resize(frames.len().next_multiple_of(2), b' ');
    [
        us((0x28, 2), samples),
        short((0x28, 4), "CS", photometric),
        short((0x28, 8), "IS", &frames),
        us((0x28, 0x10), rows),
        us((0x28, 0x11), columns),
        us((0x28, 0x100), bits),
        us((0x28, 0x101), bits),
        us((0x28, 0x102), bits - 1),
        us((0x28, 0x103), 0),
    ]
    .concat()
}

fn native(pixels: &[u8]) -> Vec<u8> {
    long(
        (0x7FE0, 0x10),
        "OW",
        u32::try_from(pixels.len()).unwrap(),
        pixels,
    )
}

fn encapsulated(frames: &[&[u8]]) -> Vec<u8> {
    let mut value = item(0xE000, 0, &[]);
    for frame in frames {
        value.extend(item(0xE000, u32::try_from(frame.len()).unwrap(), frame));
    }
    value.extend(item(0xE0DD, 0, &[]));
    long((0x7FE0, 0x10), "OB", UNDEFINED, &value)
}

fn huge(syntax: &str, side: u16, frame: &[u8]) -> Vec<u8> {
    file(
        syntax,
        &[module(side, side, 16, "1", 1), encapsulated(&[frame])].concat(),
    )
}

/// `depth` sequences, each the only element of the other's only item.
fn nested(depth: usize, undefined: bool) -> Vec<u8> {
    let mut body = Vec::new();
    for _ in 0..depth {
        let n = u32::try_from(body.len()).unwrap();
        if undefined {
            body.extend(item(0xE00D, 0, &[]));
            body.extend(item(0xE0DD, 0, &[]));
            let mut head = long((8, 0x1140), "SQ", UNDEFINED, &[]);
            head.extend(item(0xE000, UNDEFINED, &[]));
            body.splice(0..0, head);
        } else {
            let mut head = long((8, 0x1140), "SQ", n + 8, &[]);
            head.extend(item(0xE000, n, &[]));
            body.splice(0..0, head);
        }
    }
    body
}

/// DEFLATE's emptiest: `n` blocks of zeros are what flate2 makes of it.
fn deflated_zeros(n_bytes: usize) -> Vec<u8> {
    use std::io::Write as _;
    let mut coder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    let zeros = vec![0; 1 << 16];
    for _ in 0..n_bytes >> 16 {
        coder.write_all(&zeros).unwrap();
    }
    coder.finish().unwrap()
}

fn siz(side: u32, tile: u32) -> Vec<u8> {
    let mut out = vec![0xFF, 0x4F, 0xFF, 0x51, 0, 41, 0, 0];
    for number in [side, side, 0, 0, tile, tile, 0, 0] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    out.extend_from_slice(&[0, 1, 15, 1, 1]);
    out.extend_from_slice(&[0xFF, 0x52, 0, 12, 0, 0, 0, 1, 0, 5, 4, 4, 0, 1]);
    out.extend_from_slice(&[0xFF, 0x5C, 0, 4, 0x40, 0x40]);
    out.extend_from_slice(&[
        0xFF, 0x90, 0, 10, 0, 0, 0, 0, 0, 0, 0, 1, 0xFF, 0x93, 0xFF, 0xD9,
    ]);
    out
}

fn jpeg(process: u8, precision: u8, side: u16) -> Vec<u8> {
    let [high, low] = side.to_be_bytes();
    let mut out = vec![
        0xFF, 0xD8, 0xFF, process, 0, 11, precision, high, low, high, low, 1, 1, 0x11, 0,
    ];
    out.extend_from_slice(&[0xFF, 0xDA, 0, 8, 1, 1, 0, 1, 0, 0, 0x55, 0x55, 0xFF, 0xD9]);
    out
}

/// A palette of pointers that repeat an empty segment.
fn endless_palette() -> Vec<u8> {
    let mut table = vec![0, 0, 0, 0];
    for _ in 0..8000 {
        table.extend_from_slice(&[2, 0, 0xFF, 0xFF, 0, 0, 0, 0]);
    }
    let mut body = palette_module();
    for channel in 0..3_u16 {
        let descriptor = [0, 0, 0, 0, 16, 0];
        body.extend(short((0x28, 0x1101 + channel), "US", &descriptor));
    }
    for channel in 0..3_u16 {
        let n = u32::try_from(table.len()).unwrap();
        body.extend(long((0x28, 0x1221 + channel), "OW", n, &table));
    }
    file(EXPLICIT, &[body, native(&[0; 16])].concat())
}

fn palette_module() -> Vec<u8> {
    let module = module(4, 4, 8, "1", 1);
    let at = module
        .windows(11)
        .position(|w| w == b"MONOCHROME2")
        .unwrap();
    let head = &module[..at - 8];
    [
        head,
        &short((0x28, 4), "CS", b"PALETTE COLOR ")[..],
        &module[at + 12..],
    ]
    .concat()
}

/// A shared group of many elements, looked up by every frame.
fn wide_groups() -> Vec<u8> {
    let mut wide = Vec::new();
    for i in 0..20_000_u32 {
        let [a, b, c, _] = i.to_le_bytes();
        wide.extend_from_slice(&[0x29, c, a, b, b'U', b'S', 0, 0]);
    }
    let n = u32::try_from(wide.len()).unwrap();
    let shared = item(0xE000, n, &wide);
    let frames: Vec<u8> = (0..4000).flat_map(|_| item(0xE000, 0, &[])).collect();
    let sequence = |element, value: &[u8]| {
        long(
            (0x5200, element),
            "SQ",
            u32::try_from(value.len()).unwrap(),
            value,
        )
    };
    let body = [
        module(64, 64, 16, "4000", 1),
        sequence(0x9229, &shared),
        sequence(0x9230, &frames),
        native(&[0; 64]),
    ];
    file(EXPLICIT, &body.concat())
}

/// Offsets that match no fragment, for many fragments.
fn wrong_offsets() -> Vec<u8> {
    let table: Vec<u8> = (0..200_000_u32)
        .flat_map(|i| (i | 1).to_le_bytes())
        .collect();
    let mut value = item(0xE000, u32::try_from(table.len()).unwrap(), &table);
    for _ in 0..16_000 {
        value.extend(item(0xE000, 0, &[]));
    }
    value.extend(item(0xE0DD, 0, &[]));
    let pixels = long((0x7FE0, 0x10), "OB", UNDEFINED, &value);
    file(JPEG_LS, &[module(8, 8, 8, "16000", 1), pixels].concat())
}

/// Every hostile file.
#[allow(clippy::too_many_lines, reason = "one row a case")]
pub(crate) fn all() -> Vec<Hostile> {
    [headers(), codestreams(), fragments_and_tables()]
        .into_iter()
        .flatten()
        .collect()
}

fn hostile(name: &'static str, code: Code, bytes: Vec<u8>) -> Hostile {
    Hostile { name, bytes, code }
}

fn headers() -> Vec<Hostile> {
    let plain = |rows, columns, frames: &str| {
        file(
            EXPLICIT,
            &[module(rows, columns, 16, frames, 1), native(&[0; 64])].concat(),
        )
    };
    let elements: Vec<u8> = (0..1_100_000)
        .flat_map(|_| short((9, 9), "US", &[]))
        .collect();
    let deflated = |n| file(DEFLATED, &deflated_zeros(n));
    vec![
        hostile("huge native", Code::Truncated, plain(65535, 65535, "1")),
        hostile(
            "huge native frames",
            Code::Truncated,
            plain(512, 512, "16384"),
        ),
        hostile(
            "too many frames",
            Code::LimitExceeded,
            plain(1, 1, "2147483647"),
        ),
        hostile(
            "frames without end",
            Code::Malformed,
            plain(1, 1, "99999999999999999999999"),
        ),
        hostile("declared length", Code::Malformed, {
            let body = [
                module(4, 4, 16, "1", 1),
                long((9, 1), "OB", 0xFFFF_FFF0, &[0; 9]),
            ];
            file(EXPLICIT, &body.concat())
        }),
        hostile("declared pixels", Code::Truncated, {
            let body = [
                module(999, 999, 16, "1", 1),
                long((0x7FE0, 0x10), "OW", 0xFFFF_FFF0, &[0; 9]),
            ];
            file(EXPLICIT, &body.concat())
        }),
        hostile("elements", Code::LimitExceeded, file(EXPLICIT, &elements)),
        hostile(
            "undefined nesting",
            Code::LimitExceeded,
            file(EXPLICIT, &nested(10_000, true)),
        ),
        hostile(
            "defined nesting",
            Code::NoPixels,
            file(EXPLICIT, &nested(10_000, false)),
        ),
        hostile("unclosed nesting", Code::LimitExceeded, {
            let mut open = long((8, 0x1140), "SQ", UNDEFINED, &[]);
            open.extend(item(0xE000, UNDEFINED, &[]));
            file(EXPLICIT, &open.repeat(10_000))
        }),
        hostile("deflate bomb", Code::LimitExceeded, deflated(80 << 20)),
    ]
}

#[allow(clippy::too_many_lines, reason = "rows of data")]
fn codestreams() -> Vec<Hostile> {
    let rle_head = |n: u8| {
        let mut head = vec![0; 64];
        head[0] = n;
        head[4] = 64;
        head
    };
    let deflated_frame = deflated_zeros(80 << 20);
    let jxl = [
        0xFF, 0x0A, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF,
    ];
    vec![
        hostile("deflated frame", Code::LimitExceeded, {
            huge(DEFLATED_FRAMES, 7000, &deflated_frame)
        }),
        hostile("huge rle", Code::Truncated, huge(RLE, 5000, &rle_head(2))),
        hostile(
            "rle of no segments",
            Code::Malformed,
            huge(RLE, 8, &rle_head(0)),
        ),
        hostile(
            "huge jpeg",
            Code::Truncated,
            huge(BASELINE, 5000, &jpeg(0xC0, 8, 5000)),
        ),
        hostile(
            "huge lossless",
            Code::Truncated,
            huge(LOSSLESS, 5000, &jpeg(0xC3, 16, 5000)),
        ),
        hostile(
            "huge jpeg-ls",
            Code::LimitExceeded,
            huge(JPEG_LS, 32_000, &jpeg(0xF7, 16, 32_000)),
        ),
        hostile(
            "huge jpeg 2000",
            Code::LimitExceeded,
            huge(J2K, 32_000, &siz(32_000, 32_000)),
        ),
        hostile(
            "jpeg 2000 beyond all",
            Code::LimitExceeded,
            huge(J2K, 65535, &siz(65535, 65535)),
        ),
        hostile(
            "jpeg 2000 of other sides",
            Code::Malformed,
            huge(J2K, 8, &siz(65535, 65535)),
        ),
        hostile(
            "jpeg 2000 tiles",
            Code::LimitExceeded,
            huge(J2K, 1000, &siz(1000, 1)),
        ),
        hostile(
            "jpeg 2000 without data",
            Code::Malformed,
            huge(J2K, 5000, &siz(5000, 5000)),
        ),
        hostile(
            "jpeg xl of other sides",
            Code::Malformed,
            huge(JXL, 8, &jxl),
        ),
    ]
}

fn fragments_and_tables() -> Vec<Hostile> {
    vec![
        hostile("no fragments", Code::Truncated, {
            file(
                BASELINE,
                &[module(8, 8, 8, "1", 1), encapsulated(&[])].concat(),
            )
        }),
        hostile("empty fragments", Code::Truncated, {
            let frames: &[&[u8]] = &[&[], &[], &[]];
            file(
                BASELINE,
                &[module(8, 8, 8, "3", 1), encapsulated(frames)].concat(),
            )
        }),
        hostile("too many fragments", Code::LimitExceeded, {
            let frames = vec![&[][..]; 100_000];
            file(
                BASELINE,
                &[module(8, 8, 8, "1", 1), encapsulated(&frames)].concat(),
            )
        }),
        hostile("palette without end", Code::Malformed, endless_palette()),
        hostile("wide shared groups", Code::Truncated, wide_groups()),
        hostile("wrong offsets", Code::Truncated, wrong_offsets()),
    ]
}
