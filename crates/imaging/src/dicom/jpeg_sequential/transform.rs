//! The 8 x 8 inverse cosine transform, in f32: nearer to its definition than any decoder that
//! rounds to integers.
//!
//! # Source
//! ITU-T T.81 A.3.3. The sums are split by even and odd frequencies, which share their cosines.

use std::ops::{Add, Mul, Sub};

/// `cos(k pi / 16) / 2` for k = 1 to 7; frequency 0 has the weight of k = 4.
const C1: f32 = 0.490_392_64;
const C2: f32 = 0.461_939_77;
const C3: f32 = 0.415_734_8;
const C4: f32 = 0.353_553_4;
const C5: f32 = 0.277_785_12;
const C6: f32 = 0.191_341_71;
const C7: f32 = 0.097_545_16;

type Rows = [[f32; 8]; 8];

/// Coefficients by (vertical, horizontal) frequency -> samples by (row, column).
pub(super) fn inverse(coefficients: &Rows) -> Rows {
    transposed(&columns(&transposed(&columns(coefficients))))
}

/// Eight numbers that go through the same sums: compilers make vectors of them.
#[derive(Clone, Copy)]
struct Lanes([f32; 8]);

impl Lanes {
    fn zip(self, other: Self, apply: impl Fn(f32, f32) -> f32) -> Self {
        let mut out = self.0;
        for (a, b) in out.iter_mut().zip(other.0) {
            *a = apply(*a, b);
        }
        Self(out)
    }
}

impl Add for Lanes {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
}

impl Sub for Lanes {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }
}

impl Mul<f32> for Lanes {
    type Output = Self;

    fn mul(self, factor: f32) -> Self {
        Self(self.0.map(|a| a * factor))
    }
}

/// Transforms all 8 columns side by side.
fn columns(rows: &Rows) -> Rows {
    let [f0, f1, f2, f3, f4, f5, f6, f7] = rows.map(Lanes);
    let (sum, difference) = ((f0 + f4) * C4, (f0 - f4) * C4);
    let (outer, inner) = (f2 * C2 + f6 * C6, f2 * C6 - f6 * C2);
    let (e0, e1, e2, e3) = (
        sum + outer,
        difference + inner,
        difference - inner,
        sum - outer,
    );
    let o0 = f1 * C1 + f3 * C3 + f5 * C5 + f7 * C7;
    let o1 = f1 * C3 - f3 * C7 - f5 * C1 - f7 * C5;
    let o2 = f1 * C5 - f3 * C1 + f5 * C7 + f7 * C3;
    let o3 = f1 * C7 - f3 * C5 + f5 * C3 - f7 * C1;
    let upper = [e0 + o0, e1 + o1, e2 + o2, e3 + o3];
    let lower = [e3 - o3, e2 - o2, e1 - o1, e0 - o0];
    let ([y0, y1, y2, y3], [y4, y5, y6, y7]) = (upper, lower);
    [y0, y1, y2, y3, y4, y5, y6, y7].map(|row| row.0)
}

fn transposed(rows: &Rows) -> Rows {
    let mut out = [[0.0; 8]; 8];
    for (x, column) in out.iter_mut().enumerate() {
        for (place, row) in column.iter_mut().zip(rows) {
            *place = row.get(x).copied().unwrap_or(0.0);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frequency_is_its_cosine() {
        for (v, u) in (0..8).flat_map(|v| (0..8).map(move |u| (v, u))) {
            let mut coefficients = [[0.0; 8]; 8];
            coefficients[v][u] = 100.0;
            let samples = inverse(&coefficients);
            let weight = |k: usize| if k == 0 { 0.5_f64.sqrt() } else { 1.0 };
            let angle = |x: usize, k: usize| ((2 * x + 1) * k) as f64 * std::f64::consts::PI / 16.0;
            for (y, x) in (0..8).flat_map(|y| (0..8).map(move |x| (y, x))) {
                let expected = 25.0 * weight(u) * weight(v) * angle(y, v).cos() * angle(x, u).cos();
                let found = f64::from(samples[y][x]);
                assert!(
                    (found - expected).abs() < 1e-5,
                    "{v} {u}: {found} {expected}"
                );
            }
        }
    }
}
