#![no_main]

use std::path::Path;

use m3ret_manifest::Manifest;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let limits = m3ret_fuzz::options().limits;
    let Ok(manifest) = Manifest::from_bytes(bytes.to_vec(), Path::new("folder"), &limits) else {
        return;
    };
    if let Ok(table) = manifest.load() {
        for row in table.rows() {
            assert_eq!(row.cells().count(), table.columns().len());
        }
    }
});
