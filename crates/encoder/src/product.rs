//! Products in bf16 of f32 matrices for training, whose factors change at every step.
//!
//! The tiles are those of inference (`kernels`). Both factors are packed for every product, in blocks
//! that stay in cache, and are read in place: row-major or transposed.

use std::array;
use std::cell::Cell;
use std::ops::Range;

use rayon::prelude::*;

use crate::kernels::{Kernels, Lanes, MR, NR, Precision, Start, Task, UnitRow};

/// Units of K packed at a time: 32 KiB of a panel.
const K_BLOCK: usize = 256;

/// Columns packed at a time: with `K_BLOCK` 768 KiB, which the second-level cache holds.
const COLUMN_BLOCK: usize = 24 * NR;

/// Rows packed at a time: four tiles, so that rows that lie across are read by whole cache lines.
const ROW_BLOCK: usize = 4 * MR;

/// Multiplications from which other threads help; below, sharing the work costs more than it saves.
const PARALLEL_FROM: usize = 1 << 22;

/// A matrix within a slice: row `i` and column `j` lie at `i * row_stride + j * column_stride`.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    values: &'a [f32],
    n_rows: usize,
    n_columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Returns `n_rows` rows of `n_columns` neighbouring values, `row_stride` values apart.
    ///
    /// # Panics
    /// If the matrix reaches beyond the slice.
    pub fn new(values: &'a [f32], [n_rows, n_columns]: [usize; 2], row_stride: usize) -> Self {
        assert!(
            n_columns <= row_stride && reach(n_rows, n_columns, row_stride) <= values.len(),
            "a matrix reaches beyond its slice"
        );
        Self {
            values,
            n_rows,
            n_columns,
            row_stride,
            column_stride: 1,
        }
    }

    /// Returns the same values with rows and columns exchanged.
    #[must_use]
    pub fn transposed(self) -> Self {
        Self {
            n_rows: self.n_columns,
            n_columns: self.n_rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    /// Returns the values from the first on, and how far rows and columns are apart.
    pub fn strided(&self) -> (&'a [f32], [usize; 2]) {
        (self.values, [self.row_stride, self.column_stride])
    }

    /// Returns `[rows, columns]`.
    pub fn shape(&self) -> [usize; 2] {
        [self.n_rows, self.n_columns]
    }

    /// Returns some of the rows.
    #[must_use]
    pub fn rows(self, rows: Range<usize>) -> Self {
        self.part(rows, 0..self.n_columns)
    }

    fn part(self, rows: Range<usize>, columns: Range<usize>) -> Self {
        let first = rows.start * self.row_stride + columns.start * self.column_stride;
        Self {
            values: &self.values[first..],
            n_rows: rows.len(),
            n_columns: columns.len(),
            ..self
        }
    }

    /// Returns one row, where its values are neighbours.
    fn line(&self, row: usize) -> &'a [f32] {
        &self.values[row * self.row_stride..][..self.n_columns]
    }

    /// Returns one of neighbouring columns of up to `L` rows, which lie side by side; the rest are zeros.
    #[inline(always)]
    fn column<const L: usize>(&self, column: usize) -> [f32; L] {
        if column >= self.n_columns {
            return [0.0; L];
        }
        let values = &self.values[column * self.column_stride..];
        match values.first_chunk::<L>() {
            Some(whole) if self.n_rows == L => *whole,
            _ => {
                let mut padded = [0.0; L];
                padded[..self.n_rows].copy_from_slice(&values[..self.n_rows]);
                padded
            }
        }
    }

    /// Returns one unit along K of each of up to `L` rows, which lie side by side.
    #[inline(always)]
    fn units<const L: usize>(&self, kernels: &Kernels, unit: usize) -> [u32; L] {
        let (even, odd) = (self.column::<L>(2 * unit), self.column::<L>(2 * unit + 1));
        let mut units = [0; L];
        (kernels.pair_bf16)(&even, &odd, &mut units);
        units
    }
}

/// Returns how many values rows reach over.
fn reach(n_rows: usize, n_columns: usize, row_stride: usize) -> usize {
    match (n_rows, n_columns) {
        (0, _) | (_, 0) => 0,
        _ => (n_rows - 1) * row_stride + n_columns,
    }
}

/// Whether the CPU computes products of bf16 in hardware; without, those of f32 are faster.
pub fn has_bf16() -> bool {
    Kernels::of_this_cpu().fastest_precision() == Precision::Bf16
}

/// Whether a product may use the other threads of the pool. The result is the same, bit for bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// The caller's only.
    One,
    /// All, where the product is large.
    All,
}

/// `factor * left x right + bias`, of factors rounded to bf16, summed in f32.
#[derive(Debug, Clone, Copy)]
pub struct Product<'a> {
    /// `[M, K]`.
    pub left: Matrix<'a>,
    /// `[K, N]`.
    pub right: Matrix<'a>,
    /// The factor of every sum.
    pub factor: f32,
    /// Added to every row, `[N]`; or empty.
    pub bias: &'a [f32],
    /// The threads that compute it.
    pub threads: Threads,
}

impl<'a> Product<'a> {
    /// Returns the plain product of two matrices, computed by all threads.
    pub fn new(left: Matrix<'a>, right: Matrix<'a>) -> Self {
        Self {
            left,
            right,
            factor: 1.0,
            bias: &[],
            threads: Threads::All,
        }
    }

    /// Overwrites `out`, M rows of N values that are `row_stride` apart.
    ///
    /// # Panics
    /// If the shapes do not fit, or `out` is too short.
    pub fn write(&self, out: &mut [f32], row_stride: usize) {
        self.write_with(Kernels::of_this_cpu(), out, row_stride);
    }

    fn write_with(&self, kernels: &Kernels, out: &mut [f32], row_stride: usize) {
        let [n_rows, n_columns] = [self.left.n_rows, self.right.n_columns];
        let (depth, reach) = (self.left.n_columns, reach(n_rows, n_columns, row_stride));
        assert!(
            depth == self.right.n_rows
                && (self.bias.is_empty() || self.bias.len() == n_columns)
                && n_columns <= row_stride
                && reach <= out.len(),
            "shapes of a product"
        );
        let out = &mut out[..reach];
        let is_large = n_rows * n_columns * depth >= PARALLEL_FROM;
        let is_parallel = is_large && self.threads == Threads::All;
        if depth == 0 {
            for row in out.chunks_mut(row_stride.max(1)) {
                match self.bias {
                    [] => row[..n_columns].fill(0.0),
                    bias => row[..n_columns].copy_from_slice(bias),
                }
            }
        }
        let mut panels = PANELS.take();
        for ks in blocks(depth, 2 * K_BLOCK) {
            for columns in blocks(n_columns, COLUMN_BLOCK) {
                let part = Part {
                    kernels,
                    product: self,
                    columns,
                    ks: ks.clone(),
                    row_stride,
                    is_parallel,
                };
                part.add(&mut panels, out);
            }
        }
        PANELS.set(panels);
    }
}

/// Cuts `0..n` into blocks of about equal length, multiples of `NR` but for the last.
fn blocks(n: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    let n_blocks = n.div_ceil(most).max(1);
    let length = n.div_ceil(n_blocks).next_multiple_of(NR).max(NR);
    (0..n)
        .step_by(length)
        .map(move |first| first..n.min(first + length))
}

// Memory of packed factors, kept between products. It is taken out while in use, because a thread that waits for
// others may begin another product, which then allocates its own.
thread_local! {
    static PANELS: Cell<Vec<UnitRow>> = const { Cell::new(Vec::new()) };
    static TILES: Cell<Tiles> = const { Cell::new(Tiles { units: Vec::new(), lines: Vec::new() }) };
}

/// The contribution of a part of K to some columns.
struct Part<'a> {
    kernels: &'a Kernels,
    product: &'a Product<'a>,
    columns: Range<usize>,
    ks: Range<usize>,
    row_stride: usize,
    is_parallel: bool,
}

impl Part<'_> {
    fn n_units(&self) -> usize {
        self.ks.len().div_ceil(2)
    }

    /// Adds the contribution to all rows; the first part of K overwrites them.
    fn add(&self, panels: &mut Vec<UnitRow>, out: &mut [f32]) {
        // Packed alike, both factors are lines along K: [columns, K] here.
        let right = self.product.right.transposed();
        let n_units = self.n_units();
        let panels = room(
            panels,
            self.columns.len().div_ceil(NR) * n_units,
            UnitRow::ZERO,
        );
        let pack = |i: usize, panel: &mut [UnitRow]| {
            let first = self.columns.start + i * NR;
            let lines = first..self.columns.end.min(first + NR);
            self.kernels.run(PackPanel {
                kernels: self.kernels,
                lines: right.part(lines, self.ks.clone()),
                panel,
            });
        };
        if self.is_parallel {
            let by_panel = panels.par_chunks_exact_mut(n_units);
            by_panel.enumerate().for_each(|(i, panel)| pack(i, panel));
        } else {
            let by_panel = panels.chunks_exact_mut(n_units);
            by_panel.enumerate().for_each(|(i, panel)| pack(i, panel));
        }
        let panels = &*panels;
        let add_rows = |i: usize, out: &mut [f32]| {
            let mut tiles = TILES.take();
            self.add_rows(i * ROW_BLOCK, &mut tiles, panels, out);
            TILES.set(tiles);
        };
        let n_values = ROW_BLOCK * self.row_stride;
        if self.is_parallel {
            let blocks = out.par_chunks_mut(n_values).enumerate();
            blocks.for_each(|(i, out)| add_rows(i, out));
        } else {
            let blocks = out.chunks_mut(n_values).enumerate();
            blocks.for_each(|(i, out)| add_rows(i, out));
        }
    }

    /// Adds the contribution to up to `ROW_BLOCK` rows.
    fn add_rows(&self, first_row: usize, tiles: &mut Tiles, panels: &[UnitRow], out: &mut [f32]) {
        let n_units = self.n_units();
        let n_rows = out.len().div_ceil(self.row_stride);
        let rows = first_row..first_row + n_rows;
        let tiles = tiles.pack(self.kernels, self.product.left.part(rows, self.ks.clone()));
        let tile_of = self.kernels.tile(Precision::Bf16);
        let mut sums = [Lanes::ZERO; MR];
        for (i, panel) in panels.chunks_exact(n_units).enumerate() {
            let first_column = self.columns.start + i * NR;
            let columns = first_column..self.columns.end.min(first_column + NR);
            for (tile, first) in tiles.chunks_exact(n_units).zip((0..n_rows).step_by(MR)) {
                let sums = &mut sums[..MR.min(n_rows - first)];
                tile_of(tile, panel, Start::ZERO, sums);
                self.kernels.run(Store {
                    sums,
                    factor: self.product.factor,
                    bias: self.product.bias.get(columns.clone()),
                    is_first: self.ks.start == 0,
                    columns: columns.clone(),
                    row_stride: self.row_stride,
                    out: &mut out[first * self.row_stride..],
                });
            }
        }
    }
}

/// Returns the first `n` values of a vector, which grows if needed; the values are arbitrary.
fn room<T: Copy>(values: &mut Vec<T>, n: usize, value: T) -> &mut [T] {
    if values.len() < n {
        values.resize(n, value);
    }
    &mut values[..n]
}

/// Writes the sums of one tile into the result.
struct Store<'a> {
    sums: &'a [Lanes],
    factor: f32,
    /// Of these columns, where there is one.
    bias: Option<&'a [f32]>,
    is_first: bool,
    columns: Range<usize>,
    row_stride: usize,
    /// Rows from the tile's first.
    out: &'a mut [f32],
}

impl Task for Store<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let mut bias = Lanes::ZERO;
        if let (Some(values), true) = (self.bias, self.is_first) {
            bias.0[..values.len()].copy_from_slice(values);
        }
        let factor = self.factor;
        for (sums, row) in self.sums.iter().zip(self.out.chunks_mut(self.row_stride)) {
            let row = &mut row[self.columns.clone()];
            let sums = sums.0.map(|sum| sum * factor);
            // Whole panels have a length that the compiler knows.
            match (row.as_mut_array::<NR>(), self.is_first) {
                (Some(row), true) => *row = array::from_fn(|i| sums[i] + bias.0[i]),
                (Some(row), false) => (0..NR).for_each(|i| row[i] += sums[i]),
                (None, is_first) => {
                    for (i, value) in row.iter_mut().enumerate() {
                        *value = sums[i] + if is_first { bias.0[i] } else { *value };
                    }
                }
            }
        }
    }
}

/// Packs up to `NR` columns as a panel.
struct PackPanel<'a> {
    kernels: &'a Kernels,
    /// [columns, K].
    lines: Matrix<'a>,
    panel: &'a mut [UnitRow],
}

impl Task for PackPanel<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let (kernels, lines) = (self.kernels, self.lines);
        if lines.row_stride == 1 {
            for (unit, row) in self.panel.iter_mut().enumerate() {
                row.0 = lines.units(kernels, unit);
            }
            return;
        }
        let mut units = [0; K_BLOCK];
        for line in 0..lines.n_rows {
            (kernels.to_bf16)(lines.line(line), &mut units[..self.panel.len()]);
            for (row, unit) in self.panel.iter_mut().zip(units) {
                row.0[line] = unit;
            }
        }
    }
}

/// Up to `ROW_BLOCK` packed rows: [tiles][units of K][MR].
#[derive(Default)]
struct Tiles {
    units: Vec<[u32; MR]>,
    /// Room for the rows of one tile before they are interleaved: [MR][units of K].
    lines: Vec<u32>,
}

impl Tiles {
    /// Packs `[rows, K]`.
    fn pack(&mut self, kernels: &Kernels, rows: Matrix<'_>) -> &[[u32; MR]] {
        let n_units = rows.n_columns.div_ceil(2);
        let tiles = room(&mut self.units, rows.n_rows.div_ceil(MR) * n_units, [0; MR]);
        if rows.row_stride == 1 {
            kernels.run(PackAcross {
                kernels,
                rows,
                tiles,
            });
            return tiles;
        }
        let lines = room(&mut self.lines, MR * n_units, 0);
        for (i, tile) in tiles.chunks_exact_mut(n_units).enumerate() {
            let lines_of_tile = lines.chunks_exact_mut(n_units);
            for (row, line) in (i * MR..rows.n_rows).zip(lines_of_tile) {
                (kernels.to_bf16)(rows.line(row), line);
            }
            (kernels.interleave)(lines, tile);
        }
        tiles
    }
}

/// Packs rows whose values of one k lie side by side.
struct PackAcross<'a> {
    kernels: &'a Kernels,
    rows: Matrix<'a>,
    tiles: &'a mut [[u32; MR]],
}

impl Task for PackAcross<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let n_units = self.rows.n_columns.div_ceil(2);
        for unit in 0..n_units {
            let units = self.rows.units::<ROW_BLOCK>(self.kernels, unit);
            let tiles = self.tiles.chunks_exact_mut(n_units);
            for (tile, units) in tiles.zip(units.as_chunks().0) {
                tile[unit] = *units;
            }
        }
    }
}

#[cfg(test)]
mod tests;
