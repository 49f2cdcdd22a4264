//! MGH and MGZ against nibabel: every data type, orientation and dimension, bit for bit.

#[path = "oracle/check.rs"]
mod check;

#[test]
fn committed_files_read_as_nibabel_reads_them() {
    assert_eq!(check::check_folder(&check::fixtures("mgh")), 5);
}

#[test]
fn generated_files_read_as_nibabel_reads_them() {
    if let Some(folder) = check::generate("make_mgh.py") {
        assert!(check::check_folder(folder.path()) > 60);
    }
}
