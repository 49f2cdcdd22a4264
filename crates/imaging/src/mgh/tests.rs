use std::io::Write as _;

use super::*;
use crate::read::{Format, read_bytes, sniff};

/// A header as a writer fills it, and voxels that count up.
struct Case {
    version: u32,
    sides: [u32; 4],
    data_type: u32,
    ras_is_valid: bool,
    delta: [f32; 3],
    directions: [[f32; 3]; 3],
}

impl Default for Case {
    fn default() -> Self {
        Self {
            version: 1,
            sides: [4, 3, 2, 1],
            data_type: 4,
            ras_is_valid: true,
            delta: [0.5, 0.75, 2.0],
            // FreeSurfer's own order: x to the left, y to inferior, z to anterior.
            directions: [[-1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]],
        }
    }
}

impl Case {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.version.to_be_bytes().to_vec();
        for side in self.sides {
            bytes.extend(side.to_be_bytes());
        }
        bytes.extend(self.data_type.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend([0, u8::from(self.ras_is_valid)]);
        let numbers = [&self.delta]
            .into_iter()
            .chain(&self.directions)
            .chain([&[10.0, 20.0, 30.0]]);
        for number in numbers.flatten() {
            bytes.extend(number.to_be_bytes());
        }
        bytes.resize(HEADER_BYTES, 0);
        let n_voxels: u32 = self.sides.iter().product();
        for value in 0..n_voxels {
            match self.data_type {
                0 => bytes.push(u8::try_from(value % 256).unwrap()),
                4 | 10 => bytes.extend(u16::try_from(value).unwrap().to_be_bytes()),
                3 => bytes.extend((f32::from(u16::try_from(value).unwrap()) / 8.0).to_be_bytes()),
                _ => bytes.extend(value.to_be_bytes()),
            }
        }
        bytes
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn read_all(bytes: &[u8]) -> Result<Vec<Volume>> {
    read_bytes(bytes, &ReadOptions::default())
}

#[test]
fn a_volume_is_turned_to_the_canonical_order_and_keeps_its_place() {
    let bytes = Case::default().bytes();
    assert_eq!(sniff(&bytes), Some(Format::Mgh));
    let [volume] = <[Volume; 1]>::try_from(read_all(&bytes).unwrap()).unwrap();
    // y runs to inferior and becomes D from its end, z runs to anterior and becomes H.
    assert_eq!(volume.shape(), [1, 3, 2, 4]);
    assert_eq!(volume.spacing, [Some(0.75), Some(2.0), Some(0.5)]);
    let affine = volume.affine.unwrap();
    assert_eq!(affine.axis_order(), "SPL");
    // Stored (x, y, z) = (0, 2, 1) lies at RAS centre + axes * (index - side / 2).
    assert_eq!(volume.values()[..1], [12.0 + 8.0]);
    let [_, _, _, origin] = affine.columns();
    assert_eq!(origin.to_vec(), [-11.0, -20.0, 30.0 - 0.75 * 0.5]);
    assert_eq!(read_all(&gzip(&bytes)).unwrap(), [volume]);
}

#[test]
fn every_real_type_is_read_and_the_others_are_refused_by_name() {
    for data_type in [0, 1, 3, 4, 10] {
        let case = Case {
            data_type,
            ras_is_valid: false,
            ..Case::default()
        };
        let volume = read_all(&case.bytes()).unwrap().remove(0);
        let scale = if data_type == 3 { 8.0 } else { 1.0 };
        let wanted: Vec<f32> = (0_u8..24).map(|v| f32::from(v) / scale).collect();
        assert_eq!(volume.values(), wanted, "{data_type}");
    }
    for data_type in [2, 5, 6, 7, 8, 9] {
        let case = Case {
            data_type,
            ..Case::default()
        };
        let refused = read_all(&case.bytes()).unwrap_err();
        assert_eq!(refused.code(), Code::Unsupported, "{data_type}");
    }
}

#[test]
fn frames_of_a_volume_are_parts_and_frames_of_a_plane_a_video() {
    let several = Case {
        sides: [4, 3, 2, 3],
        ..Case::default()
    };
    let volumes = read_all(&several.bytes()).unwrap();
    let parts: Vec<_> = volumes.iter().map(|v| v.part.as_deref().unwrap()).collect();
    assert_eq!(parts, ["t=0", "t=1", "t=2"]);
    let at_origin: Vec<f32> = volumes.iter().map(|v| v.values()[0]).collect();
    assert_eq!(at_origin, [20.0, 44.0, 68.0]);
    let film = Case {
        sides: [4, 3, 1, 5],
        ..Case::default()
    };
    let volume = read_all(&film.bytes()).unwrap().remove(0);
    assert_eq!((volume.kind, volume.shape()), (Kind::Video, [1, 5, 3, 4]));
    assert_eq!(volume.spacing, [None, Some(0.75), Some(0.5)]);
    assert_eq!(volume.affine, None);
}

#[test]
fn a_header_that_calls_its_place_invalid_states_none() {
    let case = Case {
        ras_is_valid: false,
        ..Case::default()
    };
    let volume = read_all(&case.bytes()).unwrap().remove(0);
    assert_eq!((volume.affine, volume.spacing), (None, [None; 3]));
    let codes: Vec<Code> = volume.reasons.iter().map(|r| r.code).collect();
    assert_eq!(codes, [Code::OrientationUnknown, Code::SpacingUnknown]);
    let singular = Case {
        directions: [[1.0, 0.0, 0.0]; 3],
        ..Case::default()
    };
    let nowhere = Case {
        delta: [0.0, f32::NAN, 1.0],
        ..Case::default()
    };
    for broken in [singular, nowhere] {
        let refused = read_all(&broken.bytes()).unwrap_err();
        assert_eq!(refused.code(), Code::BadGeometry);
    }
}

#[test]
fn values_of_vertices_and_displacements_are_no_image() {
    let surface = Case {
        sides: [24, 1, 1, 1],
        ..Case::default()
    };
    for bytes in [surface.bytes(), gzip(&surface.bytes())] {
        assert!(is_surface(&bytes));
        assert_eq!(read_all(&bytes).unwrap_err().code(), Code::NoPixels);
    }
    let warp = Case {
        version: 0x301,
        ..Case::default()
    };
    assert_eq!(
        read_all(&warp.bytes()).unwrap_err().code(),
        Code::Unsupported
    );
    let label = Case {
        version: 0x101,
        ..Case::default()
    };
    let volume = read_all(&label.bytes()).unwrap().remove(0);
    assert!(volume.reasons.iter().any(|r| r.code == Code::LabelMap));
}

#[test]
fn a_file_cut_anywhere_is_refused_and_a_huge_one_costs_nothing() {
    let whole = Case::default().bytes();
    for end in 0..whole.len() {
        assert!(read_all(&whole[..end]).is_err(), "{end}");
    }
    let packed = gzip(&whole);
    for end in 0..packed.len() {
        assert!(read_all(&packed[..end]).is_err(), "{end}");
    }
    let mut huge = whole;
    for at in [4, 8, 12] {
        huge[at..at + 4].copy_from_slice(&0x0fff_ffff_u32.to_be_bytes());
    }
    assert_eq!(read_all(&huge).unwrap_err().code(), Code::LimitExceeded);
}
