//! Small DICOM files, explicit VR little endian.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "small numbers"
)]

/// An element: group, number, value representation and text.
pub(crate) type Word<'a> = (u16, u16, &'a str, &'a str);

/// A file of one slice or image of 24 x 32 pixels.
pub(crate) fn dicom(words: &[Word<'_>], values: &[f32]) -> Vec<u8> {
    let text = words
        .iter()
        .map(|&(group, number, kind, value)| (group, number, kind, value.as_bytes().to_vec()));
    let numbers = [
        (2, 1_u16),
        (0x10, 24),
        (0x11, 32),
        (0x100, 16),
        (0x101, 16),
        (0x102, 15),
        (0x103, 0),
    ];
    let numbers = numbers.map(|(number, value)| (0x28, number, "US", value.to_le_bytes().to_vec()));
    let pixels = values.iter().flat_map(|&x| (x as u16).to_le_bytes());
    let mut elements: Vec<(u16, u16, &str, Vec<u8>)> = text.chain(numbers).collect();
    elements.push((2, 0x10, "UI", b"1.2.840.10008.1.2.1\0".to_vec()));
    elements.push((0x28, 4, "CS", b"MONOCHROME2 ".to_vec()));
    elements.push((0x7fe0, 0x10, "OW", pixels.collect()));
    elements.sort();
    let mut bytes = vec![0; 128];
    bytes.extend(b"DICM");
    for (group, number, kind, mut value) in elements {
        if value.len() % 2 == 1 {
            value.push(b' ');
        }
        bytes.extend(group.to_le_bytes());
        bytes.extend(number.to_le_bytes());
        bytes.extend(kind.as_bytes());
        if kind == "OW" {
            bytes.extend([0, 0]);
            bytes.extend((value.len() as u32).to_le_bytes());
        } else {
            bytes.extend((value.len() as u16).to_le_bytes());
        }
        bytes.extend(value);
    }
    bytes
}

/// A picture of 24 x 32: a blob at a place that the seed gives, on a slope.
#[allow(
    dead_code,
    reason = "not every test that shares this file has such pictures"
)]
pub(crate) fn picture(seed: usize) -> Vec<f32> {
    let (y, x) = ((seed * 7 % 24) as f32, (seed * 11 % 32) as f32);
    let value = |i: usize| {
        let (row, column) = ((i / 32) as f32, (i % 32) as f32);
        let near = (row - y).powi(2) + (column - x).powi(2);
        800.0 * (-near / 40.0).exp() + row * seed as f32
    };
    (0..768).map(value).collect()
}

/// An image of `picture` whose header names a patient.
#[allow(
    dead_code,
    reason = "not every test that shares this file has such pictures"
)]
pub(crate) fn image_of(patient: &str, study: &str, modality: &str, seed: usize) -> Vec<u8> {
    let words = [
        (8, 0x60, "CS", modality),
        (0x10, 0x10, "PN", "Doe^Jane^Secret"),
        (0x10, 0x20, "LO", patient),
        (0x20, 0x0d, "UI", study),
        (0x20, 0x0e, "UI", study),
    ];
    dicom(&words, &picture(seed))
}
