//! DICOM headers that contradict their bytes: what the bytes tell is read and told, the rest is
//! refused by the attribute's name.

#![allow(clippy::unwrap_used, reason = "used by tests alone")]

use std::path::{Path, PathBuf};

use m3ret_imaging::{Code, ReadOptions, Volume, read_bytes};

#[path = "oracle/dicom_writer.rs"]
mod dicom_writer;

use dicom_writer::*;

fn read(bytes: &[u8]) -> Result<Volume, (Code, String)> {
    let volumes = read_bytes(bytes, &ReadOptions::default());
    let volumes = volumes.map_err(|e| (e.code(), e.to_string()))?;
    let [volume] = <[Volume; 1]>::try_from(volumes).unwrap();
    Ok(volume)
}

fn details(volume: &Volume, code: Code) -> Vec<&str> {
    let told = volume.reasons.iter().filter(|r| r.code == code);
    told.map(|r| r.detail.as_str()).collect()
}

/// Reads `image`, and checks that it has the values of `wanted` and one repair that names `attribute`.
#[track_caller]
fn check_repaired(image: &Image, wanted: &Image, attribute: &str) -> Volume {
    let found = read(&image.bytes()).unwrap();
    let wanted = read(&wanted.bytes()).unwrap();
    assert_eq!(details(&wanted, Code::HeaderRepaired), [""; 0]);
    assert_eq!(found.shape(), wanted.shape());
    assert_eq!(found.values(), wanted.values());
    let repairs = details(&found, Code::HeaderRepaired);
    assert!(
        matches!(repairs.as_slice(), [only] if only.contains(attribute)),
        "{repairs:?}"
    );
    found
}

#[track_caller]
fn check_refused(image: &Image, code: Code, attribute: &str) {
    let (found, message) = read(&image.bytes()).unwrap_err();
    assert_eq!(found, code, "{message}");
    assert!(message.contains(attribute), "{message}");
}

fn committed(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/dicom");
    std::fs::read(folder.join(name)).unwrap()
}

/// Replaces the transfer syntax of a file by one of any length.
fn relabelled(bytes: &[u8], syntax: &str) -> Vec<u8> {
    let mut uid = syntax.as_bytes().to_vec();
    uid.resize(uid.len().next_multiple_of(2), 0);
    let start = [2, 0, 0x10, 0, b'U', b'I'];
    let at = bytes.windows(6).position(|w| w == start).unwrap() + 6;
    let old = usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
    let mut out = bytes[..at].to_vec();
    out.extend(u16::try_from(uid.len()).unwrap().to_le_bytes());
    out.extend(uid);
    out.extend(&bytes[at + 2 + old..]);
    // (0002,0000), the first element of the file meta, counts its bytes.
    let length = u32::from_le_bytes(out[140..144].try_into().unwrap());
    let length = length + u32::try_from(out.len()).unwrap() - u32::try_from(bytes.len()).unwrap();
    out[140..144].copy_from_slice(&length.to_le_bytes());
    out
}

/// Half of the bits a colour needs: two luminances, then their differences.
fn halved(whole: &[u8]) -> Vec<u8> {
    let pairs = whole.chunks_exact(6);
    pairs.flat_map(|p| [p[0], p[3], p[1], p[2]]).collect()
}

#[test]
fn whole_samples_under_a_label_of_halved_differences_are_read_whole() {
    for (n_frames, n) in [(None, 1), (Some("4"), 4), (Some("3"), 3), (Some("2"), 2)] {
        for is_planar in [false, true] {
            let whole = Image {
                n_frames,
                is_planar,
                ..Image::colour("YBR_FULL", native(&noise(8 * 6 * 3 * n)))
            };
            let labelled = Image {
                photometric: "YBR_FULL_422",
                ..whole.clone()
            };
            let found = check_repaired(&labelled, &whole, "PhotometricInterpretation");
            assert_eq!(found.shape()[1], n);
            assert_eq!(details(&found, Code::ExtraFrames), [""; 0]);
            let bytes = labelled.bytes();
            for n_cut in 1..8 * 6 * 3 * n {
                let (code, _) = read(&bytes[..bytes.len() - n_cut]).unwrap_err();
                assert_eq!(code, Code::Truncated, "{n_cut} bytes cut");
            }
        }
    }
}

#[test]
fn halved_differences_under_either_label_are_read_halved() {
    let whole = noise(8 * 6 * 3 * 3);
    let label = |photometric| Image {
        n_frames: Some("3"),
        ..Image::colour(photometric, native(&halved(&whole)))
    };
    let sound = read(&label("YBR_FULL_422").bytes()).unwrap();
    assert_eq!(details(&sound, Code::HeaderRepaired), [""; 0]);
    check_repaired(
        &label("YBR_FULL"),
        &label("YBR_FULL_422"),
        "PhotometricInterpretation",
    );
    check_refused(&label("RGB"), Code::Truncated, "PixelData");
}

#[test]
fn frames_are_extra_only_if_one_packing_makes_them() {
    let label = |n_bytes| Image::colour("YBR_FULL_422", native(&noise(n_bytes)));
    let two_halved = read(&label(8 * 6 * 4).bytes()).unwrap();
    assert_eq!(details(&two_halved, Code::ExtraFrames).len(), 1);
    assert_eq!(details(&two_halved, Code::HeaderRepaired), [""; 0]);
    let three_whole = read(&label(8 * 6 * 9).bytes()).unwrap();
    assert_eq!(details(&three_whole, Code::ExtraFrames).len(), 1);
    assert_eq!(details(&three_whole, Code::HeaderRepaired).len(), 1);
    // Three frames of 2 bytes a pixel, or two of 3; and neither.
    for n_bytes in [8 * 6 * 6, 8 * 6 * 3 + 20] {
        check_refused(&label(n_bytes), Code::Malformed, "YBR_FULL_422");
    }
    let longer = Image::grey([8, 8, 7], native(&noise(8 * 6 + 20)));
    let longer = read(&longer.bytes()).unwrap();
    assert_eq!(details(&longer, Code::ExtraFrames), [""; 0]);
    assert!(details(&longer, Code::HeaderRepaired)[0].contains("PixelData"));
}

#[test]
fn rle_holds_whole_planes_whatever_the_labels_say() {
    let planes = noise(8 * 6 * 3);
    let planes: Vec<&[u8]> = planes.chunks_exact(8 * 6).collect();
    let whole = Image {
        syntax: RLE,
        ..Image::colour("YBR_FULL", encapsulated(&[&rle_frame(&planes)]))
    };
    let halved = Image {
        photometric: "YBR_FULL_422",
        ..whole.clone()
    };
    check_repaired(&halved, &whole, "PhotometricInterpretation");
    let wide = Image {
        bits: [16, 8, 7],
        ..whole.clone()
    };
    check_repaired(&wide, &whole, "BitsAllocated");
    let wider = Image {
        bits: [16, 12, 11],
        ..whole
    };
    check_refused(&wider, Code::Malformed, "BitsAllocated");
}

#[test]
fn a_codestream_picks_its_codec_under_every_transfer_syntax() {
    let files = [
        ("jpeg_dct_8_3_420.dcm", "4.50"),
        ("jpeg_dct_12_1_None.dcm", "4.50"),
        ("jpeg_lossless_12_s_1_1.dcm", "4.50"),
        ("jpegls_12_s_0.dcm", "4.80"),
        ("jpegls_rgb_8_0.dcm", "4.80"),
        ("j2k_12_s_1_jp2.dcm", "4.90"),
        ("fragments_3_table.dcm", "4.90"),
        ("htj2k_16_s_1.dcm", "4.90"),
        ("jxl_16_1_False.dcm", "4.110"),
        ("rle_12_s_1.dcm", "5"),
    ];
    let labels = [
        "1", "1.99", "1.98", "8.1", "4.50", "4.80", "4.90", "4.110", "5", "4.100", "4.107",
    ];
    for (name, own) in files {
        let bytes = committed(name);
        let wanted = read(&bytes).unwrap();
        for label in labels.into_iter().filter(|label| *label != own) {
            let found = relabelled(&bytes, &format!("1.2.840.10008.1.2.{label}"));
            let found = read(&found).unwrap_or_else(|e| panic!("{name} as {label}: {e:?}"));
            assert_eq!(found.values(), wanted.values(), "{name} as {label}");
            let repairs = details(&found, Code::HeaderRepaired);
            assert!(repairs[0].contains("TransferSyntaxUID"), "{repairs:?}");
            let is_lossy = |v| details(v, Code::LossyCompression).len();
            assert!(is_lossy(&found) >= is_lossy(&wanted), "{name} as {label}");
        }
    }
}

#[test]
fn native_pixels_are_read_under_every_compressed_transfer_syntax() {
    let native = Image::grey([16, 12, 11], native(&noise(8 * 6 * 2)));
    for label in [
        "1.98", "8.1", "4.50", "4.70", "4.80", "4.90", "4.110", "5", "4.102",
    ] {
        let syntax: &'static str = format!("1.2.840.10008.1.2.{label}").leak();
        let labelled = Image {
            syntax,
            ..native.clone()
        };
        check_repaired(&labelled, &native, "TransferSyntaxUID");
    }
}

#[test]
fn pixels_that_start_as_a_codestream_does_stay_native_if_they_are_as_long() {
    let starts: [&[u8]; 4] = [
        &[0xFF, 0xD8, 0xFF, 0xC0],
        &[0xFF, 0x4F, 0xFF, 0x51],
        &[0xFF, 0x0A, 0xFF, 0x0A],
        &[0xFE, 0xFF, 0x00, 0xE0, 0x58, 0, 0, 0],
    ];
    for start in starts {
        let mut pixels = noise(8 * 6 * 2);
        pixels[..start.len()].copy_from_slice(start);
        let found = read(&Image::grey([16, 16, 15], native(&pixels)).bytes()).unwrap();
        assert_eq!(details(&found, Code::HeaderRepaired), [""; 0]);
        let first = u16::from_le_bytes([start[0], start[1]]);
        assert_eq!(found.values()[..1], [f32::from(first)]);
    }
}

#[test]
fn a_codestream_without_table_or_items_is_read() {
    let frame = rle_frame(&[&noise(8 * 6)]);
    let sound = Image {
        syntax: RLE,
        ..Image::grey([8, 8, 7], encapsulated(&[&frame]))
    };
    let wanted = read(&sound.bytes()).unwrap();
    let without_table = [item(&frame), sequence_end()].concat();
    let without_table = long((0x7FE0, 0x10), "OB", UNDEFINED, &without_table);
    for pixels in [without_table, native(&frame)] {
        for syntax in [RLE, EXPLICIT] {
            let found = Image {
                syntax,
                pixels: pixels.clone(),
                ..sound.clone()
            };
            assert_eq!(read(&found.bytes()).unwrap().values(), wanted.values());
        }
    }
    let items_of_defined_length = [item(&[]), item(&frame)].concat();
    for syntax in [RLE, EXPLICIT] {
        let found = Image {
            syntax,
            pixels: native(&items_of_defined_length),
            ..sound.clone()
        };
        assert_eq!(read(&found.bytes()).unwrap().values(), wanted.values());
    }
}

#[test]
fn encapsulated_pixels_of_no_known_codec_are_refused_under_a_native_transfer_syntax() {
    let image = Image::grey([8, 8, 7], encapsulated(&[&noise(90)]));
    check_refused(&image, Code::Malformed, "TransferSyntaxUID");
    let frame = noise(8 * 6);
    let pixels = encapsulated(&[&frame]);
    check_repaired(
        &Image::grey([8, 8, 7], pixels),
        &Image::grey([8, 8, 7], native(&frame)),
        "TransferSyntaxUID",
    );
}

#[test]
fn an_odd_length_rounded_down_loses_its_last_byte_alone() {
    let odd = |n_frames, pixels: &[u8]| Image {
        n_rows: 5,
        n_columns: 5,
        n_frames,
        ..Image::colour("RGB", native(pixels))
    };
    for (n_frames, n) in [(None, 1), (Some("3"), 3)] {
        let mut pixels = noise(5 * 5 * 3 * n);
        *pixels.last_mut().unwrap() = 0;
        let whole = odd(n_frames, &pixels);
        let rounded = odd(n_frames, &pixels[..pixels.len() - 1]);
        check_repaired(&rounded, &whole, "PixelData");
        let shorter = odd(n_frames, &pixels[..pixels.len() - 3]);
        check_refused(&shorter, Code::Truncated, "PixelData");
        // A file that ends too early is cut, and its last byte may be any.
        let bytes = whole.bytes();
        let (code, _) = read(&bytes[..bytes.len() - 1]).unwrap_err();
        assert_eq!(code, Code::Truncated);
    }
    let even = Image::grey([8, 8, 7], native(&noise(8 * 6 - 1)));
    check_refused(&even, Code::Truncated, "PixelData");
}

#[test]
fn bits_allocated_follow_the_bytes_only_if_the_stored_bits_agree() {
    let pixels = noise(8 * 6);
    let narrow = Image::grey([8, 8, 7], native(&pixels));
    let words: Vec<u8> = pixels.iter().flat_map(|&low| [low, low & 0x0F]).collect();
    let wide = Image::grey([16, 12, 11], native(&words));
    let labelled = |image: &Image, bits| Image {
        bits,
        ..image.clone()
    };
    check_repaired(&labelled(&narrow, [16, 8, 7]), &narrow, "BitsAllocated");
    check_repaired(&labelled(&wide, [8, 12, 11]), &wide, "BitsAllocated");
    check_repaired(&labelled(&wide, [12, 12, 11]), &wide, "BitsAllocated");
    check_refused(
        &labelled(&narrow, [16, 12, 11]),
        Code::Truncated,
        "PixelData",
    );
    check_refused(
        &labelled(&wide, [8, 8, 7]),
        Code::Malformed,
        "BitsAllocated 8",
    );
    check_refused(
        &labelled(&narrow, [8, 12, 11]),
        Code::Malformed,
        "BitsStored 12",
    );
    // Two pages are alike in all their bytes.
    let pages = Image::grey([8, 8, 7], native(&noise(8 * 6 * 2)));
    let pages = read(&pages.bytes()).unwrap();
    assert_eq!(details(&pages, Code::ExtraFrames).len(), 1);
}

#[test]
fn a_transfer_syntax_that_contradicts_the_elements_is_told() {
    let sound = Image::grey([16, 12, 11], native(&noise(8 * 6 * 2)));
    for syntax in [IMPLICIT, "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"] {
        let labelled = Image {
            syntax,
            ..sound.clone()
        };
        check_repaired(&labelled, &sound, "TransferSyntaxUID");
    }
}

/// An ultrasound region of 0.3 mm by 0.2 mm, its elements written by `element`.
fn region(element: impl Fn(Tag, &str, &[u8]) -> Vec<u8>) -> Vec<u8> {
    [
        element((0x18, 0x6024), "US", &3_u16.to_le_bytes()),
        element((0x18, 0x6026), "US", &3_u16.to_le_bytes()),
        element((0x18, 0x602C), "FD", &0.02_f64.to_le_bytes()),
        element((0x18, 0x602E), "FD", &0.03_f64.to_le_bytes()),
    ]
    .concat()
}

#[test]
fn un_sequences_are_read_with_implicit_and_with_explicit_items() {
    let implicit_region = region(|tag, _, value| implicit(tag, value));
    let explicit_region = region(short);
    for (content, n_repairs) in [(implicit_region, 0), (explicit_region, 1)] {
        for content in [item(&content), open_item(&content)] {
            let defined = long(
                (0x18, 0x6011),
                "UN",
                u32::try_from(content.len()).unwrap(),
                &content,
            );
            let content = [content, sequence_end()].concat();
            let undefined = long((0x18, 0x6011), "UN", UNDEFINED, &content);
            for sequence in [defined, undefined] {
                let image = Image {
                    before: vec![sequence],
                    modality: "US",
                    ..Image::grey([8, 8, 7], native(&noise(8 * 6)))
                };
                let found = read(&image.bytes()).unwrap();
                let spacing = found
                    .spacing
                    .map(|mm| mm.map(|mm| (mm * 1e6).round() / 1e6));
                assert_eq!(spacing, [None, Some(0.3), Some(0.2)]);
                assert_eq!(details(&found, Code::HeaderRepaired).len(), n_repairs);
            }
        }
    }
}

#[test]
fn un_sequences_are_passed_at_any_depth_and_wherever_they_lie() {
    let mut nested = short((0x29, 0x1001), "LO", b"x");
    for depth in 0..20 {
        let vr = if depth % 3 == 0 { "SQ" } else { "UN" };
        // Empty items say nothing about how the others are written.
        let content = [open_item(&[]), open_item(&nested), sequence_end()].concat();
        nested = long((0x29, 0x1000), vr, UNDEFINED, &content);
    }
    let sound = Image::grey([8, 8, 7], native(&noise(8 * 6)));
    let wanted = read(&sound.bytes()).unwrap();
    let image = Image {
        behind: vec![nested],
        ..sound
    };
    assert_eq!(read(&image.bytes()).unwrap().values(), wanted.values());
}

#[test]
fn many_un_sequences_that_mislead_cost_little() {
    let misleading = open_item(&[&open_item(&[]), &short((9, 1), "ZZ", b"ab")[..]].concat());
    let sequence = long(
        (9, 0x1000),
        "UN",
        UNDEFINED,
        &[open_item(&[]), misleading, sequence_end()].concat(),
    );
    let image = Image {
        before: vec![sequence; 60_000],
        ..Image::grey([8, 8, 7], native(&noise(8 * 6)))
    };
    let start = std::time::Instant::now();
    let _ = read(&image.bytes());
    assert!(start.elapsed() < std::time::Duration::from_secs(5));
}

/// An element with `vr` bytes that are no representation.
fn unstated(tag: Tag, vr: [u8; 2], value: &[u8]) -> Vec<u8> {
    let mut out = short(tag, "LO", value);
    out[4..6].copy_from_slice(&vr);
    out
}

#[test]
fn a_blank_representation_is_read_by_the_length_that_fits_or_named() {
    let sound = Image::grey([8, 8, 7], native(&noise(8 * 6)));
    for vr in [*b"  ", [0, 0], [0, b' ']] {
        let blanks = [
            unstated((0x10, 0x20), vr, b"A1"),
            unstated((0x10, 0x20), vr, b""),
            unstated((0x10, 0x21), vr, &[b'x'; 300]),
            long(
                (0x11, 0x1001),
                std::str::from_utf8(&vr).unwrap(),
                4,
                b"abcd",
            ),
        ];
        for (number, blank) in blanks.into_iter().enumerate() {
            let image = Image {
                before: vec![blank],
                ..sound.clone()
            };
            // Without a value, a blank representation and no representation are the same bytes.
            if vr == [0, 0] && number == 1 {
                assert!(read(&image.bytes()).is_ok());
                continue;
            }
            check_repaired(&image, &sound, "(001");
        }
        let mut beyond = unstated((0x10, 0x20), vr, b"A1");
        beyond[6..8].copy_from_slice(&5_u16.to_le_bytes());
        let image = Image {
            before: vec![beyond],
            ..sound.clone()
        };
        check_refused(&image, Code::Malformed, "PatientID (0010,0020)");
    }
}

#[test]
fn a_length_beyond_the_file_is_malformed_where_the_pixels_follow() {
    let sound = Image::grey([8, 8, 7], native(&noise(8 * 6)));
    let with = |element: Vec<u8>| Image {
        before: vec![element],
        ..sound.clone()
    };
    let mut comment = short((0x10, 0x4000), "LT", b"none");
    comment[6..8].copy_from_slice(&60_000_u16.to_le_bytes());
    check_refused(&with(comment), Code::Malformed, "PatientComments");
    let private = long((0x11, 0x1001), "OB", 0x7FFF_FFFF, b"abcd");
    check_refused(&with(private), Code::Malformed, "(0011,1001)");
    let disordered = long((0x7, 0x1001), "OB", 0x7FFF_FFFF, b"abcd");
    check_refused(&with(disordered), Code::Malformed, "(0007,1001)");
    let no_vr = short((0x11, 0x1001), "ZZ", b"abcd");
    let mut no_vr = [no_vr, short((0x11, 0x1002), "LO", b"abcd")].concat();
    no_vr[6..8].copy_from_slice(&9999_u16.to_le_bytes());
    check_refused(&with(no_vr), Code::Malformed, "(0011,1001)");
    // An element that leaves its item breaks the item, wherever the file ends.
    let leaves = long((0x18, 0x6024), "OB", 100, b"ab");
    let content = item(&leaves);
    let length = u32::try_from(content.len()).unwrap();
    let regions = Image {
        modality: "US",
        ..with(long((0x18, 0x6011), "SQ", length, &content))
    };
    assert!(
        read(&regions.bytes()).is_ok(),
        "a sequence that is not needed"
    );
}

fn ct() -> Image {
    Image {
        class: CT,
        modality: "CT",
        before: vec![
            short((0x10, 0x10), "PN", b"A^B"),
            long((0x11, 0x1001), "OB", 10, b"0123456789"),
            long(
                (0x18, 0x26),
                "SQ",
                UNDEFINED,
                &[open_item(&short((0x18, 0x34), "LO", b"x")), sequence_end()].concat(),
            ),
            short((0x20, 0x32), "DS", b"0\\0\\1"),
            short((0x20, 0x37), "DS", b"1\\0\\0\\0\\1\\0"),
        ],
        behind: vec![short((0x28, 0x1052), "DS", b"-1024")],
        ..Image::grey([16, 12, 11], native(&noise(8 * 6 * 2)))
    }
}

#[test]
fn an_image_cut_at_any_byte_of_its_header_is_truncated() {
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join("cut");
    for is_implicit in [false, true] {
        let mut bytes = ct().bytes();
        if is_implicit {
            // What a transfer syntax promises beyond the cut does not matter here.
            bytes = relabelled(&bytes, IMPLICIT);
        }
        for length in 133..bytes.len() {
            let cut = &bytes[..length];
            let (code, message) = read(cut).unwrap_err();
            assert_eq!(code, Code::Truncated, "at {length}: {message}");
            std::fs::write(&path, cut).unwrap();
            let found =
                m3ret_imaging::archive::find_objects(folder.path(), &ReadOptions::default());
            let (objects, skipped) = found.unwrap();
            let n_refused = skipped
                .iter()
                .filter(|file| file.error.code() == Code::Truncated)
                .count();
            assert_eq!(objects.len() + n_refused, 1, "at {length}: {skipped:?}");
        }
    }
}

#[test]
fn an_image_class_without_pixels_is_no_report() {
    let header = |class: &'static str, drop: &[Tag]| {
        let image = Image { class, ..ct() };
        let is_kept = |element: &&Vec<u8>| {
            let tag = (
                u16::from_le_bytes([element[0], element[1]]),
                u16::from_le_bytes([element[2], element[3]]),
            );
            tag.0 != 0x7FE0 && !drop.contains(&tag)
        };
        let elements: Vec<Vec<u8>> = image.elements().iter().filter(is_kept).cloned().collect();
        read(&file(EXPLICIT, class, &elements)).unwrap_err()
    };
    let module: &[Tag] = &[(0x28, 0x10), (0x28, 0x11), (0x28, 0x100)];
    let (mr, report, spectra, private) = (
        "1.2.840.10008.5.1.4.1.1.4",
        "1.2.840.10008.5.1.4.1.1.88.11",
        "1.2.840.10008.5.1.4.1.1.4.2",
        "1.3.12.2.1107.5.9.1",
    );
    assert_eq!(header(CT, &[]).0, Code::Truncated);
    assert_eq!(header(mr, module).0, Code::Truncated);
    assert!(header(mr, module).1.contains("PixelData"));
    assert_eq!(header(report, module).0, Code::NoPixels);
    assert_eq!(header(private, module).0, Code::NoPixels);
    assert_eq!(header(private, &[]).0, Code::Truncated);
    assert_eq!(header(spectra, &[]).0, Code::NoPixels);
}

#[test]
fn commas_in_numbers_are_read_and_told_once() {
    let image = |position: &[u8], spacing: &[u8]| {
        let image = Image {
            before: vec![
                short((0x20, 0x32), "DS", position),
                short((0x20, 0x37), "DS", b"1\\0\\0\\0\\1\\0"),
            ],
            behind: Vec::new(),
            ..ct()
        };
        let mut elements = image.elements();
        let bits = elements.iter().position(|e| e[..4] == [0x28, 0, 0, 1]);
        elements.insert(bits.unwrap(), short((0x28, 0x30), "DS", spacing));
        read(&file(EXPLICIT, CT, &elements)).unwrap()
    };
    let cases: [(&[u8], &[u8], &str); 5] = [
        (b"0\\0\\1", b"0,8\\0,7", "PixelSpacing"),
        (b"0,5\\0\\1", b"0,8\\0,7", "ImagePositionPatient"),
        (b"0\\0\\1", b"0.8,0.7", "PixelSpacing"),
        (b"0\\0\\1", b"0.8 / 0.7", "PixelSpacing"),
        (b"0\\0\\1", b"0.8;0.7", "PixelSpacing"),
    ];
    for (position, spacing, attribute) in cases {
        let volume = image(position, spacing);
        assert_eq!(volume.spacing, [None, Some(0.8), Some(0.7)]);
        assert!(volume.affine.is_some());
        let repairs = details(&volume, Code::HeaderRepaired);
        assert!(
            matches!(repairs.as_slice(), [only] if only.contains(attribute)),
            "{repairs:?}"
        );
    }
    for spacing in [&b"0,8,0,7"[..], b"1,5", b"0.8\\x"] {
        let volume = image(b"0\\0\\1", spacing);
        assert_eq!(volume.spacing, [None; 3]);
        assert!(details(&volume, Code::HeaderRepaired)[0].contains("PixelSpacing"));
    }
}

/// Two rows of four pixels: JPEG 2000 as Pillow writes it, with its colour transform and without.
#[rustfmt::skip]
const J2K_HEAD: [u8; 51] = [
    0xFF, 0x4F, 0xFF, 0x51, 0, 0x2F, 0, 0, 0, 0, 0, 4, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0,
    2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 7, 1, 1, 7, 1, 1, 7, 1, 1,
];
#[rustfmt::skip]
const J2K_TRANSFORMED: [u8; 75] = [
    0xFF, 0x52, 0, 0x0C, 0, 0, 0, 1, 1, 0, 4, 4, 0, 1, 0xFF, 0x5C, 0, 4, 0x40, 0x40, 0xFF, 0x90, 0, 0x0A, 0, 0,
    0, 0, 0, 0x35, 0, 1, 0xFF, 0x93, 0xC7, 0xD4, 0x12, 0x0E, 0x18, 0xEC, 0xB8, 0xC8, 0xE0, 3, 2, 0xB7, 0xDF,
    0x80, 0x50, 3, 0x94, 0x2D, 0x30, 0x4E, 0x22, 0xF2, 0x22, 0x40, 0xD3, 0xDF, 0x80, 0x58, 0x0C, 0x1D, 0x8E,
    0x50, 0xF1, 0xFC, 0x6E, 0xC0, 0xB3, 0xF5, 0x47, 0xFF, 0xD9,
];
#[rustfmt::skip]
const J2K_PLAIN: [u8; 74] = [
    0xFF, 0x52, 0, 0x0C, 0, 0, 0, 1, 0, 0, 4, 4, 0, 1, 0xFF, 0x5C, 0, 4, 0x40, 0x40, 0xFF, 0x90, 0, 0x0A, 0, 0,
    0, 0, 0, 0x34, 0, 1, 0xFF, 0x93, 0xCF, 0xB4, 0x28, 0x0B, 0xF6, 0x92, 0xB6, 0x8A, 0x7D, 0x91, 6, 0xBB, 0x20,
    0xCF, 0xB4, 0x24, 6, 0x63, 0xBC, 0x0B, 0xC0, 0x63, 0x4D, 0x1C, 0x45, 0xCF, 0xB4, 0x28, 4, 8, 0x13, 0xEA,
    0x1F, 0xE3, 0xFD, 0x45, 0xCD, 0x6F, 0xFF, 0xD9,
];

#[test]
fn a_codestream_that_transforms_its_colours_is_rgb_whatever_the_label_says() {
    let labelled = |photometric, frame: &[u8]| Image {
        syntax: "1.2.840.10008.1.2.4.90",
        n_rows: 2,
        n_columns: 4,
        ..Image::colour(photometric, encapsulated(&[frame]))
    };
    let transformed = [&J2K_HEAD[..], &J2K_TRANSFORMED].concat();
    let plain = [&J2K_HEAD[..], &J2K_PLAIN].concat();
    let rgb = labelled("RGB", &transformed);
    let native = Image {
        n_rows: 2,
        n_columns: 4,
        ..Image::colour("RGB", native(&noise(2 * 4 * 3)))
    };
    let wanted = read(&native.bytes()).unwrap();
    for label in [
        &rgb,
        &labelled("YBR_RCT", &transformed),
        &labelled("RGB", &plain),
    ] {
        assert_eq!(read(&label.bytes()).unwrap().values(), wanted.values());
    }
    for photometric in ["YBR_FULL", "YBR_FULL_422"] {
        let label = labelled(photometric, &transformed);
        check_repaired(&label, &rgb, "PhotometricInterpretation");
        let differences = read(&labelled(photometric, &plain).bytes()).unwrap();
        assert_ne!(differences.values(), wanted.values());
    }
}

#[test]
fn a_broken_codestream_names_the_sides_that_differ() {
    let frame = rle_frame(&[&noise(8 * 6)]);
    let image = Image {
        syntax: RLE,
        n_frames: Some("2"),
        ..Image::grey([8, 8, 7], encapsulated(&[&frame]))
    };
    check_refused(&image, Code::Truncated, "2 frames");
    let jpeg = committed("jpeg_lossless_12_s_1_1.dcm");
    // Rows (0028,0010) become 38 of 37.
    let rows = [0x28, 0, 0x10, 0, b'U', b'S', 2, 0, 37];
    let at = jpeg.windows(9).position(|w| w == rows).unwrap() + 8;
    let mut other = jpeg;
    other[at] = 38;
    let (code, message) = read(&other).unwrap_err();
    assert_eq!(code, Code::Malformed);
    assert!(message.contains("Rows 38"), "{message}");
}

#[test]
fn contradicting_files_changed_in_any_byte_are_read_or_refused() {
    let planes = noise(8 * 6 * 3);
    let planes: Vec<&[u8]> = planes.chunks_exact(8 * 6).collect();
    let rle = encapsulated(&[&rle_frame(&planes)]);
    let content = [item(&region(short)), sequence_end()].concat();
    let unknown = long((0x18, 0x6011), "UN", UNDEFINED, &content);
    let images = [
        Image::colour("YBR_FULL_422", native(&noise(8 * 6 * 3))),
        Image::colour("YBR_FULL_422", rle),
        Image {
            before: vec![unknown, unstated((0x20, 0x20), *b"  ", b"A1")],
            behind: vec![short((0x28, 0x1052), "DS", b"1,5")],
            ..Image::grey([8, 12, 11], native(&noise(8 * 6 * 2)))
        },
    ];
    for image in images {
        let sound = image.bytes();
        for at in 132..sound.len() {
            for change in [0x01, 0x80, 0xFF] {
                let mut bytes = sound.clone();
                bytes[at] ^= change;
                let _ = read_bytes(&bytes, &ReadOptions::default());
            }
            let _ = read_bytes(&sound[..at], &ReadOptions::default());
        }
    }
}
