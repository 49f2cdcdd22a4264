//! The encoder as a differentiable network, with the names of `m3ret_encoder`'s weights.

use std::sync::Arc;

use burn::module::{Module, Param};
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use m3ret_encoder::stem::{Around, TAPS, stage_channels};
use m3ret_encoder::{Stem, VitConfig, sin_cos};

use crate::config::TrainPrecision;
use crate::ops::block::{BlockOptions, BlockWeights};
use crate::ops::stem::{StageOptions, StageWeights};
use crate::ops::{Affine, Dense, VitBackend, concatenated};
use crate::random::Initial;

/// A linear layer, weight `[out, in]`.
#[derive(Module, Debug)]
pub(crate) struct Linear<B: Backend> {
    pub(crate) weight: Param<Tensor<B, 2>>,
    pub(crate) bias: Param<Tensor<B, 1>>,
}

/// Layer normalisation, eps 1e-6.
#[derive(Module, Debug)]
pub(crate) struct LayerNorm<B: Backend> {
    weight: Param<Tensor<B, 1>>,
    bias: Param<Tensor<B, 1>>,
}

/// A pre-norm transformer block.
#[derive(Module, Debug)]
pub(crate) struct Block<B: Backend> {
    norm1: LayerNorm<B>,
    attn: Attention<B>,
    norm2: LayerNorm<B>,
    mlp: Mlp<B>,
}

#[derive(Module, Debug)]
struct Attention<B: Backend> {
    qkv: Linear<B>,
    proj: Linear<B>,
}

#[derive(Module, Debug)]
struct Mlp<B: Backend> {
    fc1: Linear<B>,
    fc2: Linear<B>,
}

#[derive(Module, Debug)]
struct PatchEmbed<B: Backend> {
    /// Empty where a patch becomes a token by one product.
    stages: Vec<Stage<B>>,
    proj: Projection<B>,
}

/// A stage of the convolutional stem.
#[derive(Module, Debug)]
struct Stage<B: Backend> {
    conv: Convolution<B>,
    norm: LayerNorm<B>,
}

#[derive(Module, Debug)]
struct Convolution<B: Backend> {
    /// `[out, in, 3, 3]`
    weight: Param<Tensor<B, 4>>,
}

/// The patch embedding as the convolution it is stored as.
#[derive(Module, Debug)]
struct Projection<B: Backend> {
    /// `[E, C, pd, ph, pw]`; after a stem `[E, channels of its last stage, 1, 1, 1]`.
    weight: Param<Tensor<B, 5>>,
    bias: Param<Tensor<B, 1>>,
}

/// The encoder.
#[derive(Module, Debug)]
pub(crate) struct Vit<B: Backend> {
    cls_token: Param<Tensor<B, 3>>,
    register_tokens: Option<Param<Tensor<B, 3>>>,
    patch_embed: PatchEmbed<B>,
    blocks: Vec<Block<B>>,
    norm: LayerNorm<B>,
}

/// How a network runs; the same for every pass of one step.
#[derive(Debug, Clone)]
pub(crate) struct Running {
    pub(crate) n_heads: usize,
    pub(crate) precision: TrainPrecision,
    pub(crate) recompute: bool,
    /// Stochastic depth: for each block, the factors of attention and MLP of each image.
    pub(crate) drop_path: Option<Vec<[Arc<[f32]>; 2]>>,
}

impl Running {
    /// Runs every block, and keeps what the backward pass needs.
    pub(crate) fn plain(n_heads: usize) -> Self {
        Self {
            n_heads,
            precision: TrainPrecision::F32,
            recompute: false,
            drop_path: None,
        }
    }
}

/// Patches of several images that the network is to see, as rows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Patches {
    pub(crate) n_images: usize,
    /// `[n_images * patches of an image, P]`, or `P / pd` for images of one plane, whose patch of depth `pd`
    /// would repeat them, so the kernel is summed along its depth instead; `P / pd` for a stem, too.
    pub(crate) rows: Vec<f32>,
    /// Which cell of the grid each row is, row-major.
    pub(crate) cells: Vec<usize>,
    pub(crate) grid: [usize; 3],
    pub(crate) is_flat: bool,
    /// Rows whose embedding is replaced by the mask token.
    pub(crate) masked: Vec<usize>,
}

impl<B: Backend> Linear<B> {
    pub(crate) fn new([n_out, n_in]: [usize; 2], initial: &mut Initial<B>) -> Self {
        Self {
            weight: initial.xavier([n_out, n_in], [n_in, n_out]),
            bias: initial.constant([n_out], 0.0),
        }
    }

    pub(crate) fn dense(&self) -> Dense<B> {
        Dense {
            weight: self.weight.val(),
            bias: self.bias.val(),
        }
    }

    /// `[rows, in]` -> `[rows, out]`.
    pub(crate) fn forward(&self, x: Tensor<B, 2>, precision: TrainPrecision) -> Tensor<B, 2>
    where
        B: VitBackend,
    {
        B::vit_linear(x, self.dense(), precision)
    }
}

impl<B: Backend> LayerNorm<B> {
    pub(crate) fn new(width: usize, initial: &mut Initial<B>) -> Self {
        Self {
            weight: initial.constant([width], 1.0),
            bias: initial.constant([width], 0.0),
        }
    }

    pub(crate) fn affine(&self) -> Affine<B> {
        Affine {
            weight: self.weight.val(),
            bias: self.bias.val(),
        }
    }
}

impl<B: Backend> Block<B> {
    pub(crate) fn new(width: usize, mlp_hidden: usize, initial: &mut Initial<B>) -> Self {
        Self {
            norm1: LayerNorm::new(width, initial),
            attn: Attention {
                qkv: Linear::new([3 * width, width], initial),
                proj: Linear::new([width, width], initial),
            },
            norm2: LayerNorm::new(width, initial),
            mlp: Mlp {
                fc1: Linear::new([mlp_hidden, width], initial),
                fc2: Linear::new([width, mlp_hidden], initial),
            },
        }
    }

    fn weights(&self) -> BlockWeights<B> {
        BlockWeights {
            norm1: self.norm1.affine(),
            qkv: self.attn.qkv.dense(),
            proj: self.attn.proj.dense(),
            norm2: self.norm2.affine(),
            fc1: self.mlp.fc1.dense(),
            fc2: self.mlp.fc2.dense(),
        }
    }
}

/// Runs blocks one after another on `[images, tokens, E]`.
pub(crate) fn run_blocks<B: VitBackend>(
    blocks: &[Block<B>],
    tokens: Tensor<B, 3>,
    running: &Running,
) -> Tensor<B, 2> {
    let [n_images, n_tokens, width] = tokens.dims();
    let mut rows = tokens.reshape([n_images * n_tokens, width]);
    for (i, block) in blocks.iter().enumerate() {
        let options = BlockOptions {
            n_images,
            n_heads: running.n_heads,
            precision: running.precision,
            recompute: running.recompute,
            branch_scale: running
                .drop_path
                .as_ref()
                .and_then(|scales| scales.get(i).cloned()),
        };
        rows = B::vit_block(rows, block.weights(), &options);
    }
    rows
}

impl<B: Backend> Stage<B> {
    /// Draws the stages of a stem; none where the network has no stem.
    fn all(config: &VitConfig, initial: &mut Initial<B>) -> Vec<Self> {
        let channels = match config.stem {
            Stem::Patch => Vec::new(),
            Stem::Conv => stage_channels(config.patch).unwrap_or_default(),
        };
        let mut n_in = config.in_chans;
        let stage = |n_out| {
            let stage = Self {
                conv: Convolution {
                    weight: initial.xavier([n_out, n_in, 3, 3], [TAPS * n_in, TAPS * n_out]),
                },
                norm: LayerNorm::new(n_out, initial),
            };
            n_in = n_out;
            stage
        };
        channels.into_iter().map(stage).collect()
    }

    fn n_outputs(&self) -> usize {
        let [n_outputs, ..] = self.conv.weight.val().dims();
        n_outputs
    }

    fn n_inputs(&self) -> usize {
        let [_, n_inputs, ..] = self.conv.weight.val().dims();
        n_inputs
    }

    fn weights(&self) -> StageWeights<B> {
        let weight = self.conv.weight.val();
        let [n_out, n_in, ..] = weight.dims();
        StageWeights {
            kernel: weight.permute([0, 2, 3, 1]).reshape([n_out, TAPS * n_in]),
            norm: self.norm.affine(),
        }
    }
}

impl<B: Backend> Vit<B> {
    /// Draws a network: matrices by Xavier's uniform law, tokens with deviation 0.02 (MAE's choice).
    pub(crate) fn new(config: &VitConfig, initial: &mut Initial<B>) -> Self {
        let width = config.embed_dim;
        let stages = Stage::all(config, initial);
        // What `proj` sees: a patch of pixels, or one position of the last stage.
        let ([n_channels, pd, ph, pw], n_inputs) = match stages.last() {
            Some(stage) => ([stage.n_outputs(), 1, 1, 1], stage.n_outputs()),
            None => {
                let [pd, ph, pw] = config.patch;
                ([config.in_chans, pd, ph, pw], config.patch_len())
            }
        };
        Self {
            cls_token: initial.normal([1, 1, width]),
            register_tokens: (config.num_registers > 0)
                .then(|| initial.normal([1, config.num_registers, width])),
            patch_embed: PatchEmbed {
                stages,
                proj: Projection {
                    weight: initial.xavier([width, n_channels, pd, ph, pw], [n_inputs, width]),
                    bias: initial.constant([width], 0.0),
                },
            },
            blocks: (0..config.depth)
                .map(|_| Block::new(width, config.mlp_hidden, initial))
                .collect(),
            norm: LayerNorm::new(width, initial),
        }
    }

    fn width(&self) -> usize {
        let [_, _, width] = self.cls_token.val().dims();
        width
    }

    /// Tokens before the patches: CLS and registers.
    pub(crate) fn n_prefix(&self) -> usize {
        1 + self.register_tokens.as_ref().map_or(0, |tokens| {
            let [_, n, _] = tokens.val().dims();
            n
        })
    }
}

impl<B: VitBackend> Vit<B> {
    /// Embeds patches, `[rows, E]`, without positions.
    pub(crate) fn embed(&self, patches: &Patches, precision: TrainPrecision) -> Tensor<B, 2> {
        let weight = self.patch_embed.proj.weight.val();
        let [width, channels, pd, ph, pw] = weight.dims();
        // Patches hold (z, y, x, channel), channel fastest.
        let weight = weight.permute([0, 2, 3, 4, 1]);
        let kernel = if patches.is_flat {
            weight.sum_dim(1).reshape([width, ph * pw * channels])
        } else {
            weight.reshape([width, pd * ph * pw * channels])
        };
        let rows = if self.patch_embed.stages.is_empty() {
            let shape = [patches.cells.len(), kernel.dims()[1]];
            let rows = TensorData::new(patches.rows.clone(), shape);
            Tensor::from_data(rows, &kernel.device())
        } else {
            self.convolve(patches, precision)
        };
        let bias = self.patch_embed.proj.bias.val();
        let dense = Dense {
            weight: kernel,
            bias,
        };
        B::vit_linear(rows, dense, precision)
    }

    /// Runs the stages of the stem on the patches that are seen.
    ///
    /// # Shapes
    /// `[images * patches of an image, channels of the last stage]`
    fn convolve(&self, patches: &Patches, precision: TrainPrecision) -> Tensor<B, 2> {
        let per_image = patches.cells.len() / patches.n_images;
        let around = patches.cells.chunks_exact(per_image.max(1));
        let around: Arc<[Around]> = around
            .flat_map(|cells| Around::of(patches.grid, cells))
            .collect();
        let stages = &self.patch_embed.stages;
        // Each stage halves a patch, until one position is left.
        let mut side = 1 << stages.len();
        let shape = [patches.cells.len() * side * side, stages[0].n_inputs()];
        let pixels = TensorData::new(patches.rows.clone(), shape);
        let mut rows = Tensor::from_data(pixels, &self.cls_token.val().device());
        for stage in stages {
            let options = StageOptions {
                n_images: patches.n_images,
                around: Arc::clone(&around),
                side,
                precision,
            };
            rows = B::vit_stage(rows, stage.weights(), &options);
            side /= 2;
        }
        rows
    }
    /// Returns all tokens after the final norm: CLS, registers, then the patches given.
    ///
    /// # Shapes
    /// `[images, 1 + registers + patches of an image, E]`
    pub(crate) fn forward(
        &self,
        patches: &Patches,
        config: &VitConfig,
        mask_token: Option<Tensor<B, 3>>,
        running: &Running,
    ) -> Tensor<B, 3> {
        let (n_images, width) = (patches.n_images, self.width());
        let n_patches = patches.cells.len() / n_images;
        let mut tokens = self.embed(patches, running.precision);
        let device = tokens.device();
        if let Some(token) = mask_token {
            tokens = masked(tokens, &patches.masked, token);
        }
        let positions = sin_cos(patches.grid, config.ref_grid, width);
        let positions: Vec<f32> = patches
            .cells
            .iter()
            .flat_map(|&cell| &positions[cell * width..(cell + 1) * width])
            .copied()
            .collect();
        let positions = TensorData::new(positions, [n_images * n_patches, width]);
        let tokens =
            (tokens + Tensor::from_data(positions, &device)).reshape([n_images, n_patches, width]);
        let mut parts = vec![self.cls_token.val().expand([n_images, 1, width])];
        if let Some(registers) = &self.register_tokens {
            let registers = registers.val();
            let [_, n, _] = registers.dims();
            parts.push(registers.expand([n_images, n, width]));
        }
        parts.push(tokens);
        let rows = run_blocks(&self.blocks, concatenated(parts, 1), running);
        let rows = B::vit_layer_norm(rows, self.norm.affine());
        rows.reshape([n_images, self.n_prefix() + n_patches, width])
    }
}

/// Replaces some rows by a token.
fn masked<B: Backend>(tokens: Tensor<B, 2>, rows: &[usize], token: Tensor<B, 3>) -> Tensor<B, 2> {
    let [n_rows, width] = tokens.dims();
    let mut is_masked = vec![0.0_f32; n_rows];
    for &row in rows {
        is_masked[row] = 1.0;
    }
    let is_masked =
        Tensor::<B, 2>::from_data(TensorData::new(is_masked, [n_rows, 1]), &tokens.device());
    let kept = is_masked.clone() * -1.0 + 1.0;
    tokens * kept + is_masked * token.reshape([1, width])
}
