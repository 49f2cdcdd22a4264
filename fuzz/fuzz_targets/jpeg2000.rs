//! JPEG 2000 and HTJ2K. The first byte chooses a file or a frame of DICOM whose header agrees with the stream; the
//! mutator changes boxes, marker segments and coded bytes, and keeps lengths.

#![no_main]

use m3ret_fuzz::dicom::Frame;
use m3ret_imaging::Format;

const SYNTAXES: [&str; 5] = [
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.91",
    "1.2.840.10008.1.2.4.201",
    "1.2.840.10008.1.2.4.202",
    "1.2.840.10008.1.2.4.203",
];

libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    m3ret_fuzz::mutate_stream(data, [size, max_size], seed, m3ret_fuzz::jpeg2000::mutate)
});

libfuzzer_sys::fuzz_target!(init: m3ret_fuzz::let_decoders_panic(), |bytes: &[u8]| {
    let Some((&way, stream)) = bytes.split_first() else {
        return;
    };
    if way % 3 == 0 {
        m3ret_fuzz::read_as(Format::Raster, stream);
    } else if let Some(file) = frame(way / 3, stream) {
        m3ret_fuzz::read_as(Format::Dicom, &file);
    }
});

/// A frame whose header says what SIZ says.
fn frame(way: u8, stream: &[u8]) -> Option<Vec<u8>> {
    let start = stream.windows(4).position(|four| four == [0xFF, 0x4F, 0xFF, 0x51])?;
    let size = stream.get(start + 6..start + 43)?;
    let number = |at: usize| u32::from_be_bytes([size[at], size[at + 1], size[at + 2], size[at + 3]]);
    let side = |axis: usize| u16::try_from(number(2 + axis).checked_sub(number(10 + axis))?).ok();
    let n_samples = u16::from_be_bytes([size[34], size[35]]);
    let colours = ["RGB", "YBR_RCT", "YBR_ICT", "YBR_FULL"];
    let frame = Frame {
        syntax: SYNTAXES[usize::from(way) % SYNTAXES.len()],
        sides: [side(4)?, side(0)?],
        stored: u16::from(size[36] & 0x7F) + 1,
        is_signed: size[36] & 0x80 != 0,
        n_samples,
        photometric: if n_samples == 3 { colours[usize::from(way / 5) % 4] } else { "MONOCHROME2" },
        stream,
    };
    Some(frame.file())
}
