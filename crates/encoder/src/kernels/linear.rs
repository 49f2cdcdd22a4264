//! Linear layers: weights packed once, and the product with packed rows.

use rayon::prelude::*;

use super::dispatch::{Kernels, Start, Task};
use super::math::{gelu, sigmoid};
use super::rows::{INT8_ZERO, Rows, bf16_pair, quantised, step_of};
use super::{Lanes, MR, NR, Panels, Precision, UnitRow};

/// Units of K in one pass over the columns: 32 x 768 x 4 bytes of weights are 96 KiB.
const K_BLOCK: usize = 768;

/// Rows in one pass over the columns: with `K_BLOCK`, 612 KiB that stay in the second-level cache.
/// 17 tiles, so that the 197 tokens of a ViT-B/16 are one block.
const ROW_BLOCK: usize = 17 * MR;

/// The largest K for which an i32 holds any sum of products of u8 and i8.
const MAX_INT8_INPUTS: usize = 1 << 16;

/// A linear layer `y = W x + b`, packed: [ceil(N / NR)][units of K][NR].
#[derive(Debug)]
pub(crate) struct Linear {
    units: Vec<UnitRow>,
    n_inputs: usize,
    n_outputs: usize,
    precision: Precision,
    /// [ceil(N / NR)], zeros at the end.
    bias: Vec<Lanes>,
    /// The value of one step of an int8 column; empty for floats.
    scales: Vec<Lanes>,
    /// The amount that the 128 of every int8 activation adds to a column's sum; empty for floats.
    offsets: Vec<[i32; NR]>,
}

/// A function of every result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activation {
    Gelu,
    /// `x * sigmoid(1.702 x)`, as the first CLIP models.
    QuickGelu,
    /// `x * sigmoid(x)`.
    Silu,
}

/// The last step of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finish {
    /// `out = product + bias`.
    Store,
    /// `out = activation(product + bias)`.
    Activate(Activation),
    /// `out = out + product + bias`: the residual connection.
    Add,
}

impl Activation {
    #[inline(always)]
    pub(crate) fn apply<const FMA: bool>(self, values: &mut [f32]) {
        match self {
            Self::Gelu => values.iter_mut().for_each(|x| *x = gelu::<FMA>(*x)),
            Self::QuickGelu => values
                .iter_mut()
                .for_each(|x| *x *= sigmoid::<FMA>(1.702 * *x)),
            Self::Silu => values.iter_mut().for_each(|x| *x *= sigmoid::<FMA>(*x)),
        }
    }
}

impl Linear {
    /// Packs a weight matrix; in bf16 instead of int8 where sums of int8 might overflow.
    ///
    /// # Shapes
    /// `weight` [N, K], row-major; `bias` [N], zeros if there is none.
    pub(crate) fn pack(
        precision: Precision,
        weight: &[f32],
        [n_outputs, n_inputs]: [usize; 2],
        bias: Option<&[f32]>,
    ) -> Self {
        let precision = match precision {
            Precision::Int8 if n_inputs > MAX_INT8_INPUTS => Precision::Bf16,
            other => other,
        };
        let per_unit = precision.per_unit();
        let n_units = n_inputs.div_ceil(per_unit);
        let n_panels = n_outputs.div_ceil(NR);
        // [N, K] -> [panels][units of K][NR]: one step of a tile reads one unit of 32 columns, which
        // is then 128 consecutive bytes. Columns beyond N stay zeros, and their results are not read.
        let mut units = vec![UnitRow::ZERO; n_panels * n_units];
        let mut columns = vec![Int8Column::default(); n_panels * NR];
        // NR rows of the weight become one panel, so threads write to separate memory.
        units
            .par_chunks_mut(n_units)
            .zip(columns.par_chunks_mut(NR))
            .zip(weight.par_chunks(NR * n_inputs))
            .for_each(|((units, columns), weight)| {
                for (j, line) in weight.chunks_exact(n_inputs).enumerate() {
                    columns[j] = pack_column(line, precision, j, units);
                }
            });
        // [N] -> [panels][NR] each, as the loops over finished tiles read them.
        let is_int8 = precision == Precision::Int8;
        let columns = if is_int8 { &columns[..] } else { &[] };
        Self {
            units,
            n_inputs,
            n_outputs,
            precision,
            bias: padded(bias.unwrap_or_default(), n_panels),
            scales: columns
                .as_chunks::<NR>()
                .0
                .iter()
                .map(|columns| Lanes(columns.map(|column| column.scale)))
                .collect(),
            offsets: columns
                .as_chunks::<NR>()
                .0
                .iter()
                .map(|columns| columns.map(|column| column.offset))
                .collect(),
        }
    }

    pub(crate) fn precision(&self) -> Precision {
        self.precision
    }

    pub(crate) fn n_inputs(&self) -> usize {
        self.n_inputs
    }

    pub(crate) fn n_outputs(&self) -> usize {
        self.n_outputs
    }

    fn n_units(&self) -> usize {
        self.n_inputs.div_ceil(self.precision.per_unit())
    }
}

/// The scale and offset of one int8 column; both 0 for floats.
#[derive(Debug, Clone, Copy, Default)]
struct Int8Column {
    scale: f32,
    offset: i32,
}

/// Writes one output's weights as column `j` of a packed panel.
///
/// # Shapes
/// `line` [K] -> column `j` of `units` [units of K][NR]
fn pack_column(line: &[f32], precision: Precision, j: usize, units: &mut [UnitRow]) -> Int8Column {
    match precision {
        Precision::F32 => {
            for (unit, value) in units.iter_mut().zip(line) {
                unit.0[j] = value.to_bits();
            }
            Int8Column::default()
        }
        Precision::Bf16 => {
            for (unit, pair) in units.iter_mut().zip(line.chunks(2)) {
                unit.0[j] = bf16_pair(pair[0], pair.get(1).copied().unwrap_or_default());
            }
            Int8Column::default()
        }
        Precision::Int8 => {
            // Every column has its own scale, so that one large weight coarsens only its own output.
            let scale = step_of(line);
            let mut sum = 0;
            for (unit, four) in units.iter_mut().zip(line.chunks(4)) {
                let mut bytes = [0; 4];
                for (byte, value) in bytes.iter_mut().zip(four) {
                    let step = quantised(value / scale);
                    sum += step;
                    *byte = step.to_le_bytes()[0];
                }
                unit.0[j] = u32::from_le_bytes(bytes);
            }
            // The instruction takes u8 activations, stored as q + 128. Their product with the column
            // exceeds the wanted one by 128 times the sum of its steps.
            Int8Column {
                scale,
                offset: sum * INT8_ZERO,
            }
        }
    }
}

/// Cuts a bias [N] into [panels][NR], with zeros at the end.
fn padded(values: &[f32], n_panels: usize) -> Vec<Lanes> {
    let mut lanes = vec![Lanes::ZERO; n_panels];
    for (lanes, values) in lanes.iter_mut().zip(values.chunks(NR)) {
        lanes.0[..values.len()].copy_from_slice(values);
    }
    lanes
}

/// Computes `rows x linear^T` into `out`.
///
/// Every thread computes some of the panels. It takes its panels in blocks of K and of rows, so that
/// a block of rows stays in cache while the weights are read once.
///
/// # Shapes
/// `rows` [M, K], `linear` [N, K] -> `out` [M, N]
/// # Panics
/// If shapes or precisions do not fit each other.
pub(crate) fn multiply(
    kernels: &Kernels,
    rows: &Rows,
    linear: &Linear,
    finish: Finish,
    out: &mut Panels,
) {
    assert_eq!(
        (
            rows.n_rows,
            linear.n_outputs,
            linear.n_units(),
            linear.precision
        ),
        (out.n_rows, out.n_cols, rows.n_units, rows.precision),
        "shapes of a product"
    );
    // The split is by columns only. A result is summed by one thread in one order, so vectors do not
    // depend on the number of threads.
    let n_panels = linear.bias.len();
    let per_task = n_panels.div_ceil(rayon::current_num_threads()).max(1);
    let n_units = linear.n_units();
    out.lanes
        .par_chunks_mut(per_task * rows.n_rows)
        .zip(linear.units.par_chunks(per_task * n_units))
        .enumerate()
        .for_each(|(task, (out, units))| {
            ProductShare {
                kernels,
                rows,
                linear,
                finish,
                first_panel: task * per_task,
                units,
            }
            .multiply(out);
        });
}

/// The panels of a product that one thread computes.
struct ProductShare<'a> {
    kernels: &'a Kernels,
    rows: &'a Rows,
    linear: &'a Linear,
    finish: Finish,
    first_panel: usize,
    /// [panels of the share][units of K]
    units: &'a [UnitRow],
}

impl ProductShare<'_> {
    /// Computes `out`, [panels of the share][M].
    fn multiply(&self, out: &mut [Lanes]) {
        let (n_rows, n_units) = (self.rows.n_rows, self.rows.n_units);
        // `out` holds f32, but sums of int8 are integers until they are scaled, so K is not split.
        let k_block = match self.linear.precision {
            Precision::Int8 => n_units,
            Precision::F32 | Precision::Bf16 => K_BLOCK,
        };
        for first_k in (0..n_units).step_by(k_block) {
            // The innermost loop goes over panels. The block of rows, at most 612 KiB, is reused for
            // each of them, and of the weights only 96 KiB are needed at a time.
            let ks = first_k..n_units.min(first_k + k_block);
            for first_row in (0..n_rows).step_by(ROW_BLOCK) {
                let block = first_row..n_rows.min(first_row + ROW_BLOCK);
                let panels = out.chunks_exact_mut(n_rows);
                for (panel, out) in panels.enumerate() {
                    let next = self.units.get((panel + 1) * n_units..);
                    let part = PanelBlock {
                        panel: self.first_panel + panel,
                        units: &self.units[panel * n_units..][ks.clone()],
                        next: next
                            .and_then(|units| units.get(ks.clone()))
                            .unwrap_or_default(),
                        first_k: ks.start,
                        is_last: ks.end == n_units,
                    };
                    self.block(&part, block.clone(), out);
                }
            }
        }
    }

    /// Multiplies a block of rows with one block of a panel.
    ///
    /// # Shapes
    /// `out` [M] of the panel; its elements `rows` are changed.
    fn block(&self, part: &PanelBlock<'_>, rows: std::ops::Range<usize>, out: &mut [Lanes]) {
        let is_int8 = self.linear.precision == Precision::Int8;
        let tile_of = self.kernels.tile(self.linear.precision);
        // The first block of K starts from the bias and, with a residual, from what `out` holds; the
        // others add to the sums of the blocks before.
        let is_first = part.first_k == 0;
        let is_sum = self.finish == Finish::Add || !is_first;
        let bias = if is_first && !is_int8 {
            &self.linear.bias[part.panel]
        } else {
            &Lanes::ZERO
        };
        // Integer sums of one int8 tile, which `Rescale` turns into results.
        let mut steps = [Lanes::ZERO; MR];
        // Every tile fetches its share of the next panel, which is in cache when its turn comes.
        let n_ahead = part.next.len().div_ceil(rows.len().div_ceil(MR));
        let mut ahead = part.next.chunks(n_ahead.max(1));
        for (first, out) in rows.clone().step_by(MR).zip(out[rows].chunks_mut(MR)) {
            // Rows are [tiles][units of K][MR]: the part along K of one tile is consecutive.
            let packed = &self.rows.units[first / MR * self.rows.n_units + part.first_k..];
            let packed = &packed[..part.units.len()];
            let start = Start {
                is_sum: is_sum && !is_int8,
                bias,
                ahead: ahead.next().unwrap_or_default(),
            };
            if is_int8 {
                tile_of(packed, part.units, start, &mut steps[..out.len()]);
                self.kernels.run(Rescale {
                    linear: self.linear,
                    panel: part.panel,
                    is_sum,
                    steps: &steps,
                    scales: &self.rows.scales[first..],
                    out,
                });
            } else {
                tile_of(packed, part.units, start, out);
            }
            // The tile is activated while it is in cache, and only when its sums are complete.
            if let (Finish::Activate(activation), true) = (self.finish, part.is_last) {
                self.kernels.run(Activate { activation, out });
            }
        }
    }
}

/// A block of K of one panel.
#[derive(Debug, Clone, Copy)]
struct PanelBlock<'a> {
    /// Index of the panel in the whole layer.
    panel: usize,
    units: &'a [UnitRow],
    /// The units of the next panel for the same K; empty after the last panel.
    next: &'a [UnitRow],
    /// The first unit of K in the block.
    first_k: usize,
    /// Whether no block of K follows.
    is_last: bool,
}

/// Turns integer sums of one tile into results.
struct Rescale<'a> {
    linear: &'a Linear,
    panel: usize,
    /// Whether results are added to `out`.
    is_sum: bool,
    /// Bits of i32, one row of 32 columns each.
    steps: &'a [Lanes],
    /// The value of one step of each row.
    scales: &'a [f32],
    out: &'a mut [Lanes],
}

impl Task for Rescale<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let scale = self.linear.scales[self.panel];
        let offset = self.linear.offsets[self.panel];
        let bias = self.linear.bias[self.panel];
        let rows = self.steps.iter().zip(self.out).zip(self.scales);
        for ((steps, out), &row_scale) in rows {
            let before = if self.is_sum { *out } else { Lanes::ZERO };
            let steps = *steps;
            *out = lanes(|j| {
                let steps = steps.0[j].to_bits().cast_signed() - offset[j];
                as_f32(steps) * (row_scale * scale.0[j]) + bias.0[j] + before.0[j]
            });
        }
    }
}

/// Applies the activation to one tile.
struct Activate<'a> {
    activation: Activation,
    out: &'a mut [Lanes],
}

impl Task for Activate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        for out in self.out {
            self.activation.apply::<FMA>(&mut out.0);
        }
    }
}

/// Computes `NR` values. Callers capture copies instead of references into the matrix, because the
/// compiler vectorises only a loop whose inputs cannot overlap its output.
#[inline(always)]
fn lanes(value: impl Fn(usize) -> f32) -> Lanes {
    let mut values = [0.0; NR];
    for (j, out) in values.iter_mut().enumerate() {
        *out = value(j);
    }
    Lanes(values)
}

#[inline(always)]
#[allow(clippy::cast_precision_loss, reason = "a relative error of 2^-24")]
fn as_f32(steps: i32) -> f32 {
    steps as f32
}
