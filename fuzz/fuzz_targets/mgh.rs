#![no_main]

use m3ret_imaging::Format;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| m3ret_fuzz::read_as(Format::Mgh, bytes));
