//! Components with fewer samples, brought to full size: linear between sample centres, as JFIF
//! places them.

/// One component's decoded samples.
pub(super) struct Plane<'a> {
    pub(super) samples: &'a [f32],
    /// Samples from one row to the next.
    pub(super) stride: usize,
    /// Sampling factors along H and W, and the largest of any component.
    pub(super) factors: [usize; 2],
    pub(super) most: [usize; 2],
}

impl Plane<'_> {
    fn stored(&self, y: usize, n: usize) -> &[f32] {
        let start = y * self.stride;
        self.samples.get(start..start + n).unwrap_or(&[])
    }

    /// Returns one full-size row of an image of `[height, width]` pixels; `scratch` may hold it.
    pub(super) fn row<'r>(
        &'r self,
        y: usize,
        [height, width]: [usize; 2],
        scratch: &'r mut Vec<f32>,
    ) -> &'r [f32] {
        let [v, h] = self.factors;
        let [v_most, h_most] = self.most;
        let n_stored = (width * h).div_ceil(h_most);
        let (above, below, down) = neighbours(y, height, v, v_most);
        let (above, below) = (self.stored(above, n_stored), self.stored(below, n_stored));
        if (v, h) == (v_most, h_most) {
            return above;
        }
        scratch.clear();
        let between = above.iter().zip(below).map(|(a, b)| a + (b - a) * down);
        if h == h_most {
            scratch.extend(between);
            return scratch;
        }
        let stored: Vec<f32> = between.collect();
        if 2 * h == h_most {
            twice(&stored, scratch);
        } else {
            let at = |x| stored.get(x).copied().unwrap_or(0.0);
            scratch.extend((0..width).map(|x| {
                let (left, right, across) = neighbours(x, width, h, h_most);
                at(left) + (at(right) - at(left)) * across
            }));
        }
        scratch.truncate(width);
        scratch
    }
}

/// The common case: each sample covers two pixels, a quarter to either side of its centre.
fn twice(stored: &[f32], out: &mut Vec<f32>) {
    let (Some(&first), Some(&last)) = (stored.first(), stored.last()) else {
        return;
    };
    out.push(first);
    for (&left, &right) in stored.iter().zip(stored.iter().skip(1)) {
        let quarter = (right - left) * 0.25;
        out.extend([left + quarter, right - quarter]);
    }
    out.push(last);
}

/// The two samples that pixel `i` of `n` lies between, and how far from the first to the second.
///
/// `factor` is the component's sampling factor along the axis, `most` the largest of any component.
fn neighbours(i: usize, n: usize, factor: usize, most: usize) -> (usize, usize, f32) {
    if factor == most {
        return (i, i, 0.0);
    }
    let last = (n * factor).div_ceil(most) - 1;
    // Position (i + 1/2) factor / most - 1/2, as a multiple of 1 / (2 most).
    let halves = ((2 * i + 1) * factor).saturating_sub(most);
    let (whole, part) = (halves / (2 * most), halves % (2 * most));
    #[allow(clippy::cast_precision_loss, reason = "both are at most 8")]
    let across = part as f32 / (2 * most) as f32;
    (whole.min(last), (whole + 1).min(last), across)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(samples: &[f32], [h, h_most]: [usize; 2], expected: &[f32]) {
        let plane = Plane {
            samples,
            stride: samples.len(),
            factors: [1, h],
            most: [1, h_most],
        };
        let mut scratch = Vec::new();
        let row = plane.row(0, [1, expected.len()], &mut scratch);
        let bits = |row: &[f32]| row.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(row), bits(expected), "{row:?}");
    }

    #[test]
    fn pixels_lie_between_the_centres_of_samples() {
        check(&[8.0, 16.0, 8.0], [1, 1], &[8.0, 16.0, 8.0]);
        check(
            &[8.0, 16.0, 8.0],
            [1, 2],
            &[8.0, 10.0, 14.0, 14.0, 10.0, 8.0],
        );
        check(&[8.0, 16.0, 8.0], [1, 2], &[8.0, 10.0, 14.0, 14.0, 10.0]);
        check(
            &[8.0, 16.0],
            [1, 4],
            &[8.0, 8.0, 9.0, 11.0, 13.0, 15.0, 16.0, 16.0],
        );
        check(&[5.0], [1, 2], &[5.0]);
    }
}
