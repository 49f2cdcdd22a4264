//! A folder: the input is cut into files at a separator, found, grouped and read.

#![no_main]

use m3ret_imaging::archive::{find_objects, read_object};

const SEPARATOR: &[u8] = b"//next//";

libfuzzer_sys::fuzz_target!(init: m3ret_fuzz::let_decoders_panic(), |bytes: &[u8]| {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut rest = bytes;
    for number in 0..4 {
        let at = rest.windows(SEPARATOR.len()).position(|w| w == SEPARATOR);
        let (file, tail) = rest.split_at(at.unwrap_or(rest.len()));
        std::fs::write(folder.path().join(format!("{number}")), file).expect("a writable folder");
        rest = tail.get(SEPARATOR.len()..).unwrap_or(&[]);
    }
    let options = m3ret_fuzz::options();
    for root in [folder.path().to_owned(), folder.path().join("0")] {
        let Ok((objects, _)) = find_objects(&root, &options) else {
            continue;
        };
        for volume in objects.iter().filter_map(|o| read_object(o, &options).ok()).flatten() {
            m3ret_fuzz::check(&volume);
        }
    }
});
