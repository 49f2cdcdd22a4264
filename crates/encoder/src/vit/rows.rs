//! Where the rows of each product of a block come from.
//!
//! A source writes a few neighbouring rows at a time, which are packed while they are in cache.

use std::ops::Range;

use super::Norm;
use crate::kernels::{Activation, HeadOutputs, Panels, Source, Span, layer_norm};

/// Rows of a row-major matrix.
pub(super) struct SliceRows<'a> {
    pub(super) values: &'a [f32],
    pub(super) width: usize,
}

impl Source for SliceRows<'_> {
    #[inline(always)]
    fn fill<const FMA: bool>(&self, rows: Range<usize>, lines: &mut [f32]) {
        lines.copy_from_slice(&self.values[rows.start * self.width..][..lines.len()]);
    }
}

/// Rows of panels.
pub(super) struct PanelRows<'a> {
    pub(super) panels: &'a Panels,
}

impl Source for PanelRows<'_> {
    #[inline(always)]
    fn fill<const FMA: bool>(&self, rows: Range<usize>, lines: &mut [f32]) {
        self.panels.read_rows(rows, 0, lines);
    }
}

/// Rows of panels after `LayerNorm`.
pub(super) struct NormedRows<'a> {
    pub(super) panels: &'a Panels,
    pub(super) norm: &'a Norm,
}

impl Source for NormedRows<'_> {
    #[inline(always)]
    fn fill<const FMA: bool>(&self, rows: Range<usize>, lines: &mut [f32]) {
        self.panels.read_rows(rows, 0, lines);
        for line in lines.chunks_exact_mut(self.norm.weight.len()) {
            layer_norm::<FMA>(line, &self.norm.weight, &self.norm.bias, self.norm.eps);
        }
    }
}

/// Rows [gate | up] of panels, as `activation(gate) * up`.
pub(super) struct GatedRows<'a> {
    pub(super) panels: &'a Panels,
    pub(super) activation: Activation,
}

impl Source for GatedRows<'_> {
    #[inline(always)]
    fn fill<const FMA: bool>(&self, rows: Range<usize>, lines: &mut [f32]) {
        // [n, 2 hidden] -> [n, hidden]
        let width = lines.len() / rows.len();
        self.panels.read_rows(rows.clone(), 0, lines);
        self.activation.apply::<FMA>(lines);
        let mut up = vec![0.0; lines.len()];
        self.panels.read_rows(rows, width, &mut up);
        lines.iter_mut().zip(up).for_each(|(gate, up)| *gate *= up);
    }
}

/// Rows of the output of `attend`, the heads of a token side by side.
pub(super) struct HeadRows<'a> {
    pub(super) attention: &'a HeadOutputs,
    pub(super) spans: &'a [Span],
}

impl Source for HeadRows<'_> {
    #[inline(always)]
    fn fill<const FMA: bool>(&self, rows: Range<usize>, lines: &mut [f32]) {
        let n_heads = self.attention.n_heads;
        let width = lines.len() / rows.len();
        for (row, line) in rows.zip(lines.chunks_exact_mut(width)) {
            // Spans are sorted by row, so the last that begins at or before the row contains it.
            let span = self.spans.partition_point(|span| span.first_row <= row) - 1;
            let span = &self.spans[span];
            // The object's values are [heads, L, head width]; the row takes one token of each head.
            let object = &self.attention.values[span.first_row * width..];
            let token = row - span.first_row;
            for (head, out) in line.chunks_exact_mut(width / n_heads).enumerate() {
                let start = (head * span.n_tokens + token) * out.len();
                out.copy_from_slice(&object[start..start + out.len()]);
            }
        }
    }
}
