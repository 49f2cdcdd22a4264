//! Packed samples of one chunk -> f32.

use super::codec::Packed;
use super::directory::{Directory, tag};
use super::{FORMAT, truncated};
use crate::error::{Error, Result};
use crate::samples::{ByteOrder, Linear, Scalar, extend_f32, narrow, widen_u64};

/// How the number in a sample is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Number {
    Unsigned,
    Signed,
    Float,
}

/// Bits and meaning of one sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Encoding {
    /// Bits of one sample.
    pub(super) bits: u8,
    number: Number,
    /// Byte order of the file.
    pub(super) order: ByteOrder,
}

impl Encoding {
    /// Reads the tags and checks that there is a decoder.
    pub(super) fn new(directory: &Directory<'_>) -> Result<Self> {
        let bits = directory
            .uints(tag::BITS_PER_SAMPLE)?
            .unwrap_or_else(|| vec![1]);
        let formats = directory
            .uints(tag::SAMPLE_FORMAT)?
            .unwrap_or_else(|| vec![1]);
        let mixed = |values: &[u64]| values.array_windows().any(|[a, b]| a != b);
        let (Some(&n_bits), Some(&format)) = (bits.first(), formats.first()) else {
            return Err(Error::malformed(
                FORMAT,
                "an empty tag 258 or 339",
                "one value a sample",
            ));
        };
        let number = match format {
            1 | 4 => Some(Number::Unsigned),
            2 => Some(Number::Signed),
            3 => Some(Number::Float),
            _ => None,
        };
        let encoding = match (u8::try_from(n_bits), number) {
            (Ok(bits), Some(number)) => Some(Self {
                bits,
                number,
                order: directory.order,
            }),
            _ => None,
        };
        encoding
            .filter(|e| e.is_decodable() && !mixed(&bits) && !mixed(&formats))
            .ok_or_else(|| {
                let feature = if mixed(&bits) || mixed(&formats) {
                    "a different format for each sample".to_owned()
                } else {
                    format!("sample format {format} of {n_bits} bits")
                };
                Error::unsupported(FORMAT, feature, "convert it to 8- or 16-bit samples")
            })
    }

    fn is_decodable(self) -> bool {
        match self.number {
            Number::Unsigned => matches!(self.bits, 1..=16 | 32 | 64),
            Number::Signed => matches!(self.bits, 8 | 16 | 32 | 64),
            Number::Float => matches!(self.bits, 16 | 32 | 64),
        }
    }

    /// Returns true for plain bytes.
    pub(super) fn is_u8(self) -> bool {
        self.bits == 8 && self.is_unsigned()
    }

    /// Returns true for unsigned integers.
    pub(super) fn is_unsigned(self) -> bool {
        self.number == Number::Unsigned
    }

    /// Returns the largest value of an unsigned sample, after `widening`.
    pub(super) fn full_scale(self) -> Option<f32> {
        match self.bits {
            _ if self.number != Number::Unsigned => None,
            1 | 2 | 4 | 8 => Some(255.0),
            64 => Some(narrow(widen_u64(u64::MAX))),
            bits => Some(narrow(widen_u64((1_u64 << bits) - 1))),
        }
    }

    /// Returns the factor that takes grey of 1, 2 or 4 bits to 0..=255.
    fn widening(self) -> f32 {
        match self.bits {
            1 => 255.0,
            2 => 85.0,
            4 => 17.0,
            _ => 1.0,
        }
    }

    fn scalar(self) -> Option<Scalar> {
        match (self.number, self.bits) {
            (Number::Unsigned, 8) => Some(Scalar::U8),
            (Number::Unsigned, 16) => Some(Scalar::U16),
            (Number::Unsigned, 32) => Some(Scalar::U32),
            (Number::Unsigned, 64) => Some(Scalar::U64),
            (Number::Signed, 8) => Some(Scalar::I8),
            (Number::Signed, 16) => Some(Scalar::I16),
            (Number::Signed, 32) => Some(Scalar::I32),
            (Number::Signed, 64) => Some(Scalar::I64),
            (Number::Float, 32) => Some(Scalar::F32),
            (Number::Float, 64) => Some(Scalar::F64),
            _ => None,
        }
    }
}

/// Appends the samples of one chunk to `out`; `widen` takes 1, 2 and 4 bits to 0..=255.
///
/// # Errors
/// `Malformed` if `bytes` is not what `packed` describes.
pub(super) fn unpack(out: &mut Vec<f32>, bytes: &[u8], packed: &Packed, widen: bool) -> Result<()> {
    let encoding = packed.encoding;
    if let Some(scalar) = encoding.scalar() {
        return extend_f32(out, bytes, (scalar, encoding.order), Linear::IDENTITY);
    }
    if encoding.number == Number::Float {
        let half = |raw: &[u8; 2]| match encoding.order {
            ByteOrder::Little => u16::from_le_bytes(*raw),
            ByteOrder::Big => u16::from_be_bytes(*raw),
        };
        out.extend(
            bytes
                .as_chunks::<2>()
                .0
                .iter()
                .map(|raw| half_into_f32(half(raw))),
        );
        return Ok(());
    }
    let factor = if widen { encoding.widening() } else { 1.0 };
    let n_in_row = packed.width * packed.n_samples;
    for row in bytes.chunks(packed.row_bytes()) {
        let before = out.len();
        let mut bits = row.iter().copied();
        let (mut held, mut n_held) = (0_u32, 0_u8);
        // Most significant bit first; every row starts at a whole byte.
        while out.len() < before + n_in_row {
            while n_held < encoding.bits {
                held = (held << 8) | u32::from(bits.next().ok_or_else(|| truncated("a row"))?);
                n_held += 8;
            }
            n_held -= encoding.bits;
            let value = (held >> n_held) & ((1 << encoding.bits) - 1);
            held &= (1 << n_held) - 1;
            out.push(factor * f32::from(u16::try_from(value).unwrap_or(u16::MAX)));
        }
    }
    Ok(())
}

/// Widens an IEEE half, exactly.
fn half_into_f32(half: u16) -> f32 {
    let sign = u32::from(half >> 15) << 31;
    let exponent = u32::from(half >> 10) & 0x1f;
    let fraction = u32::from(half) & 0x3ff;
    match exponent {
        // Subnormal: fraction * 2^-24.
        0 => {
            let magnitude = f32::from(half & 0x3ff) / 16_777_216.0;
            if sign == 0 { magnitude } else { -magnitude }
        }
        31 => f32::from_bits(sign | 0x7f80_0000 | (fraction << 13)),
        _ => f32::from_bits(sign | ((exponent + 112) << 23) | (fraction << 13)),
    }
}

/// Undoes the prediction of one chunk, in place.
///
/// # Errors
/// `Unsupported` for predictors of sub-byte samples or unknown ones.
pub(super) fn undo_prediction(bytes: &mut [u8], packed: &Packed, predictor: u64) -> Result<()> {
    let encoding = packed.encoding;
    let unsupported = || {
        let feature = format!("predictor {predictor} on {} bits", encoding.bits);
        Error::unsupported(FORMAT, feature, "write it without a predictor")
    };
    let rows = bytes.chunks_mut(packed.row_bytes());
    match (predictor, encoding.bits) {
        (1, _) => {}
        (2, 8) => rows.for_each(|row| add_up::<1>(row, packed)),
        (2, 16) => rows.for_each(|row| add_up::<2>(row, packed)),
        (2, 32) => rows.for_each(|row| add_up::<4>(row, packed)),
        (2, 64) => rows.for_each(|row| add_up::<8>(row, packed)),
        (3, 16 | 32 | 64) if encoding.number == Number::Float => {
            let mut sorted = Vec::new();
            rows.for_each(|row| join_float_bytes(row, &mut sorted, packed));
        }
        _ => return Err(unsupported()),
    }
    Ok(())
}

/// Adds to each sample the one of the same channel to its left.
fn add_up<const N: usize>(row: &mut [u8], packed: &Packed) {
    let (samples, _) = row.as_chunks_mut::<N>();
    let order = packed.encoding.order;
    let mut left = vec![0_u64; packed.n_samples.max(1)];
    for pixel in samples.chunks_mut(packed.n_samples.max(1)) {
        for (sample, left) in pixel.iter_mut().zip(&mut left) {
            let mut wide = [0_u8; 8];
            match order {
                ByteOrder::Little => copy(&mut wide, sample.iter()),
                ByteOrder::Big => copy(&mut wide, sample.iter().rev()),
            }
            *left = left.wrapping_add(u64::from_le_bytes(wide));
            let sum = left.to_le_bytes();
            match order {
                ByteOrder::Little => copy(sample, sum.iter()),
                ByteOrder::Big => copy(sample, sum.get(..N).unwrap_or_default().iter().rev()),
            }
        }
    }
}

fn copy<'a>(target: &mut [u8], source: impl Iterator<Item = &'a u8>) {
    target
        .iter_mut()
        .zip(source)
        .for_each(|(slot, &byte)| *slot = byte);
}

/// Undoes the byte-wise differences, then gathers each number's bytes, which are stored as all
/// first (most significant) bytes of the row, then all second ones.
fn join_float_bytes(row: &mut [u8], sorted: &mut Vec<u8>, packed: &Packed) {
    let stride = packed.n_samples.max(1);
    for i in stride..row.len() {
        let left = row.get(i - stride).copied().unwrap_or(0);
        if let Some(byte) = row.get_mut(i) {
            *byte = byte.wrapping_add(left);
        }
    }
    sorted.clear();
    sorted.extend_from_slice(row);
    let n_bytes = usize::from(packed.encoding.bits / 8);
    let n_numbers = row.len() / n_bytes;
    for (i, number) in row.chunks_mut(n_bytes).enumerate() {
        for (significance, byte) in number.iter_mut().enumerate() {
            let from = match packed.encoding.order {
                ByteOrder::Big => significance,
                ByteOrder::Little => n_bytes - 1 - significance,
            };
            *byte = sorted.get(from * n_numbers + i).copied().unwrap_or(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_widen_exactly() {
        for (half, expected) in [
            (0x0000, 0.0),
            (0x0001, 5.960_464_5e-8),
            (0x03ff, 6.097_555e-5),
            (0x0400, 6.103_515_6e-5),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65_504.0),
            (0xfc00, f32::NEG_INFINITY),
        ] {
            assert_eq!(
                half_into_f32(half).to_bits(),
                f32::to_bits(expected),
                "{half:04x}"
            );
        }
        assert!(half_into_f32(0x7e00).is_nan());
    }
}
