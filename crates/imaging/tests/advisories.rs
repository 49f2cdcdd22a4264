//! Files of the kinds that made other readers of medical images crash, leak or write elsewhere; docs/security.md lists
//! the advisories.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::Write as _;
use std::path::Path;

use m3ret_imaging::archive::{find_objects, read_object};
use m3ret_imaging::{Code, ReadOptions, Volume};

/// An element in explicit VR little endian; a long length where the VR has one.
fn element(group: u16, number: u16, vr: &[u8; 2], value: &[u8]) -> Vec<u8> {
    let tag = [group.to_le_bytes(), number.to_le_bytes()].concat();
    let length = u32::try_from(value.len()).unwrap();
    let length = match vr {
        b"OB" | b"OW" | b"SQ" | b"UN" => [&[0, 0][..], &length.to_le_bytes()].concat(),
        _ => u16::try_from(length).unwrap().to_le_bytes().to_vec(),
    };
    [&tag[..], vr, &length, value].concat()
}

fn us(number: u16, value: u16) -> Vec<u8> {
    element(0x28, number, b"US", &value.to_le_bytes())
}

const EXPLICIT: &str = "1.2.840.10008.1.2.1\0";

/// A file whose data set are these elements.
fn file(syntax: &str, elements: &[Vec<u8>]) -> Vec<u8> {
    let meta = element(2, 0x10, b"UI", syntax.as_bytes());
    [&[0; 128][..], b"DICM", &meta, &elements.concat()].concat()
}

/// The elements of group 28 of an image of 4 x 4 pixels of 8 bits, and its pixels.
fn picture(photometric: &str, rows: Vec<u8>, columns: Vec<u8>, pixels: &[u8]) -> Vec<Vec<u8>> {
    let mut elements = vec![
        us(2, 1),
        element(0x28, 4, b"CS", photometric.as_bytes()),
        rows,
        columns,
        us(0x100, 8),
        us(0x101, 8),
        us(0x102, 7),
        us(0x103, 0),
    ];
    if photometric.starts_with("PALETTE") {
        for table in 0..3 {
            let descriptor = [4_u16, 0, 8].map(u16::to_le_bytes).concat();
            elements.push(element(0x28, 0x1101 + table, b"US", &descriptor));
        }
        for table in 0..3 {
            elements.push(element(0x28, 0x1201 + table, b"OW", &[10, 20, 30, 40]));
        }
    }
    elements.push(element(0x7fe0, 0x10, b"OB", pixels));
    elements
}

/// Reads everything below a folder: the volumes, and the codes of what was refused.
fn read(folder: &Path) -> (Vec<Volume>, Vec<Code>) {
    let options = ReadOptions::default();
    let (objects, skipped) = find_objects(folder, &options).unwrap();
    let mut codes: Vec<Code> = skipped.iter().map(|skipped| skipped.error.code()).collect();
    let mut volumes = Vec::new();
    for object in &objects {
        match read_object(object, &options) {
            Ok(read) => volumes.extend(read),
            Err(error) => codes.push(error.code()),
        }
    }
    (volumes, codes)
}

fn read_one(name: &str, bytes: &[u8]) -> (Vec<Volume>, Vec<Code>) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(name), bytes).unwrap();
    read(folder.path())
}

/// Largest memory of this process so far, in MiB.
#[cfg(target_os = "linux")]
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        / 1024
}

#[cfg(not(target_os = "linux"))]
fn peak_mib() -> u64 {
    0
}

/// CVE-2026-5437 (Orthanc): the meta header ends early, or an element of it claims more than there is.
#[test]
fn a_meta_header_that_ends_early_is_refused() {
    let whole = file(
        EXPLICIT,
        &picture("MONOCHROME2 ", us(0x10, 4), us(0x11, 4), &[7; 16]),
    );
    assert_eq!(read_one("a.dcm", &whole).0.len(), 1);
    for end in 128..whole.len() {
        let (volumes, _) = read_one("a.dcm", &whole[..end]);
        assert!(volumes.is_empty(), "{end}");
    }
    for length in [0xff_u8, 0x7f, 0x40] {
        let mut bytes = whole.clone();
        bytes[128 + 4 + 6..128 + 4 + 8].fill(length);
        assert!(read_one("a.dcm", &bytes).0.is_empty(), "{length}");
    }
}

/// CVE-2026-3650 (GDCM): elements of the meta header with a VR that does not exist, and any length.
#[test]
fn a_vr_that_does_not_exist_takes_no_memory() {
    for vr in [*b"ZZ", *b"\0\0", *b"U8"] {
        for length in [
            &[0xff; 6][..],
            &[0, 0, 0xff, 0xff, 0xff, 0x7f],
            &[0, 0, 0, 0, 0, 0],
        ] {
            let strange = [&[2, 0, 0x12, 0][..], &vr, length].concat();
            let data = picture("MONOCHROME2 ", us(0x10, 4), us(0x11, 4), &[7; 16]);
            let bytes = file(EXPLICIT, &[vec![strange.repeat(500)], data].concat());
            read_one("a.dcm", &bytes);
        }
    }
    assert!(peak_mib() < 300, "{}", peak_mib());
}

/// CVE-2026-5438 (Orthanc): 4 GiB of zeros in a small gzip file.
#[test]
fn a_gzip_bomb_is_refused_by_its_ratio() {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut header = vec![0; 352];
    header[..4].copy_from_slice(&348_i32.to_le_bytes());
    for (place, side) in [3_i16, 1024, 1024, 1024].iter().enumerate() {
        header[40 + 2 * place..42 + 2 * place].copy_from_slice(&side.to_le_bytes());
    }
    header[70..72].copy_from_slice(&4_i16.to_le_bytes());
    header[72..74].copy_from_slice(&16_i16.to_le_bytes());
    header[108..112].copy_from_slice(&352_f32.to_le_bytes());
    header[344..348].copy_from_slice(b"n+1\0");
    encoder.write_all(&header).unwrap();
    for _ in 0..512 {
        encoder.write_all(&[0; 1 << 20]).unwrap();
    }
    let (volumes, codes) = read_one("a.nii.gz", &encoder.finish().unwrap());
    assert!(volumes.is_empty() && codes.len() == 1, "{codes:?}");
    assert!(peak_mib() < 300, "{}", peak_mib());
}

/// CVE-2026-5439 (Orthanc): members of a zip archive that claim any size.
#[test]
fn a_zip_archive_is_not_believed_its_sizes() {
    let member = |size: u32, stored: &[u8]| {
        let n_stored = u32::try_from(stored.len()).unwrap().to_le_bytes();
        let sizes = [&[20, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], &n_stored].concat();
        let fields = [&sizes[..], &size.to_le_bytes(), &[5, 0, 0, 0]].concat();
        let file = [b"PK\x03\x04", &fields[..], b"a.dcm", stored].concat();
        let list = [b"PK\x01\x02\x14\0", &fields[..], &[0; 14], b"a.dcm"].concat();
        let long = |n: usize| u32::try_from(n).unwrap().to_le_bytes();
        let end = [
            b"PK\x05\x06\0\0\0\0\x01\0\x01\0",
            &long(list.len())[..],
            &long(file.len()),
            &[0, 0],
        ];
        [&file[..], &list, &end.concat()].concat()
    };
    for size in [u32::MAX - 1, 1 << 31, 1 << 20, 0] {
        let (volumes, _) = read_one("a.zip", &member(size, &[3, 0]));
        assert!(volumes.is_empty(), "{size}");
    }
    assert!(peak_mib() < 300, "{}", peak_mib());
}

/// CVE-2026-5442 (Orthanc): Rows and Columns of 32 bits, whose product does not fit.
#[test]
fn sides_of_32_bits_are_refused_or_read_as_they_are() {
    let ul = |number, value: u32| element(0x28, number, b"UL", &value.to_le_bytes());
    for [rows, columns] in [
        [0x1_0004, 4],
        [0x8000_0000, 2],
        [u32::MAX, u32::MAX],
        [0x1_0000, 0x1_0000],
    ] {
        let data = picture("MONOCHROME2 ", ul(0x10, rows), ul(0x11, columns), &[7; 16]);
        let (volumes, codes) = read_one("a.dcm", &file(EXPLICIT, &data));
        assert!(
            volumes.is_empty() && codes.len() == 1,
            "{rows} {columns} {codes:?}"
        );
    }
    let data = picture("MONOCHROME2 ", ul(0x10, 4), ul(0x11, 4), &[7; 16]);
    for volume in read_one("a.dcm", &file(EXPLICIT, &data)).0 {
        assert_eq!(volume.shape().iter().product::<usize>(), 16);
    }
    assert!(peak_mib() < 300, "{}", peak_mib());
}

/// CVE-2026-5443 and CVE-2026-5445 (Orthanc), dicom-rs 346: palettes of large images, and pixels beyond the palette.
#[test]
fn a_palette_is_not_left() {
    let data = picture(
        "PALETTE COLOR ",
        us(0x10, u16::MAX),
        us(0x11, u16::MAX),
        &[7; 16],
    );
    let (volumes, codes) = read_one("a.dcm", &file(EXPLICIT, &data));
    assert!(volumes.is_empty() && codes.len() == 1, "{codes:?}");
    let pixels: Vec<u8> = (0..16).map(|i| i * 17).collect();
    let data = picture("PALETTE COLOR ", us(0x10, 4), us(0x11, 4), &pixels);
    let (volumes, codes) = read_one("a.dcm", &file(EXPLICIT, &data));
    // PS3.3 C.7.6.3.1.5: values above the last one that the table has take its last entry.
    assert_eq!((volumes.len(), codes.len()), (1, 0), "{codes:?}");
    let values = volumes[0].values();
    assert!(
        values
            .iter()
            .all(|value| [10.0, 20.0, 30.0, 40.0].contains(value)),
        "{values:?}"
    );
    assert!(peak_mib() < 300, "{}", peak_mib());
}

/// CVE-2026-5441 and CVE-2026-5444 (Orthanc): compressions of one maker, and pictures of other formats, in a frame.
#[test]
fn strange_frames_are_refused() {
    let huge =
        b"P7\nWIDTH 65536\nHEIGHT 65536\nDEPTH 4\nMAXVAL 255\nTUPLTYPE RGB_ALPHA\nENDHDR\n\0"
            .repeat(4);
    for syntax in [
        "1.2.840.10008.1.2.4.50",
        "1.2.840.10008.1.2.4.90",
        "1.2.840.10008.1.2.4.80",
        "1.2.840.10008.1.2.5\0",
    ] {
        let mut data = picture("MONOCHROME2 ", us(0x10, 4), us(0x11, 4), &[]);
        let n_frame = u32::try_from(huge.len()).unwrap().to_le_bytes();
        let frame = [&[0xfe, 0xff, 0, 0xe0][..], &n_frame, &huge].concat();
        let begin = [
            0xe0, 0x7f, 0x10, 0, b'O', b'B', 0, 0, 0xff, 0xff, 0xff, 0xff, 0xfe, 0xff, 0, 0xe0, 0,
            0, 0, 0,
        ];
        let pixels = [&begin[..], &frame, &[0xfe, 0xff, 0xdd, 0xe0, 0, 0, 0, 0]].concat();
        *data.last_mut().unwrap() = pixels;
        let (volumes, codes) = read_one("a.dcm", &file(syntax, &data));
        assert!(volumes.is_empty() && codes.len() == 1, "{syntax} {codes:?}");
    }
    let mut data = picture("MONOCHROME2 ", us(0x10, 4), us(0x11, 4), &[]);
    *data.last_mut().unwrap() = element(0x7a1, 0x10, b"LO", b"ELSCINT1");
    data.push(element(0x7a1, 0x1011, b"CS", b"PMSCT_RLE1"));
    data.push(element(
        0x7a1,
        0x100a,
        b"OW",
        &[0xa5, 0xff, 0xff, 0x5a, 0xff, 0xff],
    ));
    let (volumes, codes) = read_one("a.dcm", &file(EXPLICIT, &data));
    assert!(volumes.is_empty() && codes.len() == 1, "{codes:?}");
    assert!(peak_mib() < 300, "{}", peak_mib());
}

/// CVE-2024-47796 and CVE-2024-52333 (DCMTK): fewer or more pixels than the header promises.
#[test]
fn the_number_of_pixels_must_be_the_promised_one() {
    for n_pixels in [0, 2, 14, 32, 4096] {
        let data = picture("MONOCHROME2 ", us(0x10, 4), us(0x11, 4), &vec![7; n_pixels]);
        let (volumes, codes) = read_one("a.dcm", &file(EXPLICIT, &data));
        assert_eq!(volumes.len() + codes.len(), 1, "{n_pixels} {codes:?}");
        assert!(n_pixels >= 16 || volumes.is_empty(), "{n_pixels}");
    }
}

/// dicom-rs 543 and 828: numbers without a value, delimiters and items outside a sequence, sizes of any height.
#[test]
fn empty_values_and_stray_items_are_refused_or_left_out() {
    let good = || picture("MONOCHROME2 ", us(0x10, 4), us(0x11, 4), &[7; 16]);
    for place in 0..8 {
        let mut data = good();
        let vr: [u8; 2] = data[place][4..6].try_into().unwrap();
        let number = u16::from_le_bytes([data[place][2], data[place][3]]);
        data[place] = element(0x28, number, &vr, &[]);
        let (volumes, codes) = read_one("a.dcm", &file(EXPLICIT, &data));
        assert_eq!(volumes.len() + codes.len(), 1, "{place} {codes:?}");
    }
    let item = vec![0xfe, 0xff, 0, 0xe0, 0, 0, 0, 0];
    let end_of_item = vec![0xfe, 0xff, 0x0d, 0xe0, 0, 0, 0, 0];
    for strays in [
        vec![end_of_item.clone(), item.clone()],
        vec![item; 3],
        vec![end_of_item; 3],
    ] {
        let (volumes, codes) = read_one("a.dcm", &file(EXPLICIT, &[strays, good()].concat()));
        assert!(volumes.len() + codes.len() <= 1, "{codes:?}");
    }
    assert!(peak_mib() < 300, "{}", peak_mib());
}

/// CVE-2026-32711 (pydicom): a DICOMDIR whose records name files outside its folder.
#[test]
fn a_dicomdir_names_no_file_outside_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let media = folder.path().join("media");
    std::fs::create_dir(&media).unwrap();
    let secret = file(
        EXPLICIT,
        &picture("MONOCHROME2 ", us(0x10, 4), us(0x11, 4), &[7; 16]),
    );
    std::fs::write(folder.path().join("SECRET"), &secret).unwrap();
    let absolute = folder
        .path()
        .join("SECRET")
        .to_string_lossy()
        .replace('/', "\\");
    for name in ["..\\SECRET", "X\\..\\..\\SECRET", "../SECRET", &absolute] {
        let mut name = name.as_bytes().to_vec();
        name.resize(name.len().next_multiple_of(2), b' ');
        let record = [
            element(4, 0x1400, b"UL", &[0; 4]),
            element(4, 0x1410, b"US", &[0xff, 0xff]),
            element(4, 0x1420, b"UL", &[0; 4]),
            element(4, 0x1430, b"CS", b"IMAGE "),
            element(4, 0x1500, b"CS", &name),
        ]
        .concat();
        let n_record = u32::try_from(record.len()).unwrap().to_le_bytes();
        let item = [&[0xfe, 0xff, 0, 0xe0][..], &n_record, &record].concat();
        let class = element(2, 2, b"UI", b"1.2.840.10008.1.3.10");
        let meta = [class, element(2, 0x10, b"UI", EXPLICIT.as_bytes())].concat();
        let data = element(4, 0x1220, b"SQ", &item);
        std::fs::write(
            media.join("DICOMDIR"),
            [&[0; 128][..], b"DICM", &meta, &data].concat(),
        )
        .unwrap();
        for root in [media.clone(), media.join("DICOMDIR")] {
            let outcome = find_objects(&root, &ReadOptions::default());
            let n_found = outcome.map_or(0, |(objects, _)| objects.len());
            assert_eq!(n_found, 0, "{}", String::from_utf8_lossy(&name));
        }
    }
}
