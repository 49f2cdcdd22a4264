//! Small images of every kind that tests need.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "tiny numbers"
)]

use std::path::Path;

use m3ret_imaging::{Kind, Volume, write_npy};

/// Values that differ everywhere.
fn speckled(n: usize, seed: usize) -> Vec<f32> {
    (0..n)
        .map(|i| ((i + 31 * seed) * 7919 % 1009) as f32)
        .collect()
}

/// A grey array `[1, D, H, W]`.
pub(in crate::dataset) fn npy(path: &Path, [depth, height, width]: [usize; 3], seed: usize) {
    let shape = [1, depth, height, width];
    let values = speckled(depth * height * width, seed);
    let kind = if depth == 1 {
        Kind::Image
    } else {
        Kind::Volume
    };
    let volume = Volume::new(values, shape, kind).unwrap();
    write_npy(&mut std::fs::File::create(path).unwrap(), &volume).unwrap();
}

/// A colour picture.
pub(super) fn png(path: &Path, side: u32) {
    image::RgbImage::from_fn(side, side, |x, y| {
        image::Rgb([x as u8 * 5, y as u8 * 3, (x * y) as u8])
    })
    .save(path)
    .unwrap();
}

/// A NIfTI-1 file of f32 `[T, D, H, W]`; the values of time t lie between 1000 t and 1000 t + 1008.
pub(super) fn nifti(path: &Path, [times, depth, height, width]: [usize; 4]) {
    let mut bytes = vec![0_u8; 352];
    bytes[..4].copy_from_slice(&348_i32.to_le_bytes());
    let sides = [4, width, height, depth, times, 1, 1, 1];
    for (i, side) in sides.into_iter().enumerate() {
        bytes[40 + 2 * i..42 + 2 * i].copy_from_slice(&(side as i16).to_le_bytes());
        bytes[76 + 4 * i..80 + 4 * i].copy_from_slice(&1_f32.to_le_bytes());
    }
    bytes[70..72].copy_from_slice(&16_i16.to_le_bytes());
    bytes[72..74].copy_from_slice(&32_i16.to_le_bytes());
    bytes[108..112].copy_from_slice(&352_f32.to_le_bytes());
    bytes[344..348].copy_from_slice(b"n+1\0");
    for time in 0..times {
        for value in speckled(depth * height * width, 5 * time) {
            // Each time has its own pattern, and so its own views.
            bytes.extend((value + 1000.0 * time as f32).to_le_bytes());
        }
    }
    std::fs::write(path, bytes).unwrap();
}

/// A DICOM picture of 8 x 8 pixels.
pub(super) fn dicom(path: &Path, modality: &str) {
    let mut bytes = vec![0; 128];
    bytes.extend(b"DICM");
    let mut element = |group: u16, number: u16, vr: &[u8; 2], value: &[u8]| {
        let mut value = value.to_vec();
        if value.len() % 2 == 1 {
            value.push(if vr == b"UI" { 0 } else { b' ' });
        }
        bytes.extend(group.to_le_bytes());
        bytes.extend(number.to_le_bytes());
        bytes.extend(vr);
        if vr == b"OW" {
            bytes.extend([0; 2]);
            bytes.extend((value.len() as u32).to_le_bytes());
        } else {
            bytes.extend((value.len() as u16).to_le_bytes());
        }
        bytes.extend(value);
    };
    element(2, 0x10, b"UI", b"1.2.840.10008.1.2.1");
    element(8, 0x16, b"UI", b"1.2.840.10008.5.1.4.1.1.7");
    element(8, 0x18, b"UI", b"1.2.3");
    element(8, 0x60, b"CS", modality.as_bytes());
    let number = |n: u16| n.to_le_bytes();
    element(0x28, 2, b"US", &number(1));
    element(0x28, 4, b"CS", b"MONOCHROME2");
    element(0x28, 0x10, b"US", &number(8));
    element(0x28, 0x11, b"US", &number(8));
    element(0x28, 0x100, b"US", &number(16));
    element(0x28, 0x101, b"US", &number(16));
    element(0x28, 0x102, b"US", &number(15));
    element(0x28, 0x103, b"US", &number(0));
    let pixels: Vec<u8> = (0..64_u16).flat_map(|i| (i * 17).to_le_bytes()).collect();
    element(0x7fe0, 0x10, b"OW", &pixels);
    std::fs::write(path, bytes).unwrap();
}
