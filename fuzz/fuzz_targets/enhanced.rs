//! One multi-frame whose functional groups, dimensions or vectors are the input's.

#![no_main]

use m3ret_fuzz::dicom::{file, sequence, short, text};
use m3ret_fuzz::input::Input;
use m3ret_imaging::{Format, read_bytes};

/// Attributes that dimensions may point to.
const POINTERS: [(u16, u16); 6] = [
    (0x20, 0x9056),
    (0x20, 0x9057),
    (0x20, 0x0032),
    (0x20, 0x9128),
    (0x18, 0x9087),
    (0x18, 0x9082),
];

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let n_frames = 2 + u16::from(input.byte() % 14);
    let has_groups = input.byte() % 4 > 0;
    let elements = if has_groups { grouped(n_frames, &mut input) } else { stepped(n_frames, &mut input) };
    let file = file(elements, n_frames, &mut input);
    assert_eq!(m3ret_imaging::sniff(&file[..file.len().min(4096)]), Some(Format::Dicom));
    let Ok(volumes) = read_bytes(&file, &m3ret_fuzz::options()) else {
        return;
    };
    // Every frame is in one volume.
    let n_read: usize = volumes.iter().map(|volume| volume.shape()[1]).sum();
    assert_eq!(n_read, usize::from(n_frames));
    let parts: std::collections::HashSet<_> = volumes.iter().map(|volume| &volume.part).collect();
    assert_eq!(parts.len(), volumes.len());
    volumes.iter().for_each(m3ret_fuzz::check);
});

fn at(pointer: (u16, u16)) -> Vec<u8> {
    [pointer.0.to_le_bytes(), pointer.1.to_le_bytes()].concat()
}

fn plane(input: &mut Input<'_>) -> String {
    format!("0\\0\\{}", input.decimal())
}

/// Functional groups a frame, and dimensions.
fn grouped(n_frames: u16, input: &mut Input<'_>) -> Vec<Vec<u8>> {
    let n_dimensions = input.byte() % 4;
    let dimensions: Vec<Vec<u8>> = (0..n_dimensions)
        .map(|_| short(0x20, 0x9165, "AT", &at(input.of(&POINTERS))))
        .collect();
    let shared = [
        sequence(0x20, 0x9116, &[text(0x20, 0x37, "DS", "1\\0\\0\\0\\1\\0")]),
        sequence(0x28, 0x9110, &[text(0x28, 0x30, "DS", "1\\1")]),
    ];
    let frames: Vec<Vec<u8>> = (0..n_frames).map(|_| frame(n_dimensions, input)).collect();
    vec![
        sequence(0x20, 0x9222, &dimensions),
        sequence(0x5200, 0x9229, &[shared.concat()]),
        sequence(0x5200, 0x9230, &frames),
    ]
}

fn frame(n_dimensions: u8, input: &mut Input<'_>) -> Vec<u8> {
    let indices: Vec<u8> = (0..n_dimensions).flat_map(|_| u32::from(input.byte() % 4).to_le_bytes()).collect();
    let b_value = f64::from(input.byte() % 3) * 500.0;
    let content = [
        text(0x20, 0x9056, "SH", input.of(&["1", "1", "1", "2"])),
        short(0x20, 0x9128, "UL", &u32::from(input.byte() % 4).to_le_bytes()),
        short(0x20, 0x9157, "UL", &indices),
    ];
    [
        sequence(0x18, 0x9117, &[short(0x18, 0x9087, "FD", &b_value.to_le_bytes())]),
        sequence(0x20, 0x9111, &[content.concat()]),
        sequence(0x20, 0x9113, &[text(0x20, 0x32, "DS", &plane(input))]),
    ]
    .concat()
}

/// A first plane, a step and vectors, as in nuclear medicine.
fn stepped(n_frames: u16, input: &mut Input<'_>) -> Vec<Vec<u8>> {
    let vector = |input: &mut Input<'_>, n: u8| -> Vec<u8> {
        (0..n_frames).flat_map(|_| u16::from(input.byte() % n + 1).to_le_bytes()).collect()
    };
    let pointers: Vec<u8> = (0..input.byte() % 4)
        .flat_map(|_| at(input.of(&[(0x54, 0x80), (0x54, 0x70), (0x54, 0x10), (0x18, 0x1063), (0x54, 0x50)])))
        .collect();
    let elements = vec![
        text(0x08, 0x60, "CS", input.of(&["NM", "CT", "US"])),
        text(0x18, 0x88, "DS", input.of(&["2", "-2", "", "0", "1e9"])),
        text(0x20, 0x37, "DS", "1\\0\\0\\0\\1\\0"),
        text(0x20, 0x32, "DS", "0\\0\\0"),
        text(0x28, 0x30, "DS", "1\\1"),
        short(0x28, 0x09, "AT", &pointers),
        short(0x54, 0x10, "US", &vector(input, 2)),
        short(0x54, 0x50, "US", &vector(input, 2)),
        short(0x54, 0x70, "US", &vector(input, 3)),
        short(0x54, 0x80, "US", &vector(input, 8)),
    ];
    elements
}
