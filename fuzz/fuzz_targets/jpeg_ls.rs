//! JPEG-LS as a frame of DICOM whose header agrees with the stream; the mutator changes marker segments and coded
//! bytes, and keeps lengths.

#![no_main]

use m3ret_fuzz::dicom::Frame;
use m3ret_imaging::Format;

libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    m3ret_fuzz::mutate_stream(data, [size, max_size], seed, m3ret_fuzz::jpeg_ls::mutate)
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some((&way, stream)) = bytes.split_first()
        && let Some(file) = frame(way, stream)
    {
        m3ret_fuzz::read_as(Format::Dicom, &file);
    }
});

/// A frame whose header says what SOF says.
fn frame(way: u8, stream: &[u8]) -> Option<Vec<u8>> {
    let start = stream.windows(2).position(|pair| pair == [0xFF, 0xF7])?;
    let &[depth, high, low, wide, narrow, n_samples] = stream.get(start + 4..)?.first_chunk::<6>()?;
    let frame = Frame {
        syntax: ["1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"][usize::from(way % 2)],
        sides: [u16::from_be_bytes([high, low]), u16::from_be_bytes([wide, narrow])],
        stored: depth.into(),
        is_signed: way & 2 != 0,
        n_samples: n_samples.into(),
        photometric: if n_samples == 3 { ["RGB", "YBR_FULL"][usize::from(way >> 2 & 1)] } else { "MONOCHROME2" },
        stream,
    };
    Some(frame.file())
}
