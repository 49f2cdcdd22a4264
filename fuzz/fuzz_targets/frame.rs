//! One compressed frame: the input chooses codec, sides and depth, and the rest is the codestream.

#![no_main]

use m3ret_imaging::Format;

const SYNTAXES: [&str; 9] = [
    "1.2.840.10008.1.2.5",
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.51",
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.201",
    "1.2.840.10008.1.2.4.110",
    "1.2.840.10008.1.2.8.1",
];

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((&[syntax, rows, columns, depth, colour], stream)) = bytes.split_first_chunk::<5>() else {
        return;
    };
    let file = file(SYNTAXES[usize::from(syntax) % SYNTAXES.len()], [rows, columns, depth, colour], stream);
    m3ret_fuzz::read_as(Format::Dicom, &file);
});

fn short(group: u16, element: u16, vr: &[u8], value: &[u8]) -> Vec<u8> {
    let mut out = [group.to_le_bytes(), element.to_le_bytes()].concat();
    out.extend_from_slice(vr);
    out.extend_from_slice(&(value.len() as u16).to_le_bytes());
    out.extend_from_slice(value);
    out
}

fn file(syntax: &str, [rows, columns, depth, colour]: [u8; 4], stream: &[u8]) -> Vec<u8> {
    let mut uid = syntax.as_bytes().to_vec();
    uid.resize(uid.len().next_multiple_of(2), 0);
    let us = |element, value: u16| short(0x28, element, b"US", &value.to_le_bytes());
    let (samples, photometric): (u16, &[u8]) = match colour % 3 {
        0 => (1, b"MONOCHROME2 "),
        1 => (3, b"RGB "),
        _ => (3, b"YBR_FULL"),
    };
    let allocated = if depth % 33 <= 8 { 8 } else { 16 };
    let stored = u16::from(depth % 33).clamp(1, allocated);
    let mut out = vec![0; 128];
    out.extend_from_slice(b"DICM");
    out.extend(short(2, 0x10, b"UI", &uid));
    out.extend(us(2, samples));
    out.extend(short(0x28, 4, b"CS", photometric));
    out.extend(us(0x10, u16::from(rows).max(1)));
    out.extend(us(0x11, u16::from(columns).max(1)));
    out.extend(us(0x100, allocated));
    out.extend(us(0x101, stored));
    out.extend(us(0x102, stored - 1));
    out.extend(us(0x103, u16::from(depth >= 128)));
    out.extend_from_slice(&[0xE0, 0x7F, 0x10, 0, b'O', b'B', 0, 0, 0xFF, 0xFF, 0xFF, 0xFF]);
    out.extend_from_slice(&[0xFE, 0xFF, 0, 0xE0, 0, 0, 0, 0, 0xFE, 0xFF, 0, 0xE0]);
    out.extend_from_slice(&(stream.len() as u32).to_le_bytes());
    out.extend_from_slice(stream);
    out.extend_from_slice(&[0xFE, 0xFF, 0xDD, 0xE0, 0, 0, 0, 0]);
    out
}
