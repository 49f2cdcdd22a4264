//! A linear map after the encoder that evens out the directions of its vectors.
//!
//! A few directions, above all those that tell modalities apart, take most of the variance of a network's
//! vectors, so that cosines between modalities say little else. The map moves the mean of the training
//! items to 0, leaves out the first principal directions where that is asked for, and raises the variance
//! along each other one to `1 - power`. It follows from unlabelled images alone and is part of the model:
//! `embedding.weight` and `embedding.bias`.
//!
//! Source: whitening of descriptors for retrieval as in Jegou and Chum 2012; differs by the power, which
//! leaves part of the differences in variance. Leaving out the first directions: Mu and Viswanath 2018
//! (All-but-the-Top), for vectors of words.

use nalgebra::{DMatrix, SymmetricEigen};

use crate::error::{Error, Result};
use crate::parameters::{Weight, Weights};

/// Items that are looked at, at most about.
pub(crate) const N_ITEMS: usize = 2048;

/// Variances below this share of their mean count as that: what hardly varies is noise.
const LEAST_VARIANCE: f64 = 1e-3;

/// Returns the map for vectors, which need not be of unit length; all of one width, more than `n_out`.
///
/// # Errors
/// `Images` if the vectors are too few to say how they vary.
pub(crate) fn weights(rows: &[Vec<f32>], power: f64, n_out: usize) -> Result<Weights> {
    let width = rows.first().map_or(0, Vec::len);
    if rows.len() <= width {
        return Err(Error::Images {
            what: format!("{} images to whiten {width} dimensions with", rows.len()),
            advice: "train on more images, or set model.whitening and model.directions_out to 0"
                .to_owned(),
        });
    }
    let values = rows.iter().flatten().map(|&value| f64::from(value));
    let rows = DMatrix::from_row_iterator(rows.len(), width, values);
    let mean = rows.row_mean();
    let mut centred = rows;
    for mut row in centred.row_iter_mut() {
        row -= &mean;
    }
    #[allow(clippy::cast_precision_loss, reason = "counts are small")]
    let covariance = centred.transpose() * &centred / centred.nrows() as f64;
    let least = LEAST_VARIANCE * covariance.diagonal().mean();
    if !(least > 0.0 && least.is_finite()) {
        return Err(Error::Images {
            what: "images whose vectors are all equal, or not finite".to_owned(),
            advice: "look at the curves of the run: the network has collapsed".to_owned(),
        });
    }
    let found = SymmetricEigen::new(covariance);
    let mut factors = found
        .eigenvalues
        .map(|variance| variance.max(least).powf(-power / 2.0));
    for i in largest(found.eigenvalues.as_slice(), n_out) {
        factors[i] = 0.0;
    }
    // Rows: principal directions, stretched. Which way they are turned changes no cosine.
    let map = DMatrix::from_diagonal(&factors) * found.eigenvectors.transpose();
    let bias = -(&map * mean.transpose());
    #[allow(clippy::cast_possible_truncation, reason = "weights are f32")]
    let weight = |shape: Vec<usize>, values: Vec<f64>| Weight {
        shape,
        values: values.into_iter().map(|value| value as f32).collect(),
    };
    // nalgebra stores columns.
    let by_rows = map.transpose().as_slice().to_vec();
    Ok([
        (
            "embedding.weight".to_owned(),
            weight(vec![width, width], by_rows),
        ),
        (
            "embedding.bias".to_owned(),
            weight(vec![width], bias.as_slice().to_vec()),
        ),
    ]
    .into())
}

/// Returns the places of the `n` largest values.
fn largest(values: &[f64], n: usize) -> Vec<usize> {
    let mut places: Vec<usize> = (0..values.len()).collect();
    places.sort_by(|&i, &j| values[j].total_cmp(&values[i]));
    places.truncate(n);
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Points of an ellipse far from 0.
    fn ellipse() -> Vec<Vec<f32>> {
        let angle = |i: usize| i as f32 / 64.0 * std::f32::consts::TAU;
        (0..64)
            .map(|i| {
                let (long, short) = (10.0 * angle(i).cos(), angle(i).sin());
                vec![
                    5.0 + 0.6 * long - 0.8 * short,
                    -3.0 + 0.8 * long + 0.6 * short,
                ]
            })
            .collect()
    }

    fn mapped(weights: &Weights, row: &[f32]) -> [f32; 2] {
        let (w, b) = (
            &weights["embedding.weight"].values,
            &weights["embedding.bias"].values,
        );
        [0, 1].map(|i| w[2 * i] * row[0] + w[2 * i + 1] * row[1] + b[i])
    }

    /// Variances along the two new axes, and their covariance.
    fn moments(weights: &Weights) -> [f32; 3] {
        let rows: Vec<[f32; 2]> = ellipse().iter().map(|row| mapped(weights, row)).collect();
        let mean_of = |f: &dyn Fn(&[f32; 2]) -> f32| rows.iter().map(f).sum::<f32>() / 64.0;
        assert!(mean_of(&|row| row[0]).abs() < 1e-4 && mean_of(&|row| row[1]).abs() < 1e-4);
        [
            mean_of(&|row| row[0] * row[0]),
            mean_of(&|row| row[1] * row[1]),
            mean_of(&|row| row[0] * row[1]),
        ]
    }

    #[test]
    fn variances_are_raised_to_what_the_power_leaves() {
        // The ellipse has variances of 50 and 0.5.
        for (power, wanted) in [(1.0, [1.0, 1.0]), (0.5, [0.5_f32.sqrt(), 50.0_f32.sqrt()])] {
            let [a, b, covariance] = moments(&weights(&ellipse(), power, 0).unwrap());
            let found = [a.min(b), a.max(b)];
            for (found, wanted) in found.iter().zip(wanted) {
                assert!(
                    (found / wanted - 1.0).abs() < 1e-3,
                    "{power}: {found} and {wanted}"
                );
            }
            assert!(covariance.abs() < 1e-3, "{covariance}");
        }
    }

    #[test]
    fn the_first_direction_is_left_out_and_the_second_stays() {
        let [a, b, covariance] = moments(&weights(&ellipse(), 0.0, 1).unwrap());
        assert!(a.min(b).abs() < 1e-4 && covariance.abs() < 1e-4);
        assert!((a.max(b) / 0.5 - 1.0).abs() < 1e-3, "{a} and {b}");
    }

    #[test]
    fn too_few_or_equal_vectors_are_refused() {
        assert!(weights(&ellipse()[..2], 1.0, 0).is_err());
        assert!(weights(&vec![vec![1.0, 2.0]; 8], 1.0, 0).is_err());
        assert!(weights(&[], 1.0, 0).is_err());
    }
}
