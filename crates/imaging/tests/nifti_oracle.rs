//! NIfTI against nibabel: every data type, scaling, dimension and orientation, bit for bit.

#[path = "oracle/check.rs"]
mod check;

#[test]
fn committed_files_read_as_nibabel_reads_them() {
    assert_eq!(check::check_folder(&check::fixtures("nifti")), 16);
}

#[test]
fn generated_files_read_as_nibabel_reads_them() {
    if let Some(folder) = check::generate("make_nifti.py") {
        assert!(check::check_folder(folder.path()) > 500);
    }
}
