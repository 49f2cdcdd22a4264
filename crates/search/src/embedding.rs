//! What counts as an embedding: finite, of unit length, of the gallery's width.

use crate::error::{Error, Result};

/// How far from 1 a length may be: what rounding to f16 and back may make of a unit vector.
pub const UNIT_TOLERANCE: f64 = 1e-3;

/// Largest width of a vector.
pub const MAX_WIDTH: usize = 1 << 16;

/// Checks that every row of `vectors` [n, width] is a unit vector.
///
/// # Errors
/// `Mismatch` if a value is not finite, or a length is not 1; names the first such row.
pub fn check_unit(vectors: &[f32], width: usize) -> Result<()> {
    for (row, vector) in vectors.chunks_exact(width.max(1)).enumerate() {
        if let Some(found) = fault(vector) {
            return Err(Error::mismatch(
                format!("vector of row {row} (from 0)"),
                "finite numbers and length 1",
                found,
            ));
        }
    }
    Ok(())
}

/// Says what is wrong with a vector, if anything is.
pub(crate) fn fault(vector: &[f32]) -> Option<String> {
    let length = length(vector);
    if !length.is_finite() {
        return Some("a value that is infinite or not a number".to_owned());
    }
    if length == 0.0 {
        return Some("zeros".to_owned());
    }
    let is_unit = (length - 1.0).abs() <= UNIT_TOLERANCE;
    (!is_unit).then(|| format!("length {length:.6}"))
}

/// Returns the Euclidean length, computed in f64.
fn length(vector: &[f32]) -> f64 {
    let squares = vector.iter().map(|&x| f64::from(x) * f64::from(x));
    squares.sum::<f64>().sqrt()
}

/// Gives a vector unit length.
///
/// # Errors
/// `Mismatch` if it has no direction: it is zero or not finite.
pub fn normalize(vector: &mut [f32]) -> Result<()> {
    let length = length(vector);
    if !(length.is_finite() && length > 0.0) {
        return Err(Error::mismatch(
            "vector",
            "a direction",
            "zeros, or a value that is infinite or not a number",
        ));
    }
    #[expect(clippy::cast_possible_truncation, reason = "f32 is what is stored")]
    for x in vector.iter_mut() {
        *x = (f64::from(*x) / length) as f32;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_finite_unit_vectors_are_embeddings() {
        for (vector, is_good) in [
            ([0.6, 0.8], true),
            ([0.6004, 0.8], true),
            ([0.0, 0.0], false),
            ([0.61, 0.8], false),
            ([f32::NAN, 1.0], false),
            ([f32::INFINITY, 0.0], false),
        ] {
            assert_eq!(check_unit(&vector, 2).is_ok(), is_good, "{vector:?}");
        }
        let error = check_unit(&[1.0, 0.0, 3.0, 4.0], 2)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("row 1") && error.contains("length 5"),
            "{error}"
        );
    }

    #[test]
    fn normalizing_keeps_the_direction() {
        let mut vector = [3.0, 4.0];
        normalize(&mut vector).unwrap();
        assert_eq!(vector, [0.6, 0.8]);
        assert!(normalize(&mut [0.0, 0.0]).is_err());
    }
}
