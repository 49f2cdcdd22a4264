//! Compressed chunk -> packed samples.

use std::io::Read as _;

use fax::decoder::{DecodeStatus, Group4Decoder};
use flate2::read::ZlibDecoder;
use jpeg_decoder::{ColorTransform, PixelFormat};
use weezl::{BitOrder, LzwStatus};

use super::directory::{Directory, tag};
use super::sample::{Encoding, undo_prediction};
use super::{FORMAT, truncated};
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::raster::jpeg;

/// The shape of one chunk as it leaves the codec.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packed {
    /// Columns.
    pub(super) width: usize,
    /// Rows.
    pub(super) height: usize,
    /// Samples that lie together in a pixel.
    pub(super) n_samples: usize,
    /// Bits and meaning of a sample.
    pub(super) encoding: Encoding,
}

impl Packed {
    /// Returns the bytes of one row; rows are padded to whole bytes. Never 0.
    pub(super) fn row_bytes(&self) -> usize {
        let bits = self.width.saturating_mul(self.n_samples);
        bits.saturating_mul(self.encoding.bits.into())
            .div_ceil(8)
            .max(1)
    }

    /// Returns the bytes of the chunk.
    pub(super) fn n_bytes(&self) -> usize {
        self.row_bytes().saturating_mul(self.height)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    None,
    Group4,
    Lzw,
    Jpeg,
    Deflate,
    PackBits,
}

/// How the chunks of a page are compressed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Codec<'a> {
    method: Method,
    predictor: u64,
    /// True if bits of a byte come last first (`FillOrder` 2).
    reversed_bits: bool,
    jpeg_tables: Option<&'a [u8]>,
    photometric: u64,
}

impl<'a> Codec<'a> {
    /// Reads the tags and refuses by name what cannot be decoded.
    pub(super) fn new(directory: &Directory<'a>, photometric: u64) -> Result<Self> {
        let method = match directory.uint(tag::COMPRESSION)?.unwrap_or(1) {
            1 => Method::None,
            4 => Method::Group4,
            5 => Method::Lzw,
            7 => Method::Jpeg,
            8 | 32_946 => Method::Deflate,
            32_773 => Method::PackBits,
            other => {
                let feature = format!("compression {other} ({})", compression_name(other));
                let advice = "convert it to LZW or deflate, e.g. with tiffcp";
                return Err(Error::unsupported(FORMAT, feature, advice));
            }
        };
        // As libtiff: only these two look at the tag.
        let predictor = match method {
            Method::Lzw | Method::Deflate => directory.uint(tag::PREDICTOR)?.unwrap_or(1),
            _ => 1,
        };
        Ok(Self {
            method,
            predictor,
            reversed_bits: directory.uint(tag::FILL_ORDER)? == Some(2),
            jpeg_tables: directory.bytes(tag::JPEG_TABLES),
            photometric,
        })
    }

    /// Returns true if chunks are stored as they are.
    pub(super) fn is_plain(&self) -> bool {
        self.method == Method::None
    }

    /// Returns true for lossy JPEG.
    pub(super) fn is_jpeg(&self) -> bool {
        self.method == Method::Jpeg
    }

    /// Decodes one chunk into exactly the bytes that `packed` describes.
    ///
    /// # Errors
    /// `Malformed` if the chunk is damaged or too short, `Unsupported`, `LimitExceeded`.
    pub(super) fn decode(&self, raw: &[u8], packed: &Packed, limits: &Limits) -> Result<Vec<u8>> {
        let turned: Vec<u8>;
        let raw = if self.reversed_bits && self.method != Method::Jpeg {
            turned = raw.iter().map(|byte| byte.reverse_bits()).collect();
            &turned
        } else {
            raw
        };
        // `Page` had all chunks of all pages agreed; this is the same number again, for one.
        let n_bytes = limits.bytes(packed.n_bytes() as u64)?;
        let mut bytes = match self.method {
            Method::None => raw
                .get(..n_bytes)
                .ok_or_else(|| truncated("its pixels"))?
                .to_vec(),
            Method::Lzw => lzw(raw, n_bytes)?,
            Method::Deflate => deflate(raw, n_bytes)?,
            Method::PackBits => pack_bits(raw, n_bytes)?,
            Method::Group4 => group4(raw, packed)?,
            Method::Jpeg => return self.jpeg(raw, packed, limits),
        };
        undo_prediction(&mut bytes, packed, self.predictor)?;
        Ok(bytes)
    }

    /// Decodes a JPEG chunk, whose tables may be shared by all chunks of the page.
    fn jpeg(&self, raw: &[u8], packed: &Packed, limits: &Limits) -> Result<Vec<u8>> {
        let shared = self
            .jpeg_tables
            .and_then(|tables| tables.strip_suffix(b"\xff\xd9"));
        let joined = match (shared, raw.strip_prefix(b"\xff\xd8")) {
            (Some(tables), Some(image)) => [tables, image].concat(),
            _ => raw.to_vec(),
        };
        let transform = match (packed.n_samples, self.photometric) {
            (3, 6) => Some(ColorTransform::YCbCr),
            (3, _) => Some(ColorTransform::RGB),
            _ => None,
        };
        let stream = jpeg::decode(&joined, joined.len(), transform, limits)?;
        let (width, height) = (
            usize::from(stream.info.width),
            usize::from(stream.info.height),
        );
        let fits = stream.info.pixel_format.pixel_bytes() == packed.n_samples
            && stream.info.pixel_format != PixelFormat::L16
            && packed.encoding.is_u8()
            && width == packed.width
            && height >= packed.height;
        if !fits {
            let found = format!("a JPEG chunk of {width} x {height}");
            let wanted = format!("{} x {} as its page says", packed.width, packed.height);
            return Err(Error::malformed(FORMAT, found, wanted));
        }
        let mut bytes = stream.samples;
        bytes.truncate(packed.n_bytes());
        Ok(bytes)
    }
}

fn compression_name(number: u64) -> &'static str {
    match number {
        2 => "CCITT run lengths",
        3 => "CCITT group 3",
        6 => "JPEG of the old style",
        33_003 | 33_005 | 34_712 => "JPEG 2000",
        34_661 => "JBIG",
        34_887 => "LERC",
        34_925 => "LZMA",
        50_000 => "Zstandard",
        50_001 => "WebP",
        50_002 | 52_546 => "JPEG XL",
        _ => "unknown",
    }
}

fn lzw(raw: &[u8], n_bytes: usize) -> Result<Vec<u8>> {
    // Before 1992, codes were written from the least significant bit.
    if raw.first() == Some(&0) && raw.get(1).is_some_and(|byte| byte & 1 == 1) {
        let advice = "convert it with tiffcp";
        return Err(Error::unsupported(FORMAT, "LZW of the old style", advice));
    }
    let mut decoder = weezl::decode::Decoder::with_tiff_size_switch(BitOrder::Msb, 8);
    let mut bytes = vec![0; n_bytes];
    let (mut rest, mut done) = (raw, 0);
    while let Some(free) = bytes.get_mut(done..).filter(|free| !free.is_empty()) {
        let step = decoder.decode_bytes(rest, free);
        done += step.consumed_out;
        rest = rest.get(step.consumed_in..).unwrap_or_default();
        match step.status {
            Ok(LzwStatus::Ok) => {}
            Ok(LzwStatus::NoProgress | LzwStatus::Done) => break,
            Err(_) => return Err(Error::malformed(FORMAT, "a damaged LZW chunk", "LZW codes")),
        }
    }
    if done < n_bytes {
        return Err(truncated("the end of an LZW chunk"));
    }
    Ok(bytes)
}

fn deflate(raw: &[u8], n_bytes: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; n_bytes];
    ZlibDecoder::new(raw)
        .read_exact(&mut bytes)
        .map_err(|error| {
            if error.kind() == std::io::ErrorKind::UnexpectedEof {
                truncated("the end of a deflate chunk")
            } else {
                Error::malformed(FORMAT, "a damaged deflate chunk", "a zlib stream")
            }
        })?;
    Ok(bytes)
}

fn pack_bits(mut raw: &[u8], n_bytes: usize) -> Result<Vec<u8>> {
    let short = || truncated("the end of a PackBits chunk");
    let mut bytes = Vec::with_capacity(n_bytes);
    while bytes.len() < n_bytes {
        let (&control, rest) = raw.split_first().ok_or_else(short)?;
        raw = rest;
        match control {
            0..=127 => {
                let (literal, rest) = raw
                    .split_at_checked(usize::from(control) + 1)
                    .ok_or_else(short)?;
                bytes.extend_from_slice(literal);
                raw = rest;
            }
            128 => {}
            129..=255 => {
                let (&value, rest) = raw.split_first().ok_or_else(short)?;
                bytes.extend(std::iter::repeat_n(value, 257 - usize::from(control)));
                raw = rest;
            }
        }
    }
    bytes.truncate(n_bytes);
    Ok(bytes)
}

/// Decodes CCITT group 4 to one bit a pixel, 1 for the runs it calls black.
fn group4(raw: &[u8], packed: &Packed) -> Result<Vec<u8>> {
    let damaged = || Error::malformed(FORMAT, "a damaged CCITT chunk", "group 4 codes");
    let width = u16::try_from(packed.width).map_err(|_| {
        Error::unsupported(
            FORMAT,
            "CCITT group 4 wider than 65535",
            "convert it to LZW",
        )
    })?;
    let source = raw
        .iter()
        .map(|&byte| Ok::<u8, std::convert::Infallible>(byte));
    let mut decoder = Group4Decoder::new(source, width).map_err(|_| damaged())?;
    let mut bytes = Vec::with_capacity(packed.n_bytes());
    for _ in 0..packed.height {
        match decoder.advance().map_err(|_| damaged())? {
            DecodeStatus::Incomplete => {}
            DecodeStatus::End => return Err(truncated("the last row of a CCITT chunk")),
        }
        let mut pixels = fax::decoder::pels(decoder.transition(), width).peekable();
        while pixels.peek().is_some() {
            let byte = (0..8).fold(0_u8, |byte, _| {
                let black = pixels.next() == Some(fax::Color::Black);
                (byte << 1) | u8::from(black)
            });
            bytes.push(byte);
        }
    }
    Ok(bytes)
}
