//! `Volume` -> a small picture for people: one plane, three planes, or a strip of frames.

mod strip;

pub use strip::{Cut, HU_LEVELS, Sheet, Strip, has_three_planes, strip};

use crate::error::Result;
use crate::intensity::Window;
use crate::prepare::{in_plane_steps, relative_steps};
use crate::resample::{as_f64, as_index, resample};
use crate::timeline::uniform_frames;
use crate::volume::{Kind, Volume};

/// Where a plane is black, the ground is still seen: it shows where the plane ends.
const GROUND: u8 = 28;
/// Grey of the lines between panels.
const LINE: u8 = 96;
/// Width of the lines between panels.
const LINE_PX: usize = 2;
/// Small pictures are enlarged, but not until they are all blur.
const MAX_ENLARGEMENT: f64 = 4.0;
/// Frames of a video that are shown.
const N_FRAMES: usize = 6;
/// CT is shown in the usual soft-tissue window, level 40 and width 400: the whole range would show
/// bone on flat grey.
const SOFT_TISSUE_HU: [f64; 2] = [-160.0, 240.0];
/// What a person sees of the range of values.
const PERCENTILES: [f64; 2] = [0.5, 99.5];

/// An RGB picture, 8 bits a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `height * width * 3` bytes, row by row.
    pub rgb: Vec<u8>,
}

/// Draws what a person would look at; no side is above `max_side` (at least 64).
///
/// - An image: itself.
/// - A volume: the middle planes along D, H and W in a row; where it lies in the canonical order
///   `SPL` these are axial (as stored), coronal and sagittal with superior up, anterior left.
///   Otherwise planes are drawn in storage order.
/// - A video: up to six frames at uniform times, in one row or two, whichever is larger.
///
/// Grey is windowed by percentiles of the whole object and MONOCHROME1 is inverted; RGB is
/// divided by its full scale. Physical aspect is kept where spacing, or the shape of a pixel, is known
/// on the plane's axes.
#[must_use]
pub fn thumbnail(volume: &Volume, max_side: usize) -> Picture {
    let planes = planes_to_draw(volume);
    let max_side = max_side.max(64);
    let n_columns = match volume.kind {
        Kind::Video if planes.len() > 1 => columns_that_draw_larger(&planes, max_side),
        _ => planes.len(),
    };
    let layout = Layout::new(&planes, n_columns, max_side);
    let window = match volume.unit {
        Some("HU") => Window::new(SOFT_TISSUE_HU[0], SOFT_TISSUE_HU[1], false),
        _ => Window::of(volume, PERCENTILES),
    };
    let mut picture = Picture {
        width: layout.width(),
        height: layout.height(),
        rgb: vec![GROUND; layout.width() * layout.height() * 3],
    };
    layout.draw_lines(&mut picture);
    for (panel, plane) in layout.panels.iter().zip(&planes) {
        // `resample` refuses only sides of 0 and shapes that do not fit: neither exists here.
        if let Ok(channels) = drawn(volume, plane, window, panel.size) {
            panel.paste(&channels, &mut picture);
        }
    }
    picture
}

/// One plane of a volume: where it lies in memory, and how far apart its rows and columns are.
struct Plane {
    /// Index of its first value within a channel.
    start: usize,
    /// Steps in memory from row to row and from column to column.
    strides: [usize; 2],
    /// Rows and columns.
    sides: [usize; 2],
    /// Distance of rows and of columns, relative to the finest of the picture.
    steps: [f64; 2],
    /// Draws the last row first.
    is_flipped: bool,
}

impl Plane {
    /// Height and width in the unit of `steps`.
    fn extent(&self) -> [f64; 2] {
        let ([rows, columns], [row_step, column_step]) = (self.sides, self.steps);
        [as_f64(rows) * row_step, as_f64(columns) * column_step]
    }

    /// Copies the plane out of one channel, top row first.
    fn read(&self, channel: &[f32]) -> Vec<f32> {
        let ([rows, columns], [row_stride, column_stride]) = (self.sides, self.strides);
        let mut values = Vec::with_capacity(rows * columns);
        for row in 0..rows {
            let row = if self.is_flipped { rows - 1 - row } else { row };
            let first = self.start + row * row_stride;
            values.extend(
                (0..columns).filter_map(|column| channel.get(first + column * column_stride)),
            );
        }
        values
    }
}

fn planes_to_draw(volume: &Volume) -> Vec<Plane> {
    let [_, depth, height, width] = volume.shape();
    let n_plane = height * width;
    let across = |d: usize| Plane {
        start: d * n_plane,
        strides: [width, 1],
        sides: [height, width],
        steps: in_plane_steps(volume),
        is_flipped: false,
    };
    match volume.kind {
        Kind::Video => uniform_frames(depth, depth.min(N_FRAMES))
            .into_iter()
            .map(across)
            .collect(),
        Kind::Volume if depth > 1 => three_planes(volume).into(),
        Kind::Image | Kind::Volume => vec![across(depth / 2)],
    }
}

/// Returns the middle planes along D, H and W.
fn three_planes(volume: &Volume) -> [Plane; 3] {
    let [_, depth, height, width] = volume.shape();
    let n_plane = height * width;
    let [d, h, w] = match volume.spacing {
        [Some(_), Some(_), Some(_)] => relative_steps(volume.spacing),
        _ => {
            let [h, w] = in_plane_steps(volume);
            [1.0, h, w]
        }
    };
    // Canonical D grows to superior, and superior belongs at the top.
    let is_flipped = volume
        .affine
        .is_some_and(|affine| affine.axis_order() == "SPL");
    let along_d = Plane {
        start: depth / 2 * n_plane,
        strides: [width, 1],
        sides: [height, width],
        steps: [h, w],
        is_flipped: false,
    };
    let along_h = Plane {
        start: height / 2 * width,
        strides: [n_plane, 1],
        sides: [depth, width],
        steps: [d, w],
        is_flipped,
    };
    let along_w = Plane {
        start: width / 2,
        strides: [n_plane, width],
        sides: [depth, height],
        steps: [d, h],
        is_flipped,
    };
    [along_d, along_h, along_w]
}

/// Reads a plane, windows it and resizes it: one grid `size` for each channel.
fn drawn(
    volume: &Volume,
    plane: &Plane,
    window: Window,
    size: [usize; 2],
) -> Result<Vec<Vec<f32>>> {
    let [_, depth, height, width] = volume.shape();
    let [rows, columns] = plane.sides;
    let [panel_rows, panel_columns] = size;
    let channels = volume.values().chunks_exact(depth * height * width);
    let draw = |channel| {
        let stored = plane.read(channel);
        let mut shares = vec![0.0; stored.len()];
        window.apply(&stored, &mut shares);
        resample(&shares, [1, rows, columns], [1, panel_rows, panel_columns])
    };
    channels.map(draw).collect()
}

/// Where a plane goes.
struct Panel {
    /// Row and column of its top left corner.
    corner: [usize; 2],
    /// Rows and columns.
    size: [usize; 2],
}

impl Panel {
    /// Writes one channel as grey, or three as RGB.
    fn paste(&self, channels: &[Vec<f32>], picture: &mut Picture) {
        let ([top, left], [_, columns]) = (self.corner, self.size);
        for (c, channel) in channels.iter().cycle().take(3).enumerate() {
            let rows = picture.rgb.chunks_exact_mut(picture.width * 3).skip(top);
            for (row, shares) in rows.zip(channel.chunks_exact(columns)) {
                let pixels = row.chunks_exact_mut(3).skip(left);
                for (byte, share) in pixels.filter_map(|rgb| rgb.get_mut(c)).zip(shares) {
                    *byte = grey_level(*share);
                }
            }
        }
    }
}

/// Maps 0..=1 to 0..=255.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float converts with saturation"
)]
fn grey_level(share: f32) -> u8 {
    (share * 255.0).round() as u8
}

/// Panels in cells of a grid, one scale for all.
struct Layout {
    panels: Vec<Panel>,
    /// Heights of the grid's rows.
    row_heights: Vec<usize>,
    /// Widths of the grid's columns.
    column_widths: Vec<usize>,
}

impl Layout {
    fn new(planes: &[Plane], n_columns: usize, max_side: usize) -> Self {
        let scale = scale_that_fits(planes, n_columns, max_side);
        let sizes: Vec<[usize; 2]> = planes
            .iter()
            .map(|plane| plane.extent().map(|side| pixels_of(side * scale, max_side)))
            .collect();
        let tallest = |row: &[[usize; 2]]| row.iter().map(|&[height, _]| height).max();
        let row_heights: Vec<usize> = sizes.chunks(n_columns).filter_map(tallest).collect();
        let widest = |column: usize| {
            sizes
                .iter()
                .skip(column)
                .step_by(n_columns)
                .map(|&[_, width]| width)
                .max()
        };
        let column_widths: Vec<usize> = (0..n_columns).filter_map(widest).collect();
        let mut layout = Self {
            panels: Vec::new(),
            row_heights,
            column_widths,
        };
        layout.panels = layout.place(&sizes);
        layout
    }

    /// Centres each panel in its cell.
    fn place(&self, sizes: &[[usize; 2]]) -> Vec<Panel> {
        let tops = starts(&self.row_heights);
        let lefts = starts(&self.column_widths);
        let rows = tops.iter().zip(&self.row_heights);
        let cells = rows.flat_map(|row| {
            lefts
                .iter()
                .zip(&self.column_widths)
                .map(move |column| (row, column))
        });
        cells
            .zip(sizes)
            .map(
                |(((top, cell_height), (left, cell_width)), &[height, width])| Panel {
                    corner: [
                        top + (cell_height - height) / 2,
                        left + (cell_width - width) / 2,
                    ],
                    size: [height, width],
                },
            )
            .collect()
    }

    fn height(&self) -> usize {
        total(&self.row_heights)
    }

    fn width(&self) -> usize {
        total(&self.column_widths)
    }

    /// Draws the lines between the cells.
    fn draw_lines(&self, picture: &mut Picture) {
        let in_gap = |starts: &[usize], index: usize| {
            starts
                .iter()
                .skip(1)
                .any(|&start| index < start && index + LINE_PX >= start)
        };
        let (tops, lefts) = (starts(&self.row_heights), starts(&self.column_widths));
        for (y, row) in picture.rgb.chunks_exact_mut(picture.width * 3).enumerate() {
            let is_line = in_gap(&tops, y);
            for (x, pixel) in row.chunks_exact_mut(3).enumerate() {
                if is_line || in_gap(&lefts, x) {
                    pixel.fill(LINE);
                }
            }
        }
    }
}

/// Returns where each cell starts, with a line between neighbours.
fn starts(sides: &[usize]) -> Vec<usize> {
    let mut next = 0;
    let mut starts = Vec::with_capacity(sides.len());
    for side in sides {
        starts.push(next);
        next += side + LINE_PX;
    }
    starts
}

/// Returns the length of cells and the lines between them.
fn total(sides: &[usize]) -> usize {
    sides.iter().sum::<usize>() + LINE_PX * sides.len().saturating_sub(1)
}

/// Returns how many pixels a unit of length gets, so that the grid of planes fits `max_side`.
fn scale_that_fits(planes: &[Plane], n_columns: usize, max_side: usize) -> f64 {
    let extents: Vec<[f64; 2]> = planes.iter().map(Plane::extent).collect();
    let largest = |sides: &mut dyn Iterator<Item = f64>| sides.fold(0.0, f64::max);
    let height: f64 = extents
        .chunks(n_columns)
        .map(|row| largest(&mut row.iter().map(|[h, _]| *h)))
        .sum();
    let column = |first| {
        extents
            .iter()
            .skip(first)
            .step_by(n_columns)
            .map(|[_, w]| *w)
    };
    let width: f64 = (0..n_columns)
        .map(|first| largest(&mut column(first)))
        .sum();
    let fit = |length: f64, n_cells: usize| {
        // Lines between cells, and room for rounding up; a lone panel is clamped.
        let n_spent = (LINE_PX + 2) * (n_cells - 1);
        as_f64(max_side.saturating_sub(n_spent)) / length
    };
    let n_rows = planes.len().div_ceil(n_columns);
    fit(height, n_rows)
        .min(fit(width, n_columns))
        .min(MAX_ENLARGEMENT)
}

/// Returns a panel's side: whole pixels, at least 1, whatever spacing a file claims.
fn pixels_of(length: f64, max_side: usize) -> usize {
    as_index(length.round()).clamp(1, max_side)
}

/// Returns the number of columns, in one row or two, that draws the panels larger.
fn columns_that_draw_larger(planes: &[Plane], max_side: usize) -> usize {
    let (one_row, two_rows) = (planes.len(), planes.len().div_ceil(2));
    let scale = |n_columns| scale_that_fits(planes, n_columns, max_side);
    if scale(two_rows) > scale(one_row) {
        two_rows
    } else {
        one_row
    }
}

#[cfg(test)]
mod tests;
