//! The forward pass of every supported vision transformer, ours and the public ones.
//!
//! Families differ in a few places, each a field of `Vit`; nothing here knows their names.

use std::ops::Range;

use m3ret_imaging::Input;
use rayon::prelude::*;

use crate::config::{MAX_TOKENS, Pooling};
use crate::error::{Error, Result};
use crate::kernels::{
    Activation, Finish, HeadOutputs, Kernels, Linear, Panels, Rotation, Rows, Source, Span, attend,
    layer_norm, multiply,
};
use crate::position::Position;
use crate::stem::{Around, Stages, slab_means};
use crate::tokens::{grid_of, patchify};

/// Rows of a batch that are computed together: enough to use each weight often, few enough for a
/// laptop's memory.
const MAX_ROWS: usize = 2048;

/// `LayerNorm`.
#[derive(Debug)]
pub(crate) struct Norm {
    pub(crate) weight: Vec<f32>,
    pub(crate) bias: Vec<f32>,
    pub(crate) eps: f32,
}

/// One transformer block, pre-norm. `LayerScale`, where a model has it, is multiplied into `proj`
/// and `fc2` when it is loaded.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) norm1: Norm,
    /// [3E, E]: q, k, v, each split by head.
    pub(crate) qkv: Linear,
    /// [E, E]
    pub(crate) proj: Linear,
    pub(crate) norm2: Norm,
    /// [hidden, E]; gated: [gate; up], [2 hidden, E].
    pub(crate) fc1: Linear,
    /// [E, hidden]
    pub(crate) fc2: Linear,
}

/// How the MLP of every block computes its hidden layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mlp {
    /// `activation(fc1)`
    Plain(Activation),
    /// `activation(gate) * up`
    Gated(Activation),
}

/// What is computed from the pooled token.
#[derive(Debug)]
pub(crate) enum Head {
    /// A projection: it is the embedding.
    Projection(Linear),
    /// `tanh(dense(CLS))`: reported, not the embedding.
    TanhPooler(Linear),
}

/// A vision transformer with packed weights.
#[derive(Debug)]
pub(crate) struct Vit {
    pub(crate) kernels: Kernels,
    pub(crate) in_chans: usize,
    pub(crate) embed_dim: usize,
    pub(crate) num_heads: usize,
    /// `[pd, ph, pw]`; `pd` is 1 in 2D models.
    pub(crate) patch: [usize; 3],
    /// The convolutions before `patch_embed`, in models that have them.
    pub(crate) stem: Option<Stages>,
    /// [E, P], patches in the order of `patchify`; after a stem [E, channels of its last stage].
    pub(crate) patch_embed: Linear,
    /// [E, P / pd]: `patch_embed` summed over the depth of a patch. An image repeated along D
    /// gives the same numbers with it, for less work. Only where `pd` > 1.
    pub(crate) flat_patch_embed: Option<Linear>,
    /// `[n_prefix, E]`: CLS (its position already added), then registers.
    pub(crate) prefix: Vec<f32>,
    pub(crate) position: Position,
    /// On all tokens before the first block.
    pub(crate) pre_norm: Option<Norm>,
    pub(crate) blocks: Vec<Block>,
    pub(crate) mlp: Mlp,
    /// On all tokens after the last block.
    pub(crate) norm: Option<Norm>,
    pub(crate) pooling: Pooling,
    /// On the pooled token only.
    pub(crate) pooled_norm: Option<Norm>,
    pub(crate) head: Option<Head>,
}

/// One object for the network.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// f32 [C, D, H, W], as the model's own preparation makes it.
    pub input: &'a Input,
    /// Patches, by index in (z, y, x) order, that the network does not see.
    pub left_out: &'a [usize],
}

/// All tokens of one object after the final norm (of CLIP models: before it).
#[derive(Debug, Clone, PartialEq)]
pub struct Tokens {
    values: Vec<f32>,
    embed_dim: usize,
    n_prefix: usize,
    grid: [usize; 3],
}

impl Tokens {
    /// Returns every token, [L, E]: CLS, registers, then the patches that were seen.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Returns `E`.
    #[must_use]
    pub fn embed_dim(&self) -> usize {
        self.embed_dim
    }

    /// Returns the grid `[n_z, n_y, n_x]` of the object's patches, seen or not.
    #[must_use]
    pub fn grid(&self) -> [usize; 3] {
        self.grid
    }

    /// Returns CLS, `[E]`.
    #[must_use]
    pub fn cls(&self) -> &[f32] {
        &self.values[..self.embed_dim]
    }

    /// Returns the patch tokens that were seen, [N, E], in (z, y, x) order.
    #[must_use]
    pub fn patches(&self) -> &[f32] {
        &self.values[self.n_prefix * self.embed_dim..]
    }

    /// Returns the mean of the patch tokens, `[E]`.
    #[must_use]
    pub fn mean(&self) -> Vec<f32> {
        let mut sums = vec![0.0_f64; self.embed_dim];
        for patch in self.patches().chunks_exact(self.embed_dim) {
            for (sum, &value) in sums.iter_mut().zip(patch) {
                *sum += f64::from(value);
            }
        }
        #[allow(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
        let n = (self.patches().len() / self.embed_dim) as f64;
        #[allow(clippy::cast_possible_truncation, reason = "the one rounding to f32")]
        sums.into_iter().map(|sum| (sum / n) as f32).collect()
    }
}

/// One object cut into the patches that the network sees.
struct Patches {
    /// [N, P], or [N, P / pd] if flat or for a stem.
    values: Vec<f32>,
    grid: [usize; 3],
    /// Indices of the patches seen.
    kept: Vec<usize>,
    is_flat: bool,
}

impl Vit {
    /// Returns the number of tokens before the patches.
    pub(crate) fn n_prefix(&self) -> usize {
        self.prefix.len() / self.embed_dim
    }

    /// Runs the network on objects of any grids; results come in the order of `views`.
    ///
    /// # Errors
    /// `Mismatch` if an object does not fit the patch size, or nothing of it is left.
    pub(crate) fn tokens(&self, views: &[View<'_>]) -> Result<Vec<Tokens>> {
        let mut all = Vec::with_capacity(views.len());
        let mut batch = Vec::new();
        let mut n_rows = 0;
        for view in views {
            let patches = self.cut(view)?;
            let n_tokens = self.n_prefix() + patches.kept.len();
            if n_rows + n_tokens > MAX_ROWS && !batch.is_empty() {
                all.extend(self.run(&std::mem::take(&mut batch)));
                n_rows = 0;
            }
            n_rows += n_tokens;
            batch.push(patches);
        }
        if !batch.is_empty() {
            all.extend(self.run(&batch));
        }
        Ok(all)
    }

    /// Runs the network up to and including block `n_blocks - 1`, without the final norm; for
    /// tests that look inside.
    #[cfg(test)]
    pub(crate) fn hidden(&self, view: &View<'_>, n_blocks: usize) -> Result<Vec<f32>> {
        let batch = [self.cut(view)?];
        let spans = self.spans(&batch);
        let mut buffers = self.embed(&batch, &spans);
        for block in &self.blocks[..n_blocks] {
            self.block(block, &mut buffers, &spans);
        }
        let hidden = buffers.hidden;
        let mut values = vec![0.0; hidden.n_rows() * self.embed_dim];
        for (row, line) in values.chunks_exact_mut(self.embed_dim).enumerate() {
            hidden.read(row, 0, line);
        }
        Ok(values)
    }

    /// Returns the pooled token of an object, normed where the model does so, [E].
    pub(crate) fn pooled(&self, tokens: &Tokens) -> Vec<f32> {
        let mut pooled = match self.pooling {
            Pooling::Cls => tokens.cls().to_vec(),
            Pooling::Mean => tokens.mean(),
        };
        if let Some(norm) = &self.pooled_norm {
            layer_norm::<false>(&mut pooled, &norm.weight, &norm.bias, norm.eps);
        }
        pooled
    }

    /// Returns what the head makes of the pooled token, where there is one.
    pub(crate) fn head(&self, pooled: &[f32]) -> Option<Vec<f32>> {
        let (linear, has_tanh) = match self.head.as_ref()? {
            Head::Projection(linear) => (linear, false),
            Head::TanhPooler(linear) => (linear, true),
        };
        let row = Slice {
            values: pooled,
            width: pooled.len(),
        };
        let mut rows = Rows::empty(linear.precision());
        rows.pack(&self.kernels, [1, pooled.len()], &row);
        let mut out = Panels::zeroed(1, linear.n_outputs());
        multiply(&self.kernels, &rows, linear, Finish::Store, &mut out);
        let mut values = vec![0.0; linear.n_outputs()];
        out.read(0, 0, &mut values);
        if has_tanh {
            values.iter_mut().for_each(|value| *value = value.tanh());
        }
        Some(values)
    }

    /// Returns the vector of an object, not yet of unit length.
    pub(crate) fn embedding(&self, tokens: &Tokens) -> Vec<f32> {
        let pooled = self.pooled(tokens);
        match &self.head {
            Some(Head::Projection(_)) => self.head(&pooled).unwrap_or(pooled),
            Some(Head::TanhPooler(_)) | None => pooled,
        }
    }

    /// Returns the length of `embedding`.
    pub(crate) fn width(&self) -> usize {
        match &self.head {
            Some(Head::Projection(linear)) => linear.n_outputs(),
            Some(Head::TanhPooler(_)) | None => self.embed_dim,
        }
    }

    /// Cuts an object into patches and leaves out what is not to be seen.
    fn cut(&self, view: &View<'_>) -> Result<Patches> {
        let shape = view.input.shape();
        let [channels, depth, ..] = shape;
        if channels != self.in_chans {
            return Err(Error::mismatch(
                "channels of the input",
                self.in_chans.to_string(),
                channels.to_string(),
            ));
        }
        let is_flat = depth == 1 && self.flat_patch_embed.is_some();
        let [pd, ph, pw] = self.patch;
        let grid = grid_of(shape, self.patch)?;
        let n_patches = grid.iter().product::<usize>();
        if n_patches > MAX_TOKENS {
            return Err(Error::LimitExceeded {
                what: "patches of one object",
                allowed: MAX_TOKENS as u64,
                asked: n_patches as u64,
            });
        }
        let mut is_kept = vec![true; n_patches];
        for &patch in view.left_out {
            let kept = is_kept.get_mut(patch).ok_or_else(|| {
                Error::mismatch(
                    "patch to leave out",
                    format!("below {n_patches}"),
                    patch.to_string(),
                )
            })?;
            *kept = false;
        }
        let kept: Vec<_> = (0..n_patches).filter(|&patch| is_kept[patch]).collect();
        if kept.is_empty() {
            return Err(Error::mismatch("patches left to see", "at least 1", "0"));
        }
        let mut values = if self.stem.is_some() {
            let (means, shape) = slab_means(view.input.values(), shape, pd);
            patchify(&means, shape, [1, ph, pw])?
        } else {
            let depth = if is_flat { 1 } else { pd };
            patchify(view.input.values(), shape, [depth, ph, pw])?
        };
        if kept.len() < n_patches {
            let width = values.len() / n_patches;
            let rows = kept
                .iter()
                .flat_map(|&patch| &values[patch * width..][..width]);
            values = rows.copied().collect();
        }
        Ok(Patches {
            values,
            grid,
            kept,
            is_flat,
        })
    }

    fn run(&self, batch: &[Patches]) -> Vec<Tokens> {
        let spans = self.spans(batch);
        let mut buffers = self.embed(batch, &spans);
        for block in &self.blocks {
            self.block(block, &mut buffers, &spans);
        }
        let hidden = buffers.hidden;
        let objects = batch.par_iter().zip(&spans);
        objects
            .map(|(patches, span)| {
                let mut values = vec![0.0; span.n_tokens * self.embed_dim];
                for (row, line) in values.chunks_exact_mut(self.embed_dim).enumerate() {
                    hidden.read(span.first_row + row, 0, line);
                    if let Some(norm) = &self.norm {
                        layer_norm::<false>(line, &norm.weight, &norm.bias, norm.eps);
                    }
                }
                Tokens {
                    values,
                    embed_dim: self.embed_dim,
                    n_prefix: self.n_prefix(),
                    grid: patches.grid,
                }
            })
            .collect()
    }

    /// Lays the objects of a batch out as rows one after another.
    fn spans(&self, batch: &[Patches]) -> Vec<Span> {
        let mut first_row = 0;
        let spans = batch.iter().map(|patches| {
            let span = Span {
                first_row,
                n_tokens: self.n_prefix() + patches.kept.len(),
                rotation: self.rotation(patches),
            };
            first_row += span.n_tokens;
            span
        });
        spans.collect()
    }

    fn rotation(&self, patches: &Patches) -> Option<Rotation> {
        let width = self.embed_dim / self.num_heads;
        let angles = self.position.angles(patches.grid, width)?;
        let kept = patches.kept.iter();
        let kept = kept.flat_map(|&patch| &angles[patch * width..][..width]);
        let kept: Vec<f32> = kept.copied().collect();
        Some(Rotation {
            n_prefix: self.n_prefix(),
            cosines: kept.iter().map(|angle| angle.cos()).collect(),
            sines: kept.iter().map(|angle| angle.sin()).collect(),
        })
    }

    /// Makes the tokens before the first block: [rows, E].
    fn embed(&self, batch: &[Patches], spans: &[Span]) -> Buffers {
        let n_rows = spans.iter().map(|span| span.n_tokens).sum();
        let mut hidden = Panels::zeroed(n_rows, self.embed_dim);
        let mut line = vec![0.0; self.embed_dim];
        for (patches, span) in batch.iter().zip(spans) {
            let linear = match (&self.flat_patch_embed, patches.is_flat) {
                (Some(flat), true) => flat,
                _ => &self.patch_embed,
            };
            let n = patches.kept.len();
            let stemmed = self.stem.as_ref().map(|stem| {
                let around = Around::of(patches.grid, &patches.kept);
                stem.run(&self.kernels, &patches.values, &around, self.patch[1])
            });
            let source = Slice {
                values: stemmed.as_ref().unwrap_or(&patches.values),
                width: linear.n_inputs(),
            };
            let shape = [n, linear.n_inputs()];
            let mut rows = Rows::empty(linear.precision());
            rows.pack(&self.kernels, shape, &source);
            let mut embedded = Panels::zeroed(n, self.embed_dim);
            multiply(&self.kernels, &rows, linear, Finish::Store, &mut embedded);
            let positions = self.position.added(patches.grid, self.embed_dim);
            let mut put = |row: usize, line: &mut [f32]| {
                if let Some(norm) = &self.pre_norm {
                    layer_norm::<false>(line, &norm.weight, &norm.bias, norm.eps);
                }
                hidden.write(span.first_row + row, line);
            };
            for (row, prefix) in self.prefix.chunks_exact(self.embed_dim).enumerate() {
                line.copy_from_slice(prefix);
                put(row, &mut line);
            }
            for (row, &patch) in patches.kept.iter().enumerate() {
                embedded.read(row, 0, &mut line);
                if let Some(positions) = &positions {
                    let position = &positions[patch * self.embed_dim..][..self.embed_dim];
                    line.iter_mut()
                        .zip(position)
                        .for_each(|(value, p)| *value += p);
                }
                put(self.n_prefix() + row, &mut line);
            }
        }
        Buffers {
            hidden,
            rows: Rows::empty(self.patch_embed.precision()),
            qkv: Panels::zeroed(0, 0),
            attended: HeadOutputs {
                values: Vec::new(),
                n_heads: self.num_heads,
            },
            inner: Panels::zeroed(0, 0),
        }
    }

    fn block(&self, block: &Block, buffers: &mut Buffers, spans: &[Span]) {
        let kernels = &self.kernels;
        let precision = block.qkv.precision();
        let Buffers {
            hidden,
            rows,
            qkv,
            attended,
            inner,
        } = buffers;
        let (n_rows, width) = (hidden.n_rows(), self.embed_dim);

        // x + proj(attention(norm1(x)))
        let normed = Normed {
            panels: hidden,
            norm: &block.norm1,
        };
        rows.pack(kernels, [n_rows, width], &normed);
        qkv.reshape(n_rows, 3 * width);
        multiply(kernels, rows, &block.qkv, Finish::Store, qkv);
        let attention_precision = kernels.attention_precision(precision);
        attend(kernels, attention_precision, qkv, spans, attended);
        rows.pack(kernels, [n_rows, width], &Heads { attended, spans });
        multiply(kernels, rows, &block.proj, Finish::Add, hidden);

        // x + fc2(mlp(fc1(norm2(x))))
        let normed = Normed {
            panels: hidden,
            norm: &block.norm2,
        };
        rows.pack(kernels, [n_rows, width], &normed);
        inner.reshape(n_rows, block.fc1.n_outputs());
        let shape = [n_rows, block.fc2.n_inputs()];
        match self.mlp {
            Mlp::Plain(activation) => {
                let finish = Finish::Activate(activation);
                multiply(kernels, rows, &block.fc1, finish, inner);
                rows.pack(kernels, shape, &Plain { panels: inner });
            }
            Mlp::Gated(activation) => {
                multiply(kernels, rows, &block.fc1, Finish::Store, inner);
                let gated = Gated {
                    panels: inner,
                    activation,
                };
                rows.pack(kernels, shape, &gated);
            }
        }
        multiply(kernels, rows, &block.fc2, Finish::Add, hidden);
    }
}

/// What a forward pass writes, kept from block to block.
struct Buffers {
    /// The tokens: [rows, E].
    hidden: Panels,
    /// The left factor of the next product.
    rows: Rows,
    qkv: Panels,
    attended: HeadOutputs,
    /// The hidden layer of the MLP.
    inner: Panels,
}

/// Rows of a plain matrix.
struct Slice<'a> {
    values: &'a [f32],
    width: usize,
}

impl Source for Slice<'_> {
    #[inline(always)]
    fn fill<const FMA: bool>(&self, rows: Range<usize>, lines: &mut [f32]) {
        lines.copy_from_slice(&self.values[rows.start * self.width..][..lines.len()]);
    }
}

/// Rows of panels.
struct Plain<'a> {
    panels: &'a Panels,
}

impl Source for Plain<'_> {
    #[inline(always)]
    fn fill<const FMA: bool>(&self, rows: Range<usize>, lines: &mut [f32]) {
        self.panels.read_rows(rows, 0, lines);
    }
}

/// Rows of panels after `LayerNorm`.
struct Normed<'a> {
    panels: &'a Panels,
    norm: &'a Norm,
}

impl Source for Normed<'_> {
    #[inline(always)]
    fn fill<const FMA: bool>(&self, rows: Range<usize>, lines: &mut [f32]) {
        self.panels.read_rows(rows, 0, lines);
        for line in lines.chunks_exact_mut(self.norm.weight.len()) {
            layer_norm::<FMA>(line, &self.norm.weight, &self.norm.bias, self.norm.eps);
        }
    }
}

/// Rows [gate | up] of panels, as `activation(gate) * up`.
struct Gated<'a> {
    panels: &'a Panels,
    activation: Activation,
}

impl Source for Gated<'_> {
    #[inline(always)]
    fn fill<const FMA: bool>(&self, rows: Range<usize>, lines: &mut [f32]) {
        let width = lines.len() / rows.len();
        self.panels.read_rows(rows.clone(), 0, lines);
        self.activation.apply::<FMA>(lines);
        let mut up = vec![0.0; lines.len()];
        self.panels.read_rows(rows, width, &mut up);
        lines.iter_mut().zip(up).for_each(|(gate, up)| *gate *= up);
    }
}

/// Rows of the output of `attend`, the heads of a token side by side.
struct Heads<'a> {
    attended: &'a HeadOutputs,
    spans: &'a [Span],
}

impl Source for Heads<'_> {
    #[inline(always)]
    fn fill<const FMA: bool>(&self, rows: Range<usize>, lines: &mut [f32]) {
        let n_heads = self.attended.n_heads;
        let width = lines.len() / rows.len();
        for (row, line) in rows.zip(lines.chunks_exact_mut(width)) {
            let span = self.spans.partition_point(|span| span.first_row <= row) - 1;
            let span = &self.spans[span];
            let object = &self.attended.values[span.first_row * width..];
            let token = row - span.first_row;
            for (head, out) in line.chunks_exact_mut(width / n_heads).enumerate() {
                let start = (head * span.n_tokens + token) * out.len();
                out.copy_from_slice(&object[start..start + out.len()]);
            }
        }
    }
}
