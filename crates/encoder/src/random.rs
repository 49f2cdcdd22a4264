//! Random networks: `random:PRESET`.

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::config::{ModelConfig, VitConfig};
use crate::pack::{Pack, PatchLayers, PlainLayer, transposed};
use crate::position::Position;
use crate::vit::{Block, Norm, Vit, VitSizes};

/// Standard deviation of weights and of CLS, as ViTs are initialised.
const STD: f32 = 0.02;

/// Makes our own network with normal random weights, zero biases and unit norms.
pub(crate) fn vit<P: Pack>(pack: P, config: &ModelConfig, seed: u64) -> Vit<P::Layer> {
    let sizes = &config.vit;
    let mut draws = LayerDraws {
        rng: ChaCha8Rng::seed_from_u64(seed),
        pack,
    };
    let width = sizes.embed_dim;
    let patch_embed = draws.patch_embed(sizes);
    let prefix = draws.normal((1 + sizes.num_registers) * width);
    let position = Position::SinCos {
        ref_grid: sizes.ref_grid,
    };
    let blocks = (0..sizes.depth).map(|_| Block {
        norm1: unit_norm(width),
        qkv: draws.linear([3 * width, width]),
        proj: draws.linear([width, width]),
        norm2: unit_norm(width),
        fc1: draws.linear([sizes.mlp_hidden, width]),
        fc2: draws.linear([width, sizes.mlp_hidden]),
    });
    let blocks = blocks.collect();
    Vit {
        norm: Some(unit_norm(width)),
        pooling: config.embedding,
        ..Vit::of(VitSizes::of(sizes), patch_embed, prefix, position, blocks)
    }
}

/// Draws layers in the order of the network, so that a seed always gives the same weights.
struct LayerDraws<P> {
    rng: ChaCha8Rng,
    pack: P,
}

impl<P: Pack> LayerDraws<P> {
    /// Draws normal numbers by Box and Muller.
    fn normal(&mut self, n: usize) -> Vec<f32> {
        let mut values = Vec::with_capacity(n + 1);
        while values.len() < n {
            // (0, 1]: the logarithm of 0 has no value.
            let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt() * STD;
            let (sine, cosine) = (std::f32::consts::TAU * self.uniform()).sin_cos();
            values.extend([radius * cosine, radius * sine]);
        }
        values.truncate(n);
        values
    }

    /// Draws from [0, 1).
    fn uniform(&mut self) -> f32 {
        const STEP: f32 = 1.0 / 16_777_216.0;
        #[allow(clippy::cast_precision_loss, reason = "24 bits fit a float")]
        let steps = (self.rng.next_u32() >> 8) as f32;
        steps * STEP
    }

    /// Draws a linear map, [N, K].
    fn linear(&mut self, shape: [usize; 2]) -> P::Layer {
        let weight = self.normal(shape[0] * shape[1]);
        PlainLayer::linear(weight, None, shape).pack_with(&self.pack)
    }

    /// Draws the patch embedding.
    fn patch_embed(&mut self, sizes: &VitConfig) -> PatchLayers<P::Layer> {
        // Values were always drawn as [E, voxels, C], and the same seed must give the same network.
        let drawn = self.normal(sizes.embed_dim * sizes.patch_len());
        let n_voxels = sizes.patch.iter().product();
        self.pack.pack_patch_embed(PlainLayer {
            weight: transposed(&drawn, [n_voxels, sizes.in_chans]),
            bias: None,
            n_outputs: sizes.embed_dim,
            n_channels: sizes.in_chans,
            kernel: sizes.patch,
            is_exact: false,
        })
    }
}

fn unit_norm(width: usize) -> Norm {
    Norm {
        weight: vec![1.0; width],
        bias: vec![0.0; width],
        eps: VitConfig::NORM_EPS,
    }
}
