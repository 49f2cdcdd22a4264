//! The convolutional stem: patches become tokens through small 3x3 convolutions, not one product each.
//!
//! A stage is a 3x3 convolution of stride 2 without bias, a group norm over the whole object, and a GELU.
//! Stages halve the plane until one position of each patch is left; `patch_embed.proj`, a convolution of
//! kernel 1, turns it into a token. Depth is averaged over each patch's `pd` planes before the first stage,
//! so a stage sees planes only, and images and volumes share the same weights.
//!
//! Rows are kept patch by patch: a patch that the network does not see has no rows, and where a kernel
//! reaches into it, or over the edge, it reads zeros. The cost of a masked convolution is therefore
//! proportional to the patches seen, and group norms are taken over these.
//!
//! # Source
//! Xiao et al. 2021 (stem of 3x3 convolutions of stride 2); Gao et al. 2022 and Tian et al. 2023 (hidden
//! patches are zero before and after every convolution). Differs: group norms, planes of a volume.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::kernels::{
    Finish, Kernels, Lanes, Linear, NR, Panels, Rows, Source, Task, gelu, multiply,
};
use crate::vit::Norm;

/// Groups of channels that a stage is normalised in.
pub const STEM_GROUPS: usize = 8;

/// Channels after the first stage; each further stage doubles them.
const FIRST_CHANNELS: usize = 32;

/// Places of a 3x3 kernel.
pub const TAPS: usize = 9;

/// How pixels become the tokens that the first block sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stem {
    /// One product a patch.
    #[default]
    Patch,
    /// 3x3 convolutions.
    Conv,
}

impl Stem {
    /// Returns whether tokens are single products of patches.
    #[must_use]
    #[allow(
        clippy::trivially_copy_pass_by_ref,
        reason = "serde passes fields by reference"
    )]
    pub fn is_patch(&self) -> bool {
        *self == Self::Patch
    }
}

/// Returns the channels after each stage, for patches of `ph` x `pw`: 32, 64 and 128 for a side of 8.
///
/// # Errors
/// `Mismatch` unless both sides are the same power of two in 2..=64.
pub fn stage_channels([_, ph, pw]: [usize; 3]) -> Result<Vec<usize>> {
    if ph != pw || !ph.is_power_of_two() || !(2..=64).contains(&ph) {
        return Err(Error::mismatch(
            "patch",
            "sides in-plane that are one power of two in 2..=64, for stem = conv",
            format!("{ph} x {pw}"),
        ));
    }
    let n_stages = ph.ilog2();
    Ok((0..n_stages).map(|i| FIRST_CHANNELS << i).collect())
}

/// Averages each group of `patch_depth` planes; a single plane stays as it is.
///
/// # Shapes
/// `values` [C, D, H, W] -> [C, D / pd, H, W], returned with that shape.
#[must_use]
pub fn slab_means(
    values: &[f32],
    [channels, depth, height, width]: [usize; 4],
    patch_depth: usize,
) -> (Vec<f32>, [usize; 4]) {
    if depth == 1 || patch_depth == 1 {
        return (values.to_vec(), [channels, depth, height, width]);
    }
    let plane = height * width;
    // Slabs of pd planes are consecutive in every channel, since D is a multiple of pd.
    let mut means = Vec::with_capacity(values.len() / patch_depth);
    #[allow(clippy::cast_precision_loss, reason = "a patch has few planes")]
    let share = 1.0 / patch_depth as f32;
    for slab in values.chunks_exact(patch_depth * plane) {
        let first = means.len();
        means.resize(first + plane, 0.0);
        for values in slab.chunks_exact(plane) {
            for (mean, value) in means[first..].iter_mut().zip(values) {
                *mean += value * share;
            }
        }
    }
    (means, [channels, depth / patch_depth, height, width])
}

/// The place of a patch that is not seen, or lies beyond the edge.
pub const UNSEEN: u32 = u32::MAX;

/// Where the patches that a kernel reaches lie among those of one object that are seen.
///
/// With stride 2 and one pixel of padding a kernel reaches up and left only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Around {
    /// The patch itself.
    pub own: u32,
    /// The patch above, or `UNSEEN`.
    pub up: u32,
    /// The patch to the left, or `UNSEEN`.
    pub left: u32,
    /// The patch above and to the left, or `UNSEEN`.
    pub up_left: u32,
}

impl Around {
    /// Lists, for each seen patch in its order, the patches around it.
    ///
    /// # Panics
    /// If a cell lies outside the grid, or there are 2^32 cells, which only a caller's bug can cause.
    #[must_use]
    pub fn of([n_z, n_y, n_x]: [usize; 3], cells: &[usize]) -> Vec<Self> {
        // [cells of the grid]: where each patch lies among those that are seen.
        let mut places = vec![UNSEEN; n_z * n_y * n_x];
        for (place, &cell) in cells.iter().enumerate() {
            places[cell] = u32::try_from(place).expect("grids are bounded far below 2^32");
        }
        let around = cells.iter().map(|&cell| {
            let (y, x) = (cell / n_x % n_y, cell % n_x);
            let at = |is_inside: bool, back: usize| {
                if is_inside {
                    places[cell - back]
                } else {
                    UNSEEN
                }
            };
            Self {
                own: places[cell],
                up: at(y > 0, n_x),
                left: at(x > 0, 1),
                up_left: at(y > 0 && x > 0, n_x + 1),
            }
        });
        around.collect()
    }

    /// Calls `visit` with each tap of the kernel at one position of a stage's result: its place in the
    /// kernel, and the row it reads, or `None` for zeros.
    ///
    /// Rows of an object lie patch by patch, `side * side` each; `position` counts the
    /// `(side / 2)^2` results of the patch.
    #[inline(always)]
    pub fn taps(&self, side: usize, position: usize, mut visit: impl FnMut(usize, Option<usize>)) {
        let half = side / 2;
        let (out_y, out_x) = (position / half, position % half);
        for tap in 0..TAPS {
            // With a stride of 2 and one pixel of padding, the tap reads pixel 2 out + d - 1 of the
            // patch along each axis. Only -1 lies outside, and is the last pixel of a neighbour.
            let (dy, dx) = (tap / 3, tap % 3);
            let (is_up, is_left) = (out_y + dy == 0, out_x + dx == 0);
            let patch = match (is_up, is_left) {
                (false, false) => self.own,
                (true, false) => self.up,
                (false, true) => self.left,
                (true, true) => self.up_left,
            };
            // Adding `side` before the remainder turns -1 into the neighbour's last pixel.
            let y = (2 * out_y + dy + side - 1) % side;
            let x = (2 * out_x + dx + side - 1) % side;
            let row = (patch != UNSEEN).then(|| patch as usize * side * side + y * side + x);
            visit(tap, row);
        }
    }
}

/// One stage, whose convolution is kept as `L`.
#[derive(Debug)]
pub(crate) struct Stage<L> {
    /// [out, in, 3, 3]; packed for a CPU [out, 9 in], taps slowest, channels fastest.
    pub(crate) conv: L,
    /// Weight and bias of each channel, after its group is normalised.
    pub(crate) norm: Norm,
}

/// The stages of a convolutional stem.
#[derive(Debug)]
pub(crate) struct Stages<L>(pub(crate) Vec<Stage<L>>);

impl Stages<Linear> {
    /// Returns the last stage's values of one object, one row for each patch that is seen.
    ///
    /// # Shapes
    /// `pixels` [seen patches * ph * pw, C] -> [seen patches, channels of the last stage]
    pub(crate) fn run(
        &self,
        kernels: &Kernels,
        pixels: &[f32],
        around: &[Around],
        patch_side: usize,
    ) -> Vec<f32> {
        let mut side = patch_side;
        let mut below: Option<Panels> = None;
        for stage in &self.0 {
            let values = match &below {
                None => Below::Pixels(pixels),
                Some(panels) => Below::Panels(panels),
            };
            // [seen * side^2, in] -> [seen * (side / 2)^2, 9 in]: a convolution becomes one product
            // of rows that hold all taps of a position.
            let n_rows = around.len() * (side / 2) * (side / 2);
            let taps = TapRows {
                below: values,
                around,
                side,
                n_channels: stage.conv.n_inputs() / TAPS,
            };
            let mut rows = Rows::empty(stage.conv.precision());
            rows.pack(kernels, [n_rows, stage.conv.n_inputs()], &taps);
            // -> [seen * (side / 2)^2, out]
            let mut out = Panels::zeroed(n_rows, stage.conv.n_outputs());
            multiply(kernels, &rows, &stage.conv, Finish::Store, &mut out);
            stage.finish(kernels, &mut out);
            below = Some(out);
            side /= 2;
        }
        // One position of each patch is left: [seen, channels of the last stage].
        let last = self.0.last().map_or(0, Stage::n_channels);
        let mut values = vec![0.0; around.len() * last];
        if let Some(panels) = below {
            for (row, line) in values.chunks_exact_mut(last).enumerate() {
                panels.read(row, 0, line);
            }
        }
        values
    }
}

impl<L> Stage<L> {
    /// Returns the number of channels after the stage.
    pub(crate) fn n_channels(&self) -> usize {
        self.norm.weight.len()
    }

    /// Normalises groups of channels over all rows, then applies the GELU.
    fn finish(&self, kernels: &Kernels, panels: &mut Panels) {
        // [channels, 2], zeros for the columns that pad the last panel.
        let mut sums = Vec::with_capacity(panels.n_cols().next_multiple_of(NR));
        for column in panels.columns() {
            sums.extend_from_slice(&kernels.run(Moments { column }));
        }
        let factors = self.factors(&sums, panels.n_rows());
        for (column, factors) in panels.columns_mut().zip(factors.chunks(NR)) {
            // Panels always have NR columns; a factor of 0 keeps the padding finite.
            let mut padded = [[0.0; 2]; NR];
            padded[..factors.len()].copy_from_slice(factors);
            kernels.run(ScaleAndGelu {
                column,
                factors: &padded,
            });
        }
    }

    /// Returns the factor and the shift of each channel, from the sums of its values and their squares.
    ///
    /// `(x - mean) / deviation * weight + bias` of a group becomes `x * factor + shift`, so the values
    /// are read once more and not twice.
    ///
    /// # Shapes
    /// `sums` [channels, 2], possibly longer -> [channels, 2]
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "counts are far below 2^53; the rounding to f32 is meant"
    )]
    fn factors(&self, sums: &[[f64; 2]], n_rows: usize) -> Vec<[f32; 2]> {
        let per_group = self.norm.weight.len() / STEM_GROUPS;
        let n = (n_rows * per_group) as f64;
        let mut factors = Vec::with_capacity(self.norm.weight.len());
        for (group, sums) in sums[..self.norm.weight.len()]
            .chunks_exact(per_group)
            .enumerate()
        {
            let [total, squares] = sums.iter().fold([0.0; 2], |[a, b], [x, y]| [a + x, b + y]);
            let mean = total / n;
            // In f64 the difference of squares keeps enough digits; rounding may still make it negative.
            let variance = (squares / n - mean * mean).max(0.0);
            let scale = 1.0 / (variance + f64::from(self.norm.eps)).sqrt();
            for channel in group * per_group..(group + 1) * per_group {
                let weight = f64::from(self.norm.weight[channel]) * scale;
                let shift = f64::from(self.norm.bias[channel]) - mean * weight;
                factors.push([weight as f32, shift as f32]);
            }
        }
        factors
    }
}

/// The values that a stage reads.
enum Below<'a> {
    /// Pixels, in rows of `C` values: the first stage's.
    Pixels(&'a [f32]),
    /// The result of the stage before.
    Panels(&'a Panels),
}

/// The rows of a convolution as a product: for each position nine taps of all channels.
struct TapRows<'a> {
    below: Below<'a>,
    around: &'a [Around],
    side: usize,
    n_channels: usize,
}

impl Source for TapRows<'_> {
    #[inline(always)]
    fn fill<const FMA: bool>(&self, rows: Range<usize>, lines: &mut [f32]) {
        let per_patch = (self.side / 2) * (self.side / 2);
        for (row, line) in rows.zip(lines.chunks_exact_mut(TAPS * self.n_channels)) {
            let around = &self.around[row / per_patch];
            around.taps(self.side, row % per_patch, |tap, row| {
                let line = &mut line[tap * self.n_channels..][..self.n_channels];
                match (row, &self.below) {
                    (None, _) => line.fill(0.0),
                    (Some(row), Below::Pixels(values)) => {
                        line.copy_from_slice(&values[row * self.n_channels..][..self.n_channels]);
                    }
                    (Some(row), Below::Panels(panels)) => panels.read(row, 0, line),
                }
            });
        }
    }
}

/// Sums the values and the squares of each channel of a panel.
struct Moments<'a> {
    column: &'a [Lanes],
}

impl Task for Moments<'_> {
    type Output = [[f64; 2]; NR];

    #[inline(always)]
    fn run<const FMA: bool>(self) -> [[f64; 2]; NR] {
        /// Rows that are summed in f32 before they are added in f64.
        const BLOCK: usize = 64;
        let mut totals = [[0.0; 2]; NR];
        for rows in self.column.chunks(BLOCK) {
            let (mut sums, mut squares) = ([0.0_f32; NR], [0.0_f32; NR]);
            for row in rows {
                for i in 0..NR {
                    sums[i] += row.0[i];
                    squares[i] += row.0[i] * row.0[i];
                }
            }
            for (total, (sum, square)) in totals.iter_mut().zip(sums.into_iter().zip(squares)) {
                total[0] += f64::from(sum);
                total[1] += f64::from(square);
            }
        }
        totals
    }
}

/// `gelu(value * scale + shift)` of each value of a panel.
struct ScaleAndGelu<'a> {
    column: &'a mut [Lanes],
    factors: &'a [[f32; 2]; NR],
}

impl Task for ScaleAndGelu<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let (scales, shifts) = (
            self.factors.map(|[scale, _]| scale),
            self.factors.map(|[_, shift]| shift),
        );
        for row in self.column {
            for i in 0..NR {
                row.0[i] = gelu::<FMA>(row.0[i] * scales[i] + shifts[i]);
            }
        }
    }
}

#[cfg(test)]
mod tests;
