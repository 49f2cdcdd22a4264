//! A zip archive as a file: its list, its members and the objects in it.

#![no_main]

use m3ret_imaging::archive::{find_objects, read_object};

libfuzzer_sys::fuzz_target!(init: m3ret_fuzz::let_decoders_panic(), |bytes: &[u8]| {
    if !bytes.starts_with(b"PK\x03\x04") {
        return;
    }
    let folder = tempfile::tempdir().expect("a writable temporary folder");
    let path = folder.path().join("a.zip");
    std::fs::write(&path, bytes).expect("a writable temporary folder");
    let options = m3ret_fuzz::options();
    let Ok((objects, _)) = find_objects(&path, &options) else {
        return;
    };
    for volume in objects.iter().filter_map(|o| read_object(o, &options).ok()).flatten() {
        m3ret_fuzz::check(&volume);
    }
    // Nothing may appear beside the archive.
    let n_files = std::fs::read_dir(folder.path()).expect("a readable folder").count();
    assert_eq!(n_files, 1);
});
