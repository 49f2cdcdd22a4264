//! Every pixel layout, codec and geometry of DICOM, written by pydicom from known arrays. A small
//! part is committed in testdata/dicom; the rest is made where Python has pydicom 3 (see
//! tools/oracles/requirements.txt).

#[path = "oracle/dicom_cases.rs"]
mod dicom_cases;

use std::path::Path;

#[test]
fn committed_files_read_as_they_were_written() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/dicom");
    let rows = dicom_cases::rows(Path::new(folder));
    assert!(dicom_cases::check_rows(Path::new(folder), &rows, None) >= 24);
}

#[test]
fn generated_files_read_as_they_were_written() {
    let out = tempfile::tempdir().unwrap();
    if let Some(rows) = dicom_cases::generate(out.path()) {
        assert!(dicom_cases::check_rows(out.path(), &rows, None) > 200);
        let n_videos = dicom_cases::check_rows(out.path(), &rows, Some("video"));
        println!("{n_videos} videos compared with what ffmpeg shows");
    }
}
