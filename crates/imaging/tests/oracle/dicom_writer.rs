//! Writes small DICOM files, also those that contradict themselves.

#![allow(
    clippy::unwrap_used,
    dead_code,
    reason = "used by tests alone, and not by each all of it"
)]

pub(crate) const IMPLICIT: &str = "1.2.840.10008.1.2";
pub(crate) const EXPLICIT: &str = "1.2.840.10008.1.2.1";
pub(crate) const RLE: &str = "1.2.840.10008.1.2.5";
pub(crate) const CT: &str = "1.2.840.10008.5.1.4.1.1.2";
pub(crate) const UNDEFINED: u32 = u32::MAX;

pub(crate) type Tag = (u16, u16);

fn tag_bytes(tag: Tag) -> Vec<u8> {
    [tag.0.to_le_bytes(), tag.1.to_le_bytes()].concat()
}

/// An element with a length of 16 bits.
pub(crate) fn short(tag: Tag, vr: &str, value: &[u8]) -> Vec<u8> {
    let mut value = value.to_vec();
    let pad = if vr == "UI" { 0 } else { b' ' };
    value.resize(value.len().next_multiple_of(2), pad);
    let length = u16::try_from(value.len()).unwrap().to_le_bytes();
    [&tag_bytes(tag), vr.as_bytes(), &length, &value].concat()
}

/// An element with a length of 32 bits, which need not be the value's.
pub(crate) fn long(tag: Tag, vr: &str, length: u32, value: &[u8]) -> Vec<u8> {
    let length = length.to_le_bytes();
    [&tag_bytes(tag), vr.as_bytes(), &[0, 0], &length, value].concat()
}

/// An element of implicit representation.
pub(crate) fn implicit(tag: Tag, value: &[u8]) -> Vec<u8> {
    let length = u32::try_from(value.len()).unwrap().to_le_bytes();
    [&tag_bytes(tag), &length[..], value].concat()
}

pub(crate) fn us(tag: Tag, value: u16) -> Vec<u8> {
    short(tag, "US", &value.to_le_bytes())
}

pub(crate) fn item(content: &[u8]) -> Vec<u8> {
    implicit((0xFFFE, 0xE000), content)
}

/// An item of undefined length with its delimiter.
pub(crate) fn open_item(content: &[u8]) -> Vec<u8> {
    let mut head = tag_bytes((0xFFFE, 0xE000));
    head.extend(UNDEFINED.to_le_bytes());
    [&head[..], content, &implicit((0xFFFE, 0xE00D), &[])].concat()
}

pub(crate) fn sequence_end() -> Vec<u8> {
    implicit((0xFFFE, 0xE0DD), &[])
}

/// Encapsulated pixels: an empty offset table, and a fragment a frame.
pub(crate) fn encapsulated(frames: &[&[u8]]) -> Vec<u8> {
    let mut value = item(&[]);
    for frame in frames {
        value.extend(item(frame));
    }
    value.extend(sequence_end());
    long((0x7FE0, 0x10), "OB", UNDEFINED, &value)
}

/// Native pixels of a defined length.
pub(crate) fn native(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap();
    long((0x7FE0, 0x10), "OW", length, bytes)
}

/// A file of a preamble, file meta and elements.
pub(crate) fn file(syntax: &str, class: &str, elements: &[Vec<u8>]) -> Vec<u8> {
    let meta = [
        short((2, 2), "UI", class.as_bytes()),
        short((2, 0x10), "UI", syntax.as_bytes()),
    ]
    .concat();
    let length = u32::try_from(meta.len()).unwrap().to_le_bytes();
    let mut out = vec![0; 128];
    out.extend_from_slice(b"DICM");
    out.extend(short((2, 0), "UL", &length));
    out.extend(meta);
    out.extend(elements.concat());
    out
}

/// An image pixel module and its pixels.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    pub(crate) syntax: &'static str,
    pub(crate) class: &'static str,
    pub(crate) modality: &'static str,
    pub(crate) n_rows: u16,
    pub(crate) n_columns: u16,
    pub(crate) n_samples: u16,
    pub(crate) photometric: &'static str,
    pub(crate) is_planar: bool,
    pub(crate) n_frames: Option<&'static str>,
    /// Allocated, stored, high bit.
    pub(crate) bits: [u16; 3],
    /// Further elements before the pixel module, in the order of their tags.
    pub(crate) before: Vec<Vec<u8>>,
    /// Further elements between the pixel module and the pixels.
    pub(crate) behind: Vec<Vec<u8>>,
    /// The pixels with tag and length.
    pub(crate) pixels: Vec<u8>,
}

impl Image {
    /// A grey image of 8 rows and 6 columns.
    pub(crate) fn grey(bits: [u16; 3], pixels: Vec<u8>) -> Self {
        Self {
            syntax: EXPLICIT,
            class: "1.2.840.10008.5.1.4.1.1.7",
            modality: "OT",
            n_rows: 8,
            n_columns: 6,
            n_samples: 1,
            photometric: "MONOCHROME2",
            is_planar: false,
            n_frames: None,
            bits,
            before: Vec::new(),
            behind: Vec::new(),
            pixels,
        }
    }

    /// As `grey`, of three samples of 8 bits.
    pub(crate) fn colour(photometric: &'static str, pixels: Vec<u8>) -> Self {
        Self {
            n_samples: 3,
            photometric,
            ..Self::grey([8, 8, 7], pixels)
        }
    }

    pub(crate) fn elements(&self) -> Vec<Vec<u8>> {
        let mut elements = vec![
            short((8, 0x16), "UI", self.class.as_bytes()),
            short((8, 0x60), "CS", self.modality.as_bytes()),
        ];
        elements.extend(self.before.clone());
        elements.push(us((0x28, 2), self.n_samples));
        elements.push(short((0x28, 4), "CS", self.photometric.as_bytes()));
        if self.n_samples == 3 {
            elements.push(us((0x28, 6), u16::from(self.is_planar)));
        }
        if let Some(n_frames) = self.n_frames {
            elements.push(short((0x28, 8), "IS", n_frames.as_bytes()));
        }
        elements.push(us((0x28, 0x10), self.n_rows));
        elements.push(us((0x28, 0x11), self.n_columns));
        for (number, bits) in [0x100, 0x101, 0x102].into_iter().zip(self.bits) {
            elements.push(us((0x28, number), bits));
        }
        elements.push(us((0x28, 0x103), 0));
        elements.extend(self.behind.clone());
        elements.push(self.pixels.clone());
        elements
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        file(self.syntax, self.class, &self.elements())
    }
}

/// Bytes without a pattern, the same in every run.
pub(crate) fn noise(n_bytes: usize) -> Vec<u8> {
    let scramble = |n: u32| n.wrapping_mul(2_654_435_761).to_be_bytes()[0];
    (1..).take(n_bytes).map(scramble).collect()
}

/// One RLE frame of planes, each in literal runs.
pub(crate) fn rle_frame(planes: &[&[u8]]) -> Vec<u8> {
    let packed: Vec<Vec<u8>> = planes
        .iter()
        .map(|plane| {
            let runs = plane.chunks(100).flat_map(|run| {
                let control = u8::try_from(run.len() - 1).unwrap();
                std::iter::once(control).chain(run.iter().copied())
            });
            let mut runs: Vec<u8> = runs.collect();
            runs.resize(runs.len().next_multiple_of(2), 0x80);
            runs
        })
        .collect();
    let mut header = vec![u32::try_from(planes.len()).unwrap()];
    let mut start = 64;
    for plane in &packed {
        header.push(start);
        start += u32::try_from(plane.len()).unwrap();
    }
    header.resize(16, 0);
    let header: Vec<u8> = header.iter().flat_map(|n| n.to_le_bytes()).collect();
    [header, packed.concat()].concat()
}
