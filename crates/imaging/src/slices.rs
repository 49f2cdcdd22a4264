//! A volume as some of its slices, by which a picture of one slice finds its level.

use crate::volume::{Kind, Volume};

/// Most slices of a volume that `slice_views` returns.
pub const MAX_SLICE_VIEWS: usize = 32;
/// Begins the name of each, which goes on as `3/8`.
pub const SLICE_VIEW: &str = "slice ";
/// Slices lie across another axis than the first if it is sampled more coarsely by this factor.
const COARSER: f64 = 1.5;

/// Which axis slices lie across.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Axis {
    Depth,
    Height,
    Width,
}

/// Returns whether a volume has pictures of `slice_views`.
#[must_use]
pub fn has_slice_views(volume: &Volume) -> bool {
    volume.kind == Kind::Volume && volume.shape()[1] > 1
}

/// Returns whether there are slices of `slice_views`, and they lie across the first axis.
#[must_use]
pub fn has_axial_slices(volume: &Volume) -> bool {
    has_slice_views(volume) && axis_of(volume) == Axis::Depth
}

/// Iterates over slices of a volume as pictures, each with its name: `slice 3/8` is the middle one of the third of eight
/// equal parts. All slices of at most `MAX_SLICE_VIEWS`; none of what is no volume.
///
/// Slices are counted as the volume is stored, which is towards the head, or to the back or the left for slices that
/// lie across these axes: those of an acquisition lie across the axis that is sampled most coarsely. Pictures stand as
/// radiologists look at them: `[C, 1, H, W]` of axial slices, `[C, 1, D, W]` and `[C, 1, D, H]` of others, head up.
pub fn slice_views(volume: &Volume) -> impl Iterator<Item = (String, Volume)> + '_ {
    let [_, depth, height, width] = volume.shape();
    let axis = axis_of(volume);
    let n_slices = match axis {
        _ if !has_slice_views(volume) => 0,
        Axis::Depth => depth,
        Axis::Height => height,
        Axis::Width => width,
    };
    let n_views = n_slices.min(MAX_SLICE_VIEWS);
    (0..n_views).filter_map(move |idx| {
        let slice = (2 * idx + 1) * n_slices / (2 * n_views);
        let name = format!("{SLICE_VIEW}{}/{n_views}", idx + 1);
        Some((name, picture_of(volume, axis, slice)?))
    })
}

/// Returns the axis that slices lie across: the first, unless another is sampled more coarsely and is known to be one of
/// the patient's.
fn axis_of(volume: &Volume) -> Axis {
    let [Some(deep), Some(high), Some(wide)] = volume.spacing else {
        return Axis::Depth;
    };
    if !volume.is_placed() {
        return Axis::Depth;
    }
    let (axis, coarsest) = match high > wide {
        true => (Axis::Height, high),
        false => (Axis::Width, wide),
    };
    if coarsest > COARSER * deep {
        axis
    } else {
        Axis::Depth
    }
}

/// Returns one slice as a picture; `None` if it shows nothing that is finite.
fn picture_of(volume: &Volume, axis: Axis, slice: usize) -> Option<Volume> {
    let [n_channels, depth, height, width] = volume.shape();
    let [deep, high, wide] = volume.spacing;
    let (shape, spacing) = match axis {
        Axis::Depth => ([height, width], [high, wide]),
        Axis::Height => ([depth, width], [deep, wide]),
        Axis::Width => ([depth, height], [deep, high]),
    };
    let mut values = Vec::with_capacity(n_channels * shape[0] * shape[1]);
    for channel in 0..n_channels {
        match axis {
            Axis::Depth => values.extend_from_slice(volume.plane(channel, slice)?),
            Axis::Height => {
                for plane in (0..depth).rev() {
                    let plane = volume.plane(channel, plane)?;
                    values.extend_from_slice(plane.get(slice * width..(slice + 1) * width)?);
                }
            }
            Axis::Width => {
                for plane in (0..depth).rev() {
                    let plane = volume.plane(channel, plane)?.iter();
                    values.extend(plane.skip(slice).step_by(width));
                }
            }
        }
    }
    if !values.iter().any(|value| value.is_finite()) {
        return None;
    }
    let padding = volume.padding.and_then(|padding| padding.of_part(&values));
    let shape = [n_channels, 1, shape[0], shape[1]];
    let mut picture = Volume::new(values, shape, Kind::Image).ok()?;
    picture.spacing = [None, spacing[0], spacing[1]];
    picture.modality.clone_from(&volume.modality);
    picture.inverted = volume.inverted;
    picture.full_scale = volume.full_scale;
    picture.padding = padding;
    Some(picture)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Affine;
    use crate::volume::Padding;

    /// `[1, D, H, W]` of numbers in order, with spacing along D, H and W in mm.
    fn volume([depth, height, width]: [usize; 3], spacing: [f64; 3]) -> Volume {
        let values = (0..depth * height * width).map(|i| i as f32).collect();
        let mut volume = Volume::new(values, [1, depth, height, width], Kind::Volume).unwrap();
        volume.spacing = spacing.map(Some);
        volume.affine = Some(Affine::from_columns(
            [spacing[2], 0.0, 0.0],
            [0.0, spacing[1], 0.0],
            [0.0, 0.0, spacing[0]],
            [0.0; 3],
        ));
        volume
    }

    #[test]
    fn few_slices_are_all_there_and_many_are_spread_evenly() {
        let few = volume([3, 2, 2], [5.0, 1.0, 1.0]);
        let views: Vec<_> = slice_views(&few).collect();
        let names: Vec<&str> = views.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["slice 1/3", "slice 2/3", "slice 3/3"]);
        assert_eq!(views[2].1.values(), [8.0, 9.0, 10.0, 11.0]);
        assert_eq!(views[2].1.spacing, [None, Some(1.0), Some(1.0)]);
        let many = volume([100, 1, 2], [1.0; 3]);
        let slices = slice_views(&many).map(|(_, picture)| picture.values()[0] / 2.0);
        let slices: Vec<f32> = slices.collect();
        assert_eq!(slices.len(), MAX_SLICE_VIEWS);
        // The middle of 32 parts of 3.125 slices.
        assert_eq!((slices[0], slices[1], slices[31]), (1.0, 4.0, 98.0));
    }

    #[test]
    fn slices_lie_across_the_axis_that_is_sampled_most_coarsely() {
        let sagittal = volume([2, 3, 4], [1.0, 1.0, 5.0]);
        let views: Vec<_> = slice_views(&sagittal).collect();
        assert_eq!(views.len(), 4);
        // The head is up: the last plane's column comes first.
        assert_eq!(views[1].1.values(), [13.0, 17.0, 21.0, 1.0, 5.0, 9.0]);
        assert_eq!(views[1].1.shape(), [1, 1, 2, 3]);
        let coronal = volume([2, 3, 4], [1.0, 2.0, 1.0]);
        let views: Vec<_> = slice_views(&coronal).collect();
        assert_eq!(views.len(), 3);
        let expected = [16.0, 17.0, 18.0, 19.0, 4.0, 5.0, 6.0, 7.0];
        assert_eq!(views[1].1.values(), expected);
        let mut unplaced = sagittal;
        unplaced.affine = None;
        assert_eq!(slice_views(&unplaced).count(), 2);
    }

    #[test]
    fn what_is_no_volume_has_no_slices_and_padding_is_counted_in_each() {
        let mut film = volume([3, 2, 2], [1.0; 3]);
        film.kind = Kind::Video;
        assert_eq!(slice_views(&film).count(), 0);
        let mut padded = volume([3, 2, 2], [1.0; 3]);
        padded.padding = Some(Padding {
            n_voxels: 1,
            value: 0.0,
        });
        let n_padded = |(_, picture): (String, Volume)| picture.padding.map(|p| p.n_voxels);
        let counts: Vec<_> = slice_views(&padded).map(n_padded).collect();
        assert_eq!(counts, [Some(1), Some(0), Some(0)]);
        let values = vec![f32::NAN; 8];
        let empty = Volume::new(values, [1, 2, 2, 2], Kind::Volume).unwrap();
        assert_eq!(slice_views(&empty).count(), 0);
    }
}
