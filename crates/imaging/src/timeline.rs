//! Which frames of a film are read, and how far apart in time they are.

/// The frames to keep of a film.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sampling {
    /// Frame numbers from 0, ascending; a frame that is shown for long may come twice.
    pub(crate) frames: Vec<usize>,
    /// Frames that the film has.
    pub(crate) n_total: usize,
    /// Distance of neighbours in seconds, where it is known and uniform.
    pub(crate) spacing_s: Option<f64>,
}

impl Sampling {
    /// Returns true if some frames of the film are left out.
    pub(crate) fn is_partial(&self) -> bool {
        self.frames.len() < self.n_total
    }
}

/// Picks `n_wanted` frames at uniform times: with `T` the length of the film, frame `i` is the one
/// on screen at `(i + 0.5) / n_wanted * T`, the centre of the i-th of `n_wanted` equal parts.
/// A film of no more than `n_wanted` frames is taken whole.
///
/// `starts_s` holds the ascending times at which frames appear, `end_s` when the last one goes.
/// If frames come at a constant rate the rule is evaluated in whole frames, as `uniform_indices`
/// does, so that rounded time stamps of a container do not matter.
pub(crate) fn sample(starts_s: &[f64], end_s: Option<f64>, n_wanted: Option<usize>) -> Sampling {
    let n_total = starts_s.len();
    let step_s = uniform_step(starts_s);
    let n_wanted = n_wanted.map_or(n_total, |n| n.clamp(1, n_total.max(1)));
    if n_wanted >= n_total {
        return Sampling {
            frames: (0..n_total).collect(),
            n_total,
            spacing_s: step_s,
        };
    }
    if let Some(step_s) = step_s {
        let spacing_s = Some(step_s * n_total as f64 / n_wanted as f64);
        return Sampling {
            frames: uniform_indices(n_total, n_wanted),
            n_total,
            spacing_s,
        };
    }
    let first_s = starts_s.first().copied().unwrap_or(0.0);
    let last_s = starts_s.last().copied().unwrap_or(0.0);
    let mean_gap_s = (last_s - first_s) / (n_total.max(2) - 1) as f64;
    let end_s = end_s
        .filter(|&end| end > last_s)
        .unwrap_or(last_s + mean_gap_s);
    let part_s = (end_s - first_s) / n_wanted as f64;
    if part_s.is_nan() || part_s <= 0.0 {
        return sample_by_index(n_total, Some(n_wanted));
    }
    let on_screen = |i: usize| {
        let time_s = first_s + (i as f64 + 0.5) * part_s;
        starts_s
            .partition_point(|&start_s| start_s <= time_s)
            .saturating_sub(1)
    };
    Sampling {
        frames: (0..n_wanted).map(on_screen).collect(),
        n_total,
        spacing_s: Some(part_s),
    }
}

/// As `sample`, for a film without time stamps: equal parts of its frames, spacing unknown.
pub(crate) fn sample_by_index(n_total: usize, n_wanted: Option<usize>) -> Sampling {
    let n_wanted = n_wanted.map_or(n_total, |n| n.clamp(1, n_total.max(1)));
    Sampling {
        frames: uniform_indices(n_total, n_wanted),
        n_total,
        spacing_s: None,
    }
}

/// Returns `floor((i + 0.5) * n_total / n_wanted)` for every `i`: the frames in the middle of
/// `n_wanted` equal parts. Where there are fewer frames than parts, they repeat evenly.
pub(crate) fn uniform_frames(n_total: usize, n_wanted: usize) -> Vec<usize> {
    let (whole, parts) = (n_total as u128, n_wanted as u128);
    (0..parts)
        .map(|i| usize::try_from((2 * i + 1) * whole / (2 * parts)).unwrap_or(usize::MAX))
        .collect()
}

/// As `uniform_frames`, and all frames once if there are fewer.
pub(crate) fn uniform_indices(n_total: usize, n_wanted: usize) -> Vec<usize> {
    uniform_frames(n_total, n_wanted.min(n_total))
}

/// Returns the distance of neighbours if all distances agree up to what containers round away.
pub(crate) fn uniform_step(starts_s: &[f64]) -> Option<f64> {
    let (first_s, last_s) = (starts_s.first()?, starts_s.last()?);
    let n_gaps = starts_s.len().checked_sub(1).filter(|&n| n > 0)?;
    let step_s = (last_s - first_s) / n_gaps as f64;
    // Matroska rounds to 1 ms, so two true neighbours may be 1 ms off.
    let tolerance_s = (0.02 * step_s).max((0.25 * step_s).min(0.0011));
    let uniform = starts_s
        .array_windows()
        .all(|[a, b]| (b - a - step_s).abs() <= tolerance_s);
    (uniform && step_s > 0.0).then_some(step_s)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn constant(n: usize, step_s: f64) -> Vec<f64> {
        (0..n).map(|i| 5.0 + i as f64 * step_s).collect()
    }

    #[test]
    fn frames_are_the_centres_of_equal_parts() {
        for (n_total, n_wanted, expected) in [
            (10, 1, vec![5]),
            (10, 5, vec![1, 3, 5, 7, 9]),
            (10, 4, vec![1, 3, 6, 8]),
            (7, 3, vec![1, 3, 5]),
            (3, 8, vec![0, 1, 2]),
        ] {
            let sampling = sample(&constant(n_total, 0.04), None, Some(n_wanted));
            assert_eq!(sampling.frames, expected, "{n_wanted} of {n_total}");
        }
    }

    #[test]
    fn spacing_is_the_length_divided_by_the_parts() {
        let sampling = sample(&constant(100, 0.04), None, Some(10));
        assert!((sampling.spacing_s.unwrap() - 0.4).abs() < 1e-9);
        let whole = sample(&constant(4, 0.04), None, None);
        assert!((whole.spacing_s.unwrap() - 0.04).abs() < 1e-9);
    }

    #[test]
    fn millisecond_rounding_still_counts_as_a_constant_rate() {
        let rounded: Vec<f64> = (0..90)
            .map(|i| (f64::from(i) * 1000.0 / 29.97).round() / 1000.0)
            .collect();
        let sampling = sample(&rounded, None, Some(9));
        assert_eq!(sampling.frames, uniform_indices(90, 9));
    }

    #[test]
    fn a_long_frame_of_a_variable_rate_is_seen_for_as_long_as_it_lasts() {
        // Shown for 1, 7, 1 and 1 s; parts end at 2, 4, 6, 8, 10 and have centres 1, 3, 5, 7, 9.
        let sampling = sample(&[0.0, 1.0, 8.0, 8.5, 9.5, 9.8], Some(10.0), Some(5));
        assert_eq!(sampling.frames, [1, 1, 1, 1, 3]);
        assert_eq!(sampling.spacing_s, Some(2.0));
        assert_eq!(sample(&[0.0, 1.0, 8.0], Some(9.0), None).spacing_s, None);
    }

    #[test]
    fn equal_time_stamps_fall_back_to_whole_frames() {
        let sampling = sample(&[1.0; 8], None, Some(2));
        assert_eq!((sampling.frames, sampling.spacing_s), (vec![2, 6], None));
        assert_eq!(sample(&[], None, Some(3)).frames, Vec::<usize>::new());
    }

    proptest! {
        #[test]
        fn indices_ascend_and_stay_inside(n_total in 1_usize..5_000, n_wanted in 1_usize..5_000) {
            let indices = uniform_indices(n_total, n_wanted);
            prop_assert_eq!(indices.len(), n_total.min(n_wanted));
            prop_assert!(indices.windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert!(indices.iter().all(|&index| index < n_total));
        }
    }
}
