//! Series and multi-frames that hold several volumes: each is found, whole and unmixed.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "oracle/dicom_writer.rs"]
mod dicom_writer;

use std::path::{Path, PathBuf};

use dicom_writer::{Image, Tag, item, long, native, short, us};
use m3ret_imaging::archive::{find_objects, read_object};
use m3ret_imaging::{Code, Kind, ReadOptions, Volume, read_bytes};

const AXIAL: &str = "1\\0\\0\\0\\1\\0";
const UNDEFINED_MR: &str = "1.2.840.10008.5.1.4.1.1.4";

/// A slice of one value at `z` mm; further elements may stand for the usual ones.
struct Slice {
    z: f64,
    value: u16,
    elements: Vec<(Tag, &'static str, String)>,
}

fn slice(z: f64, value: u16) -> Slice {
    let text = |tag, vr, value: &str| (tag, vr, value.to_owned());
    Slice {
        z,
        value,
        elements: vec![
            text((0x10, 0x20), "LO", "somebody"),
            text((0x20, 0xD), "UI", "1.2.3"),
            text((0x20, 0xE), "UI", "1.2.3.4"),
            text((0x20, 0x13), "IS", &value.to_string()),
        ],
    }
}

impl Slice {
    /// Sets an element, or leaves it out where `value` is `-`.
    #[allow(
        clippy::needless_pass_by_value,
        reason = "numbers and words alike read best"
    )]
    fn with(mut self, tag: Tag, vr: &'static str, value: impl ToString) -> Self {
        self.elements.retain(|(known, ..)| *known != tag);
        if value.to_string() != "-" {
            self.elements.push((tag, vr, value.to_string()));
        }
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut elements = self.elements.clone();
        let position = format!("0\\0\\{}", self.z);
        if !elements.iter().any(|(tag, ..)| *tag == (0x20, 0x32)) {
            elements.push(((0x20, 0x32), "DS", position));
        }
        if !elements.iter().any(|(tag, ..)| *tag == (0x20, 0x37)) {
            elements.push(((0x20, 0x37), "DS", AXIAL.to_owned()));
        }
        elements.sort_by_key(|(tag, ..)| *tag);
        let element = |(tag, vr, value): &(Tag, &str, String)| match *vr {
            "FD" => {
                let numbers = value.split('\\').map(|n| n.parse::<f64>().unwrap());
                let bytes: Vec<u8> = numbers.flat_map(f64::to_le_bytes).collect();
                short(*tag, vr, &bytes)
            }
            _ => short(*tag, vr, value.as_bytes()),
        };
        let pixels: Vec<u8> = self.value.to_le_bytes().repeat(48);
        let mut image = Image::grey([16, 16, 15], native(&pixels));
        image.class = UNDEFINED_MR;
        image.modality = "MR";
        image.behind = vec![];
        let (before, behind): (Vec<_>, Vec<_>) =
            elements.iter().partition(|(tag, ..)| tag.0 < 0x28);
        image.before = before.into_iter().map(element).collect();
        image.behind = behind.into_iter().map(element).collect();
        // Between the frames' number and the bits: rows and columns stand before it.
        let spacing = short((0x28, 0x30), "DS", b"0.8\\0.7");
        image.before.push(Vec::new());
        let mut all = image.elements();
        let at = all
            .iter()
            .position(|e| e.get(..4) == Some(&[0x28, 0, 0, 1]))
            .unwrap();
        all.insert(at, spacing);
        dicom_writer::file(image.syntax, image.class, &all)
    }
}

/// Writes slices into a folder, in an order that tells nothing.
fn folder(slices: &[Slice]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (number, slice) in slices.iter().enumerate() {
        let name = format!("{:03}", number * 7 % 101);
        std::fs::write(folder.path().join(name), slice.bytes()).unwrap();
    }
    folder
}

/// One volume as its part and the value of each slice.
type Found = (String, Vec<f32>);

fn read(folder: &Path) -> (Vec<Found>, Vec<Code>) {
    let options = ReadOptions::default();
    let (objects, skipped) = find_objects(folder, &options).unwrap();
    assert!(skipped.is_empty(), "{skipped:?}");
    let (mut found, mut codes) = (Vec::new(), Vec::new());
    for object in &objects {
        match read_object(object, &options) {
            Ok(volumes) => {
                for volume in volumes {
                    codes.extend(volume.reasons.iter().map(|reason| reason.code));
                    found.push((object.name_of(&volume).unwrap_or_default(), values(&volume)));
                }
            }
            Err(error) => codes.push(error.code()),
        }
    }
    found.sort_by(|a, b| a.partial_cmp(b).unwrap());
    (found, codes)
}

/// The value of each slice.
fn values(volume: &Volume) -> Vec<f32> {
    let depth = volume.shape()[1];
    (0..depth).map(|d| volume.plane(0, d).unwrap()[0]).collect()
}

fn check(slices: &[Slice], expected: &[(&str, &[f32])]) -> Vec<Code> {
    let folder = folder(slices);
    let (found, codes) = read(folder.path());
    let expected: Vec<Found> = expected
        .iter()
        .map(|(part, values)| ((*part).to_owned(), values.to_vec()))
        .collect();
    assert_eq!(found, expected, "{codes:?}");
    codes
}

#[test]
fn phases_of_a_beating_heart_are_told_by_rank_where_times_vary() {
    let mut slices = Vec::new();
    for (phase, z) in [(0, 0.0), (0, 3.0), (1, 0.0), (1, 3.0), (2, 0.0), (2, 3.0)] {
        // The second slice's heart beats slower: its second phase comes when the first's third does.
        let ms = f64::from(phase) * if z > 0.0 { 60.0 } else { 30.0 };
        let value = u16::try_from(phase * 10).unwrap() + u16::from(z > 0.0) + 1;
        slices.push(slice(z, value).with((0x18, 0x1060), "DS", ms));
    }
    let expected: &[(&str, &[f32])] = &[
        ("t=0", &[1.0, 2.0]),
        ("t=1", &[11.0, 12.0]),
        ("t=2", &[21.0, 22.0]),
    ];
    assert_eq!(check(&slices, expected), []);
}

#[test]
fn diffusion_directions_of_one_b_value_are_volumes() {
    let mut slices = Vec::new();
    let directions = ["-", "1\\0\\0", "0\\1\\0"];
    for (number, direction) in directions.into_iter().enumerate() {
        for z in [0.0, 3.0] {
            let value = u16::try_from(number * 10).unwrap() + u16::from(z > 0.0) + 1;
            let b_value = if number == 0 { 0 } else { 1000 };
            slices.push(slice(z, value).with((0x18, 0x9087), "FD", b_value).with(
                (0x18, 0x9089),
                "FD",
                direction,
            ));
        }
    }
    let expected: &[(&str, &[f32])] = &[
        ("b=0", &[1.0, 2.0]),
        ("b=1000, direction=1", &[11.0, 12.0]),
        ("b=1000, direction=2", &[21.0, 22.0]),
    ];
    assert_eq!(check(&slices, expected), []);
}

#[test]
fn magnitude_and_phase_and_echoes_of_one_series_are_volumes() {
    let mut slices = Vec::new();
    for (number, kind) in ["M", "P"].into_iter().enumerate() {
        // The same echo time with other digits.
        for (echo, ms) in ["2.46", "4.92", "2.460000", "4.9200"]
            .into_iter()
            .enumerate()
        {
            let z = if echo < 2 { 0.0 } else { 3.0 };
            let value = u16::try_from(number * 20 + echo % 2 * 10 + echo / 2).unwrap() + 1;
            slices.push(
                slice(z, value)
                    .with((0x8, 0x8), "CS", format!("ORIGINAL\\PRIMARY\\{kind}"))
                    .with((0x18, 0x81), "DS", ms),
            );
        }
    }
    let expected: &[(&str, &[f32])] = &[
        ("type=M, echo=1", &[1.0, 2.0]),
        ("type=M, echo=2", &[11.0, 12.0]),
        ("type=P, echo=1", &[21.0, 22.0]),
        ("type=P, echo=2", &[31.0, 32.0]),
    ];
    assert_eq!(check(&slices, expected), []);
}

#[test]
fn two_reconstructions_of_one_scan_are_named_by_their_kernels() {
    let kernels = [("B30f", 0.0), ("B70f", 0.0), ("B30f", 3.0), ("B70f", 3.0)];
    let slices: Vec<Slice> = (1..)
        .zip(kernels)
        .map(|(value, (kernel, z))| slice(z, value).with((0x18, 0x1210), "SH", kernel))
        .collect();
    let expected: &[(&str, &[f32])] = &[("kernel=B30f", &[1.0, 3.0]), ("kernel=B70f", &[2.0, 4.0])];
    assert_eq!(check(&slices, expected), []);
}

#[test]
fn images_told_apart_by_their_number_alone_are_divided_and_told() {
    let slices: Vec<Slice> = (1..)
        .zip([0.0, 3.0, 0.0, 3.0])
        .map(|(value, z)| slice(z, value))
        .collect();
    let codes = check(&slices, &[("set=1", &[1.0, 2.0]), ("set=2", &[3.0, 4.0])]);
    assert_eq!(codes, [Code::DividedSeries, Code::DividedSeries]);
}

#[test]
fn nothing_that_tells_images_apart_is_a_refusal_of_all() {
    let slices: Vec<Slice> = [(0.0, 1), (0.0, 2), (3.0, 3)]
        .map(|(z, value)| slice(z, value).with((0x20, 0x13), "IS", "-"))
        .into();
    assert_eq!(check(&slices, &[]), [Code::DuplicatePosition]);
}

#[test]
fn two_patients_under_one_series_identifier_are_two_volumes() {
    let slices: Vec<Slice> = (1..)
        .zip([0.0, 3.0, 6.0, 9.0, 12.0, 15.0])
        .map(|(value, z)| {
            let patient = if value > 3 { "somebody" } else { "else" };
            slice(z, value).with((0x10, 0x20), "LO", patient)
        })
        .collect();
    let expected: &[(&str, &[f32])] = &[
        ("series=1", &[1.0, 2.0, 3.0]),
        ("series=2", &[4.0, 5.0, 6.0]),
    ];
    assert_eq!(check(&slices, expected), []);
}

#[test]
fn equal_pixels_at_one_position_are_copies_whatever_their_numbers() {
    let mut slices: Vec<Slice> = (1..)
        .zip([0.0, 3.0, 6.0])
        .map(|(v, z)| slice(z, v))
        .collect();
    slices.push(slice(3.0, 2).with((0x20, 0x13), "IS", 99));
    assert_eq!(
        check(&slices, &[("", &[1.0, 2.0, 3.0])]),
        [Code::DuplicateInstance]
    );
}

#[test]
fn images_at_one_position_over_time_are_a_video() {
    let slices: Vec<Slice> = [(3, "120000.2"), (1, "115959.8"), (2, "120000.0")]
        .map(|(value, time)| slice(5.0, value).with((0x8, 0x32), "TM", time))
        .into();
    let folder = folder(&slices);
    let options = ReadOptions::default();
    let (objects, _) = find_objects(folder.path(), &options).unwrap();
    let [volume] = <[Volume; 1]>::try_from(read_object(&objects[0], &options).unwrap()).unwrap();
    assert_eq!((objects.len(), volume.kind), (1, Kind::Video));
    assert_eq!(values(&volume), [1.0, 2.0, 3.0]);
    for (found, wanted) in volume
        .spacing
        .map(Option::unwrap)
        .iter()
        .zip([0.2, 0.8, 0.7])
    {
        assert!((found - wanted).abs() < 1e-9, "{found}, wanted {wanted}");
    }
    let sampled = ReadOptions {
        n_frames: Some(1),
        ..options
    };
    let volumes = read_object(&objects[0], &sampled).unwrap();
    assert_eq!(volumes[0].shape(), [1, 1, 8, 6]);
    assert!(
        volumes[0]
            .reasons
            .iter()
            .any(|r| r.code == Code::FramesSampled)
    );
}

#[test]
fn a_scan_that_was_broken_off_keeps_its_whole_volumes() {
    let mut slices = Vec::new();
    for (value, (time, z)) in (1..).zip([(1, 0.0), (1, 3.0), (2, 0.0), (2, 3.0), (3, 0.0)]) {
        slices.push(slice(z, value).with((0x20, 0x100), "IS", time));
    }
    let expected: &[(&str, &[f32])] = &[("", &[5.0]), ("t=0", &[1.0, 2.0]), ("t=1", &[3.0, 4.0])];
    assert_eq!(check(&slices, expected), [Code::IncompletePart]);
}

#[test]
fn slices_with_series_of_their_own_are_put_together_only_if_all_else_fits() {
    let anonymised = |numbers: [u16; 4]| -> Vec<Slice> {
        let placed = numbers.into_iter().zip([0.0, 3.0, 6.0, 9.0]);
        placed
            .map(|(number, z)| slice(z, number).with((0x20, 0xE), "UI", format!("1.9.{number}")))
            .collect()
    };
    let whole: &[(&str, &[f32])] = &[("", &[1.0, 2.0, 3.0, 4.0])];
    assert_eq!(
        check(&anonymised([1, 2, 3, 4]), whole),
        [Code::HeaderRepaired]
    );
    let apart: &[(&str, &[f32])] = &[("", &[1.0]), ("", &[2.0]), ("", &[3.0]), ("", &[5.0])];
    assert_eq!(check(&anonymised([1, 2, 3, 5]), apart), []);
}

#[test]
fn slices_without_a_series_are_put_together_within_a_folder_and_not_across() {
    let root = tempfile::tempdir().unwrap();
    for (name, offset) in [("a", 0.0), ("b", 9.0)] {
        std::fs::create_dir(root.path().join(name)).unwrap();
        for (value, z) in (1..).zip([0.0, 3.0, 6.0]) {
            let slice = slice(z + offset, value).with((0x20, 0xE), "UI", "-");
            let file: PathBuf = root.path().join(name).join(value.to_string());
            std::fs::write(file, slice.bytes()).unwrap();
        }
    }
    let (found, codes) = read(root.path());
    assert_eq!(found.len(), 2);
    assert!(
        found.iter().all(|(_, values)| *values == [1.0, 2.0, 3.0]),
        "{found:?}"
    );
    assert_eq!(codes, [Code::HeaderRepaired, Code::HeaderRepaired]);
}

#[test]
fn two_slice_distances_are_two_volumes_and_a_gap_in_the_numbers_a_refusal() {
    let positions = [0.0, 2.5, 5.0, 7.5, 15.0, 22.5, 30.0];
    let of = |skip: u16| -> Vec<Slice> {
        let numbered = (1..).zip(positions);
        numbered
            .map(|(number, z)| {
                let number = if z > 10.0 { number + skip } else { number };
                slice(z, number)
            })
            .collect()
    };
    let expected: &[(&str, &[f32])] = &[
        ("stretch=1", &[1.0, 2.0, 3.0, 4.0]),
        ("stretch=2", &[5.0, 6.0, 7.0]),
    ];
    assert_eq!(
        check(&of(0), expected),
        [Code::DividedSeries, Code::DividedSeries]
    );
    let missing = check(&of(4), &[]);
    assert!(
        missing == [Code::MissingSlices] || missing == [Code::MixedSpacing],
        "{missing:?}"
    );
}

/// A multi-frame of 2 x 2 pixels; each frame holds its number.
fn multi(n_frames: u8, modality: &'static str, elements: Vec<(Tag, Vec<u8>)>) -> Vec<u8> {
    let pixels: Vec<u8> = (1..=n_frames).flat_map(|n| [n; 4]).collect();
    let mut all = elements;
    all.push(((0x8, 0x60), short((0x8, 0x60), "CS", modality.as_bytes())));
    let number = n_frames.to_string();
    all.push(((0x28, 8), short((0x28, 8), "IS", number.as_bytes())));
    all.push(((0x28, 4), short((0x28, 4), "CS", b"MONOCHROME2")));
    for (element, value) in [
        (2, 1),
        (0x10, 2),
        (0x11, 2),
        (0x100, 8),
        (0x101, 8),
        (0x102, 7),
        (0x103, 0),
    ] {
        all.push(((0x28, element), us((0x28, element), value)));
    }
    all.push(((0x7FE0, 0x10), native(&pixels)));
    all.sort_by_key(|(tag, _)| *tag);
    let elements: Vec<Vec<u8>> = all.into_iter().map(|(_, bytes)| bytes).collect();
    dicom_writer::file(dicom_writer::EXPLICIT, UNDEFINED_MR, &elements)
}

fn text(tag: Tag, vr: &str, value: &str) -> (Tag, Vec<u8>) {
    (tag, short(tag, vr, value.as_bytes()))
}

fn sequence(tag: Tag, items: &[Vec<u8>]) -> (Tag, Vec<u8>) {
    let value: Vec<u8> = items.iter().flat_map(|content| item(content)).collect();
    (
        tag,
        long(tag, "SQ", u32::try_from(value.len()).unwrap(), &value),
    )
}

fn words(tag: Tag, vr: &str, values: &[u16]) -> (Tag, Vec<u8>) {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    (tag, short(tag, vr, &bytes))
}

fn placed() -> Vec<(Tag, Vec<u8>)> {
    vec![
        text((0x20, 0x32), "DS", "0\\0\\50"),
        text((0x20, 0x37), "DS", AXIAL),
        text((0x28, 0x30), "DS", "2\\2"),
    ]
}

#[test]
fn a_signed_step_places_the_slices_of_nuclear_medicine_on_either_side_of_the_first() {
    for (step, lowest, order) in [("4", 50.0, [1.0, 2.0, 3.0]), ("-4", 42.0, [3.0, 2.0, 1.0])] {
        let mut elements = placed();
        elements.push(text((0x18, 0x88), "DS", step));
        elements.push(words((0x28, 9), "AT", &[0x54, 0x80]));
        elements.push(words((0x54, 0x80), "US", &[1, 2, 3]));
        let volumes = read_bytes(&multi(3, "NM", elements), &ReadOptions::default()).unwrap();
        let [volume] = <[Volume; 1]>::try_from(volumes).unwrap();
        assert_eq!(values(&volume), order);
        assert_eq!(volume.spacing[0], Some(4.0));
        let affine = volume.affine.unwrap();
        assert!((affine.rows[2][3] - lowest).abs() < 1e-9, "{step}");
        assert_eq!(volume.reasons, []);
    }
}

#[test]
fn gated_slices_are_one_volume_a_time_slot() {
    let mut elements = placed();
    elements.push(text((0x18, 0x88), "DS", "4"));
    elements.push(words((0x28, 9), "AT", &[0x54, 0x70, 0x54, 0x80]));
    elements.push(words((0x54, 0x70), "US", &[1, 1, 2, 2]));
    elements.push(words((0x54, 0x80), "US", &[1, 2, 1, 2]));
    let volumes = read_bytes(&multi(4, "NM", elements), &ReadOptions::default()).unwrap();
    let found: Vec<(Option<&str>, Vec<f32>)> = volumes
        .iter()
        .map(|volume| (volume.part.as_deref(), values(volume)))
        .collect();
    assert_eq!(
        found,
        [(Some("t=0"), vec![1.0, 2.0]), (Some("t=1"), vec![3.0, 4.0])]
    );
}

#[test]
fn views_from_several_angles_and_films_are_not_stacked() {
    let mut views = placed();
    views.push(text((0x18, 0x88), "DS", "4"));
    views.push(words((0x28, 9), "AT", &[0x54, 0x90]));
    views.push(words((0x54, 0x90), "US", &[1, 2, 3]));
    let volumes = read_bytes(&multi(3, "NM", views), &ReadOptions::default()).unwrap();
    assert_eq!(volumes[0].affine, None);
    let mut film = placed();
    film.push(text((0x18, 0x88), "DS", "4"));
    film.push(text((0x18, 0x1063), "DS", "40"));
    film.push(words((0x28, 9), "AT", &[0x18, 0x1063]));
    let volumes = read_bytes(&multi(3, "XA", film), &ReadOptions::default()).unwrap();
    assert_eq!(
        (volumes[0].kind, volumes[0].spacing[0]),
        (Kind::Video, Some(0.04))
    );
}

#[test]
fn a_cone_beam_scan_is_placed_by_its_header() {
    let mut elements = placed();
    elements.push(text((0x18, 0x50), "DS", "2"));
    let volumes = read_bytes(&multi(3, "CT", elements), &ReadOptions::default()).unwrap();
    assert_eq!(volumes[0].spacing, [Some(2.0); 3]);
    assert_eq!(volumes[0].reasons[0].code, Code::HeaderRepaired);
    // Frames of a beating heart, not slices.
    let mut elements = placed();
    elements.push(text((0x18, 0x50), "DS", "2"));
    elements.push(text((0x18, 0x1090), "IS", "3"));
    let volumes = read_bytes(&multi(3, "MR", elements), &ReadOptions::default()).unwrap();
    assert_eq!(
        (volumes[0].kind, volumes[0].spacing[0]),
        (Kind::Video, None)
    );
    // Two detectors, not two slices.
    let mut elements = placed();
    elements.push(text((0x8, 0x8), "CS", "ORIGINAL\\PRIMARY\\STATIC"));
    elements.push(text((0x18, 0x50), "DS", "2"));
    let volumes = read_bytes(&multi(2, "NM", elements), &ReadOptions::default()).unwrap();
    assert_eq!((volumes[0].affine, volumes[0].spacing[0]), (None, None));
    // Tomosynthesis: a distance, and no place.
    let elements = vec![
        text((0x18, 0x88), "DS", "1"),
        text((0x28, 0x30), "DS", "0.1\\0.1"),
    ];
    let volumes = read_bytes(&multi(3, "MG", elements), &ReadOptions::default()).unwrap();
    assert_eq!(volumes[0].spacing, [Some(1.0), Some(0.1), Some(0.1)]);
    assert_eq!(volumes[0].affine, None);
}

/// Functional groups of one frame at `z`, with its dimension indices.
fn groups(z: f64, indices: [u32; 2], more: &[(Tag, Vec<u8>)]) -> Vec<u8> {
    let position = format!("0\\0\\{z}");
    let indices: Vec<u8> = indices.into_iter().flat_map(u32::to_le_bytes).collect();
    let mut all = more.to_vec();
    let content = short((0x20, 0x9157), "UL", &indices);
    all.push(sequence((0x20, 0x9111), &[content]));
    let position = text((0x20, 0x32), "DS", &position).1;
    all.push(sequence((0x20, 0x9113), &[position]));
    all.sort_by_key(|(tag, _)| *tag);
    all.into_iter().flat_map(|(_, bytes)| bytes).collect()
}

/// An enhanced object whose second dimension points to `pointer`.
fn enhanced(pointer: [u16; 2], frames: &[Vec<u8>]) -> Vec<u8> {
    let dimension = |pointer: &[u16]| words((0x20, 0x9165), "AT", pointer).1;
    let orientation = text((0x20, 0x37), "DS", AXIAL).1;
    let spacing = text((0x28, 0x30), "DS", "2\\2").1;
    let shared = [
        sequence((0x20, 0x9116), &[orientation]).1,
        sequence((0x28, 0x9110), &[spacing]).1,
    ];
    let elements = vec![
        sequence(
            (0x20, 0x9222),
            &[dimension(&[0x20, 0x32]), dimension(&pointer)],
        ),
        sequence((0x5200, 0x9229), &[shared.concat()]),
        sequence((0x5200, 0x9230), frames),
    ];
    multi(u8::try_from(frames.len()).unwrap(), "MR", elements)
}

fn parts(bytes: &[u8]) -> Vec<Found> {
    let volumes = read_bytes(bytes, &ReadOptions::default()).unwrap();
    volumes
        .iter()
        .map(|volume| (volume.part.clone().unwrap_or_default(), values(volume)))
        .collect()
}

#[test]
fn an_enhanced_object_is_divided_by_its_own_dimensions() {
    let frame = |z, index| groups(z, [1, index], &[]);
    let frames = [frame(3.0, 2), frame(0.0, 1), frame(0.0, 2), frame(3.0, 1)];
    let found = parts(&enhanced([0x18, 0x9089], &frames));
    let expected = [
        ("direction=1".to_owned(), vec![2.0, 4.0]),
        ("direction=2".to_owned(), vec![3.0, 1.0]),
    ];
    assert_eq!(found, expected);
    // An attribute that no pointer of ours knows divides all the same.
    let found = parts(&enhanced([0x19, 0x1001], &frames));
    assert_eq!(found[0].0, "dimension=1");
}

#[test]
fn the_value_names_a_part_where_a_dimension_only_counts() {
    let frame = |z: f64, index: u32| {
        let b_value = f64::from(index - 1) * 500.0;
        let b_value = short((0x18, 0x9087), "FD", &b_value.to_le_bytes());
        groups(z, [1, index], &[sequence((0x18, 0x9117), &[b_value])])
    };
    let frames = [frame(0.0, 1), frame(0.0, 3), frame(3.0, 1), frame(3.0, 3)];
    let names: Vec<String> = parts(&enhanced([0x18, 0x9087], &frames))
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(names, ["b=0", "b=1000"]);
}

#[test]
fn enhanced_objects_of_one_frame_form_a_series() {
    let folder = tempfile::tempdir().unwrap();
    for (number, z) in (1_u8..).zip([0.0, 3.0, 6.0]) {
        let frames = [groups(z, [1, 1], &[])];
        let mut bytes = enhanced([0x20, 0x9057], &frames);
        // The pixels are those of the first frame: other ones tell the slices apart.
        let n = bytes.len();
        bytes[n - 4..].fill(number);
        let series = short((0x20, 0xE), "UI", b"1.2.3.4");
        let at = bytes
            .windows(4)
            .position(|w| w == [0x20, 0, 0x22, 0x92])
            .unwrap();
        bytes.splice(at..at, series);
        std::fs::write(folder.path().join(number.to_string()), bytes).unwrap();
    }
    assert_eq!(
        read(folder.path()),
        (vec![(String::new(), vec![1.0, 2.0, 3.0])], vec![])
    );
}

#[test]
fn slices_of_a_series_that_do_not_say_where_they_lie_are_told() {
    let lost = |value| slice(0.0, value).with((0x20, 0x37), "DS", "lost");
    let expected: &[(&str, &[f32])] = &[("", &[1.0]), ("", &[2.0])];
    let codes = check(&[lost(1), lost(2)], expected);
    let n_told = codes
        .iter()
        .filter(|code| **code == Code::UnplacedSlice)
        .count();
    assert_eq!(n_told, 2, "{codes:?}");
    // A single one belongs to nothing.
    let codes = check(&[lost(1)], &[("", &[1.0])]);
    assert!(!codes.contains(&Code::UnplacedSlice), "{codes:?}");
}

#[test]
fn a_scanner_that_takes_several_slices_at_a_time_makes_one_volume_or_none() {
    let of = |positions: &[f64], numbers: &[u16]| -> Vec<Slice> {
        let placed = positions.iter().zip(numbers).enumerate();
        placed
            .map(|(place, (&z, &number))| {
                let shot = format!("12000{}", place / 4);
                slice(z, number).with((0x8, 0x32), "TM", shot)
            })
            .collect()
    };
    let thin: Vec<f64> = (0..8).map(|i| f64::from(i) * 2.5).collect();
    let two: Vec<f64> = thin
        .iter()
        .copied()
        .chain((1..5).map(|i| 17.5 + 7.5 * f64::from(i)))
        .collect();
    let numbers: Vec<u16> = (1..13).collect();
    let codes = check(
        &of(&two, &numbers),
        &[
            ("stretch=1", &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]),
            ("stretch=2", &[9.0, 10.0, 11.0, 12.0]),
        ],
    );
    assert_eq!(codes, [Code::DividedSeries; 2]);
    // A slice that is lost where two shots meet.
    let lost: Vec<f64> = thin
        .iter()
        .copied()
        .filter(|&z| (z - 10.0).abs() > 0.1)
        .collect();
    assert_eq!(
        check(&of(&lost, &[1, 2, 3, 4, 6, 7, 8]), &[]),
        [Code::MissingSlices]
    );
    // Several times of the same places, and the last one broken off.
    let mut run = Vec::new();
    for (number, place) in (1..).zip((0..16).map(|i| i % 8).chain([0, 1, 2, 3])) {
        let shot = format!("12{:02}00", (number - 1) / 4);
        run.push(slice(f64::from(place) * 2.0, number).with((0x8, 0x32), "TM", shot));
    }
    assert_eq!(check(&run, &[]), [Code::DuplicatePosition]);
}

#[test]
fn kernels_whose_positions_do_not_coincide_are_not_mixed() {
    let slices: Vec<Slice> = (1..)
        .zip([0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
        .map(|(value, z)| {
            let kernel = if value % 2 == 1 { "B30f" } else { "B70f" };
            slice(z, value).with((0x18, 0x1210), "SH", kernel)
        })
        .collect();
    let expected: &[(&str, &[f32])] = &[
        ("kernel=B30f", &[1.0, 3.0, 5.0]),
        ("kernel=B70f", &[2.0, 4.0, 6.0]),
    ];
    assert_eq!(check(&slices, expected), []);
}

#[test]
fn echoes_of_several_times_survive_a_scan_that_was_broken_off() {
    let mut slices = Vec::new();
    let all = (0..3).flat_map(|t| (1..3).flat_map(move |echo| (0..3).map(move |z| (t, echo, z))));
    for (value, (t, echo, z)) in (1..).zip(all).take(17) {
        let slice = slice(f64::from(z), value);
        slices.push(
            slice
                .with((0x18, 0x86), "IS", echo)
                .with((0x20, 0x100), "IS", t),
        );
    }
    let folder = folder(&slices);
    let (found, codes) = read(folder.path());
    let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
    let expected = [
        "echo=1, t=0",
        "echo=1, t=1",
        "echo=1, t=2",
        "echo=2, t=0",
        "echo=2, t=1",
        "echo=2, t=2",
    ];
    assert_eq!(names, expected);
    assert_eq!(codes, [Code::IncompletePart]);
}

#[test]
fn slices_that_lack_an_identifier_stay_with_their_series() {
    let slices: Vec<Slice> = (1..)
        .zip([0.0, 3.0, 6.0, 9.0])
        .map(|(value, z)| {
            let id = if value % 2 == 0 { "-" } else { "somebody" };
            slice(z, value).with((0x10, 0x20), "LO", id)
        })
        .collect();
    assert_eq!(
        check(&slices, &[("", &[1.0, 2.0, 3.0, 4.0])]),
        [Code::HeaderRepaired]
    );
    // Without a patient, with series of their own, they may be those of several people.
    let anybody: Vec<Slice> = (1..)
        .zip([0.0, 3.0, 6.0])
        .map(|(value, z)| {
            slice(z, value).with((0x10, 0x20), "LO", "-").with(
                (0x20, 0xE),
                "UI",
                format!("1.9.{value}"),
            )
        })
        .collect();
    assert_eq!(
        check(&anybody, &[("", &[1.0]), ("", &[2.0]), ("", &[3.0])]),
        []
    );
}

#[test]
fn stations_beside_each_other_are_volumes_and_no_film() {
    let at = |x: i32, z: f64, value: u16| {
        let place = format!("{x}\\0\\{z}");
        slice(z, value).with((0x20, 0x32), "DS", place).with(
            (0x8, 0x32),
            "TM",
            format!("1200{value:02}"),
        )
    };
    let mut slices: Vec<Slice> = (1..)
        .zip([0.0, 3.0, 6.0])
        .map(|(v, z)| at(-100, z, v))
        .collect();
    slices.extend((11..).zip([0.0, 3.0, 6.0]).map(|(v, z)| at(100, z, v)));
    let expected: &[(&str, &[f32])] = &[
        ("series=1", &[1.0, 2.0, 3.0]),
        ("series=2", &[11.0, 12.0, 13.0]),
    ];
    assert_eq!(check(&slices, expected), []);
    let scouts: Vec<Slice> = (1..)
        .zip([-400, 0, 400])
        .map(|(v, x)| at(x, 0.0, v))
        .collect();
    let apart: &[(&str, &[f32])] = &[("", &[1.0]), ("", &[2.0]), ("", &[3.0])];
    assert_eq!(check(&scouts, apart), []);
}
