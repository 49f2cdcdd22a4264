use std::path::PathBuf;

use super::*;
use crate::limits::Limits;

/// One file of every container and of every codec of TIFF, from `tools/oracles/make_raster.py`.
fn fixtures() -> Vec<(String, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testdata/raster");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(files.len() >= 15, "testdata/raster is not complete");
    let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    files
        .iter()
        .map(|path| (name(path), std::fs::read(path).unwrap()))
        .collect()
}

fn read_default(bytes: &[u8]) -> Result<Vec<Volume>> {
    read(bytes, &ReadOptions::default())
}

fn read_limited(bytes: &[u8], limits: Limits) -> Result<Vec<Volume>> {
    read(
        bytes,
        &ReadOptions {
            limits,
            n_frames: None,
        },
    )
}

#[test]
fn every_fixture_is_read_with_its_shape() {
    for (name, bytes) in fixtures() {
        let volumes = read_default(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        let shape = volumes[0].shape();
        let expected = match name.as_str() {
            "grey16.png" => [1, 1, 13, 17],
            "orientation6.jpg" => [3, 1, 40, 24],
            "film.gif" | "film.png" | "film.webp" => [3, 6, 24, 32],
            "tiles_planar_lzw.tif" => [3, 1, 50, 70],
            "imagej_z.tif" | "imagej_one_z.tif" => [1, 6, 9, 12],
            "grey16.jp2" | "grey8.j2k" => [1, 1, 13, 17],
            "rgb8.jp2" => [3, 1, 13, 17],
            "bits12_be.tif" => [1, 1, 5, 9],
            _ => shape,
        };
        assert_eq!(shape, expected, "{name}");
        assert!(is_raster(&bytes), "{name}");
    }
}

#[test]
fn a_file_cut_at_any_byte_is_an_error_or_complete() {
    for (name, bytes) in fixtures() {
        let whole = read_default(&bytes).unwrap();
        for n in 0..bytes.len() {
            match read_default(&bytes[..n]) {
                Ok(volumes) => assert!(volumes == whole, "{name} cut at {n}"),
                Err(error) => assert!(!error.to_string().is_empty()),
            }
        }
        let half = read_default(&bytes[..bytes.len() / 2]).unwrap_err();
        assert!(
            matches!(half.code(), Code::Truncated | Code::Malformed),
            "{name}: {half}"
        );
    }
}

#[test]
fn damaged_bytes_never_panic_or_pass_the_limits() {
    // A fixed sequence: the fuzz targets look further, this guards what they found.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = |n: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap() % n
    };
    let limits = Limits {
        max_voxels: 1 << 22,
        ratio_free_bytes: 1 << 22,
        ..Limits::default()
    };
    for (name, bytes) in fixtures() {
        for _ in 0..300 {
            let mut damaged = bytes.clone();
            for _ in 0..=random(4) {
                // Headers are where the harm is: half of the damage goes to the first 300 bytes.
                let reach = if random(2) == 0 {
                    damaged.len()
                } else {
                    damaged.len().min(300)
                };
                let at = random(reach);
                damaged[at] = [0, 1, 0x7f, 0xff, u8::try_from(random(256)).unwrap()][random(5)];
            }
            if let Ok(volumes) = read_limited(&damaged, limits.clone()) {
                for volume in volumes {
                    assert!(volume.values().len() <= 1 << 22, "{name}");
                }
            }
        }
    }
}

#[test]
fn declared_sizes_are_charged_before_pixels_are_decoded() {
    for (name, bytes) in fixtures() {
        let n_voxels = read_default(&bytes).unwrap()[0].values().len() as u64;
        let limits = Limits {
            max_voxels: n_voxels - 1,
            ..Limits::default()
        };
        let refused = read_limited(&bytes, limits).unwrap_err();
        assert!(
            matches!(refused, Error::LimitExceeded { .. }),
            "{name}: {refused}"
        );
    }
}

#[test]
fn a_huge_declared_png_costs_nothing() {
    let mut bytes = fixtures()
        .into_iter()
        .find(|(name, _)| name == "grey16.png")
        .unwrap()
        .1;
    bytes[16..24].copy_from_slice(&[0x7f, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff]);
    let crc = crc32(&bytes[12..29]);
    bytes[29..33].copy_from_slice(&crc.to_be_bytes());
    let refused = read_default(&bytes).unwrap_err();
    assert!(matches!(refused, Error::LimitExceeded { .. }), "{refused}");
}

#[test]
fn a_stream_of_thousands_of_scans_is_refused() {
    let mut bytes = fixtures()
        .into_iter()
        .find(|(name, _)| name == "color_s2_p1.jpg")
        .unwrap()
        .1;
    let at = bytes
        .windows(2)
        .position(|pair| pair == [0xff, 0xda])
        .unwrap();
    let scan = bytes[at..at + 12].to_vec();
    let scans: Vec<u8> = scan
        .iter()
        .copied()
        .cycle()
        .take(scan.len() * 2_000)
        .collect();
    bytes.splice(at..at, scans);
    let refused = read_default(&bytes).unwrap_err();
    assert!(
        matches!(refused, Error::LimitExceeded { allowed: 500, .. }),
        "{refused}"
    );
}

#[test]
fn tiff_pages_in_a_loop_are_refused() {
    let mut bytes = tiff_of(&[(256, 4, 1), (257, 4, 1), (258, 3, 8), (262, 3, 1)], b"x");
    let n = bytes.len();
    let first: [u8; 4] = bytes[4..8].try_into().unwrap();
    bytes[n - 4..].copy_from_slice(&first);
    let refused = read_default(&bytes).unwrap_err();
    assert!(refused.to_string().contains("loop"), "{refused}");
}

#[test]
fn tiff_features_without_a_decoder_are_named() {
    for (tag, value, word) in [
        (259, 50_000, "Zstandard"),
        (259, 34_712, "JPEG 2000"),
        (259, 3, "group 3"),
        (262, 8, "photometric interpretation 8"),
        (339, 5, "sample format 5"),
        (258, 24, "24 bits"),
    ] {
        let mut tags = vec![(256, 4, 1), (257, 4, 1), (258, 3, 8), (262, 3, 1)];
        tags.retain(|&(name, ..)| name != tag);
        tags.push((tag, 3, value));
        let refused = read_default(&tiff_of(&tags, b"x")).unwrap_err();
        assert!(matches!(refused, Error::Unsupported { .. }), "{refused}");
        assert!(refused.to_string().contains(word), "{refused}");
    }
}

#[test]
fn a_tile_far_larger_than_its_image_is_charged_in_full() {
    let tags = [
        (256, 4, 1),
        (257, 4, 1),
        (258, 3, 8),
        (259, 3, 8),
        (262, 3, 1),
        (322, 4, 1 << 30),
        (323, 4, 1 << 30),
        (324, 4, 8),
        (325, 4, 1),
    ];
    let refused = read_default(&tiff_of(&tags, b"x")).unwrap_err();
    assert!(matches!(refused, Error::LimitExceeded { .. }), "{refused}");
}

#[test]
fn an_imagej_stack_without_its_pages_is_refused() {
    // Above 4 GiB ImageJ writes one directory and lets the other images follow uncounted.
    let text = b"ImageJ=1.54\nimages=3\nslices=3\n";
    let n_text = u32::try_from(text.len()).unwrap();
    let tags = [
        (256, 4, 1),
        (257, 4, 1),
        (258, 3, 8),
        (262, 3, 1),
        (270, 2, 9),
    ];
    let mut bytes = tiff_of(&tags, &[b"x", &text[..]].concat());
    let entry = bytes
        .windows(4)
        .position(|raw| raw == [0x0e, 1, 2, 0])
        .unwrap();
    bytes[entry + 4..entry + 8].copy_from_slice(&n_text.to_le_bytes());
    let refused = read_default(&bytes).unwrap_err();
    assert!(refused.to_string().contains("ImageJ"), "{refused}");
}

#[test]
fn a_bitmap_needs_more_than_two_letters() {
    assert!(!is_raster(b"BM: body mass index of the patients, by year"));
    assert!(!is_raster(b""));
}

/// A TIFF of one page with the pixels at offset 8; strips are added where no tile is named.
fn tiff_of(tags: &[(u16, u16, u32)], pixels: &[u8]) -> Vec<u8> {
    let n_pixels = u32::try_from(pixels.len()).unwrap();
    let mut tags = tags.to_vec();
    if !tags.iter().any(|&(name, ..)| name == 322) {
        tags.extend([(273, 4, 8), (279, 4, n_pixels)]);
    }
    tags.sort_unstable();
    let mut bytes = b"II*\0".to_vec();
    bytes.extend((8 + n_pixels).to_le_bytes());
    bytes.extend(pixels);
    bytes.extend(u16::try_from(tags.len()).unwrap().to_le_bytes());
    for (name, kind, value) in tags {
        bytes.extend(name.to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        bytes.extend(1_u32.to_le_bytes());
        bytes.extend(value.to_le_bytes());
    }
    bytes.extend(0_u32.to_le_bytes());
    bytes
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 * (crc & 1))
        })
    };
    !bytes.iter().fold(!0, step)
}

/// An `ImageJ` file of one directory: 16-bit pages of 3 x 2 that count up, in strips of one row.
fn one_directory(description: &str, n_stored_pages: u16) -> Vec<u8> {
    let description = format!("ImageJ=1.53\n{description}\0");
    let text_at = 8_u32;
    let n_text = u32::try_from(description.len()).unwrap();
    let offsets_at = text_at + n_text;
    let directory_at = offsets_at + 16;
    let pixels_at = directory_at + 2 + 10 * 12 + 4;
    let mut bytes = b"II\x2a\0".to_vec();
    bytes.extend(directory_at.to_le_bytes());
    bytes.extend(description.as_bytes());
    for number in [pixels_at, pixels_at + 6, 6, 6] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend(10_u16.to_le_bytes());
    for (name, field_type, count, value) in [
        (256_u16, 4_u16, 1_u32, 3_u32),
        (257, 4, 1, 2),
        (258, 3, 1, 16),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (270, 2, n_text, text_at),
        (273, 4, 2, offsets_at),
        (277, 3, 1, 1),
        (278, 4, 1, 1),
        (279, 4, 2, offsets_at + 8),
    ] {
        bytes.extend(name.to_le_bytes());
        bytes.extend(field_type.to_le_bytes());
        bytes.extend(count.to_le_bytes());
        bytes.extend(value.to_le_bytes());
    }
    bytes.extend([0; 4]);
    for value in 0..n_stored_pages * 6 {
        bytes.extend(value.to_le_bytes());
    }
    bytes
}

#[test]
fn pages_without_a_directory_lie_behind_the_first() {
    let stack = one_directory("images=4\nslices=4\nunit=mm\nspacing=2.5", 4);
    let [volume] = <[Volume; 1]>::try_from(read_default(&stack).unwrap()).unwrap();
    assert_eq!(volume.shape(), [1, 4, 2, 3]);
    let wanted: Vec<f32> = (0_u8..24).map(f32::from).collect();
    assert_eq!(volume.values(), wanted);
    assert_eq!(volume.spacing[0], Some(2.5));
    let channels = one_directory("images=4\nchannels=2\nslices=2", 4);
    let volumes = read_default(&channels).unwrap();
    assert_eq!(volumes.len(), 2);
    assert_eq!(volumes[1].plane(0, 0).unwrap()[..1], [6.0]);
    assert_eq!(volumes[1].plane(0, 1).unwrap()[..1], [18.0]);
    let film = one_directory("images=4\nframes=4\nfinterval=0.5", 4);
    assert_eq!(read_default(&film).unwrap()[0].kind, Kind::Video);
}

#[test]
fn pages_without_a_directory_are_bounded_by_the_file() {
    let short = one_directory("images=4\nslices=4", 3);
    assert_eq!(read_default(&short).unwrap_err().code(), Code::Truncated);
    let wrong = one_directory("images=4\nslices=3", 4);
    assert_eq!(read_default(&wrong).unwrap_err().code(), Code::Malformed);
    for n_pages in ["4000000000", "18446744073709551615"] {
        let huge = one_directory(&format!("images={n_pages}\nslices={n_pages}"), 1);
        assert_eq!(read_default(&huge).unwrap_err().code(), Code::LimitExceeded);
    }
}

/// A palette whose length is no multiple of three makes the PNG crate panic.
#[test]
fn a_panic_of_a_decoder_is_a_damaged_file() {
    let chunk = |name: &[u8], body: &[u8]| {
        let mut sum = flate2::Crc::new();
        sum.update(name);
        sum.update(body);
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        [&length[..], name, body, &sum.sum().to_be_bytes()].concat()
    };
    let header = [0, 0, 0, 8, 0, 0, 0, 8, 8, 3, 0, 0, 0];
    let mut rows = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut rows, &[0, 7, 7, 7, 7, 7, 7, 7, 7].repeat(8)).unwrap();
    let rows = rows.finish().unwrap();
    for n_bytes in [1, 2, 22, 23, 766] {
        let file = [
            b"\x89PNG\r\n\x1a\n".to_vec(),
            chunk(b"IHDR", &header),
            chunk(b"PLTE", &vec![9; n_bytes]),
            chunk(b"IDAT", &rows),
            chunk(b"IEND", &[]),
        ];
        let read = read(&file.concat(), &ReadOptions::default());
        assert_eq!(read.unwrap_err().code(), Code::Malformed, "{n_bytes}");
    }
}
