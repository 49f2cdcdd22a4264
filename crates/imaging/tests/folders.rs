//! What lies in real folders beside images: compressed files, links, litter, archives.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::Write as _;
use std::path::{Path, PathBuf};

use m3ret_imaging::archive::{find_objects, read_image, read_object};
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

/// Returns the format and number of files of each object, and name and code of what was skipped.
fn found(root: &Path) -> (Vec<(Format, usize)>, Vec<(String, Code)>) {
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
    std::os::unix::fs::symlink(outer.path(), folder.join("link")).unwrap();
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
    use std::os::unix::fs::symlink;
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
