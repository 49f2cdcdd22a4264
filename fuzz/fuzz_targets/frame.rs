//! One compressed frame: the input chooses codec, sides and depth, and the rest is the codestream.

#![no_main]

use m3ret_fuzz::dicom::Frame;
use m3ret_imaging::Format;

const SYNTAXES: [&str; 9] = [
    "1.2.840.10008.1.2.5",
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.51",
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.201",
    "1.2.840.10008.1.2.4.110",
    "1.2.840.10008.1.2.8.1",
];

libfuzzer_sys::fuzz_target!(init: m3ret_fuzz::let_decoders_panic(), |bytes: &[u8]| {
    let Some((&[syntax, rows, columns, depth, colour], stream)) = bytes.split_first_chunk::<5>() else {
        return;
    };
    let (n_samples, photometric) = [(1, "MONOCHROME2"), (3, "RGB"), (3, "YBR_FULL")][usize::from(colour % 3)];
    let frame = Frame {
        syntax: SYNTAXES[usize::from(syntax) % SYNTAXES.len()],
        sides: [rows.into(), columns.into()],
        stored: (depth % 33).into(),
        is_signed: depth >= 128,
        n_samples,
        photometric,
        stream,
    };
    m3ret_fuzz::read_as(Format::Dicom, &frame.file());
});
