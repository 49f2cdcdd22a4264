//! What lies in real folders beside images: compressed files, links, litter, archives.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::Write as _;
#[cfg(unix)]
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use m3ret_imaging::archive::{find_objects, read_image, read_object, read_series_bytes};
use m3ret_imaging::{Code, Format, ReadOptions, read_path, write_npy};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../testdata")
        .join(name)
}

/// Copies a committed series, each file through `change`, under names with `extension` added.
fn copy_series(target: &Path, extension: &str, change: impl Fn(Vec<u8>) -> Vec<u8>) {
    std::fs::create_dir_all(target).unwrap();
    for entry in std::fs::read_dir(testdata("dicom/series_axial")).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{}{extension}", entry.file_name().to_string_lossy());
        let bytes = change(std::fs::read(entry.path()).unwrap());
        std::fs::write(target.join(name), bytes).unwrap();
    }
}

/// Format and number of files of each object, and name and code of what was skipped.
type Listing = (Vec<(Format, usize)>, Vec<(String, Code)>);

fn found(root: &Path) -> Listing {
    let (objects, skipped) = find_objects(root, &ReadOptions::default()).unwrap();
    let objects = objects.iter().map(|o| (o.format, o.files.len())).collect();
    let name = |path: &Path| {
        path.strip_prefix(root)
            .unwrap()
            .to_string_lossy()
            .into_owned()
    };
    let skipped = skipped
        .iter()
        .map(|s| (name(&s.path), s.error.code()))
        .collect();
    (objects, skipped)
}

#[test]
fn a_series_of_bytes_is_the_series() {
    let options = ReadOptions::default();
    let files = std::fs::read_dir(testdata("dicom/series_axial")).unwrap();
    let files = files.map(|entry| std::fs::read(entry.unwrap().path()).unwrap());
    let mut files: Vec<Vec<u8>> = files.collect();
    let read = |files: &[Vec<u8>]| {
        let files: Vec<&[u8]> = files.iter().map(Vec::as_slice).collect();
        read_series_bytes(&files, &options)
    };
    let plain = read_path(&testdata("dicom/series_axial"), &options).unwrap();
    assert_eq!(read(&files).unwrap(), plain);
    files.reverse();
    let reversed = read(&files).unwrap();
    assert_eq!(reversed[0].values(), plain[0].values());
    assert_eq!(read(&files[..1]).unwrap().len(), 1);
    assert!(read(&[]).is_err(), "no object");
    let found = read(&[files[0].clone(), b"no image".to_vec()]).unwrap_err();
    assert!(
        found.to_string().contains("another format in file 1"),
        "{found}"
    );
    let sagittal = std::fs::read_dir(testdata("dicom/series_sagittal")).unwrap();
    files.extend(sagittal.map(|entry| std::fs::read(entry.unwrap().path()).unwrap()));
    assert!(read(&files).is_err(), "two series");
}

#[test]
fn a_series_of_compressed_files_is_the_series() {
    let folder = tempfile::tempdir().unwrap();
    copy_series(folder.path(), ".gz", |bytes| gzip(&bytes));
    let options = ReadOptions::default();
    let plain = read_path(&testdata("dicom/series_axial"), &options).unwrap();
    assert_eq!(read_path(folder.path(), &options).unwrap(), plain);
    let one = std::fs::read_dir(folder.path()).unwrap().next().unwrap();
    assert_eq!(read_path(&one.unwrap().path(), &options).unwrap().len(), 1);
}

#[test]
fn a_compressed_slice_cut_anywhere_is_refused() {
    let series = std::fs::read_dir(testdata("dicom/series_axial")).unwrap();
    let file = series.map(|entry| entry.unwrap().path()).min().unwrap();
    let whole = gzip(&std::fs::read(file).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.dcm.gz");
    for end in (0..whole.len()).step_by(37) {
        std::fs::write(&path, &whole[..end]).unwrap();
        assert!(read_path(&path, &ReadOptions::default()).is_err(), "{end}");
        let _ = find_objects(folder.path(), &ReadOptions::default());
    }
}

#[test]
fn pictures_and_arrays_are_read_through_gzip() {
    let folder = tempfile::tempdir().unwrap();
    let options = ReadOptions::default();
    for name in [
        "raster/grey16.png",
        "raster/grey16.jp2",
        "nifti/u1_1le.nii",
        "mgh/i2.mgh",
    ] {
        let bytes = std::fs::read(testdata(name)).unwrap();
        let path = folder.path().join("x.gz");
        std::fs::write(&path, gzip(&bytes)).unwrap();
        let plain = read_path(&testdata(name), &options).unwrap();
        assert_eq!(read_path(&path, &options).unwrap(), plain, "{name}");
        // As an array, too.
        let mut npy = Vec::new();
        write_npy(&mut npy, &plain[0]).unwrap();
        std::fs::write(&path, gzip(&npy)).unwrap();
        assert_eq!(
            read_path(&path, &options).unwrap()[0].values(),
            plain[0].values()
        );
    }
}

#[test]
fn everything_in_a_folder_is_an_object_or_skipped_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    copy_series(&folder.path().join("series"), ".dcm", |bytes| bytes);
    let mut tar = vec![0; 1024];
    tar[257..262].copy_from_slice(b"ustar");
    for (name, bytes) in [
        (
            "series/._0001.dcm",
            b"\0\x05\x16\x07\0\x02\0\0Mac OS X        ".to_vec(),
        ),
        ("a.tar", tar.clone()),
        ("b.tar.gz", gzip(&tar)),
        ("c.pdf", b"%PDF-1.7\n".to_vec()),
        ("d.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic".to_vec()),
        (
            "e.dcm",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n".to_vec(),
        ),
    ] {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    std::fs::copy(testdata("mgh/i2.mgh"), folder.path().join("f.mgz")).unwrap();
    let (objects, skipped) = found(folder.path());
    assert_eq!(objects, [(Format::Mgh, 1), (Format::Dicom, 8)]);
    let wanted = [
        ("a.tar", Code::Unsupported),
        ("b.tar.gz", Code::Unsupported),
        ("c.pdf", Code::UnknownFormat),
        ("d.heic", Code::Unsupported),
        ("e.dcm", Code::Io),
        ("series/._0001.dcm", Code::NoPixels),
    ];
    assert_eq!(skipped, wanted.map(|(name, code)| (name.to_owned(), code)));
}

#[test]
fn a_surface_of_freesurfer_is_no_image_and_no_loss() {
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = std::fs::read(testdata("mgh/i2.mgh")).unwrap();
    bytes[4..16].copy_from_slice(&[0, 0, 0, 60, 0, 0, 0, 1, 0, 0, 0, 1]);
    std::fs::write(folder.path().join("lh.thickness.mgh"), &bytes).unwrap();
    std::fs::write(folder.path().join("lh.area.mgz"), gzip(&bytes)).unwrap();
    let (objects, skipped) = found(folder.path());
    assert_eq!(objects, []);
    assert!(
        skipped.iter().all(|(_, code)| *code == Code::NoPixels),
        "{skipped:?}"
    );
}

/// A data set of a class with a few elements of a header, and no pixels.
fn without_pixels(class: &str, has_rows: bool) -> Vec<u8> {
    let mut bytes = vec![0; 128];
    bytes.extend(b"DICM");
    let mut element = |group: u16, element: u16, vr: &[u8], value: &[u8]| {
        bytes.extend(group.to_le_bytes());
        bytes.extend(element.to_le_bytes());
        bytes.extend(vr);
        bytes.extend(u16::try_from(value.len()).unwrap().to_le_bytes());
        bytes.extend(value);
    };
    let padded = |text: &str| [text.as_bytes(), &b"\0"[..text.len() % 2]].concat();
    element(2, 0x10, b"UI", b"1.2.840.10008.1.2.1\0");
    element(
        8,
        0x16,
        b"UI",
        &padded(&format!("1.2.840.10008.5.1.4.1.1.{class}")),
    );
    element(8, 0x60, b"CS", b"OT");
    if has_rows {
        element(0x28, 0x10, b"US", &[4, 0]);
    }
    bytes
}

#[test]
fn the_header_of_an_image_without_its_pixels_is_a_loss_and_a_report_is_none() {
    for (class, has_rows, code) in [
        ("2", false, Code::Truncated),
        ("12.1", false, Code::Truncated),
        ("88.11", false, Code::NoPixels),
        ("104.1", false, Code::NoPixels),
        ("4.2", true, Code::NoPixels),
        ("481.2", false, Code::NoPixels),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        std::fs::write(&path, without_pixels(class, has_rows)).unwrap();
        assert_eq!(found(folder.path()).1, [("x".to_owned(), code)], "{class}");
        let alone = read_path(&path, &ReadOptions::default()).unwrap_err();
        assert_eq!(alone.code(), code, "{class}");
    }
}

/// Writes a header of `format` that names `data`, and returns what reading it gives.
fn read_detached(folder: &Path, format: &str, data: &str) -> Result<Vec<f32>, Code> {
    let header = match format {
        "mhd" => format!(
            "ObjectType = Image\nNDims = 2\nDimSize = 2 2\nElementType = MET_UCHAR\n\
             ElementDataFile = {data}\n"
        ),
        _ => format!(
            "NRRD0004\ntype: uint8\ndimension: 2\nsizes: 2 2\nencoding: raw\ndata file: {data}\n"
        ),
    };
    let path = folder.join(format!("head.{format}"));
    std::fs::write(&path, header).unwrap();
    let volume = read_image(&path, None, &ReadOptions::default());
    volume.map(|v| v.values().to_vec()).map_err(|error| {
        let text = error.to_string();
        assert!(!text.contains("secret"), "{text}");
        error.code()
    })
}

#[test]
fn voxels_may_lie_below_the_header_and_nowhere_else() {
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("in");
    std::fs::create_dir_all(folder.join("raw/deep")).unwrap();
    for name in ["raw/x.raw", "raw/deep/y.raw", "z.raw", "../secret.raw"] {
        std::fs::write(folder.join(name), [1, 2, 3, 4]).unwrap();
    }
    #[cfg(unix)]
    symlink(outer.path(), folder.join("link")).unwrap();
    let absolute = outer.path().join("in/z.raw").to_string_lossy().into_owned();
    for format in ["mhd", "nhdr"] {
        for name in [
            "raw/x.raw",
            "./raw/x.raw",
            "raw/deep/y.raw",
            "raw\\x.raw",
            "z.raw",
        ] {
            let values = read_detached(&folder, format, name);
            assert_eq!(values, Ok(vec![1.0, 2.0, 3.0, 4.0]), "{format} {name}");
        }
        for name in [
            "../secret.raw",
            "raw/../../secret.raw",
            "raw/../z.raw",
            "link/secret.raw",
            "..\\secret.raw",
            "C:\\secret.raw",
            absolute.as_str(),
        ] {
            let refused = read_detached(&folder, format, name);
            assert_eq!(refused, Err(Code::Malformed), "{format} {name}");
        }
        let missing = read_detached(&folder, format, "raw/missing.raw");
        assert_eq!(missing, Err(Code::Io), "{format}");
    }
}

#[test]
fn voxels_that_a_header_names_are_no_files_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("raw")).unwrap();
    let header = "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 2 2 2\nencoding: raw\n\
                  data file: LIST\nraw/0.raw\nraw/1.raw\n";
    std::fs::write(folder.path().join("a.nhdr"), header).unwrap();
    for name in ["raw/0.raw", "raw/1.raw", "raw/2.raw"] {
        std::fs::write(folder.path().join(name), [200, 0, 7, 255]).unwrap();
    }
    let (objects, skipped) = found(folder.path());
    assert_eq!(objects, [(Format::Nrrd, 1)]);
    assert_eq!(skipped, [("raw/2.raw".to_owned(), Code::UnknownFormat)]);
}

#[cfg(unix)]
#[test]
fn a_series_behind_a_link_is_read_and_one_behind_two_is_read_once() {
    let outer = tempfile::tempdir().unwrap();
    copy_series(&outer.path().join("store/s1"), ".dcm", |bytes| bytes);
    let study = outer.path().join("study");
    std::fs::create_dir(&study).unwrap();
    symlink("../store/s1", study.join("first")).unwrap();
    symlink("../store", study.join("second")).unwrap();
    symlink("gone.dcm", study.join("dead.dcm")).unwrap();
    let (objects, skipped) = found(&study);
    assert_eq!(objects, [(Format::Dicom, 8)]);
    assert_eq!(skipped, [("dead.dcm".to_owned(), Code::Io)]);
    let (objects, _) = find_objects(&study, &ReadOptions::default()).unwrap();
    assert_eq!(objects[0].path, study.join("first"));
    let volumes = read_object(&objects[0], &ReadOptions::default()).unwrap();
    assert_eq!(volumes[0].shape()[1], 8);
}

/// Writes a zip archive of deflated members.
fn zip(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let (mut file, mut list) = (Vec::new(), Vec::new());
    for (name, bytes) in members {
        let level = flate2::Compression::default();
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), level);
        encoder.write_all(bytes).unwrap();
        let stored = encoder.finish().unwrap();
        let mut checksum = flate2::Crc::new();
        checksum.update(bytes);
        let long = |n: usize| u32::try_from(n).unwrap().to_le_bytes();
        let fields = [
            &[20, 0, 0, 0, 8, 0, 0, 0, 0, 0][..],
            &checksum.sum().to_le_bytes(),
            &long(stored.len()),
            &long(bytes.len()),
            &u16::try_from(name.len()).unwrap().to_le_bytes(),
            &[0, 0],
        ]
        .concat();
        list.extend(
            [
                b"PK\x01\x02\x14\0",
                &fields[..],
                &[0; 10],
                &long(file.len()),
            ]
            .concat(),
        );
        list.extend(name.as_bytes());
        file.extend([b"PK\x03\x04", &fields[..], name.as_bytes(), &stored].concat());
    }
    let n = u16::try_from(members.len()).unwrap().to_le_bytes();
    let at = u32::try_from(file.len()).unwrap().to_le_bytes();
    let n_list = u32::try_from(list.len()).unwrap().to_le_bytes();
    file.extend(list);
    file.extend([b"PK\x05\x06\0\0\0\0", &n[..], &n, &n_list, &at, &[0, 0]].concat());
    file
}

fn series_members(folder: &str) -> Vec<(String, Vec<u8>)> {
    std::fs::read_dir(testdata("dicom/series_axial"))
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let name = format!("{folder}/{}", entry.file_name().to_string_lossy());
            (name, std::fs::read(entry.path()).unwrap())
        })
        .collect()
}

/// Writes an archive into a folder of its own.
fn zipped(members: &[(String, Vec<u8>)]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("study.zip");
    let members: Vec<(&str, Vec<u8>)> = members
        .iter()
        .map(|(name, bytes)| (name.as_str(), bytes.clone()))
        .collect();
    std::fs::write(&path, zip(&members)).unwrap();
    (folder, path)
}

#[test]
fn a_series_in_a_zip_archive_is_the_series() {
    let options = ReadOptions::default();
    let plain = read_path(&testdata("dicom/series_axial"), &options).unwrap();
    let (folder, path) = zipped(&series_members("DICOM/ST1"));
    assert_eq!(read_path(&path, &options).unwrap(), plain);
    assert_eq!(read_path(folder.path(), &options).unwrap(), plain);
    assert_eq!(read_image(&path, None, &options).unwrap(), plain[0]);
    let compressed: Vec<_> = series_members("x")
        .into_iter()
        .map(|(name, bytes)| (name + ".gz", gzip(&bytes)))
        .collect();
    let (_folder, path) = zipped(&compressed);
    assert_eq!(read_path(&path, &options).unwrap(), plain);
}

#[test]
fn the_objects_of_a_zip_archive_are_parts_of_it() {
    let mut members = series_members("a");
    let file = |name: &str| std::fs::read(testdata(name)).unwrap();
    members.push(("pictures/one.png".into(), file("raster/grey16.png")));
    members.push(("brain.mgz".into(), file("mgh/frames.mgz")));
    members.push(("pair/x.hdr".into(), file("nifti/i2_pair1.hdr")));
    members.push(("pair/x.img".into(), file("nifti/i2_pair1.img")));
    members.push(("README".into(), b"read me".to_vec()));
    members.push((
        "../evil.tar.gz".into(),
        gzip(&{
            let mut tar = vec![0; 600];
            tar[257..262].copy_from_slice(b"ustar");
            tar
        }),
    ));
    members.push((
        "inner.zip".into(),
        zip(&[("a.png", file("raster/grey16.png"))]),
    ));
    members.push((
        "__MACOSX/._one.png".into(),
        b"\0\x05\x16\x07\0\x02\0\0".to_vec(),
    ));
    let (folder, path) = zipped(&members);
    let options = ReadOptions::default();
    let (objects, skipped) = find_objects(folder.path(), &options).unwrap();
    let mut names = Vec::new();
    for object in &objects {
        assert_eq!((&object.path, &object.files), (&path, &vec![path.clone()]));
        for volume in read_object(object, &options).unwrap() {
            let name = object.name_of(&volume).unwrap();
            assert_eq!(read_image(&path, Some(&name), &options).unwrap(), volume);
            names.push(name);
        }
    }
    let frames = ["brain.mgz, t=0", "brain.mgz, t=1", "brain.mgz, t=2"];
    assert_eq!(names[..3], frames);
    assert_eq!(names[3..], ["pair/x.hdr", "pictures/one.png", "series=1"]);
    assert!(read_image(&path, None, &options).is_err());
    let skipped: Vec<_> = skipped
        .iter()
        .map(|s| {
            (
                s.path.strip_prefix(&path).unwrap().to_str().unwrap(),
                s.error.code(),
            )
        })
        .collect();
    let wanted = [
        ("README", Code::UnknownFormat),
        ("__MACOSX/._one.png", Code::NoPixels),
        ("evil.tar.gz", Code::Unsupported),
        ("inner.zip", Code::Unsupported),
    ];
    assert_eq!(skipped, wanted);
}

#[test]
fn detached_voxels_are_found_in_the_archive_and_not_outside() {
    let header = |name: &str| {
        format!(
            "NRRD0004\ntype: uint8\ndimension: 2\nsizes: 2 2\nencoding: raw\ndata file: {name}\n"
        )
    };
    let options = ReadOptions::default();
    for (name, is_read) in [
        ("raw/x.raw", true),
        ("../x.raw", false),
        ("/etc/hostname", false),
    ] {
        let members = [
            ("in/head.nhdr".to_owned(), header(name).into_bytes()),
            ("in/raw/x.raw".to_owned(), vec![1, 2, 3, 250]),
            ("x.raw".to_owned(), vec![1, 2, 3, 250]),
        ];
        let (_folder, path) = zipped(&members);
        let (objects, skipped) = find_objects(&path, &options).unwrap();
        assert_eq!(objects.len(), 1);
        assert_eq!(skipped.len(), if is_read { 1 } else { 2 });
        assert_eq!(
            read_object(&objects[0], &options).is_ok(),
            is_read,
            "{name}"
        );
    }
}

#[test]
fn documents_that_are_zip_files_inside_are_no_archives() {
    let folder = tempfile::tempdir().unwrap();
    for (name, first, code) in [
        ("a.docx", "[Content_Types].xml", Code::UnknownFormat),
        ("b.odt", "mimetype", Code::UnknownFormat),
        ("c.npz", "images.npy", Code::Unsupported),
        ("d.pt", "archive/data.pkl", Code::UnknownFormat),
    ] {
        let bytes = zip(&[(first, b"x".to_vec())]);
        std::fs::write(folder.path().join(name), &bytes).unwrap();
        let (objects, skipped) = found(folder.path());
        assert_eq!(objects, []);
        assert_eq!(skipped.last().unwrap().1, code, "{name}");
    }
    std::fs::write(
        folder.path().join("e.zip"),
        &zip(&[("a.png", vec![1])])[..40],
    )
    .unwrap();
    assert_eq!(found(folder.path()).1.last().unwrap().1, Code::Truncated);
}
