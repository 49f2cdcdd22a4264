//! DICOM RLE Lossless: byte planes, each packed with PackBits.
//!
//! # Source
//! DICOM PS3.5 annex G.

use crate::error::{Error, Result};
use crate::reason::Code;

const FORMAT: &str = "dicom rle";

/// Returns true if bytes start as a frame does: 1 to 15 segments, the first behind the header, the
/// others in order, and zeros for those that are not there.
pub(crate) fn has_header(bytes: &[u8]) -> bool {
    let (header, _) = bytes.get(..64).unwrap_or(&[]).as_chunks::<4>();
    let mut header = header.iter().map(|raw| u32::from_le_bytes(*raw) as usize);
    let n_segments = header.next().unwrap_or(0);
    if !(1..=15).contains(&n_segments) {
        return false;
    }
    let starts: Vec<usize> = header.collect();
    let (used, unused) = starts.split_at(n_segments.min(starts.len()));
    used.first() == Some(&64) && used.is_sorted() && unused.iter().all(|start| *start == 0)
}

/// Unpacks one frame into native little-endian samples, colour by pixel.
///
/// # Shapes
/// `n_pixels * n_samples * n_bytes` bytes out; one segment in for each byte of each sample, the
/// most significant byte first.
/// # Errors
/// `Malformed` if segments are missing, overlap the end, or unpack to too few bytes.
pub(crate) fn decode(
    frame: &[u8],
    n_pixels: usize,
    n_samples: usize,
    n_bytes: usize,
) -> Result<Vec<u8>> {
    let (header, _) = frame.get(..64).unwrap_or(&[]).as_chunks::<4>();
    let header: Vec<usize> = header
        .iter()
        .map(|raw| u32::from_le_bytes(*raw) as usize)
        .collect();
    let n_segments = n_samples * n_bytes;
    if header.first() != Some(&n_segments) || n_segments > 15 {
        let found = format!("{} segments", header.first().copied().unwrap_or(0));
        return Err(Error::malformed(
            FORMAT,
            found,
            format!("{n_segments}, at most 15"),
        ));
    }
    let stride = n_segments;
    // Two bytes stand for 128 at most: nothing is reserved for what cannot be there.
    if n_pixels.div_ceil(64) * stride > frame.len() {
        let found = format!("{} bytes for {n_pixels} pixels", frame.len());
        let wanted = "1 byte for 64 at least";
        return Err(Error::refused(FORMAT, Code::Truncated, found, wanted));
    }
    let mut out = vec![0; n_pixels * stride];
    for (segment, &start) in header.iter().skip(1).take(n_segments).enumerate() {
        let end = header
            .get(segment + 2)
            .copied()
            .filter(|&end| end > 0 && segment + 1 < n_segments);
        let packed = frame.get(start..end.unwrap_or(frame.len()));
        let packed = packed.ok_or_else(|| {
            Error::malformed(
                FORMAT,
                "a segment outside the frame",
                "ascending offsets inside it",
            )
        })?;
        let (sample, byte) = (segment / n_bytes, segment % n_bytes);
        let first = sample * n_bytes + (n_bytes - 1 - byte);
        let places = out.iter_mut().skip(first).step_by(stride);
        let n_missing = unpack(packed, places);
        if n_missing > 0 {
            let found = format!("{n_missing} of {n_pixels} bytes of a segment missing");
            return Err(Error::refused(
                FORMAT,
                Code::Truncated,
                found,
                "a full segment",
            ));
        }
    }
    Ok(out)
}

/// Unpacks into `places` and returns how many of them got no byte.
fn unpack<'a>(packed: &[u8], mut places: impl ExactSizeIterator<Item = &'a mut u8>) -> usize {
    let mut rest = packed;
    while let Some((&control, tail)) = rest.split_first() {
        rest = tail;
        if control < 128 {
            let (literal, tail) = rest.split_at(rest.len().min(usize::from(control) + 1));
            rest = tail;
            for &byte in literal {
                let Some(place) = places.next() else { return 0 };
                *place = byte;
            }
        } else if control > 128 {
            let Some((&byte, tail)) = rest.split_first() else {
                break;
            };
            rest = tail;
            for _ in 0..257 - usize::from(control) {
                let Some(place) = places.next() else { return 0 };
                *place = byte;
            }
        }
    }
    places.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literal_and_repeated_runs_unpack_most_significant_byte_first() {
        let mut frame = vec![0; 64];
        frame[0] = 2;
        frame[4] = 64;
        frame[8] = 67;
        frame.extend_from_slice(&[0xFE, 7, 0x80]); // 7 7 7, then a no-op
        frame.extend_from_slice(&[2, 1, 2, 3]);
        assert_eq!(decode(&frame, 3, 1, 2).unwrap(), [1, 7, 2, 7, 3, 7]);
        for length in 0..frame.len() {
            assert!(decode(&frame[..length], 3, 1, 2).is_err(), "{length}");
        }
    }
}
