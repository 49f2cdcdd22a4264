//! gzip and zlib streams, mostly of a size that the caller already knows.

use std::io::{ErrorKind, Read};

use flate2::bufread::{GzDecoder, ZlibDecoder};

use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::reason::Code;

/// How a stream is wrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrapper {
    /// RFC 1952, one member or several.
    Gzip,
    /// RFC 1950.
    Zlib,
}

impl Wrapper {
    fn format(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zlib => "zlib",
        }
    }
}

/// Returns true for the magic of a gzip member that is compressed by deflate.
pub(crate) fn is_gzip(head: &[u8]) -> bool {
    head.starts_with(&[0x1f, 0x8b, 8])
}

/// Decompresses up to `n_wanted` leading bytes of a gzip stream that may be cut short.
pub(crate) fn gunzip_prefix(bytes: &[u8], n_wanted: u64) -> Vec<u8> {
    let mut prefix = Vec::new();
    // An error means fewer bytes: the caller asks for what it needs and sees that they are missing.
    let _ = flate2::bufread::MultiGzDecoder::new(bytes)
        .take(n_wanted)
        .read_to_end(&mut prefix);
    prefix
}

/// Decompresses a whole gzip stream of unknown size, within the limits of what its bytes may give.
///
/// What lies behind the last member is no part of the stream, as `gzip` itself has it.
///
/// # Errors
/// `Malformed` for a broken stream or checksum, with `truncated` for one that ends early;
/// `LimitExceeded`.
pub(crate) fn gunzip(compressed: &[u8], limits: &Limits) -> Result<Vec<u8>> {
    let n_compressed = u64::try_from(compressed.len()).unwrap_or(u64::MAX);
    let n_allowed = limits.max_decompressed(n_compressed);
    let mut plain = Vec::new();
    let mut rest = compressed;
    while is_gzip(rest) {
        let mut member = GzDecoder::new(rest);
        let n_left = n_allowed.saturating_sub(plain.len() as u64);
        // One byte more than allowed tells a stream that ends there from one that does not.
        let outcome = member.by_ref().take(n_left + 1).read_to_end(&mut plain);
        outcome.map_err(|error| broken(Wrapper::Gzip, &error))?;
        limits.decompressed(n_compressed, plain.len() as u64)?;
        rest = member.into_inner();
    }
    Ok(plain)
}

/// Fills `out` from the front of the decompressed stream and returns how many bytes lie behind
/// `out` in the members that were opened.
///
/// The checksum of every member that holds a byte of `out` is verified. The caller has charged
/// `out` to `limits`; what is decompressed behind it, only to verify, is charged here.
///
/// # Errors
/// `Malformed` for a broken stream or checksum, with `truncated` for one that ends early;
/// `LimitExceeded` if a member goes on behind `out` for more than the limits allow.
pub(crate) fn inflate_into(
    out: &mut [u8],
    compressed: &[u8],
    wrapper: Wrapper,
    limits: &Limits,
) -> Result<u64> {
    let mut decompressor = libdeflater::Decompressor::new();
    let whole = match wrapper {
        Wrapper::Gzip => decompressor.gzip_decompress(compressed, out),
        Wrapper::Zlib => decompressor.zlib_decompress(compressed, out),
    };
    // libdeflate decodes one member in one go, at twice the speed of zlib-rs. Whatever it does not
    // finish (several members, bytes behind `out`, a broken stream) is streamed, and explained.
    if whole == Ok(out.len()) {
        Ok(0)
    } else {
        stream_into(out, compressed, wrapper, limits)
    }
}

fn stream_into(
    out: &mut [u8],
    compressed: &[u8],
    wrapper: Wrapper,
    limits: &Limits,
) -> Result<u64> {
    let n_compressed = u64::try_from(compressed.len()).unwrap_or(u64::MAX);
    let n_wanted = out.len();
    let mut rest = compressed;
    let mut n_filled = 0;
    loop {
        let n_behind;
        match wrapper {
            Wrapper::Gzip => {
                let mut member = GzDecoder::new(rest);
                n_filled += fill(&mut member, out.get_mut(n_filled..), wrapper)?;
                n_behind = drain(&mut member, wrapper, n_compressed, n_wanted, limits)?;
                rest = member.into_inner();
            }
            Wrapper::Zlib => {
                let mut member = ZlibDecoder::new(rest);
                n_filled += fill(&mut member, out.get_mut(n_filled..), wrapper)?;
                n_behind = drain(&mut member, wrapper, n_compressed, n_wanted, limits)?;
                rest = &[];
            }
        }
        if n_filled == n_wanted {
            return Ok(n_behind);
        }
        if rest.is_empty() {
            return Err(Error::refused(
                wrapper.format(),
                Code::Truncated,
                format!("{n_filled} decompressed bytes"),
                format!("{n_wanted}"),
            ));
        }
    }
}

/// Reads until `out` is full or the member ends; returns the number of bytes read.
fn fill(member: &mut impl Read, out: Option<&mut [u8]>, wrapper: Wrapper) -> Result<usize> {
    let mut out = out.unwrap_or_default();
    let n_wanted = out.len();
    while !out.is_empty() {
        let n = member.read(out).map_err(|error| broken(wrapper, &error))?;
        if n == 0 {
            break;
        }
        out = out.get_mut(n..).unwrap_or_default();
    }
    Ok(n_wanted - out.len())
}

/// Reads a member to its end, where its checksum is verified; returns the number of bytes read.
///
/// They are charged to `limits` as a part of `n_compressed` bytes that already gave `n_wanted`.
fn drain(
    member: &mut impl Read,
    wrapper: Wrapper,
    n_compressed: u64,
    n_wanted: usize,
    limits: &Limits,
) -> Result<u64> {
    let mut sink = [0_u8; 8192];
    let mut n_behind = 0_u64;
    loop {
        let n = member
            .read(&mut sink)
            .map_err(|error| broken(wrapper, &error))?;
        if n == 0 {
            return Ok(n_behind);
        }
        n_behind += n as u64;
        limits.decompressed(n_compressed, n_behind.saturating_add(n_wanted as u64))?;
    }
}

fn broken(wrapper: Wrapper, error: &std::io::Error) -> Error {
    let (code, found) = match error.kind() {
        ErrorKind::UnexpectedEof => (Code::Truncated, "a stream that ends early"),
        _ => (Code::Malformed, "a broken stream or a wrong checksum"),
    };
    Error::refused(
        wrapper.format(),
        code,
        found,
        "a whole stream with its checksum",
    )
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn inflate(n: usize, bytes: &[u8], wrapper: Wrapper) -> Result<(Vec<u8>, u64)> {
        let mut out = vec![0; n];
        inflate_into(&mut out, bytes, wrapper, &Limits::default()).map(|behind| (out, behind))
    }

    #[test]
    fn members_are_joined_and_what_lies_behind_is_counted() {
        let mut two = gzip(b"first ");
        two.extend(gzip(b"second"));
        assert_eq!(
            inflate(12, &two, Wrapper::Gzip).unwrap(),
            (b"first second".to_vec(), 0)
        );
        assert_eq!(
            inflate(8, &two, Wrapper::Gzip).unwrap(),
            (b"first se".to_vec(), 4)
        );
        assert_eq!(
            inflate(6, &two, Wrapper::Gzip).unwrap(),
            (b"first ".to_vec(), 0)
        );
        assert_eq!(
            inflate(3, &zlib(b"first"), Wrapper::Zlib).unwrap(),
            (b"fir".to_vec(), 2)
        );
    }

    #[test]
    fn a_stream_cut_anywhere_is_truncated_or_malformed() {
        for (bytes, wrapper) in [
            (gzip(b"some voxels"), Wrapper::Gzip),
            (zlib(b"some voxels"), Wrapper::Zlib),
        ] {
            for end in 0..bytes.len() {
                let refused = inflate(11, &bytes[..end], wrapper).unwrap_err();
                assert_eq!(refused.code(), Code::Truncated, "{wrapper:?} {end}");
            }
            assert!(inflate(11, &bytes, wrapper).is_ok());
            assert_eq!(
                inflate(12, &bytes, wrapper).unwrap_err().code(),
                Code::Truncated
            );
        }
    }

    #[test]
    fn a_stream_of_unknown_size_is_read_whole_or_refused() {
        let limits = Limits {
            ratio_free_bytes: 1000,
            max_decompression_ratio: 2,
            ..Limits::default()
        };
        let mut two = gzip(b"first ");
        two.extend(gzip(b"second"));
        two.extend([0; 100]);
        assert_eq!(gunzip(&two, &limits).unwrap(), b"first second");
        let whole = gzip(b"some voxels");
        for end in 3..whole.len() {
            assert_eq!(
                gunzip(&whole[..end], &limits).unwrap_err().code(),
                Code::Truncated,
                "{end}"
            );
        }
        assert_eq!(gunzip(&gzip(&[7; 1000]), &limits).unwrap(), [7; 1000]);
        for bomb in [gzip(&[7; 1001]), gzip(&[7; 1 << 20])] {
            let refused = gunzip(&bomb, &limits);
            assert!(matches!(refused, Err(Error::LimitExceeded { .. })));
        }
    }

    #[test]
    fn a_wrong_checksum_is_refused_even_behind_the_wanted_bytes() {
        for (mut bytes, wrapper, from_end) in [
            (gzip(b"some voxels"), Wrapper::Gzip, 8),
            (zlib(b"some voxels"), Wrapper::Zlib, 1),
        ] {
            let at = bytes.len() - from_end;
            bytes[at] ^= 1;
            assert_eq!(
                inflate(11, &bytes, wrapper).unwrap_err().code(),
                Code::Malformed
            );
            assert_eq!(
                inflate(4, &bytes, wrapper).unwrap_err().code(),
                Code::Malformed
            );
        }
    }

    #[test]
    fn bytes_behind_the_wanted_ones_are_charged() {
        let bomb = gzip(&vec![0; 1 << 20]);
        let limits = Limits {
            ratio_free_bytes: 1 << 16,
            max_decompression_ratio: 2,
            ..Limits::default()
        };
        let refused = inflate_into(&mut [0; 10], &bomb, Wrapper::Gzip, &limits);
        assert!(matches!(refused, Err(Error::LimitExceeded { .. })));
    }

    #[test]
    fn a_prefix_needs_no_whole_stream() {
        let plain: Vec<u8> = (0_u32..5000)
            .map(|i| u8::try_from(i * i % 251).unwrap())
            .collect();
        let packed = gzip(&plain);
        assert_eq!(gunzip_prefix(&packed[..packed.len() / 2], 40), plain[..40]);
        assert!(gunzip_prefix(b"\x1f\x8b\x08", 4).is_empty());
    }
}
