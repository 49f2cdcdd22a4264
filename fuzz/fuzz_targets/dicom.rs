#![no_main]

use m3ret_imaging::Format;

libfuzzer_sys::fuzz_target!(init: m3ret_fuzz::let_decoders_panic(), |bytes: &[u8]| {
    m3ret_fuzz::read_as(Format::Dicom, bytes);
});
