//! Statistics of the values of one image.

use m3ret_imaging::{Padding, Volume};
use serde::Serialize;

/// Statistics of the finite values of an image that are no padding, in the unit of the values; `None` (null in
/// JSON) if there is no such value.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Values {
    /// Smallest finite value.
    pub min: Option<f32>,
    /// Largest finite value.
    pub max: Option<f32>,
    /// Mean of the finite values.
    pub mean: Option<f64>,
    /// Standard deviation of the finite values as a whole population: the variance is divided by n.
    pub std: Option<f64>,
    /// Number of values that are NaN or infinite.
    pub n_non_finite: u64,
    /// Number of voxels that the file declares to be padding.
    pub n_padding: u64,
}

/// Independent sums, so that the compiler can use vectors.
const N_LANES: usize = 16;

impl Values {
    /// Computes the statistics in two passes in f64: the mean, then the deviations from it.
    ///
    /// Padding voxels hold the darkest of the other values: the least and the largest value are those of all voxels,
    /// and the sums lose as many copies of it.
    pub fn of(volume: &Volume) -> Self {
        let (n_padding, value) = match volume.padding {
            Some(Padding { n_voxels, value }) => (u64::try_from(n_voxels).unwrap_or(0), value),
            None => (0, 0.0),
        };
        Self::without(volume.values(), n_padding, f64::from(value))
    }

    /// As `of`, without `n_padding` copies of the value `padded`.
    fn without(values: &[f32], n_padding: u64, padded: f64) -> Self {
        let (mut min, mut max) = ([f32::INFINITY; N_LANES], [f32::NEG_INFINITY; N_LANES]);
        let (mut sum, mut n_finite) = ([0.0_f64; N_LANES], 0_u64);
        for chunk in values.chunks(N_LANES) {
            for (lane, &value) in chunk.iter().enumerate() {
                let is_finite = value.is_finite();
                n_finite += u64::from(is_finite);
                min[lane] = if is_finite && value < min[lane] {
                    value
                } else {
                    min[lane]
                };
                max[lane] = if is_finite && value > max[lane] {
                    value
                } else {
                    max[lane]
                };
                sum[lane] += if is_finite { f64::from(value) } else { 0.0 };
            }
        }
        let n_values = u64::try_from(values.len()).unwrap_or(u64::MAX);
        let n_non_finite = n_values - n_finite;
        let n_counted = n_finite.saturating_sub(n_padding);
        if n_counted == 0 {
            return Self {
                min: None,
                max: None,
                mean: None,
                std: None,
                n_non_finite,
                n_padding,
            };
        }
        let count = as_f64(n_counted);
        let mean = (sum.iter().sum::<f64>() - as_f64(n_padding) * padded) / count;
        let mut squares = [0.0_f64; N_LANES];
        for chunk in values.chunks(N_LANES) {
            for (square, &value) in squares.iter_mut().zip(chunk) {
                let deviation = if value.is_finite() {
                    f64::from(value) - mean
                } else {
                    0.0
                };
                *square += deviation * deviation;
            }
        }
        let of_padding = as_f64(n_padding) * (padded - mean).powi(2);
        let squares = (squares.iter().sum::<f64>() - of_padding).max(0.0);
        Self {
            min: min.into_iter().reduce(f32::min),
            max: max.into_iter().reduce(f32::max),
            mean: Some(mean),
            std: Some((squares / count).sqrt()),
            n_non_finite,
            n_padding,
        }
    }

    /// Whether all values are finite and the same.
    pub(crate) fn is_constant(&self) -> bool {
        self.n_non_finite == 0 && self.min == self.max
    }
}

#[expect(clippy::cast_precision_loss, reason = "exact below 2^53 voxels")]
fn as_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_those_of_the_finite_values() {
        let mut values: Vec<f32> = (0_u8..100).map(f32::from).collect();
        values.extend([f32::NAN, f32::INFINITY, f32::NEG_INFINITY]);
        let found = Values::without(&values, 0, 0.0);
        assert_eq!(
            (found.min, found.max, found.mean),
            (Some(0.0), Some(99.0), Some(49.5))
        );
        // The variance of 0..n is (n^2 - 1) / 12.
        assert!((found.std.unwrap() - (9999.0_f64 / 12.0).sqrt()).abs() < 1e-12);
        assert_eq!(found.n_non_finite, 3);
    }

    #[test]
    fn nothing_finite_gives_nothing() {
        let found = Values::without(&[f32::NAN; 3], 0, 0.0);
        assert_eq!(
            (found.min, found.mean, found.std, found.n_non_finite),
            (None, None, None, 3)
        );
        assert!(!found.is_constant());
    }

    #[test]
    fn a_large_offset_does_not_drown_the_deviation() {
        let values: Vec<f32> = (0..1000)
            .map(|i| if i % 2 == 0 { 1e6 } else { 1e6 + 1.0 })
            .collect();
        let found = Values::without(&values, 0, 0.0);
        assert!((found.std.unwrap() - 0.5).abs() < 1e-9);
    }

    #[test]
    fn padding_does_not_count() {
        let values: Vec<f32> = (0_u8..100).map(f32::from).collect();
        let alone = Values::without(&values, 0, 0.0);
        let padded = [values.as_slice(), &[0.0; 50]].concat();
        let found = Values::without(&padded, 50, 0.0);
        assert_eq!((found.min, found.max), (alone.min, alone.max));
        assert!((found.mean.unwrap() - alone.mean.unwrap()).abs() < 1e-9);
        assert!((found.std.unwrap() - alone.std.unwrap()).abs() < 1e-9);
        assert_eq!(found.n_padding, 50);
    }
}
