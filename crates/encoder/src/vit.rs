//! What every supported vision transformer consists of, ours and the public ones.
//!
//! Families differ in a few places, each a field of `Vit`; nothing here knows their names. `Vit<L>`
//! is generic over how its layers are kept (`pack`), and `vit/forward.rs` runs it on a CPU.

mod forward;
mod rows;

use m3ret_imaging::Input;

pub(crate) use self::forward::CpuVit;
use crate::config::{Pooling, VitConfig};
use crate::kernels::Activation;
use crate::pack::PatchLayers;
use crate::position::Position;
use crate::stem::Stages;

/// `LayerNorm`.
#[derive(Debug)]
pub(crate) struct Norm {
    /// [E]
    pub(crate) weight: Vec<f32>,
    /// [E]
    pub(crate) bias: Vec<f32>,
    pub(crate) eps: f32,
}

/// One transformer block, pre-norm. `LayerScale`, where a model has it, is multiplied into `proj`
/// and `fc2` when it is loaded.
#[derive(Debug)]
pub(crate) struct Block<L> {
    pub(crate) norm1: Norm,
    /// [3E, E]: q, k, v, each split by head.
    pub(crate) qkv: L,
    /// [E, E]
    pub(crate) proj: L,
    pub(crate) norm2: Norm,
    /// [hidden, E]; gated: [gate; up], [2 hidden, E].
    pub(crate) fc1: L,
    /// [E, hidden]
    pub(crate) fc2: L,
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
pub(crate) enum Head<L> {
    /// A projection, whose result is the embedding.
    Projection(L),
    /// `tanh(dense(CLS))`, which is reported and is not the embedding.
    TanhPooler(L),
}

/// The sizes that a network cannot read off its layers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct VitSizes {
    /// `C`: channels of the input.
    pub(crate) in_chans: usize,
    /// `E`: width of a token.
    pub(crate) embed_dim: usize,
    /// Attention heads; a divisor of `embed_dim`.
    pub(crate) num_heads: usize,
    /// `[pd, ph, pw]`; `pd` is 1 in 2D models.
    pub(crate) patch: [usize; 3],
}

/// A vision transformer whose layers are kept as `L`.
#[derive(Debug)]
pub(crate) struct Vit<L> {
    pub(crate) sizes: VitSizes,
    /// The convolutions before `patch_embed`, in models that have them.
    pub(crate) stem: Option<Stages<L>>,
    pub(crate) patch_embed: PatchLayers<L>,
    /// `[n_prefix, E]`: CLS (its position already added), then registers.
    pub(crate) prefix: Vec<f32>,
    pub(crate) position: Position,
    /// On all tokens before the first block.
    pub(crate) pre_norm: Option<Norm>,
    pub(crate) blocks: Vec<Block<L>>,
    pub(crate) mlp: Mlp,
    /// On all tokens after the last block.
    pub(crate) norm: Option<Norm>,
    pub(crate) pooling: Pooling,
    /// On the pooled token only.
    pub(crate) pooled_norm: Option<Norm>,
    pub(crate) head: Option<Head<L>>,
}

impl VitSizes {
    /// Returns the sizes of our own networks.
    pub(crate) fn of(config: &VitConfig) -> Self {
        Self {
            in_chans: config.in_chans,
            embed_dim: config.embed_dim,
            num_heads: config.num_heads,
            patch: config.patch,
        }
    }
}

impl<L> Vit<L> {
    /// Returns a network of the parts that all families have; a family overrides what it has beside.
    ///
    /// The MLP is plain with the exact GELU and the embedding is CLS. There is no stem, no norm
    /// outside the blocks, and no head.
    ///
    /// # Shapes
    /// `prefix` [`n_prefix`, E]: CLS, then registers.
    pub(crate) fn of(
        sizes: VitSizes,
        patch_embed: PatchLayers<L>,
        prefix: Vec<f32>,
        position: Position,
        blocks: Vec<Block<L>>,
    ) -> Self {
        Self {
            sizes,
            stem: None,
            patch_embed,
            prefix,
            position,
            pre_norm: None,
            blocks,
            mlp: Mlp::Plain(Activation::Gelu),
            norm: None,
            pooling: Pooling::Cls,
            pooled_norm: None,
            head: None,
        }
    }

    /// Returns the number of tokens before the patches.
    pub(crate) fn n_prefix(&self) -> usize {
        self.prefix.len() / self.sizes.embed_dim
    }
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
        // Sums are kept in f64, so that rounding errors do not grow with the number of patches.
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
