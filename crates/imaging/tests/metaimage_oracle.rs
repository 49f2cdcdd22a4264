//! `MetaImage` against `SimpleITK`: types, compression, directions, channels, series.

#[path = "oracle/check.rs"]
mod check;

#[test]
fn committed_files_read_as_simpleitk_reads_them() {
    assert!(check::check_folder(&check::fixtures("metaimage")) >= 10);
}

#[test]
fn generated_files_read_as_simpleitk_reads_them() {
    if let Some(folder) = check::generate("make_metaimage.py") {
        assert!(check::check_folder(folder.path()) > 100);
    }
}
