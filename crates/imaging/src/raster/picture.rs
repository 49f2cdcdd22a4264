//! One decoded image, turned upright: interleaved samples -> planes.

use crate::error::{Error, Result};

/// One upright image.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Picture {
    /// `[C, H, W]`, W fastest.
    pub(super) planes: Vec<f32>,
    /// C, 1 or 3.
    pub(super) n_channels: usize,
    /// H after turning.
    pub(super) height: usize,
    /// W after turning.
    pub(super) width: usize,
    /// As `Volume::full_scale`.
    pub(super) full_scale: Option<f32>,
    /// True if the file has an alpha channel.
    pub(super) alpha_dropped: bool,
    /// What lost information, if anything did.
    pub(super) lossy: Option<&'static str>,
}

/// How interleaved samples lie in memory, and how to turn them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Interleaved {
    /// Rows as stored.
    pub(super) height: usize,
    /// Columns as stored.
    pub(super) width: usize,
    /// Samples of one pixel.
    pub(super) n_stored: usize,
    /// Leading samples of one pixel that are kept.
    pub(super) n_kept: usize,
    /// EXIF orientation; 1 is upright, and so is any value outside 1..=8.
    pub(super) orientation: u8,
}

impl Interleaved {
    /// Returns `(height, width)` of the upright image.
    pub(super) fn upright(&self) -> (usize, usize) {
        if matches!(self.orientation, 5..=8) {
            (self.width, self.height)
        } else {
            (self.height, self.width)
        }
    }

    /// Takes interleaved samples apart into upright planes and appends them to `out`.
    ///
    /// # Shapes
    /// `samples` `[H, W, n_stored]` -> `[n_kept, H', W']`.
    /// # Errors
    /// `Mismatch` if `samples` does not fill the layout.
    pub(super) fn extend_planes<T: Copy>(
        &self,
        out: &mut Vec<f32>,
        samples: &[T],
        widen: impl Fn(T) -> f32,
    ) -> Result<()> {
        let mismatch = || Error::Mismatch {
            what: "decoded samples",
            expected: format!("{} x {} x {}", self.height, self.width, self.n_stored),
            got: samples.len().to_string(),
        };
        let n_pixels = self.height.checked_mul(self.width).ok_or_else(mismatch)?;
        if n_pixels.checked_mul(self.n_stored) != Some(samples.len()) || n_pixels == 0 {
            return Err(mismatch());
        }
        let (out_height, out_width) = self.upright();
        let (start, row_step, column_step) = self.walk(n_pixels);
        out.reserve(n_pixels * self.n_kept);
        for channel in 0..self.n_kept {
            for y in 0..out_height {
                let row = start.wrapping_add(y.wrapping_mul(row_step));
                out.extend((0..out_width).filter_map(|x| {
                    let pixel = row.wrapping_add(x.wrapping_mul(column_step));
                    samples
                        .get(pixel * self.n_stored + channel)
                        .map(|&sample| widen(sample))
                }));
            }
        }
        Ok(())
    }

    /// Returns the stored pixel shown at the upper left, and how far the stored index moves, in
    /// wrapping arithmetic, from one row and from one column of the upright image to the next.
    fn walk(&self, n_pixels: usize) -> (usize, usize, usize) {
        let (width, last, last_row) = (self.width, n_pixels - 1, n_pixels - self.width);
        let minus = usize::wrapping_neg;
        match self.orientation {
            2 => (width - 1, width, minus(1)),
            3 => (last, minus(width), minus(1)),
            4 => (last_row, minus(width), 1),
            5 => (0, 1, width),
            6 => (last_row, 1, minus(width)),
            7 => (last, minus(1), minus(width)),
            8 => (width - 1, minus(1), width),
            _ => (0, width, 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_orientation_turns_the_stored_image_as_exif_says() {
        // Stored:  0 1 2
        //          3 4 5
        for (orientation, height, expected) in [
            (1, 2, [0, 1, 2, 3, 4, 5]),
            (2, 2, [2, 1, 0, 5, 4, 3]),
            (3, 2, [5, 4, 3, 2, 1, 0]),
            (4, 2, [3, 4, 5, 0, 1, 2]),
            (5, 3, [0, 3, 1, 4, 2, 5]),
            (6, 3, [3, 0, 4, 1, 5, 2]),
            (7, 3, [5, 2, 4, 1, 3, 0]),
            (8, 3, [2, 5, 1, 4, 0, 3]),
        ] {
            let layout = Interleaved {
                height: 2,
                width: 3,
                n_stored: 2,
                n_kept: 1,
                orientation,
            };
            let stored: Vec<u8> = (0..6).flat_map(|value| [value, 99]).collect();
            let mut planes = Vec::new();
            layout
                .extend_planes(&mut planes, &stored, f32::from)
                .unwrap();
            assert_eq!(planes, expected.map(|v: u8| f32::from(v)), "{orientation}");
            assert_eq!(layout.upright().0, height);
        }
    }

    #[test]
    fn samples_that_do_not_fill_the_layout_are_refused() {
        let layout = Interleaved {
            height: 2,
            width: 2,
            n_stored: 3,
            n_kept: 3,
            orientation: 1,
        };
        assert!(
            layout
                .extend_planes(&mut Vec::new(), &[0_u8; 11], f32::from)
                .is_err()
        );
    }
}
