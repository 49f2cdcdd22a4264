//! The forward pass on a CPU: cut into patches, embed, blocks, pool.

use rayon::prelude::*;

use super::rows::{GatedRows, HeadRows, NormedRows, PanelRows, SliceRows};
use super::{Block, Head, Mlp, Tokens, View, Vit};
use crate::config::{MAX_TOKENS, Pooling};
use crate::error::{Error, Result};
use crate::kernels::{
    Finish, HeadOutputs, Kernels, Linear, Panels, Rotation, Rows, Span, attend, layer_norm,
    multiply,
};
use crate::stem::{Around, slab_means};
use crate::tokens::{grid_of, patchify};

/// Rows of a batch that are computed together: enough to use each weight often, few enough for a
/// laptop's memory.
const MAX_ROWS: usize = 2048;

/// A network packed for a CPU, and the kernels that run it.
#[derive(Debug)]
pub(crate) struct CpuVit {
    pub(crate) vit: Vit<Linear>,
    pub(crate) kernels: Kernels,
}

/// The patches of one object that the network sees.
struct Patches {
    /// [N, P], or [N, P / pd] if flat or for a stem.
    values: Vec<f32>,
    grid: [usize; 3],
    /// Indices of the patches seen.
    kept: Vec<usize>,
    is_flat: bool,
}

/// The memory of a forward pass, reused from block to block.
struct Buffers {
    /// The tokens: [rows, E].
    hidden: Panels,
    /// The left factor of the next product.
    rows: Rows,
    /// [rows, 3E]
    qkv: Panels,
    /// [L, head width] of every object and head.
    attention: HeadOutputs,
    /// The hidden layer of the MLP: [rows, hidden], or [rows, 2 hidden] if gated.
    inner: Panels,
}

impl CpuVit {
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
            let n_tokens = self.vit.n_prefix() + patches.kept.len();
            // A batch ends before the object that would exceed `MAX_ROWS`. A larger object is run
            // alone, because attention needs all of its tokens.
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
        for block in &self.vit.blocks[..n_blocks] {
            self.block(block, &mut buffers, &spans);
        }
        let hidden = buffers.hidden;
        let width = self.vit.sizes.embed_dim;
        let mut values = vec![0.0; hidden.n_rows() * width];
        for (row, line) in values.chunks_exact_mut(width).enumerate() {
            hidden.read(row, 0, line);
        }
        Ok(values)
    }

    /// Returns the pooled token of an object, normed where the model does so, [E].
    pub(crate) fn pooled(&self, tokens: &Tokens) -> Vec<f32> {
        // [L, E] -> [E]
        let mut pooled = match self.vit.pooling {
            Pooling::Cls => tokens.cls().to_vec(),
            Pooling::Mean => tokens.mean(),
        };
        // The models with this norm have none after the last block, so no token is normed twice.
        if let Some(norm) = &self.vit.pooled_norm {
            layer_norm::<false>(&mut pooled, &norm.weight, &norm.bias, norm.eps);
        }
        pooled
    }

    /// Returns what the head makes of the pooled token, where there is one.
    ///
    /// # Shapes
    /// `pooled` [E] -> [outputs of the head]
    pub(crate) fn head(&self, pooled: &[f32]) -> Option<Vec<f32>> {
        let (linear, has_tanh) = match self.vit.head.as_ref()? {
            Head::Projection(linear) => (linear, false),
            Head::TanhPooler(linear) => (linear, true),
        };
        let row = SliceRows {
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
        match &self.vit.head {
            Some(Head::Projection(_)) => self.head(&pooled).unwrap_or(pooled),
            Some(Head::TanhPooler(_)) | None => pooled,
        }
    }

    /// Returns the length of `embedding`.
    pub(crate) fn width(&self) -> usize {
        match &self.vit.head {
            Some(Head::Projection(linear)) => linear.n_outputs(),
            Some(Head::TanhPooler(_)) | None => self.vit.sizes.embed_dim,
        }
    }

    /// Cuts an object into patches and drops those that the network does not see.
    ///
    /// # Errors
    /// `Mismatch` if the object does not fit the network, a patch to leave out does not exist, or
    /// none remains; `LimitExceeded` for more than `MAX_TOKENS` patches.
    fn cut(&self, view: &View<'_>) -> Result<Patches> {
        let shape = view.input.shape();
        let [channels, depth, ..] = shape;
        let sizes = &self.vit.sizes;
        if channels != sizes.in_chans {
            return Err(Error::mismatch(
                "channels of the input",
                sizes.in_chans.to_string(),
                channels.to_string(),
            ));
        }
        let is_flat = depth == 1 && self.vit.patch_embed.flat.is_some();
        let [pd, ph, pw] = sizes.patch;
        let grid = grid_of(shape, sizes.patch)?;
        let n_patches = grid.iter().product::<usize>();
        if n_patches > MAX_TOKENS {
            return Err(Error::LimitExceeded {
                what: "patches of one object",
                allowed: MAX_TOKENS as u64,
                asked: n_patches as u64,
            });
        }
        let kept = kept_patches(n_patches, view.left_out)?;
        let mut values = if self.vit.stem.is_some() {
            // [C, D, H, W] -> [C, D / pd, H, W] -> [N, ph * pw * C]: a stem sees planes only.
            let (means, shape) = slab_means(view.input.values(), shape, pd);
            patchify(&means, shape, [1, ph, pw])?
        } else {
            // -> [N, P]; flat [N, P / pd], because the image is not repeated along D first.
            let depth = if is_flat { 1 } else { pd };
            patchify(view.input.values(), shape, [depth, ph, pw])?
        };
        if kept.len() < n_patches {
            // All patches were cut, so the rows of those that are left out are dropped here.
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

    /// Runs a batch through the whole network.
    fn run(&self, batch: &[Patches]) -> Vec<Tokens> {
        let spans = self.spans(batch);
        let mut buffers = self.embed(batch, &spans);
        for block in &self.vit.blocks {
            self.block(block, &mut buffers, &spans);
        }
        let (hidden, embed_dim) = (buffers.hidden, self.vit.sizes.embed_dim);
        let objects = batch.par_iter().zip(&spans);
        objects
            .map(|(patches, span)| {
                // The object's rows of [rows, E] -> [L, E]
                let mut values = vec![0.0; span.n_tokens * embed_dim];
                for (row, line) in values.chunks_exact_mut(embed_dim).enumerate() {
                    hidden.read(span.first_row + row, 0, line);
                    if let Some(norm) = &self.vit.norm {
                        layer_norm::<false>(line, &norm.weight, &norm.bias, norm.eps);
                    }
                }
                Tokens {
                    values,
                    embed_dim,
                    n_prefix: self.vit.n_prefix(),
                    grid: patches.grid,
                }
            })
            .collect()
    }

    /// Assigns the objects of a batch consecutive rows.
    fn spans(&self, batch: &[Patches]) -> Vec<Span> {
        let mut first_row = 0;
        let spans = batch.iter().map(|patches| {
            let span = Span {
                first_row,
                n_tokens: self.vit.n_prefix() + patches.kept.len(),
                rotation: self.rotation(patches),
            };
            first_row += span.n_tokens;
            span
        });
        spans.collect()
    }

    /// Returns the rotary positions of the patches that are seen, where the model has them.
    fn rotation(&self, patches: &Patches) -> Option<Rotation> {
        let width = self.vit.sizes.embed_dim / self.vit.sizes.num_heads;
        // [patches of the grid, head width] -> [N, head width]
        let angles = self.vit.position.angles(patches.grid, width)?;
        let kept = patches.kept.iter();
        let kept = kept.flat_map(|&patch| &angles[patch * width..][..width]);
        let kept: Vec<f32> = kept.copied().collect();
        Some(Rotation {
            n_prefix: self.vit.n_prefix(),
            cosines: kept.iter().map(|angle| angle.cos()).collect(),
            sines: kept.iter().map(|angle| angle.sin()).collect(),
        })
    }

    /// Makes the tokens before the first block, [rows, E].
    fn embed(&self, batch: &[Patches], spans: &[Span]) -> Buffers {
        let n_rows = spans.iter().map(|span| span.n_tokens).sum();
        let mut hidden = Panels::zeroed(n_rows, self.vit.sizes.embed_dim);
        for (patches, span) in batch.iter().zip(spans) {
            let embedded = self.patch_tokens(patches);
            self.place(patches, &embedded, span, &mut hidden);
        }
        Buffers {
            hidden,
            rows: Rows::empty(self.vit.patch_embed.whole.precision()),
            qkv: Panels::zeroed(0, 0),
            attention: HeadOutputs {
                values: Vec::new(),
                n_heads: self.vit.sizes.num_heads,
            },
            inner: Panels::zeroed(0, 0),
        }
    }

    /// Turns the patches of one object into tokens without positions: [N, P] -> [N, E].
    fn patch_tokens(&self, patches: &Patches) -> Panels {
        let layers = &self.vit.patch_embed;
        let linear = match (&layers.flat, patches.is_flat) {
            (Some(flat), true) => flat,
            _ => &layers.whole,
        };
        // A stem comes first: [N, ph * pw * C] -> [N, channels of its last stage].
        let stemmed = self.vit.stem.as_ref().map(|stem| {
            let around = Around::of(patches.grid, &patches.kept);
            let [_, patch_side, _] = self.vit.sizes.patch;
            stem.run(&self.kernels, &patches.values, &around, patch_side)
        });
        let source = SliceRows {
            values: stemmed.as_ref().unwrap_or(&patches.values),
            width: linear.n_inputs(),
        };
        let n = patches.kept.len();
        let mut rows = Rows::empty(linear.precision());
        rows.pack(&self.kernels, [n, linear.n_inputs()], &source);
        let mut embedded = Panels::zeroed(n, linear.n_outputs());
        multiply(&self.kernels, &rows, linear, Finish::Store, &mut embedded);
        embedded
    }

    /// Writes the prefix and the patch tokens of one object, with positions, into its rows.
    ///
    /// # Shapes
    /// `embedded` [N, E] -> the rows `span` of `hidden` [rows, E]
    fn place(&self, patches: &Patches, embedded: &Panels, span: &Span, hidden: &mut Panels) {
        let width = self.vit.sizes.embed_dim;
        // [patches of the grid, E], also of those that are not seen.
        let positions = self.vit.position.added(patches.grid, width);
        let mut line = vec![0.0; width];
        let mut put = |row: usize, line: &mut [f32]| {
            if let Some(norm) = &self.vit.pre_norm {
                layer_norm::<false>(line, &norm.weight, &norm.bias, norm.eps);
            }
            hidden.write(span.first_row + row, line);
        };
        // The position of CLS was added to it at loading; registers have none.
        for (row, prefix) in self.vit.prefix.chunks_exact(width).enumerate() {
            line.copy_from_slice(prefix);
            put(row, &mut line);
        }
        for (row, &patch) in patches.kept.iter().enumerate() {
            embedded.read(row, 0, &mut line);
            if let Some(positions) = &positions {
                let position = &positions[patch * width..][..width];
                line.iter_mut()
                    .zip(position)
                    .for_each(|(value, p)| *value += p);
            }
            put(self.vit.n_prefix() + row, &mut line);
        }
    }

    /// Adds the contributions of one block to `hidden`.
    fn block(&self, block: &Block<Linear>, buffers: &mut Buffers, spans: &[Span]) {
        let kernels = &self.kernels;
        let precision = block.qkv.precision();
        let Buffers {
            hidden,
            rows,
            qkv,
            attention,
            inner,
        } = buffers;
        let (n_rows, width) = (hidden.n_rows(), self.vit.sizes.embed_dim);

        // x + proj(attention(norm1(x))). Each norm is computed while rows are packed, so its
        // result never exists as a matrix.
        let normed = NormedRows {
            panels: hidden,
            norm: &block.norm1,
        };
        rows.pack(kernels, [n_rows, width], &normed);
        // [rows, E] -> [rows, 3E]
        qkv.reshape(n_rows, 3 * width);
        multiply(kernels, rows, &block.qkv, Finish::Store, qkv);
        // -> [L, head width] of every object and head -> [rows, E], the heads side by side again.
        let attention_precision = kernels.attention_precision(precision);
        attend(kernels, attention_precision, qkv, spans, attention);
        rows.pack(kernels, [n_rows, width], &HeadRows { attention, spans });
        multiply(kernels, rows, &block.proj, Finish::Add, hidden);

        // x + fc2(mlp(fc1(norm2(x))))
        let normed = NormedRows {
            panels: hidden,
            norm: &block.norm2,
        };
        rows.pack(kernels, [n_rows, width], &normed);
        inner.reshape(n_rows, block.fc1.n_outputs());
        let shape = [n_rows, block.fc2.n_inputs()];
        match self.vit.mlp {
            Mlp::Plain(activation) => {
                // [rows, E] -> [rows, hidden], activated tile by tile while it is in cache.
                let finish = Finish::Activate(activation);
                multiply(kernels, rows, &block.fc1, finish, inner);
                rows.pack(kernels, shape, &PanelRows { panels: inner });
            }
            Mlp::Gated(activation) => {
                // [rows, E] -> [rows, 2 hidden] -> [rows, hidden]: the columns of gate and up lie
                // in different panels, so the gate is applied when both are read again.
                multiply(kernels, rows, &block.fc1, Finish::Store, inner);
                let gated = GatedRows {
                    panels: inner,
                    activation,
                };
                rows.pack(kernels, shape, &gated);
            }
        }
        multiply(kernels, rows, &block.fc2, Finish::Add, hidden);
    }
}

/// Returns the patches that are seen, in the order of the grid.
///
/// # Errors
/// `Mismatch` if a patch to leave out does not exist, or none remains.
fn kept_patches(n_patches: usize, left_out: &[usize]) -> Result<Vec<usize>> {
    let mut is_kept = vec![true; n_patches];
    for &patch in left_out {
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
    Ok(kept)
}
