//! What the values and shapes of DICOM pixels mean: padding, dose, polarity, mosaics, aspect.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::float_cmp, reason = "numbers that binary floats hold exactly")]

use std::collections::BTreeMap;

use m3ret_imaging::{
    Code, InputConfig, Kind, Limits, Padding, ReadOptions, Volume, prepare, read_bytes, read_path,
    thumbnail,
};

type Tag = (u16, u16);

const PHOTOMETRIC: Tag = (0x28, 4);
const ROWS: Tag = (0x28, 0x10);
const COLUMNS: Tag = (0x28, 0x11);
const SPACING: Tag = (0x28, 0x30);
const POSITION: Tag = (0x20, 0x32);
const PADDING: Tag = (0x28, 0x120);
const PADDING_LIMIT: Tag = (0x28, 0x121);
const FRAMES: Tag = (0x28, 8);
const MODALITY: Tag = (8, 0x60);

/// A data set in explicit little endian; elements are written in the order of their tags.
#[derive(Clone)]
struct Image {
    elements: BTreeMap<Tag, (&'static str, Vec<u8>)>,
}

impl Image {
    /// An MR slice of signed 16 bits.
    fn new(rows: u16, columns: u16, stored: &[i16]) -> Self {
        let mut image = Self {
            elements: BTreeMap::new(),
        };
        let pixels: Vec<u8> = stored.iter().flat_map(|v| v.to_le_bytes()).collect();
        image.elements.insert((0x7fe0, 0x10), ("OW", pixels));
        image
            .text(MODALITY, "CS", "MR")
            .text(PHOTOMETRIC, "CS", "MONOCHROME2")
            .text((0x20, 0x37), "DS", "1\\0\\0\\0\\1\\0")
            .text(POSITION, "DS", "0\\0\\0")
            .text(SPACING, "DS", "2\\3")
            .text((0x20, 0x0e), "UI", "1.2.3")
            .u16s((0x28, 2), &[1])
            .u16s(ROWS, &[rows])
            .u16s(COLUMNS, &[columns])
            .u16s((0x28, 0x100), &[16])
            .u16s((0x28, 0x101), &[16])
            .u16s((0x28, 0x102), &[15])
            .u16s((0x28, 0x103), &[1])
    }

    fn put(mut self, tag: Tag, vr: &'static str, mut value: Vec<u8>) -> Self {
        if value.len() % 2 == 1 {
            value.push(if vr == "UI" { 0 } else { b' ' });
        }
        self.elements.insert(tag, (vr, value));
        self
    }

    fn text(self, tag: Tag, vr: &'static str, value: &str) -> Self {
        self.put(tag, vr, value.as_bytes().to_vec())
    }

    fn u16s(self, tag: Tag, values: &[u16]) -> Self {
        self.put(
            tag,
            "US",
            values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        )
    }

    fn i16s(self, tag: Tag, values: &[i16]) -> Self {
        self.put(
            tag,
            "SS",
            values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        )
    }

    fn without(mut self, tags: &[Tag]) -> Self {
        for tag in tags {
            self.elements.remove(tag);
        }
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; 128];
        bytes.extend(b"DICM");
        let syntax = ("UI", b"1.2.840.10008.1.2.1\0".to_vec());
        let meta = [((2, 0x10), syntax)];
        for ((group, element), (vr, value)) in
            meta.iter().map(|(t, v)| (t, v)).chain(&self.elements)
        {
            bytes.extend(group.to_le_bytes());
            bytes.extend(element.to_le_bytes());
            bytes.extend(vr.bytes());
            if matches!(*vr, "OB" | "OW" | "OF" | "UN" | "SQ") {
                bytes.extend([0, 0]);
                bytes.extend(u32::try_from(value.len()).unwrap().to_le_bytes());
            } else {
                bytes.extend(u16::try_from(value.len()).unwrap().to_le_bytes());
            }
            bytes.extend(value);
        }
        bytes
    }

    fn read(&self) -> Volume {
        let volumes = read_bytes(&self.bytes(), &ReadOptions::default()).unwrap();
        let [volume] = <[Volume; 1]>::try_from(volumes).unwrap();
        volume
    }

    fn refusal(&self) -> (Code, String) {
        let error = read_bytes(&self.bytes(), &ReadOptions::default()).unwrap_err();
        (error.code(), error.to_string())
    }
}

fn codes(volume: &Volume) -> Vec<Code> {
    volume.reasons.iter().map(|reason| reason.code).collect()
}

fn padding(n_voxels: usize, value: f32) -> Option<Padding> {
    Some(Padding { n_voxels, value })
}

#[test]
fn padding_is_compared_as_stored_and_becomes_the_least_true_value() {
    let image = Image::new(2, 3, &[-2000, 10, 20, -2000, 30, -5])
        .text((0x28, 0x1052), "DS", "-1024")
        .text((0x28, 0x1053), "DS", "2")
        .i16s(PADDING, &[-2000]);
    let volume = image.read();
    let least = -1034.0;
    assert_eq!(
        volume.values(),
        [least, -1004.0, -984.0, least, -964.0, least]
    );
    assert_eq!(volume.padding, padding(2, least));
    assert_eq!(codes(&volume), [Code::Padding]);
    let plain = image.without(&[PADDING]).read();
    assert_eq!((plain.values()[0], plain.padding), (-5024.0, None));
}

#[test]
fn a_range_of_padding_has_two_ends_in_either_order() {
    let image = Image::new(1, 6, &[-7, -6, -5, -4, -3, 9]);
    for ends in [[-6, -4], [-4, -6]] {
        let image = image.clone().i16s(PADDING, &ends[..1]);
        let volume = image.i16s(PADDING_LIMIT, &ends[1..]).read();
        assert_eq!(volume.values(), [-7.0, -7.0, -7.0, -7.0, -3.0, 9.0]);
        assert_eq!(volume.padding, padding(3, -7.0));
    }
    // A limit alone says nothing.
    assert_eq!(image.i16s(PADDING_LIMIT, &[-4]).read().padding, None);
}

#[test]
fn unsigned_padding_and_unused_bits_are_read_as_stored_values() {
    // 12 bits stored, with an overlay above them.
    let stored = [0x0fff, -0x1000 | 0x0fff, 5, 7];
    let image = Image::new(1, 4, &stored)
        .u16s((0x28, 0x101), &[12])
        .u16s((0x28, 0x102), &[11])
        .u16s((0x28, 0x103), &[0])
        .u16s(PADDING, &[0x0fff]);
    assert_eq!(image.read().values(), [5.0, 5.0, 5.0, 7.0]);
    let signed = image.u16s((0x28, 0x103), &[1]).i16s(PADDING, &[-1]);
    assert_eq!(signed.read().values(), [5.0, 5.0, 5.0, 7.0]);
    let whole = Image::new(1, 3, &[-1, 4, 2]).u16s((0x28, 0x103), &[0]);
    let volume = whole.u16s(PADDING, &[u16::MAX]).read();
    assert_eq!(volume.values(), [2.0, 4.0, 2.0]);
}

#[test]
fn padding_of_a_negative_is_dark_as_well() {
    let image = Image::new(1, 4, &[0, 8, 3, 5]).text(PHOTOMETRIC, "CS", "MONOCHROME1");
    let volume = image.i16s(PADDING, &[0]).read();
    assert!(volume.inverted);
    assert_eq!(volume.values(), [8.0, 8.0, 3.0, 5.0]);
}

#[test]
fn padding_everywhere_is_ignored_and_told() {
    let image = Image::new(1, 3, &[4, 5, 6]).i16s(PADDING, &[0]);
    let volume = image.i16s(PADDING_LIMIT, &[100]).read();
    assert_eq!(
        (volume.values(), volume.padding),
        (&[4.0, 5.0, 6.0][..], None)
    );
    assert_eq!(codes(&volume), [Code::Padding]);
}

#[test]
fn colours_have_no_padding() {
    let image = Image::new(1, 2, &[0, 1, 2])
        .text(PHOTOMETRIC, "CS", "RGB")
        .u16s((0x28, 2), &[3])
        .u16s((0x28, 6), &[0])
        .u16s((0x28, 0x100), &[8])
        .u16s((0x28, 0x101), &[8])
        .u16s((0x28, 0x102), &[7])
        .u16s((0x28, 0x103), &[0])
        .u16s(PADDING, &[0]);
    let volume = image.read();
    assert_eq!(volume.values(), [0.0, 0.0, 0.0, 2.0, 1.0, 0.0]);
    assert_eq!(volume.padding, None);
}

#[test]
fn float_pixels_have_padding_of_their_own() {
    let pixels: Vec<u8> = [-9999.0_f32, 0.5, f32::NAN, 2.5]
        .iter()
        .flat_map(|v| v.to_le_bytes())
        .collect();
    let image = Image::new(1, 4, &[])
        .without(&[(0x7fe0, 0x10)])
        .u16s((0x28, 0x100), &[32])
        .u16s((0x28, 0x101), &[32])
        .u16s((0x28, 0x102), &[31])
        .put((0x7fe0, 8), "OF", pixels);
    let with = |value: f32| {
        image
            .clone()
            .put((0x28, 0x122), "FL", value.to_le_bytes().into())
    };
    let volume = with(-9999.0).read();
    assert_eq!(volume.padding, padding(1, 0.5));
    assert!(volume.values()[2].is_nan());
    let volume = with(f32::NAN).read();
    assert_eq!(volume.values(), [-9999.0, 0.5, -9999.0, 2.5]);
}

#[test]
fn every_frame_shares_the_least_true_value() {
    let image = Image::new(1, 2, &[-9, 5, -9, -9, 3, -9]).text(FRAMES, "IS", "3");
    let volume = image.i16s(PADDING, &[-9]).read();
    assert_eq!(volume.values(), [3.0, 5.0, 3.0, 3.0, 3.0, 3.0]);
    assert_eq!(volume.padding, padding(4, 3.0));
}

#[test]
fn a_series_shares_the_least_true_value_and_tells_once() {
    let folder = tempfile::tempdir().unwrap();
    // The first slice is padding alone, the last one has none.
    for (z, stored) in [[-9, -9], [-9, 7], [4, 6]].iter().enumerate() {
        let image = Image::new(1, 2, stored)
            .text(POSITION, "DS", &format!("0\\0\\{z}"))
            .text((8, 0x18), "UI", &format!("1.2.3.{z}"))
            .i16s(PADDING, &[-9]);
        std::fs::write(folder.path().join(z.to_string()), image.bytes()).unwrap();
    }
    let volumes = read_path(folder.path(), &ReadOptions::default()).unwrap();
    let [volume] = <[Volume; 1]>::try_from(volumes).unwrap();
    assert_eq!(volume.shape(), [1, 3, 1, 2]);
    assert_eq!(volume.values(), [4.0, 4.0, 4.0, 7.0, 4.0, 6.0]);
    assert_eq!(volume.padding, padding(3, 4.0));
    assert_eq!(codes(&volume), [Code::Padding]);
}

#[test]
fn the_input_of_a_model_does_not_depend_on_what_stands_for_padding() {
    let disc = |outside: i16| -> Vec<i16> {
        let inside = |i: i32| {
            let (row, column) = (i / 40 - 20, i % 40 - 20);
            row * row + column * column < 360
        };
        let value = |i: i32| {
            if inside(i) {
                i16::try_from(i % 97).unwrap()
            } else {
                outside
            }
        };
        (0..1600).map(value).collect()
    };
    let input = |outside: i16| {
        let image = Image::new(40, 40, &disc(outside)).i16s(PADDING, &[outside]);
        prepare(&image.read(), &InputConfig::default()).unwrap()
    };
    assert_eq!(input(-2000).values(), input(30_000).values());
}

#[test]
fn dose_is_scaled_to_gray() {
    let dose = Image::new(1, 2, &[1000, 2500])
        .text(MODALITY, "CS", "RTDOSE")
        .text((0x3004, 2), "CS", "GY")
        .text((0x3004, 0x0e), "DS", "2e-3");
    let volume = dose.clone().read();
    assert_eq!(
        (volume.values(), volume.unit),
        (&[2.0, 5.0][..], Some("Gy"))
    );
    let relative = dose.clone().text((0x3004, 2), "CS", "RELATIVE").read();
    assert_eq!((relative.values(), relative.unit), (&[2.0, 5.0][..], None));
    for scaling in ["0", "nan", "-1", "x", ""] {
        let volume = dose.clone().text((0x3004, 0x0e), "DS", scaling).read();
        assert_eq!((volume.values()[0], volume.unit), (1000.0, None));
        // What is no number at all is told as such beside.
        let mut codes = codes(&volume);
        codes.dedup();
        assert_eq!(codes, [Code::HeaderRepaired], "{scaling}");
    }
}

#[test]
fn a_second_polarity_that_contradicts_the_first_is_told() {
    for (photometric, shape, is_told) in [
        ("MONOCHROME2", "INVERSE", true),
        ("MONOCHROME1", "IDENTITY", true),
        ("MONOCHROME2", "IDENTITY", false),
        ("MONOCHROME1", "INVERSE", false),
    ] {
        let image = Image::new(1, 2, &[1, 2]).text(PHOTOMETRIC, "CS", photometric);
        let volume = image.text((0x2050, 0x20), "CS", shape).read();
        assert_eq!(codes(&volume).contains(&Code::BadPolarity), is_told);
        assert_eq!(volume.inverted, photometric == "MONOCHROME1");
        assert_eq!(volume.values(), [1.0, 2.0]);
    }
}

/// Three tiles of 2 x 3 in a picture of 4 x 6, each with its own number.
fn mosaic() -> Image {
    #[rustfmt::skip]
    let stored = [
        1, 1, 1, 2, 2, 2,
        1, 1, 1, 2, 2, 2,
        3, 3, 3, 0, 0, 0,
        3, 3, 3, 0, 0, 0,
    ];
    Image::new(4, 6, &stored)
        .text((8, 8), "CS", "ORIGINAL\\PRIMARY\\M\\ND\\MOSAIC")
        .text((0x18, 0x88), "DS", "4")
        .text((0x19, 0x10), "LO", "SIEMENS MR HEADER")
        .u16s((0x19, 0x100a), &[3])
}

#[test]
fn a_mosaic_is_cut_into_its_volume() {
    let volume = mosaic().read();
    assert_eq!((volume.kind, volume.shape()), (Kind::Volume, [1, 3, 2, 3]));
    assert_eq!(volume.spacing, [Some(4.0), Some(2.0), Some(3.0)]);
    for (slice, value) in [1.0, 2.0, 3.0].into_iter().enumerate() {
        assert_eq!(volume.plane(0, slice), Some(&[value; 6][..]));
    }
    // Half of the 6 and 4 pixels by which the mosaic is larger than a tile, less those of a tile.
    let [_, _, _, origin] = volume.affine.unwrap().columns();
    assert_eq!(origin, [4.5, 2.0, 0.0]);
    assert_eq!(codes(&volume), [Code::HeaderRepaired]);
}

#[test]
fn the_creator_of_private_elements_may_stand_in_another_block() {
    let moved = mosaic()
        .without(&[(0x19, 0x10), (0x19, 0x100a)])
        .text((0x19, 0x23), "LO", "SIEMENS MR HEADER")
        .u16s((0x19, 0x230a), &[3]);
    assert_eq!(moved.read().shape(), [1, 3, 2, 3]);
    let foreign = mosaic().text((0x19, 0x10), "LO", "ANOTHER CREATOR");
    assert_eq!(foreign.refusal().0, Code::Unsupported);
    let anonymised = mosaic().without(&[(0x19, 0x10)]);
    assert_eq!(anonymised.read().shape(), [1, 3, 2, 3]);
}

/// A CSA header of the second version with one value an entry.
fn csa(entries: &[(&str, &[&str])]) -> Vec<u8> {
    let mut bytes = b"SV10\x04\x03\x02\x01".to_vec();
    let push = |bytes: &mut Vec<u8>, numbers: &[usize]| {
        let raw = numbers.iter().map(|&n| u32::try_from(n).unwrap());
        bytes.extend(raw.flat_map(u32::to_le_bytes));
    };
    push(&mut bytes, &[entries.len(), 77]);
    for (name, values) in entries {
        let start = bytes.len();
        bytes.extend(name.bytes());
        bytes.resize(start + 64, 0);
        push(&mut bytes, &[values.len(), 0, 0, values.len(), 77]);
        for value in *values {
            push(&mut bytes, &[value.len(), value.len(), 77, value.len()]);
            bytes.extend(value.bytes());
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
    }
    bytes
}

#[test]
fn the_csa_header_states_tiles_and_the_side_of_the_next_slice() {
    let with = |entries: &[(&str, &[&str])]| {
        mosaic()
            .without(&[(0x19, 0x10), (0x19, 0x100a)])
            .text((0x29, 0x10), "LO", "SIEMENS CSA HEADER")
            .put((0x29, 0x1010), "OB", csa(entries))
    };
    let tiles: (&str, &[&str]) = ("NumberOfImagesInMosaic", &["3"]);
    let volume = with(&[tiles]).read();
    assert_eq!(volume.plane(0, 0), Some(&[1.0; 6][..]));
    // Slices that grow to inferior are turned round.
    let down = with(&[tiles, ("SliceNormalVector", &["0.0", "0.0", "-1.0"])]);
    let volume = down.read();
    assert_eq!(volume.plane(0, 0), Some(&[3.0; 6][..]));
    let [_, _, step, origin] = volume.affine.unwrap().columns();
    assert_eq!((step, origin[2]), ([0.0, 0.0, 4.0], -8.0));
    let across = with(&[tiles, ("SliceNormalVector", &["1", "0", "0"])]);
    assert_eq!(across.refusal().0, Code::BadGeometry);
    let twice = with(&[tiles]).text((0x19, 0x10), "LO", "SIEMENS MR HEADER");
    let (code, message) = twice.u16s((0x19, 0x100a), &[4]).refusal();
    assert_eq!(code, Code::Unsupported);
    assert!(message.contains("4 and 3 tiles"), "{message}");
}

#[test]
fn a_mosaic_that_cannot_be_cut_is_refused_by_name() {
    for image in [
        mosaic().without(&[(0x19, 0x100a)]),
        mosaic().u16s((0x19, 0x100a), &[0]),
        mosaic().u16s((0x19, 0x100a), &[10]),
        mosaic().u16s((0x19, 0x100a), &[u16::MAX]),
    ] {
        let (code, message) = image.refusal();
        assert_eq!(code, Code::Unsupported);
        assert!(message.contains("Siemens mosaic"), "{message}");
    }
    // One tile is a slice.
    let one = mosaic().u16s((0x19, 0x100a), &[1]).read();
    assert_eq!((one.kind, one.shape()), (Kind::Image, [1, 1, 4, 6]));
}

#[test]
fn a_mosaic_without_its_distance_says_what_stands_for_it() {
    let thick = mosaic()
        .without(&[(0x18, 0x88)])
        .text((0x18, 0x50), "DS", "3");
    let volume = thick.read();
    assert_eq!(volume.spacing[0], Some(3.0));
    assert_eq!(codes(&volume), [Code::HeaderRepaired; 2]);
    let volume = thick.without(&[(0x18, 0x50)]).read();
    assert_eq!((volume.affine, volume.spacing[0]), (None, None));
    assert_eq!(volume.shape(), [1, 3, 2, 3]);
    assert_eq!(codes(&volume), [Code::OrientationUnknown]);
}

#[test]
fn mosaics_of_a_series_are_volumes_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    for time in 0..3 {
        let image = mosaic().text((8, 0x18), "UI", &format!("1.2.3.{time}"));
        std::fs::write(folder.path().join(time.to_string()), image.bytes()).unwrap();
    }
    let options = ReadOptions::default();
    let (objects, _) = m3ret_imaging::archive::find_objects(folder.path(), &options).unwrap();
    assert_eq!(objects.len(), 3);
    for object in objects {
        let volumes = m3ret_imaging::archive::read_object(&object, &options).unwrap();
        assert_eq!(volumes[0].shape(), [1, 3, 2, 3]);
    }
}

#[test]
fn a_stated_aspect_makes_pixels_square_where_no_size_is_known() {
    let image = Image::new(6, 3, &[1; 18]).without(&[SPACING, POSITION, (0x20, 0x37)]);
    let image = image.text(MODALITY, "CS", "US");
    let with = |ratio: &str| image.clone().text((0x28, 0x34), "IS", ratio).read();
    let sides = |volume: &Volume| m3ret_imaging::square_sides(volume);
    let volume = with("1\\2");
    assert_eq!((volume.pixel_aspect, sides(&volume)), (0.5, [6.0, 6.0]));
    let drawn = thumbnail(&volume, 64);
    assert_eq!(drawn.width, drawn.height);
    assert_eq!(sides(&with("3\\1")), [18.0, 3.0]);
    for unusable in ["0\\1", "1\\0", "-1\\2", "1", "x\\1", "1\\100000"] {
        let volume = with(unusable);
        assert_eq!(volume.pixel_aspect, 1.0);
        assert!(codes(&volume).contains(&Code::HeaderRepaired), "{unusable}");
    }
    // A size says more.
    let volume = image
        .clone()
        .text(SPACING, "DS", "2\\2")
        .text((0x28, 0x34), "IS", "1\\2")
        .read();
    assert_eq!((volume.pixel_aspect, sides(&volume)), (1.0, [6.0, 3.0]));
}

#[test]
fn padding_and_mosaics_stay_within_the_limits() {
    let limits = Limits {
        max_voxels: 20,
        ..Limits::default()
    };
    let options = ReadOptions {
        limits,
        n_frames: None,
    };
    let refused = read_bytes(&mosaic().i16s(PADDING, &[0]).bytes(), &options);
    assert_eq!(refused.unwrap_err().code(), Code::LimitExceeded);
}
