//! NRRD against pynrrd and files written by hand: types, encodings, spaces, kinds, skips.

#[path = "oracle/check.rs"]
mod check;

#[test]
fn committed_files_read_as_pynrrd_reads_them() {
    assert!(check::check_folder(&check::fixtures("nrrd")) >= 10);
}

#[test]
fn generated_files_read_as_pynrrd_reads_them() {
    if let Some(folder) = check::generate("make_nrrd.py") {
        assert!(check::check_folder(folder.path()) > 100);
    }
}
