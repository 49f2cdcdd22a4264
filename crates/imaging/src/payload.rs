//! Stored voxels, plain or compressed, -> f32: shared by the readers of raw formats.

use std::borrow::Cow;

use crate::error::{Error, Result};
use crate::geometry::Turn;
use crate::inflate::{self, Wrapper};
use crate::limits::Limits;
use crate::memory;
use crate::reason::Code;
use crate::samples::{ByteOrder, Linear, Scalar, extend_f32};

/// Numbers that are decoded at a time in place: a block and its copy stay in the nearest cache.
const BLOCK: usize = 2048;

/// Allocators map a buffer of this size (glibc) afresh each time, and the first touch of a page
/// costs more than decoding what it holds: from here on, one buffer is better than two.
const FRESH_BYTES: usize = 32 << 20;

/// Most bytes that DEFLATE makes of one: 258 of 2 bits.
const MAX_DEFLATE_RATIO: u64 = 1032;

/// Where the voxels of a file lie.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stored<'a> {
    /// The format, for messages.
    pub(crate) format: &'static str,
    /// The file from its first byte, or from the byte behind a text header.
    pub(crate) bytes: &'a [u8],
    /// How `bytes` are compressed; `None` if they are not.
    pub(crate) wrapper: Option<Wrapper>,
    /// Decompressed bytes in front of the first voxel.
    pub(crate) skip: u64,
    /// How one number is stored.
    pub(crate) layout: (Scalar, ByteOrder),
    /// What the numbers mean.
    pub(crate) map: Linear,
}

/// The bytes of voxels, and what was found around them.
pub(crate) struct Raw<'a> {
    whole: Cow<'a, [u8]>,
    start: usize,
    n_bytes: usize,
    /// Bytes behind the voxels.
    pub(crate) n_behind: u64,
}

impl Raw<'_> {
    /// Returns the bytes of the voxels.
    pub(crate) fn voxels(&self) -> &[u8] {
        self.whole
            .get(self.start..)
            .and_then(|voxels| voxels.get(..self.n_bytes))
            .unwrap_or(&[])
    }
}

impl<'a> Stored<'a> {
    /// Returns the bytes of `n_values` numbers.
    ///
    /// # Errors
    /// `Malformed` (mostly `truncated`), `LimitExceeded`.
    pub(crate) fn raw(&self, n_values: usize, limits: &Limits) -> Result<Raw<'a>> {
        let (start, n_bytes) = self.extent(n_values)?;
        let Some(wrapper) = self.wrapper else {
            let n_found = self.bytes.len().saturating_sub(start);
            if n_found < n_bytes {
                return Err(Error::refused(
                    self.format,
                    Code::Truncated,
                    format!("{n_found} bytes of voxels"),
                    format!("{n_bytes}"),
                ));
            }
            let n_behind = (n_found - n_bytes) as u64;
            return Ok(Raw {
                whole: Cow::Borrowed(self.bytes),
                start,
                n_bytes,
                n_behind,
            });
        };
        let n_total = self.agree(start, n_bytes, limits)?;
        let mut whole = vec![0; n_total];
        let n_behind = inflate::inflate_into(&mut whole, self.bytes, wrapper, limits)?;
        Ok(Raw {
            whole: Cow::Owned(whole),
            start,
            n_bytes,
            n_behind,
        })
    }

    /// Returns true if `values` inflates into the very memory of the values.
    pub(crate) fn inflates_in_place(&self, n_values: usize) -> bool {
        let width = self.layout.0.n_bytes();
        let is_large = n_values >= FRESH_BYTES / size_of::<f32>();
        self.wrapper.is_some()
            && (width == size_of::<f32>() || width < size_of::<f32>() && is_large)
    }

    /// Decodes `n_values` numbers, and says how many bytes lie behind them.
    ///
    /// # Errors
    /// As `raw`.
    pub(crate) fn values(&self, n_values: usize, limits: &Limits) -> Result<(Vec<f32>, u64)> {
        if let Some(wrapper) = self.wrapper.filter(|_| self.inflates_in_place(n_values)) {
            return self.inflate_in_place(n_values, wrapper, limits);
        }
        let raw = self.raw(n_values, limits)?;
        let mut values = memory::with_capacity(n_values)?;
        extend_f32(&mut values, raw.voxels(), self.layout, self.map)?;
        Ok((values, raw.n_behind))
    }

    /// Inflates to the end of the buffer that becomes the values, then widens from its front.
    ///
    /// A number takes at most the 4 bytes of its f32, so that writing never overtakes reading.
    fn inflate_in_place(
        &self,
        n_values: usize,
        wrapper: Wrapper,
        limits: &Limits,
    ) -> Result<(Vec<f32>, u64)> {
        let width = self.layout.0.n_bytes();
        let (skip, n_bytes) = self.extent(n_values)?;
        let n_total = self.agree(skip, n_bytes, limits)?;
        let n_floats = n_values + skip.div_ceil(size_of::<f32>());
        let mut values = memory::zeroed(n_floats)?;
        let stream_start = n_floats * size_of::<f32>() - n_total;
        let all: &mut [u8] = bytemuck::cast_slice_mut(&mut values);
        let stream = all.get_mut(stream_start..).unwrap_or_default();
        let n_behind = inflate::inflate_into(stream, self.bytes, wrapper, limits)?;
        let first = stream_start + skip;
        let mut decoded = Vec::with_capacity(BLOCK);
        for start in (0..n_values).step_by(BLOCK) {
            let end = (start + BLOCK).min(n_values);
            let all: &[u8] = bytemuck::cast_slice(&values);
            let raw = all
                .get(first + start * width..first + end * width)
                .unwrap_or_default();
            decoded.clear();
            extend_f32(&mut decoded, raw, self.layout, self.map)?;
            if let Some(out) = values.get_mut(start..end) {
                out.copy_from_slice(&decoded);
            }
        }
        values.truncate(n_values);
        Ok((values, n_behind))
    }

    /// Decodes the bytes of one `[D, H, W]` grid and turns it on the way, which saves a pass over
    /// values that are four times as wide as the bytes.
    ///
    /// # Errors
    /// `Mismatch` if `voxels` is no whole number of numbers.
    pub(crate) fn turned(&self, voxels: &[u8], turn: Option<&Turn>) -> Result<Vec<f32>> {
        let width = self.layout.0.n_bytes();
        let Some(turn) = turn else {
            let mut values = memory::with_capacity(voxels.len() / width)?;
            extend_f32(&mut values, voxels, self.layout, self.map)?;
            return Ok(values);
        };
        let mut outcome = Ok(());
        let values = turn.read(|start, n, line| {
            let raw = voxels
                .get(start * width..(start + n) * width)
                .unwrap_or_default();
            if let Err(error) = extend_f32(line, raw, self.layout, self.map) {
                outcome = Err(error);
            }
        });
        outcome.and(values)
    }

    /// Returns the bytes in front of the voxels and those of the voxels.
    fn extent(&self, n_values: usize) -> Result<(usize, usize)> {
        let n_bytes = n_values.checked_mul(self.layout.0.n_bytes());
        match (usize::try_from(self.skip), n_bytes) {
            (Ok(skip), Some(n_bytes)) => Ok((skip, n_bytes)),
            _ => Err(Error::malformed(
                self.format,
                "voxels that lie behind the largest address",
                "voxels inside the file",
            )),
        }
    }

    /// Charges what is about to be decompressed.
    fn agree(&self, skip: usize, n_bytes: usize, limits: &Limits) -> Result<usize> {
        let asked = (skip as u64).saturating_add(n_bytes as u64);
        let most = (self.bytes.len() as u64).saturating_mul(MAX_DEFLATE_RATIO);
        if asked > most {
            // No limit would help: the bytes are not there.
            return Err(Error::refused(
                self.format,
                Code::Truncated,
                format!(
                    "{} compressed bytes, at most {most} plain ones",
                    self.bytes.len()
                ),
                format!("{asked} plain bytes"),
            ));
        }
        limits.decompressed(self.bytes.len() as u64, asked)
    }
}

/// Copies the numbers at `start + c*strides[0] + d*strides[1] + h*strides[2] + w*strides[3]`.
///
/// # Shapes
/// `sides` = `[C, D, H, W]`; the result has W fastest.
pub(crate) fn gather(
    values: &[f32],
    start: usize,
    sides: [usize; 4],
    strides: [usize; 4],
) -> Result<Vec<f32>> {
    let [n_channels, depth, height, width] = sides;
    let [by_channel, by_depth, by_height, by_width] = strides;
    let mut gathered = memory::with_capacity(n_channels * depth * height * width)?;
    for c in 0..n_channels {
        for d in 0..depth {
            for h in 0..height {
                let row = start + c * by_channel + d * by_depth + h * by_height;
                if by_width == 1 {
                    gathered.extend_from_slice(values.get(row..row + width).unwrap_or_default());
                } else {
                    let steps = values.get(row..).unwrap_or_default().iter();
                    gathered.extend(steps.step_by(by_width.max(1)).take(width));
                }
            }
        }
    }
    Ok(gathered)
}

/// Parses `n_values` numbers of text, separated by white space or commas.
///
/// # Errors
/// `Malformed` for a word that is no number; `truncated` if there are too few.
pub(crate) fn parse_text(format: &'static str, text: &[u8], n_values: usize) -> Result<Vec<f32>> {
    // Not reserved in advance: a text of a few bytes may announce any number of values.
    let mut values = Vec::new();
    let words = text.split(|byte| byte.is_ascii_whitespace() || *byte == b',');
    for word in words.filter(|word| !word.is_empty()).take(n_values) {
        let number = str::from_utf8(word)
            .ok()
            .and_then(|word| word.parse::<f32>().ok());
        let Some(number) = number else {
            return Err(Error::malformed(
                format,
                "a word among the voxels",
                "decimal numbers",
            ));
        };
        values.push(number);
    }
    if values.len() < n_values {
        return Err(Error::refused(
            format,
            Code::Truncated,
            format!("{} numbers of text", values.len()),
            format!("{n_values}"),
        ));
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    proptest! {
        #[test]
        fn compressed_numbers_are_the_plain_ones(
            bytes in proptest::collection::vec(any::<u8>(), 0..40_000),
            skip in 0_usize..9,
            scalar in proptest::sample::select(vec![
                Scalar::U8, Scalar::I16, Scalar::U32, Scalar::F32, Scalar::I64, Scalar::F64,
            ]),
            order in proptest::sample::select(vec![ByteOrder::Little, ByteOrder::Big]),
        ) {
            let limits = Limits::default();
            let n_values = bytes.len().saturating_sub(skip) / scalar.n_bytes();
            prop_assume!(bytes.len() >= skip);
            let plain = Stored {
                format: "test",
                bytes: &bytes,
                wrapper: None,
                skip: skip as u64,
                layout: (scalar, order),
                map: Linear { slope: 2.0, intercept: 1.0 },
            };
            let packed = gzip(&bytes);
            let compressed = Stored { bytes: &packed, wrapper: Some(Wrapper::Gzip), ..plain };
            let wanted = plain.values(n_values, &limits).unwrap().0;
            let found = compressed.values(n_values, &limits).unwrap().0;
            let n_behind = |stored: &Stored<'_>| stored.raw(n_values, &limits).unwrap().n_behind;
            let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(&wanted), bits(&found));
            prop_assert_eq!(n_behind(&plain), n_behind(&compressed));
            prop_assert!(plain.values(n_values + 1, &limits).is_err());
            prop_assert!(compressed.values(n_values + 1, &limits).is_err());
        }
    }

    #[test]
    fn a_large_volume_inflates_in_place() {
        let n_values = FRESH_BYTES / size_of::<f32>() + 3;
        let bytes: Vec<u8> = (0..=250).cycle().take(5 + 2 * n_values).collect();
        let plain = Stored {
            format: "test",
            bytes: &bytes,
            wrapper: None,
            skip: 5,
            layout: (Scalar::I16, ByteOrder::Big),
            map: Linear::IDENTITY,
        };
        let packed = gzip(&bytes);
        let stored = Stored {
            bytes: &packed,
            wrapper: Some(Wrapper::Gzip),
            ..plain
        };
        assert!(stored.inflates_in_place(n_values) && !stored.inflates_in_place(1000));
        let limits = Limits::default();
        let (wanted, _) = plain.values(n_values, &limits).unwrap();
        let (found, _) = stored.values(n_values, &limits).unwrap();
        assert!(
            wanted
                .iter()
                .zip(&found)
                .all(|(a, b)| a.to_bits() == b.to_bits())
        );
        assert_eq!(found.len(), n_values);
    }

    #[test]
    fn a_declared_size_is_charged_before_it_is_reserved() {
        let packed = gzip(&[0; 100]);
        let stored = Stored {
            format: "test",
            bytes: &packed,
            wrapper: Some(Wrapper::Gzip),
            skip: 0,
            layout: (Scalar::U8, ByteOrder::Little),
            map: Linear::IDENTITY,
        };
        let limits = Limits::default();
        for n_values in [1 << 31, 1 << 60, usize::MAX] {
            assert!(stored.values(n_values, &limits).is_err());
        }
        // As many as DEFLATE could make of the bytes; above, they cannot be there.
        let n_most = packed.len() * 1032;
        let limits = Limits {
            ratio_free_bytes: 0,
            max_decompression_ratio: 100,
            ..limits
        };
        let code = |n_values| stored.values(n_values, &limits).unwrap_err().code();
        assert_eq!(code(n_most), Code::LimitExceeded);
        assert_eq!(code(n_most + 1), Code::Truncated);
    }

    #[test]
    fn gathering_permutes() {
        let values: Vec<f32> = (0_u8..24).map(f32::from).collect();
        // Stored as [H=4, W=2, C=3], channel fastest.
        let planes = gather(&values, 0, [3, 1, 4, 2], [1, 0, 6, 3]).unwrap();
        assert_eq!(planes[..8], [0.0, 3.0, 6.0, 9.0, 12.0, 15.0, 18.0, 21.0]);
        assert_eq!(planes[16..18], [2.0, 5.0]);
        assert_eq!(
            gather(&values, 8, [1, 2, 2, 2], [0, 8, 2, 1]).unwrap()[4..6],
            [16.0, 17.0]
        );
    }

    #[test]
    fn text_is_counted_and_checked() {
        assert_eq!(
            parse_text("test", b" 1, -2.5\n3e1", 3).unwrap(),
            [1.0, -2.5, 30.0]
        );
        assert_eq!(
            parse_text("test", b"1 2", 3).unwrap_err().code(),
            Code::Truncated
        );
        assert_eq!(
            parse_text("test", b"1 x", 2).unwrap_err().code(),
            Code::Malformed
        );
    }
}
