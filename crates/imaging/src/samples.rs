//! Raw scalars of any width and byte order -> f32: shared by every reader of raw voxels.

use crate::error::{Error, Result};

/// How one stored number is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scalar {
    /// Unsigned, 8 bit.
    U8,
    /// Signed, 8 bit.
    I8,
    /// Unsigned, 16 bit.
    U16,
    /// Signed, 16 bit.
    I16,
    /// Unsigned, 32 bit.
    U32,
    /// Signed, 32 bit.
    I32,
    /// Unsigned, 64 bit.
    U64,
    /// Signed, 64 bit.
    I64,
    /// IEEE single.
    F32,
    /// IEEE double.
    F64,
}

impl Scalar {
    /// Returns the stored width in bytes.
    pub(crate) fn n_bytes(self) -> usize {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }
}

/// Which byte of a number comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ByteOrder {
    /// Least significant first.
    Little,
    /// Most significant first.
    Big,
}

/// `value * slope + intercept`, computed in f64 and rounded once to f32.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Linear {
    /// Factor.
    pub(crate) slope: f64,
    /// Summand.
    pub(crate) intercept: f64,
}

impl Linear {
    /// Changes nothing.
    pub(crate) const IDENTITY: Self = Self {
        slope: 1.0,
        intercept: 0.0,
    };

    /// Returns true if the map changes nothing.
    pub(crate) fn is_identity(self) -> bool {
        self == Self::IDENTITY
    }

    /// Maps one value.
    pub(crate) fn apply(self, value: f64) -> f32 {
        narrow(value * self.slope + self.intercept)
    }
}

/// Rounds to the nearest f32; a `Volume` holds nothing wider.
#[allow(
    clippy::cast_possible_truncation,
    reason = "rounding to f32 is what is asked for"
)]
pub(crate) fn narrow(value: f64) -> f32 {
    value as f32
}

/// Widens an integer; above 2^53 it is rounded, as every f32 `Volume` would round it anyway.
#[allow(clippy::cast_precision_loss, reason = "rounded again to f32 later")]
pub(crate) fn widen_i64(value: i64) -> f64 {
    value as f64
}

/// As `widen_i64`.
#[allow(clippy::cast_precision_loss, reason = "rounded again to f32 later")]
pub(crate) fn widen_u64(value: u64) -> f64 {
    value as f64
}

/// Rounds once to the nearest f32.
#[allow(
    clippy::cast_precision_loss,
    reason = "rounding to f32 is what is asked for"
)]
fn round_i64(value: i64) -> f32 {
    value as f32
}

/// As `round_i64`.
#[allow(
    clippy::cast_precision_loss,
    reason = "rounding to f32 is what is asked for"
)]
fn round_u64(value: u64) -> f32 {
    value as f32
}

/// Decodes all of `bytes` into f32 and appends them to `out`.
///
/// # Errors
/// `Mismatch` if `bytes` is no whole number of scalars.
pub(crate) fn extend_f32(
    out: &mut Vec<f32>,
    bytes: &[u8],
    layout: (Scalar, ByteOrder),
    map: Linear,
) -> Result<()> {
    let (scalar, order) = layout;
    if !bytes.len().is_multiple_of(scalar.n_bytes()) {
        return Err(Error::Mismatch {
            what: "bytes of raw voxels",
            expected: format!("a multiple of {}", scalar.n_bytes()),
            got: bytes.len().to_string(),
        });
    }
    out.reserve(bytes.len() / scalar.n_bytes());
    macro_rules! decode {
        ($number:ty, $exact:expr, $wide:expr) => {{
            // One loop for each case: a branch inside would keep the compiler from vectorising.
            let (chunks, _) = bytes.as_chunks::<{ size_of::<$number>() }>();
            let (little, big) = (<$number>::from_le_bytes, <$number>::from_be_bytes);
            match (order, map.is_identity()) {
                (ByteOrder::Little, true) => out.extend(chunks.iter().map(|&r| $exact(little(r)))),
                (ByteOrder::Big, true) => out.extend(chunks.iter().map(|&r| $exact(big(r)))),
                (ByteOrder::Little, false) => {
                    out.extend(chunks.iter().map(|&r| map.apply($wide(little(r)))));
                }
                (ByteOrder::Big, false) => {
                    out.extend(chunks.iter().map(|&r| map.apply($wide(big(r)))));
                }
            }
        }};
    }
    match scalar {
        Scalar::U8 => decode!(u8, f32::from, f64::from),
        Scalar::I8 => decode!(i8, f32::from, f64::from),
        Scalar::U16 => decode!(u16, f32::from, f64::from),
        Scalar::I16 => decode!(i16, f32::from, f64::from),
        Scalar::U32 => decode!(u32, |v| narrow(f64::from(v)), f64::from),
        Scalar::I32 => decode!(i32, |v| narrow(f64::from(v)), f64::from),
        // Straight to f32, as numpy's `astype(float32)`: rounding twice may end one step off.
        Scalar::U64 => decode!(u64, round_u64, widen_u64),
        Scalar::I64 => decode!(i64, round_i64, widen_i64),
        Scalar::F32 => decode!(f32, |v| v, f64::from),
        Scalar::F64 => decode!(f64, narrow, |v| v),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scalar_decodes_in_both_byte_orders() {
        macro_rules! check {
            ($($scalar:ident $number:ty),*) => {$({
                let stored: $number = 97 as $number;
                for (bytes, order) in [
                    (stored.to_le_bytes(), ByteOrder::Little),
                    (stored.to_be_bytes(), ByteOrder::Big),
                ] {
                    let mut out = Vec::new();
                    let layout = (Scalar::$scalar, order);
                    extend_f32(&mut out, &bytes, layout, Linear::IDENTITY).unwrap();
                    extend_f32(&mut out, &bytes, layout, Linear { slope: 2.0, intercept: -1.0 })
                        .unwrap();
                    assert_eq!(out, [97.0, 193.0], "{order:?}");
                }
            })*};
        }
        check!(U8 u8, I8 i8, U16 u16, I16 i16, U32 u32, I32 i32, U64 u64, I64 i64, F32 f32, F64 f64);
    }

    #[test]
    fn wide_integers_are_rounded_once() {
        // Half a step of f32 and 1: through f64 the 1 is lost, and the tie falls to even.
        let stored = (1_i64 << 60) + (1 << 36) + 1;
        for scalar in [Scalar::I64, Scalar::U64] {
            let mut out = Vec::new();
            let layout = (scalar, ByteOrder::Little);
            extend_f32(&mut out, &stored.to_le_bytes(), layout, Linear::IDENTITY).unwrap();
            assert_eq!(out, [2.0_f32.powi(60) + 2.0_f32.powi(37)]);
        }
    }

    #[test]
    fn half_a_scalar_is_an_error() {
        let layout = (Scalar::I16, ByteOrder::Little);
        assert!(extend_f32(&mut Vec::new(), &[1, 2, 3], layout, Linear::IDENTITY).is_err());
    }
}
