//! The few header fields of JPEG-family codestreams that must be known before decoding: sides are
//! checked before a codec may reserve, and colour is decided by what the stream says of itself.
//!
//! # Source
//! ITU-T T.81 annex B (JPEG), T.87 annex C (JPEG-LS).

use crate::error::{Error, Result};
use crate::reason::Code;

/// What a frame of compressed pixels declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Declared {
    /// Columns.
    pub(crate) width: u32,
    /// Rows.
    pub(crate) height: u32,
    /// Samples per pixel.
    pub(crate) n_components: u32,
    /// Bits of one sample.
    pub(crate) precision: u8,
    /// The SOF marker's second byte: 0xC1 is extended sequential, 0xC3 lossless.
    pub(crate) process: u8,
    /// Component identifiers, e.g. `RGB`.
    pub(crate) component_ids: Vec<u8>,
    /// The Adobe marker's transform, where there is one: 0 = none, 1 = YCbCr.
    pub(crate) adobe_transform: Option<u8>,
    /// A JFIF marker promises YCbCr.
    pub(crate) is_jfif: bool,
}

impl Declared {
    /// Returns true for the lossless processes of T.81.
    pub(crate) fn is_lossless(&self) -> bool {
        matches!(self.process, 0xC3 | 0xC7 | 0xCB | 0xCF)
    }

    /// Returns true if the identifiers spell RGB.
    pub(crate) fn has_rgb_ids(&self) -> bool {
        matches!(self.component_ids.as_slice(), b"RGB" | b"rgb")
    }
}

fn be16(bytes: &[u8], at: usize) -> Option<u32> {
    let raw = bytes.get(at..)?.first_chunk::<2>()?;
    Some(u32::from(u16::from_be_bytes(*raw)))
}

/// Most scans of one stream. Each may cost a walk over all coefficients at the price of some 20
/// bytes, so without a bound a small file could keep a decoder busy for hours; real progressive
/// files have about 10.
const MAX_SCANS: u64 = 500;

/// Refuses a JPEG or JPEG-LS stream with more scans than any encoder writes.
///
/// # Errors
/// `LimitExceeded`.
pub(crate) fn check_scans(stream: &[u8]) -> Result<()> {
    // In entropy-coded bytes 0xff is followed by 0 or a marker, so this never miscounts there; a
    // marker inside a thumbnail counts too.
    let markers = stream.array_windows().filter(|pair| *pair == &[0xff, 0xda]);
    let n_scans = markers.count() as u64;
    if n_scans > MAX_SCANS {
        return Err(Error::LimitExceeded {
            what: "scans of one JPEG stream",
            allowed: MAX_SCANS,
            asked: n_scans,
        });
    }
    Ok(())
}

/// Reads the markers of a JPEG or JPEG-LS stream up to the first scan.
///
/// # Errors
/// `Malformed` without a frame header before the first scan.
pub(crate) fn jpeg(bytes: &[u8]) -> Result<Declared> {
    scan_jpeg(bytes).ok_or_else(|| {
        let wanted = "a frame header (SOF) and a scan (SOS)";
        Error::refused(
            "jpeg",
            Code::Truncated,
            "neither in the stream's markers",
            wanted,
        )
    })
}

/// Returns the second byte of the frame header's marker: 0xF7 is JPEG-LS; `None` without one.
pub(crate) fn jpeg_process(bytes: &[u8]) -> Option<u8> {
    let mut at = 2;
    loop {
        let segment = jpeg_segment(bytes, at)?;
        if is_frame_header(segment.marker) {
            return Some(segment.marker);
        }
        at = segment.end;
    }
}

/// One marker of a JPEG stream with what belongs to it.
pub(crate) struct Segment<'a> {
    /// The marker's second byte.
    pub(crate) marker: u8,
    /// What follows the segment's length.
    pub(crate) body: &'a [u8],
    /// Where the segment ends.
    pub(crate) end: usize,
}

/// Finds the first marker with a body from `at` on.
pub(crate) fn jpeg_segment(bytes: &[u8], mut at: usize) -> Option<Segment<'_>> {
    loop {
        let marker = *bytes.get(at + 1)?;
        if *bytes.get(at)? != 0xFF || marker == 0xFF {
            at += 1;
            continue;
        }
        let has_no_body = matches!(marker, 0x01 | 0xD0..=0xD8);
        if has_no_body {
            at += 2;
            continue;
        }
        let n_bytes = (be16(bytes, at + 2)? as usize).max(2);
        return Some(Segment {
            marker,
            body: bytes.get(at + 4..at + 2 + n_bytes)?,
            end: at + 2 + n_bytes,
        });
    }
}

fn is_frame_header(marker: u8) -> bool {
    matches!(
        marker,
        0xC0..=0xC3 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF | 0xF7
    )
}

fn scan_jpeg(bytes: &[u8]) -> Option<Declared> {
    let mut declared: Option<Declared> = None;
    let mut adobe_transform = None;
    let mut is_jfif = false;
    let mut at = 2;
    loop {
        let Segment { marker, body, end } = jpeg_segment(bytes, at)?;
        match marker {
            _ if is_frame_header(marker) => declared = Some(frame_header(marker, body)?),
            0xE0 if body.starts_with(b"JFIF") => is_jfif = true,
            0xEE if body.starts_with(b"Adobe") => adobe_transform = body.get(11).copied(),
            0xDA => {
                return declared.map(|found| Declared {
                    adobe_transform,
                    is_jfif,
                    ..found
                });
            }
            _ => {}
        }
        at = end;
    }
}

fn frame_header(process: u8, body: &[u8]) -> Option<Declared> {
    let n_components = *body.get(5)?;
    let ids = body
        .get(6..)?
        .chunks_exact(3)
        .take(usize::from(n_components));
    Some(Declared {
        width: be16(body, 3)?,
        height: be16(body, 1)?,
        n_components: u32::from(n_components),
        precision: *body.first()?,
        process,
        component_ids: ids.filter_map(|id| id.first().copied()).collect(),
        adobe_transform: None,
        is_jfif: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_cut_anywhere_is_an_error_not_a_panic() {
        let mut stream = vec![0xFF, 0xD8, 0xFF, 0xEE, 0, 14];
        stream.extend_from_slice(b"Adobe\0\x64\0\0\0\0\x01");
        stream.extend_from_slice(&[0xFF, 0xC1, 0, 11, 12, 0, 2, 0, 3, 1, 1, 0x11, 0]);
        stream.extend_from_slice(&[0xFF, 0xDA, 0, 8, 1, 1, 0, 0, 63, 0]);
        let declared = jpeg(&stream).unwrap();
        assert_eq!(
            (declared.width, declared.height, declared.precision),
            (3, 2, 12)
        );
        assert_eq!(declared.adobe_transform, Some(1));
        for length in 0..stream.len() {
            assert!(jpeg(&stream[..length]).is_err(), "{length}");
        }
    }
}
