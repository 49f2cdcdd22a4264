//! Where voxels lie in the patient: the affine, its letters, and the one canonical axis order.

use crate::error::{Error, Result};
use crate::memory;
use crate::reason::Code;
use crate::volume::{Kind, Volume};

/// Maps voxel indices `(w, h, d, 1)` to patient coordinates in mm, DICOM's LPS system:
/// x grows to the patient's left, y to posterior, z to superior. Rows are x, y, z.
///
/// # Source
/// DICOM PS3.3 C.7.6.2.1.1. `NIfTI` states RAS+: its readers negate the first two rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Affine {
    /// Three rows of four; the fourth row is always 0, 0, 0, 1.
    pub rows: [[f64; 4]; 3],
}

impl Affine {
    /// Builds the affine from one column vector an axis and the position of voxel (0, 0, 0).
    #[must_use]
    pub fn from_columns(w: [f64; 3], h: [f64; 3], d: [f64; 3], origin: [f64; 3]) -> Self {
        let [w0, w1, w2] = w;
        let [h0, h1, h2] = h;
        let [d0, d1, d2] = d;
        let [o0, o1, o2] = origin;
        Self {
            rows: [[w0, h0, d0, o0], [w1, h1, d1, o1], [w2, h2, d2, o2]],
        }
    }

    /// Returns the column vectors of W, H, D and the origin.
    #[must_use]
    pub fn columns(&self) -> [[f64; 3]; 4] {
        let [[w0, h0, d0, o0], [w1, h1, d1, o1], [w2, h2, d2, o2]] = self.rows;
        [[w0, w1, w2], [h0, h1, h2], [d0, d1, d2], [o0, o1, o2]]
    }

    /// Returns the spacing along D, H, W in mm: the lengths of the columns.
    #[must_use]
    pub fn spacing_mm(&self) -> [f64; 3] {
        let [w, h, d, _] = self.columns();
        [length(d), length(h), length(w)]
    }

    /// Returns true if every entry is finite, the three axes span a space, and their lengths can
    /// be told from 0 and from infinity.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        let [w, h, d, origin] = self.columns();
        let lengths = [w, h, d].map(length);
        let is_finite = origin.iter().chain(&lengths).all(|x| x.is_finite());
        // Of unit vectors: the product of lengths may leave the range of f64.
        let volume = dot(cross(unit(w), unit(h)), unit(d)).abs();
        is_finite && lengths.iter().all(|&l| l > 0.0) && volume > 1e-6
    }

    /// Returns the patient axis (0 = x, 1 = y, 2 = z) nearest to each of D, H, W, and whether the
    /// index grows in its positive direction. Each patient axis is used once: the strongest first.
    #[must_use]
    fn nearest_axes(&self) -> [(usize, bool); 3] {
        let [w, h, d, _] = self.columns();
        let axes = [unit(d), unit(h), unit(w)];
        let mut entries: Vec<(usize, usize, f64)> = Vec::with_capacity(9);
        for (volume_axis, column) in axes.iter().enumerate() {
            for (patient_axis, &cosine) in column.iter().enumerate() {
                entries.push((volume_axis, patient_axis, cosine));
            }
        }
        // Stable sort: exact ties (45 degrees) always resolve the same way.
        entries.sort_by(|a, b| b.2.abs().total_cmp(&a.2.abs()));
        let mut nearest = [(usize::MAX, true); 3];
        let mut taken = [false; 3];
        for (volume_axis, patient_axis, cosine) in entries {
            let (Some(slot), Some(used)) =
                (nearest.get_mut(volume_axis), taken.get_mut(patient_axis))
            else {
                continue;
            };
            if slot.0 == usize::MAX && !*used {
                *slot = (patient_axis, cosine >= 0.0);
                *used = true;
            }
        }
        nearest
    }

    /// Returns three letters: where D, H and W grow to, each the nearest of L R P A S I.
    ///
    /// The canonical order is `SPL`: an axial slice is then stored as radiologists look at it.
    #[must_use]
    pub fn axis_order(&self) -> String {
        self.nearest_axes()
            .iter()
            .map(|&(axis, positive)| match (axis, positive) {
                (0, true) => 'L',
                (0, false) => 'R',
                (1, true) => 'P',
                (1, false) => 'A',
                (_, true) => 'S',
                (_, false) => 'I',
            })
            .collect()
    }
}

/// Reorients a 3D volume to the canonical order `SPL` by permuting and flipping axes: no value
/// changes, and the affine keeps saying where each voxel lies.
///
/// Images, videos and volumes without an affine are returned as they are.
///
/// # Errors
/// `Malformed` with `bad_geometry` if the affine is singular or not finite.
pub fn canonicalise(volume: Volume) -> Result<Volume> {
    let Some(affine) = volume.affine else {
        return Ok(volume);
    };
    if !affine.is_usable() {
        return Err(Error::refused(
            "geometry",
            Code::BadGeometry,
            "an affine that is singular or not finite",
            "three independent axes",
        ));
    }
    if volume.kind != Kind::Volume {
        return Ok(volume);
    }
    let [n_channels, depth, height, width] = volume.shape();
    let Some(turn) = Turn::canonical(&affine, [depth, height, width]) else {
        return Ok(volume);
    };
    let mut volume = volume;
    let stored = volume.take_values();
    let values = if turn.sources == [0, 1, 2] {
        flipped(stored, [depth, height, width], turn.flips)
    } else {
        let mut values = memory::with_capacity(stored.len())?;
        for channel in stored.chunks_exact(depth * height * width) {
            values.extend(turn.read(|start, n, line| {
                line.extend_from_slice(channel.get(start..start + n).unwrap_or_default());
            })?);
        }
        values
    };
    let [new_depth, new_height, new_width] = turn.sides;
    let mut turned = volume.with_values(values, [n_channels, new_depth, new_height, new_width])?;
    turned.spacing = turn.spacing(turned.spacing);
    turned.affine = Some(turn.affine(&affine));
    Ok(turned)
}

/// How a stored `[D, H, W]` grid becomes a canonical one: axes permuted, then flipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Turn {
    /// Which stored axis (0 = D, 1 = H, 2 = W) becomes canonical axis S, P, L.
    sources: [usize; 3],
    flips: [bool; 3],
    /// Sides of the canonical grid.
    pub(crate) sides: [usize; 3],
    /// Distances in the stored grid of neighbours along the canonical axes.
    strides: [usize; 3],
}

impl Turn {
    /// Finds the turn of a usable affine; `None` if the grid is canonical already.
    pub(crate) fn canonical(affine: &Affine, stored_sides: [usize; 3]) -> Option<Self> {
        let nearest = affine.nearest_axes();
        let source = |patient_axis: usize| {
            nearest
                .iter()
                .position(|&(axis, _)| axis == patient_axis)
                .unwrap_or(0)
        };
        let sources = [source(2), source(1), source(0)];
        let flips = sources.map(|axis| nearest.get(axis).is_some_and(|&(_, positive)| !positive));
        let [_, height, width] = stored_sides;
        let stored_strides = [height * width, width, 1];
        let pick = |table: &[usize; 3], axis: usize| table.get(axis).copied().unwrap_or(1);
        let sides = sources.map(|axis| pick(&stored_sides, axis));
        let strides = sources.map(|axis| pick(&stored_strides, axis));
        let turn = Self {
            sources,
            flips,
            sides,
            strides,
        };
        (sources != [0, 1, 2] || flips != [false; 3]).then_some(turn)
    }

    /// Returns the spacing along the new axes.
    pub(crate) fn spacing(&self, stored: [Option<f64>; 3]) -> [Option<f64>; 3] {
        self.sources.map(|axis| stored.get(axis).copied().flatten())
    }

    /// Returns the affine that keeps every voxel in its place.
    pub(crate) fn affine(&self, stored: &Affine) -> Affine {
        let [w, h, d, mut origin] = stored.columns();
        let old = [d, h, w];
        let mut fresh = [[0.0; 3]; 3];
        let axes = self.sources.into_iter().zip(self.flips).zip(self.sides);
        for (column, ((source, flip), side)) in fresh.iter_mut().zip(axes) {
            *column = old.get(source).copied().unwrap_or_default();
            if flip {
                #[allow(clippy::cast_precision_loss, reason = "a side is far below 2^53")]
                let last = (side - 1) as f64;
                for (position, step) in origin.iter_mut().zip(column.iter_mut()) {
                    *position += *step * last;
                    *step = -*step;
                }
            }
        }
        let [d, h, w] = fresh;
        Affine::from_columns(w, h, d, origin)
    }

    /// Builds the canonical grid; `read_line(start, n, line)` appends `n` stored values to `line`.
    pub(crate) fn read(
        &self,
        mut read_line: impl FnMut(usize, usize, &mut Vec<f32>),
    ) -> Result<Vec<f32>> {
        let [depth, height, width] = self.sides;
        let [by_depth, by_height, by_width] = self.strides;
        let [flip_depth, flip_height, flip_width] = self.flips;
        if by_width != 1 {
            return self.read_turned(read_line);
        }
        let mut fresh = memory::with_capacity(depth * height * width)?;
        for d in 0..depth {
            for h in 0..height {
                let first = fresh.len();
                let start = end_to_end(d, depth, flip_depth) * by_depth
                    + end_to_end(h, height, flip_height) * by_height;
                read_line(start, width, &mut fresh);
                if flip_width && let Some(row) = fresh.get_mut(first..) {
                    row.reverse();
                }
            }
        }
        Ok(fresh)
    }

    /// As `read`, where stored neighbours become neighbours along D or H: turns tiles of
    /// `LINE` x W, so that cache lines are read whole.
    fn read_turned(
        &self,
        mut read_line: impl FnMut(usize, usize, &mut Vec<f32>),
    ) -> Result<Vec<f32>> {
        let [depth, height, width] = self.sides;
        let [by_depth, by_height, by_width] = self.strides;
        let [flip_depth, flip_height, flip_width] = self.flips;
        let along_depth = by_depth == 1;
        let (fast, slow) = if along_depth {
            ((depth, flip_depth), (height, by_height, flip_height))
        } else {
            ((height, flip_height), (depth, by_depth, flip_depth))
        };
        let mut fresh = memory::zeroed(depth * height * width)?;
        let mut tile = vec![0.0; LINE * width];
        let mut line = Vec::with_capacity(LINE);
        for s in 0..slow.0 {
            let slow_start = end_to_end(s, slow.0, slow.2) * slow.1;
            for first in (0..fast.0).step_by(LINE) {
                let n = LINE.min(fast.0 - first);
                for w in 0..width {
                    let start = slow_start + end_to_end(w, width, flip_width) * by_width + first;
                    line.clear();
                    read_line(start, n, &mut line);
                    for (row, value) in tile.chunks_exact_mut(width).zip(&line) {
                        if let Some(slot) = row.get_mut(w) {
                            *slot = *value;
                        }
                    }
                }
                for (i, row) in tile.chunks_exact(width).take(n).enumerate() {
                    let f = end_to_end(first + i, fast.0, fast.1);
                    let (d, h) = if along_depth { (f, s) } else { (s, f) };
                    let start = (d * height + h) * width;
                    if let Some(out) = fresh.get_mut(start..start + width) {
                        out.copy_from_slice(row);
                    }
                }
            }
        }
        Ok(fresh)
    }
}

/// Values along the stored fast axis that are turned at a time: a few cache lines, and a tile that
/// stays in the second-level cache.
const LINE: usize = 64;

/// Counts from the other end if the axis is flipped.
fn end_to_end(index: usize, side: usize, flip: bool) -> usize {
    if flip { side - 1 - index } else { index }
}

/// Flips axes in place. Runs of flipped axes that end at W are one reversal.
fn flipped(mut values: Vec<f32>, sides: [usize; 3], flips: [bool; 3]) -> Vec<f32> {
    let [depth, height, width] = sides;
    let [flip_depth, flip_height, flip_width] = flips;
    if flip_width {
        let run = match (flip_height, flip_depth) {
            (true, true) => depth * height * width,
            (true, false) => height * width,
            (false, _) => width,
        };
        values.chunks_exact_mut(run).for_each(<[f32]>::reverse);
    }
    if flip_height && !flip_width {
        values
            .chunks_exact_mut(height * width)
            .for_each(|plane| swap_ends(plane, width));
    }
    if flip_depth && !(flip_height && flip_width) {
        let plane = height * width;
        values
            .chunks_exact_mut(depth * plane)
            .for_each(|channel| swap_ends(channel, plane));
    }
    values
}

/// Reverses the order of runs of `n` values.
fn swap_ends(values: &mut [f32], n: usize) {
    let half = values.len() / n / 2 * n;
    let (front, back) = values.split_at_mut(half);
    for (first, last) in front.chunks_exact_mut(n).zip(back.rchunks_exact_mut(n)) {
        first.swap_with_slice(last);
    }
}

/// Returns the length of a vector.
#[must_use]
pub(crate) fn length(v: [f64; 3]) -> f64 {
    dot(v, v).sqrt()
}

/// Returns the scalar product.
#[must_use]
pub(crate) fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// Returns the vector product.
#[must_use]
pub(crate) fn cross(a: [f64; 3], b: [f64; 3]) -> [f64; 3] {
    let [a0, a1, a2] = a;
    let [b0, b1, b2] = b;
    [a1 * b2 - a2 * b1, a2 * b0 - a0 * b2, a0 * b1 - a1 * b0]
}

/// Returns the vector with length 1, or zeros for a zero vector.
#[must_use]
pub(crate) fn unit(v: [f64; 3]) -> [f64; 3] {
    let n = length(v);
    if n > 0.0 { v.map(|x| x / n) } else { [0.0; 3] }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A 2 x 3 x 4 volume whose values name their stored position, under the given affine.
    fn labelled(affine: Affine) -> Volume {
        let values = (0_u8..24).map(f32::from).collect();
        let mut volume = Volume::new(values, [1, 2, 3, 4], Kind::Volume).unwrap();
        volume.affine = Some(affine);
        volume.spacing = affine.spacing_mm().map(Some);
        volume
    }

    /// Where voxel (w, h, d) lies.
    fn place(affine: &Affine, index: [usize; 3]) -> [f64; 3] {
        affine.rows.map(|[w, h, d, origin]| {
            let [i, j, k] = index.map(|x| f64::from(u32::try_from(x).unwrap()));
            w * i + h * j + d * k + origin
        })
    }

    #[test]
    fn reorientation_moves_no_voxel_in_the_patient() {
        // Sagittal: D to the right, H down (inferior), W to posterior.
        let affine = Affine::from_columns(
            [0.0, 0.5, 0.0],
            [0.0, 0.0, -0.7],
            [-3.0, 0.0, 0.0],
            [10.0, 20.0, 30.0],
        );
        let before = labelled(affine);
        assert_eq!(affine.axis_order(), "RIP");
        let after = canonicalise(before.clone()).unwrap();
        let moved = after.affine.unwrap();
        assert_eq!(moved.axis_order(), "SPL");
        assert_eq!(after.shape(), [1, 3, 4, 2]);
        assert_eq!(after.spacing, [Some(0.7), Some(0.5), Some(3.0)]);
        let [_, depth, height, width] = after.shape();
        for (d, h, w) in (0..depth)
            .flat_map(|d| (0..height).flat_map(move |h| (0..width).map(move |w| (d, h, w))))
        {
            let value = after.plane(0, d).unwrap()[h * width + w];
            let label = before
                .values()
                .iter()
                .position(|&v| v.to_bits() == value.to_bits());
            let label = label.unwrap();
            let old = place(&affine, [label % 4, label / 4 % 3, label / 12]);
            let new = place(&moved, [w, h, d]);
            assert!(old.iter().zip(new).all(|(a, b)| (a - b).abs() < 1e-9));
        }
    }

    /// The 48 affines whose axes run along those of the patient.
    fn straight() -> Vec<Affine> {
        let orders = [
            [0, 1, 2],
            [0, 2, 1],
            [1, 0, 2],
            [1, 2, 0],
            [2, 0, 1],
            [2, 1, 0],
        ];
        let mut affines = Vec::new();
        for (order, signs) in orders
            .iter()
            .flat_map(|order| (0..8).map(move |s| (order, s)))
        {
            let mut columns = [[0.0; 3]; 3];
            for (axis, &to) in order.iter().enumerate() {
                columns[axis][to] = if signs >> axis & 1 == 0 { 1.0 } else { -1.0 };
            }
            affines.push(Affine::from_columns(
                columns[0], columns[1], columns[2], [0.0; 3],
            ));
        }
        affines
    }

    #[test]
    fn every_turn_of_every_shape_moves_no_voxel_in_the_patient() {
        // 67 is longer than a tile.
        for [depth, height, width] in [[2, 3, 67], [67, 2, 3], [3, 67, 2], [1, 1, 5], [67, 1, 1]] {
            for affine in straight() {
                let n = u16::try_from(depth * height * width).unwrap();
                let values: Vec<f32> = (0..n).map(f32::from).collect();
                let mut volume =
                    Volume::new(values, [1, depth, height, width], Kind::Volume).unwrap();
                volume.affine = Some(affine);
                let turned = canonicalise(volume).unwrap();
                let moved = turned.affine.unwrap();
                assert_eq!(moved.axis_order(), "SPL");
                let [_, _, new_height, new_width] = turned.shape();
                for (at, &value) in turned.values().iter().enumerate() {
                    let old = usize::from((0..n).find(|&i| f32::from(i) >= value).unwrap());
                    let old = [old % width, old / width % height, old / width / height];
                    let new = [
                        at % new_width,
                        at / new_width % new_height,
                        at / new_width / new_height,
                    ];
                    let (old, new) = (place(&affine, old), place(&moved, new));
                    assert!(
                        old.iter().zip(new).all(|(a, b)| (a - b).abs() < 1e-9),
                        "{affine:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn canonicalising_twice_changes_nothing() {
        let affine = Affine::from_columns(
            [-1.0, 0.2, 0.0],
            [0.2, 1.0, 0.1],
            [0.0, 0.1, -2.0],
            [0.0; 3],
        );
        let once = canonicalise(labelled(affine)).unwrap();
        assert_eq!(canonicalise(once.clone()).unwrap(), once);
    }

    #[test]
    fn axes_too_short_or_long_for_a_length_are_not_usable() {
        let scaled =
            |x| Affine::from_columns([x, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0; 3]);
        assert!(scaled(0.7).is_usable() && scaled(1e-9).is_usable());
        for x in [0.0, 1e-200, 1e200, f64::NAN] {
            assert!(!scaled(x).is_usable(), "{x}");
        }
    }

    #[test]
    fn a_singular_affine_is_refused() {
        let affine = Affine::from_columns([1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0; 3], [0.0; 3]);
        let refused = canonicalise(labelled(affine));
        assert!(matches!(
            refused,
            Err(Error::Malformed {
                code: Code::BadGeometry,
                ..
            })
        ));
    }
}
