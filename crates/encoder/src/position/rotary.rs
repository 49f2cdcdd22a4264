//! Rotary positions: angles by which queries and keys turn.

use super::{Rotary, as_f64, rounded};

impl Rotary {
    /// Returns the angles of every patch, [N, head width]: the first half is [y.., x..], the
    /// second the same again.
    pub(super) fn angles(&self, grid: [usize; 3], head_width: usize) -> Vec<f32> {
        let [depth, n_rows, n_columns] = grid;
        let n_frequencies = head_width / 4;
        let frequencies: Vec<f64> = (0..n_frequencies)
            .map(|k| self.base.powf(-as_f64(k) / as_f64(n_frequencies)))
            .collect();
        let axis = |i: usize, n: usize| 2.0 * (as_f64(i) + 0.5) / as_f64(n) - 1.0;
        let mut plane = Vec::with_capacity(n_rows * n_columns * head_width);
        for row in 0..n_rows {
            for column in 0..n_columns {
                let coordinates = [axis(row, n_rows), axis(column, n_columns)].repeat(2);
                for coordinate in coordinates {
                    let turn = std::f64::consts::TAU * coordinate;
                    plane.extend(frequencies.iter().map(|f| rounded(turn * f)));
                }
            }
        }
        plane.repeat(depth)
    }
}
