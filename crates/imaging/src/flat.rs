//! A volume as flat pictures: the means along its axes, as a radiograph would see it from the front and from the side.

use crate::volume::{Kind, Volume};

/// The pictures of `flat_views`, by name.
pub const FLAT_VIEWS: [&str; 4] = ["front", "front mirrored", "side", "side mirrored"];
/// Fewer slices are no object that one could look at from the side.
const MIN_SLICES: usize = 8;

/// Returns whether a volume has pictures of `flat_views`.
#[must_use]
pub fn has_flat_views(volume: &Volume) -> bool {
    let [n_channels, n_slices, ..] = volume.shape();
    let is_placed = volume.is_placed() && volume.spacing.iter().all(Option::is_some);
    volume.kind == Kind::Volume && is_placed && n_channels == 1 && n_slices >= MIN_SLICES
}

/// Returns pictures of a grey volume whose place in the patient is known: the mean along the axis from front to back and
/// along that from side to side, head up, each also mirrored. Empty for anything else.
///
/// `[1, 1, D, W]` and `[1, 1, D, H]` of a volume `[1, D, H, W]` that stands as readers turn it: D to the head, H to the
/// back, W to the patient's left. Rows and columns have the volume's spacing in mm.
#[must_use]
pub fn flat_views(volume: &Volume) -> Vec<(&'static str, Volume)> {
    let [_, n_slices, n_rows, n_columns] = volume.shape();
    let [Some(deep), Some(high), Some(wide)] = volume.spacing else {
        return Vec::new();
    };
    if !has_flat_views(volume) {
        return Vec::new();
    }
    // [D, W] and [D, H]; the first row is that of the last slice: the head is up.
    let mut front = vec![0.0_f32; n_slices * n_columns];
    let mut side = vec![0.0_f32; n_slices * n_rows];
    let slices = volume.values().chunks_exact(n_rows * n_columns).rev();
    let of_slices = front
        .chunks_exact_mut(n_columns)
        .zip(side.chunks_exact_mut(n_rows));
    for (slice, (front, side)) in slices.zip(of_slices) {
        for (row, mean) in slice.chunks_exact(n_columns).zip(side) {
            for (sum, value) in front.iter_mut().zip(row) {
                *sum += value;
            }
            *mean = row.iter().sum::<f32>() / n_columns as f32;
        }
        front.iter_mut().for_each(|sum| *sum /= n_rows as f32);
    }
    let mut views = Vec::with_capacity(FLAT_VIEWS.len());
    for (values, width, spacing, names) in [
        (front, n_columns, wide, [FLAT_VIEWS[0], FLAT_VIEWS[1]]),
        (side, n_rows, high, [FLAT_VIEWS[2], FLAT_VIEWS[3]]),
    ] {
        let mut mirrored = values.clone();
        mirrored.chunks_exact_mut(width).for_each(<[f32]>::reverse);
        for (name, values) in names.into_iter().zip([values, mirrored]) {
            // A mean that is not finite makes no picture.
            if let Ok(mut picture) = Volume::new(values, [1, 1, n_slices, width], Kind::Image) {
                picture.spacing = [None, Some(deep), Some(spacing)];
                picture.inverted = volume.inverted;
                views.push((name, picture));
            }
        }
    }
    views
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Affine;
    use crate::reason::Code;

    /// 8 slices of 2 x 3 voxels of 4, 2 and 1 mm.
    fn volume(values: Vec<f32>) -> Volume {
        let mut volume = Volume::new(values, [1, 8, 2, 3], Kind::Volume).unwrap();
        volume.spacing = [Some(4.0), Some(2.0), Some(1.0)];
        volume.affine = Some(Affine::from_columns(
            [1.0, 0.0, 0.0],
            [0.0, 2.0, 0.0],
            [0.0, 0.0, 4.0],
            [0.0; 3],
        ));
        volume
    }

    #[test]
    fn means_are_taken_along_the_axes_with_the_head_up() {
        let volume = volume((0..48).map(|i| i as f32).collect());
        let views = flat_views(&volume);
        let names: Vec<&str> = views.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, FLAT_VIEWS);
        let [front, mirrored, side, side_mirrored] = [0, 1, 2, 3].map(|i| &views[i].1);
        assert_eq!(front.shape(), [1, 1, 8, 3]);
        // The last slice holds 42 to 47: rows 42, 43, 44 and 45, 46, 47.
        assert_eq!(front.values()[..3], [43.5, 44.5, 45.5]);
        assert_eq!(mirrored.values()[..3], [45.5, 44.5, 43.5]);
        assert_eq!(side.shape(), [1, 1, 8, 2]);
        assert_eq!(side.values()[..2], [43.0, 46.0]);
        assert_eq!(side_mirrored.values()[..2], [46.0, 43.0]);
        assert_eq!(side.values()[14..], [1.0, 4.0]);
        assert_eq!(front.spacing, [None, Some(4.0), Some(1.0)]);
        assert_eq!(side.spacing, [None, Some(4.0), Some(2.0)]);
    }

    #[test]
    fn what_does_not_stand_in_a_patient_has_none() {
        let whole = volume(vec![1.0; 48]);
        let mut unplaced = whole.clone();
        unplaced.affine = None;
        let mut film = whole.clone();
        film.kind = Kind::Video;
        let mut unscaled = whole.clone();
        unscaled.spacing[0] = None;
        let mut unknown = whole.clone();
        unknown.note(Code::OrientationUnknown, "x");
        for other in [unplaced, film, unscaled, unknown] {
            assert!(flat_views(&other).is_empty());
        }
        assert_eq!(flat_views(&whole).len(), 4);
    }
}
