use std::io::Write as _;

use super::*;

/// A header of either version, and the voxels behind it.
struct File {
    bytes: Vec<u8>,
}

impl File {
    /// A NIfTI-1 file of i16, 3 x 2 x 2, with unit sform; values 0, 1, 2, ...
    fn one() -> Self {
        let mut file = Self {
            bytes: vec![0; 352],
        };
        file.put(0, &348_i32.to_le_bytes())
            .put(344, b"n+1\0")
            .i16s(40, &[3, 3, 2, 2, 1, 1, 1, 1]);
        file.i16s(70, &[4, 16])
            .f32s(76, &[1.0; 8])
            .f32s(108, &[352.0, 1.0, 0.0]);
        file.put(123, &[2 | 8]).i16s(252, &[0, 1]);
        file.f32s(
            280,
            &[1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0],
        );
        file.bytes.extend((0..12_i16).flat_map(i16::to_le_bytes));
        file
    }

    fn put(&mut self, at: usize, raw: &[u8]) -> &mut Self {
        self.bytes[at..at + raw.len()].copy_from_slice(raw);
        self
    }

    fn i16s(&mut self, at: usize, values: &[i16]) -> &mut Self {
        let raw: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        self.put(at, &raw)
    }

    fn f32s(&mut self, at: usize, values: &[f32]) -> &mut Self {
        let raw: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        self.put(at, &raw)
    }

    fn read(&self) -> Result<Vec<Volume>> {
        read_bytes(&self.bytes)
    }

    fn code(&self) -> Code {
        self.read().expect_err("should be refused").code()
    }

    fn reasons(&self) -> Vec<Code> {
        let volumes = self.read().unwrap();
        volumes[0]
            .reasons
            .iter()
            .map(|reason| reason.code)
            .collect()
    }
}

fn read_bytes(bytes: &[u8]) -> Result<Vec<Volume>> {
    let lonely = |_: &str| {
        Err(Error::io(
            "opening the file",
            std::io::Error::from(ErrorKind::NotFound),
        ))
    };
    read(bytes, &lonely, &ReadOptions::default())
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// The committed files: every version, order, wrapping and kind.
fn fixtures() -> Vec<(String, Vec<u8>)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/nifti");
    let entries = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .filter(|path| {
            path.extension()
                .is_some_and(|end| end == "nii" || end == "gz")
        })
        .map(|path| (path.display().to_string(), std::fs::read(path).unwrap()))
        .collect()
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let files = fixtures();
    assert!(files.len() > 10);
    for (name, bytes) in files {
        assert!(is_nifti(&bytes) && read_bytes(&bytes).is_ok(), "{name}");
        for end in 0..bytes.len() {
            let _ = is_nifti(&bytes[..end]);
            assert!(read_bytes(&bytes[..end]).is_err(), "{name} cut at {end}");
        }
    }
}

#[test]
fn a_header_with_any_byte_changed_never_panics() {
    for (name, bytes) in fixtures() {
        for at in 0..bytes.len().min(560) {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut changed = bytes.clone();
                changed[at] = value;
                let _ = (is_nifti(&changed), read_bytes(&changed), &name);
            }
        }
    }
}

/// Visits the parts of a file within a limit of voxels; returns their first values and parts.
fn visited(bytes: &[u8], max_voxels: u64, n_most: usize) -> Result<Vec<(f32, Option<String>)>> {
    let lonely = |_: &str| Err(Error::io("opening the file", ErrorKind::NotFound.into()));
    let options = ReadOptions {
        limits: Limits {
            max_voxels,
            ..Limits::default()
        },
        ..ReadOptions::default()
    };
    let mut parts = Vec::new();
    visit(bytes, &lonely, &options, &mut |volume| {
        parts.push((volume.values()[0], volume.part));
        if parts.len() < n_most {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    })?;
    Ok(parts)
}

/// 3 x 2 x 1 voxels at 6 times, each value its time.
fn over_time() -> File {
    let mut file = File::one();
    file.i16s(40, &[4, 3, 1, 2, 6, 1, 1, 1]);
    file.bytes.truncate(352);
    let times = (0..6_i16).flat_map(|time| [time; 6]);
    file.bytes.extend(times.flat_map(i16::to_le_bytes));
    file
}

#[test]
fn parts_are_visited_within_the_limit_of_one() {
    let file = over_time();
    for bytes in [file.bytes.clone(), gzip(&file.bytes)] {
        let parts = visited(&bytes, 6, 100).unwrap();
        let names: Vec<_> = parts.iter().filter_map(|(_, part)| part.clone()).collect();
        assert_eq!(names, ["t=0", "t=1", "t=2", "t=3", "t=4", "t=5"]);
        let firsts: Vec<f32> = parts.iter().map(|(first, _)| *first).collect();
        assert_eq!(firsts, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(visited(&bytes, 6, 2).unwrap().len(), 2);
        let refused = visited(&bytes, 5, 100).unwrap_err();
        assert_eq!(refused.code(), Code::LimitExceeded);
    }
}

#[test]
fn parts_that_are_held_together_are_charged_together() {
    let bytes = over_time().bytes;
    let lonely = |_: &str| Err(Error::io("opening the file", ErrorKind::NotFound.into()));
    let mut options = ReadOptions::default();
    options.limits.max_voxels = 35;
    let refused = read(&bytes, &lonely, &options).unwrap_err();
    assert!(refused.to_string().contains("--limit voxels"), "{refused}");
    options.limits.max_voxels = 36;
    assert_eq!(read(&bytes, &lonely, &options).unwrap().len(), 6);
}

#[test]
fn a_file_without_its_last_parts_is_refused_before_the_first() {
    let mut file = over_time();
    file.bytes.pop();
    for bytes in [file.bytes.clone(), gzip(&file.bytes)] {
        assert_eq!(visited(&bytes, 6, 1).unwrap_err().code(), Code::Truncated);
    }
    // More than any stream of this length can hold.
    file.i16s(40, &[4, 300, 300, 300, 1200, 1, 1, 1]);
    let refused = visited(&gzip(&file.bytes), 1 << 29, 1).unwrap_err();
    assert_eq!(refused.code(), Code::Truncated);
}

#[test]
fn sides_and_ranks_outside_the_standard_are_refused() {
    for dim in [
        [0, 3, 2, 2, 1, 1, 1, 1],
        [8, 3, 2, 2, 1, 1, 1, 1],
        [-1, 3, 2, 2, 1, 1, 1, 1],
        [3, 0, 2, 2, 1, 1, 1, 1],
        [3, -3, 2, 2, 1, 1, 1, 1],
        [4, 3, 2, 2, 0, 1, 1, 1],
    ] {
        assert_eq!(
            File::one().i16s(40, &dim).code(),
            Code::Malformed,
            "{dim:?}"
        );
    }
    // Behind the rank anything may stand.
    assert!(
        File::one()
            .i16s(40, &[3, 3, 2, 2, 0, -1, 0, 9])
            .read()
            .is_ok()
    );
    let huge = [
        7,
        i16::MAX,
        i16::MAX,
        i16::MAX,
        i16::MAX,
        i16::MAX,
        i16::MAX,
        i16::MAX,
    ];
    assert_eq!(File::one().i16s(40, &huge).code(), Code::LimitExceeded);
    assert_eq!(
        File::one().i16s(40, &[3, 3, 2, 3, 1, 1, 1, 1]).code(),
        Code::Truncated
    );
}

#[test]
fn voxel_offsets_must_be_whole_and_behind_the_header() {
    for offset in [-1.0, 10.0, 351.0, 352.5, f32::NAN, f32::INFINITY] {
        assert_eq!(
            File::one().f32s(108, &[offset]).code(),
            Code::Malformed,
            "{offset}"
        );
    }
    assert_eq!(File::one().f32s(108, &[1e9]).code(), Code::Truncated);
    assert!(File::one().f32s(108, &[0.0]).read().is_ok());
}

#[test]
fn types_without_a_real_number_are_unsupported_by_name() {
    for (datatype, name) in [
        (1, "binary"),
        (32, "complex64"),
        (1536, "float128"),
        (1792, "complex128"),
        (2048, "complex256"),
    ] {
        let refused = File::one().i16s(70, &[datatype]).read().unwrap_err();
        assert_eq!(refused.code(), Code::Unsupported);
        assert!(refused.to_string().contains(name), "{refused}");
    }
    assert_eq!(File::one().i16s(70, &[3]).code(), Code::Malformed);
}

#[test]
fn vectors_and_cifti_are_unsupported_by_name() {
    let five = [5, 2, 2, 1, 1, 3, 1, 1];
    for intent in [1004, 1005, 1006, 1007, 2003] {
        let mut file = File::one();
        assert_eq!(
            file.i16s(40, &five).i16s(68, &[intent]).code(),
            Code::Unsupported
        );
    }
    assert_eq!(File::one().i16s(68, &[3006]).code(), Code::Unsupported);
    let parts = File::one().i16s(40, &five).read().unwrap();
    let names: Vec<_> = parts
        .iter()
        .filter_map(|volume| volume.part.as_deref())
        .collect();
    assert_eq!(names, ["u=0", "u=1", "u=2"]);
}

#[test]
fn analyze_is_told_and_refused_by_name() {
    let mut file = File::one();
    file.put(344, &[0; 4]);
    assert!(!is_nifti(&file.bytes));
    file.put(32, &16_384_i32.to_le_bytes());
    assert!(is_nifti(&file.bytes));
    let refused = file.read().unwrap_err();
    assert_eq!(refused.code(), Code::Unsupported);
    assert!(refused.to_string().contains("analyze 7.5"), "{refused}");
}

#[test]
fn a_transform_that_is_singular_is_replaced_refused_or_dropped() {
    let zeros = [0.0; 12];
    assert_eq!(File::one().f32s(280, &zeros).code(), Code::BadGeometry);
    assert_eq!(File::one().f32s(280, &[f32::NAN]).code(), Code::BadGeometry);
    // The quaternion of all zeros is the identity.
    let mut file = File::one();
    assert_eq!(
        file.f32s(280, &zeros).i16s(252, &[1, 1]).reasons(),
        [Code::HeaderRepaired]
    );
    assert!(file.read().unwrap()[0].affine.is_some());
    let mut flat = File::one();
    flat.f32s(280, &zeros).i16s(40, &[3, 3, 2, 1, 1, 1, 1, 1]);
    assert!(flat.reasons().contains(&Code::OrientationUnknown));
    assert!(flat.read().unwrap()[0].affine.is_none());
    // A quaternion longer than 1.
    let mut long = File::one();
    assert_eq!(
        long.i16s(252, &[1, 0]).f32s(256, &[1.0, 1.0, 1.0]).code(),
        Code::BadGeometry
    );
    let refused = long.read().unwrap_err().to_string();
    assert!(refused.contains("length 1.732051"), "{refused}");
    // Codes that are not in the standard are not set.
    assert_eq!(
        File::one().i16s(252, &[0, 6]).reasons(),
        [Code::OrientationUnknown]
    );
}

#[test]
fn a_quaternion_above_1_by_rounding_is_a_half_turn() {
    let affine = |quaternion: [f32; 3]| {
        let mut file = File::one();
        file.i16s(252, &[1, 0]).f32s(256, &quaternion);
        file.read().map(|volumes| volumes[0].affine.unwrap().rows)
    };
    let exact = affine([0.0, 1.0, 0.0]).unwrap();
    for above in [1e-6, 4e-5] {
        let rows = affine([0.0, 1.0 + above, 0.0]).unwrap();
        let pairs = rows.iter().flatten().zip(exact.iter().flatten());
        assert!(
            pairs.into_iter().all(|(a, b)| (a - b).abs() < 1e-9),
            "{above}"
        );
    }
    assert!(affine([0.0, 1.0001, 0.0]).is_err());
}

#[test]
fn pixdim_without_a_transform_is_a_size_or_nothing() {
    let spacing = |pixdim: [f32; 3]| {
        let mut file = File::one();
        file.i16s(252, &[0, 0]).f32s(80, &pixdim);
        (file.read().unwrap()[0].spacing, file.reasons())
    };
    let unknown = Code::OrientationUnknown;
    let (found, reasons) = spacing([0.5, -2.0, 3.0]);
    assert_eq!(
        (found, reasons),
        (
            [Some(3.0), Some(2.0), Some(0.5)],
            vec![unknown, Code::HeaderRepaired]
        )
    );
    let (found, reasons) = spacing([0.5, f32::NAN, 0.0]);
    assert_eq!(
        (found, reasons),
        ([None, None, Some(0.5)], vec![unknown, Code::SpacingUnknown])
    );
}

#[test]
fn contradictions_that_do_not_matter_are_noted() {
    assert_eq!(File::one().reasons(), []);
    assert_eq!(File::one().i16s(72, &[8]).reasons(), [Code::HeaderRepaired]);
    assert_eq!(
        File::one().put(0, &[0; 4]).reasons(),
        [Code::HeaderRepaired]
    );
    assert_eq!(
        File::one().f32s(80, &[3.0]).reasons(),
        [Code::HeaderRepaired]
    );
    assert_eq!(File::one().i16s(68, &[1002]).reasons(), [Code::LabelMap]);
    let mut long = File::one();
    long.bytes.extend([0; 12]);
    assert_eq!(long.reasons(), [Code::ExtraFrames]);
    assert_eq!(File::one().f32s(116, &[f32::NAN]).code(), Code::Malformed);
}

#[test]
fn gzip_members_are_joined_and_checksums_checked() {
    let plain = File::one();
    let wanted = plain.read().unwrap();
    for cut in [10, 352, 360] {
        let mut members = gzip(&plain.bytes[..cut]);
        members.extend(gzip(&plain.bytes[cut..]));
        assert!(is_nifti(&members));
        assert_eq!(read_bytes(&members).unwrap(), wanted, "cut at {cut}");
    }
    let mut wrong = gzip(&plain.bytes);
    let at = wrong.len() - 6;
    wrong[at] ^= 1;
    assert_eq!(read_bytes(&wrong).unwrap_err().code(), Code::Malformed);
    let bomb = File {
        bytes: gzip(
            File::one()
                .i16s(40, &[3, 20_000, 20_000, 2, 1, 1, 1, 1])
                .bytes
                .as_slice(),
        ),
    };
    assert_eq!(bomb.code(), Code::LimitExceeded);
}

#[test]
fn a_pair_reads_its_image_by_the_header_s_name() {
    let single = File::one();
    let mut header = File::one();
    header.bytes.truncate(348);
    header.put(344, b"ni1\0").f32s(108, &[0.0]);
    assert!(is_nifti(&header.bytes));
    let voxels = single.bytes[352..].to_vec();
    for (name, content) in [
        ("*.img", voxels.clone()),
        ("*.img.gz", gzip(&voxels)),
        ("*.img", gzip(&[0; 24])),
    ] {
        let siblings = |asked: &str| {
            let missing = std::io::Error::from(ErrorKind::NotFound);
            if asked == name {
                Ok(content.clone())
            } else {
                Err(Error::io("opening", missing))
            }
        };
        let read = read(&header.bytes, &siblings, &ReadOptions::default());
        // 24 zeros shrink to fewer bytes than the voxels need: that cannot be plain voxels.
        let is_blank = content == gzip(&[0; 24]);
        assert_eq!(
            read.unwrap()[0].values().iter().all(|&value| value == 0.0),
            is_blank
        );
    }
    assert_eq!(header.code(), Code::NoPixels);
}
