//! Writes small DICOM files out of a fuzzer's bytes: sound in form, and free in what they say.

use crate::input::Input;

/// An element with a 16-bit length.
pub fn short(group: u16, element: u16, vr: &str, value: &[u8]) -> Vec<u8> {
    let mut value = value.to_vec();
    value.resize(value.len().next_multiple_of(2), b' ');
    let mut out = [group.to_le_bytes(), element.to_le_bytes()].concat();
    out.extend_from_slice(vr.as_bytes());
    out.extend_from_slice(&(value.len() as u16).to_le_bytes());
    out.extend(value);
    out
}

/// A text element.
pub fn text(group: u16, element: u16, vr: &str, value: &str) -> Vec<u8> {
    short(group, element, vr, value.as_bytes())
}

/// A sequence of items.
pub fn sequence(group: u16, element: u16, items: &[Vec<u8>]) -> Vec<u8> {
    let mut value = Vec::new();
    for item in items {
        value.extend_from_slice(&[0xFE, 0xFF, 0x00, 0xE0]);
        value.extend_from_slice(&(item.len() as u32).to_le_bytes());
        value.extend_from_slice(item);
    }
    let mut out = [group.to_le_bytes(), element.to_le_bytes()].concat();
    out.extend_from_slice(b"SQ\0\0");
    out.extend_from_slice(&(value.len() as u32).to_le_bytes());
    out.extend(value);
    out
}

/// A file of 2 x 2 pixels of 8 bits a frame. `elements` are sorted by tag.
pub fn file(mut elements: Vec<Vec<u8>>, n_frames: u16, input: &mut Input<'_>) -> Vec<u8> {
    let us = |element, value: u16| short(0x28, element, "US", &value.to_le_bytes());
    elements.push(us(2, 1));
    elements.push(text(0x28, 4, "CS", "MONOCHROME2"));
    elements.push(text(0x28, 8, "IS", &n_frames.to_string()));
    for (element, value) in [(0x10, 2), (0x11, 2), (0x100, 8), (0x101, 8), (0x102, 7), (0x103, 0)] {
        elements.push(us(element, value));
    }
    let tag = |element: &Vec<u8>| {
        let word = |at: usize| u16::from_le_bytes([element[at], element[at + 1]]);
        (word(0), word(2))
    };
    elements.sort_by_key(tag);
    let mut out = vec![0; 128];
    out.extend_from_slice(b"DICM");
    out.extend(short(2, 0x10, "UI", b"1.2.840.10008.1.2.1\0"));
    out.extend(elements.concat());
    out.extend_from_slice(&[0xE0, 0x7F, 0x10, 0, b'O', b'B', 0, 0]);
    out.extend_from_slice(&(4 * u32::from(n_frames)).to_le_bytes());
    for _ in 0..4 * n_frames {
        out.push(input.byte() % 4);
    }
    out
}

/// One compressed frame and what its header says of it.
pub struct Frame<'a> {
    /// The UID of the transfer syntax.
    pub syntax: &'a str,
    /// Rows and columns.
    pub sides: [u16; 2],
    /// Bits of one sample.
    pub stored: u16,
    /// Whether samples are signed.
    pub is_signed: bool,
    /// Samples of a pixel.
    pub n_samples: u16,
    /// What samples mean.
    pub photometric: &'a str,
    /// The codestream.
    pub stream: &'a [u8],
}

impl Frame<'_> {
    /// Returns a file of one frame in one fragment.
    pub fn file(&self) -> Vec<u8> {
        let mut uid = self.syntax.as_bytes().to_vec();
        uid.resize(uid.len().next_multiple_of(2), 0);
        let us = |element, value: u16| short(0x28, element, "US", &value.to_le_bytes());
        let allocated = if self.stored <= 8 { 8 } else { 16 };
        let stored = self.stored.clamp(1, allocated);
        let mut out = vec![0; 128];
        out.extend_from_slice(b"DICM");
        out.extend(short(2, 0x10, "UI", &uid));
        out.extend(us(2, self.n_samples));
        out.extend(text(0x28, 4, "CS", self.photometric));
        out.extend(us(0x10, self.sides[0].max(1)));
        out.extend(us(0x11, self.sides[1].max(1)));
        out.extend(us(0x100, allocated));
        out.extend(us(0x101, stored));
        out.extend(us(0x102, stored - 1));
        out.extend(us(0x103, self.is_signed.into()));
        out.extend_from_slice(&[0xE0, 0x7F, 0x10, 0, b'O', b'B', 0, 0, 0xFF, 0xFF, 0xFF, 0xFF]);
        out.extend_from_slice(&[0xFE, 0xFF, 0, 0xE0, 0, 0, 0, 0, 0xFE, 0xFF, 0, 0xE0]);
        out.extend_from_slice(&(self.stream.len() as u32).to_le_bytes());
        out.extend_from_slice(self.stream);
        out.extend_from_slice(&[0xFE, 0xFF, 0xDD, 0xE0, 0, 0, 0, 0]);
        out
    }
}
