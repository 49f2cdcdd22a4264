//! The position of a patch: our own sin-cos positions of normalised centre coordinates, and those of
//! public models.

mod rotary;
mod table;

/// Returns the widths of the parts of z, y and x: y = x = 2 * ceil(E / 6), z the rest.
#[must_use]
pub fn part_widths(embed_dim: usize) -> [usize; 3] {
    let in_plane = 2 * embed_dim.div_ceil(6);
    [embed_dim - 2 * in_plane, in_plane, in_plane]
}

/// Returns the position of every patch of a grid: fixed separable 3D sin-cos.
///
/// The centre of patch `i` of `n` along an axis has the coordinate `(i + 0.5) / n * g - 0.5`, where
/// `g` is the reference grid's side: no table, no interpolation, any grid. A 2D image has
/// `n_z = 1`, so it lies in the middle of the reference depth. Each axis's part of the vector is
/// `[sin(c f_0) .., cos(c f_0) ..]` with `f_k = 10000^(-k / (w / 2))`, parts in order z, y, x.
///
/// Angles are computed in f64: in f32 a sine of 15 is wrong by 1e-6.
///
/// # Shapes
/// -> [N, E], patches in (z, y, x) order.
/// # Source
/// He et al. 2022, `get_2d_sincos_pos_embed`. Differs: three axes, centre coordinates, widths.
#[must_use]
pub fn sin_cos(grid: [usize; 3], ref_grid: [usize; 3], embed_dim: usize) -> Vec<f32> {
    let widths = part_widths(embed_dim);
    let [along_z, along_y, along_x] =
        [0, 1, 2].map(|axis| axis_part(grid[axis], ref_grid[axis], widths[axis]));
    let mut positions = Vec::with_capacity(grid.iter().product::<usize>() * embed_dim);
    for z in along_z.chunks_exact(widths[0]) {
        for y in along_y.chunks_exact(widths[1]) {
            for x in along_x.chunks_exact(widths[2]) {
                positions.extend([z, y, x].into_iter().flatten());
            }
        }
    }
    positions
}

/// Returns the part of one axis: [n, w].
fn axis_part(n: usize, reference: usize, width: usize) -> Vec<f32> {
    let half = width / 2;
    let mut part = Vec::with_capacity(n * width);
    for i in 0..n {
        let coordinate = (as_f64(i) + 0.5) / as_f64(n) * as_f64(reference) - 0.5;
        let angles = (0..half).map(|k| coordinate * 10_000_f64.powf(-as_f64(k) / as_f64(half)));
        part.extend(angles.clone().map(|angle| rounded(angle.sin())));
        part.extend(angles.map(|angle| rounded(angle.cos())));
    }
    part
}

#[allow(
    clippy::cast_precision_loss,
    reason = "sides of grids are far below 2^53"
)]
fn as_f64(n: usize) -> f64 {
    n as f64
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "the one rounding to f32 that is meant"
)]
fn rounded(value: f64) -> f32 {
    value as f32
}

/// How a network knows where its patches lie.
#[derive(Debug)]
pub(crate) enum Position {
    /// `sin_cos`, added to the patches.
    SinCos {
        /// The grid that coordinates are normalised to.
        ref_grid: [usize; 3],
    },
    /// A learned vector for every patch of one grid, added to the patches.
    Table(Table),
    /// Queries and keys turn with the patch's coordinates.
    Rotary(Rotary),
}

/// Learned positions of one grid, resized to others.
#[derive(Debug)]
pub(crate) struct Table {
    /// [N, E], patches in (z, y, x) order; CLS's own position is not here.
    pub(crate) values: Vec<f32>,
    pub(crate) grid: [usize; 3],
    pub(crate) resize: Resize,
    /// The grid of most objects, and its positions, so that they are resized once.
    pub(crate) usual: Option<([usize; 3], Vec<f32>)>,
}

/// How a table becomes that of another grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resize {
    /// Bicubic over y and x (and z, where the grid is deep), `align_corners` false; without
    /// antialias the kernel has a = -0.75, with it a = -0.5 and a support that widens where the
    /// grid shrinks, as torch does.
    Bicubic {
        /// Widen the kernel where the grid shrinks.
        antialias: bool,
    },
}

/// Rotary positions over y and x.
///
/// # Source
/// DINOv3 (Simeoni et al. 2025): patch centres in [-1, 1].
#[derive(Debug)]
pub(crate) struct Rotary {
    /// The base of the frequencies, `rope_theta`.
    pub(crate) base: f64,
}

impl Position {
    /// Returns the positions that are added to the patches of a grid, [N, E], if the model adds any.
    pub(crate) fn added(&self, grid: [usize; 3], embed_dim: usize) -> Option<Vec<f32>> {
        match self {
            Self::SinCos { ref_grid } => Some(sin_cos(grid, *ref_grid, embed_dim)),
            Self::Table(table) => Some(table.resized(grid, embed_dim)),
            Self::Rotary(_) => None,
        }
    }

    /// Returns the angles by which queries and keys turn, [N, head width], if the model has any.
    pub(crate) fn angles(&self, grid: [usize; 3], head_width: usize) -> Option<Vec<f32>> {
        match self {
            Self::SinCos { .. } | Self::Table(_) => None,
            Self::Rotary(rotary) => Some(rotary.angles(grid, head_width)),
        }
    }
}
