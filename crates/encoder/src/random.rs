//! Random networks: `random:PRESET`.

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::config::{ModelConfig, VitConfig};
use crate::kernels::{Activation, Kernels, Linear, Precision};
use crate::position::Position;
use crate::vit::{Block, Mlp, Norm, Vit};

/// Standard deviation of weights and of CLS, as ViTs are initialised.
const STD: f32 = 0.02;

/// Makes our own network with normal random weights, zero biases and unit norms.
pub(crate) fn vit(kernels: Kernels, precision: Precision, config: &ModelConfig, seed: u64) -> Vit {
    let sizes = &config.vit;
    let mut weights = Weights {
        rng: ChaCha8Rng::seed_from_u64(seed),
        precision,
    };
    let width = sizes.embed_dim;
    let (patch_embed, flat_patch_embed) = weights.patch_embed(sizes);
    Vit {
        kernels,
        in_chans: sizes.in_chans,
        embed_dim: width,
        num_heads: sizes.num_heads,
        patch: sizes.patch,
        stem: None,
        patch_embed,
        flat_patch_embed,
        prefix: weights.normal((1 + sizes.num_registers) * width),
        position: Position::SinCos {
            ref_grid: sizes.ref_grid,
        },
        pre_norm: None,
        blocks: (0..sizes.depth)
            .map(|_| Block {
                norm1: unit_norm(width),
                qkv: weights.linear([3 * width, width]),
                proj: weights.linear([width, width]),
                norm2: unit_norm(width),
                fc1: weights.linear([sizes.mlp_hidden, width]),
                fc2: weights.linear([width, sizes.mlp_hidden]),
            })
            .collect(),
        mlp: Mlp::Plain(Activation::Gelu),
        norm: Some(unit_norm(width)),
        pooling: config.embedding,
        pooled_norm: None,
        head: None,
    }
}

struct Weights {
    rng: ChaCha8Rng,
    precision: Precision,
}

impl Weights {
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

    fn linear(&mut self, shape: [usize; 2]) -> Linear {
        let weight = self.normal(shape[0] * shape[1]);
        Linear::pack(self.precision, &weight, shape, None)
    }

    fn patch_embed(&mut self, sizes: &VitConfig) -> (Linear, Option<Linear>) {
        let weight = self.normal(sizes.embed_dim * sizes.patch_len());
        Linear::patch_embeds(
            self.precision,
            &weight,
            [sizes.embed_dim, sizes.patch_len()],
            sizes.patch[0],
            None,
        )
    }
}

fn unit_norm(width: usize) -> Norm {
    Norm {
        weight: vec![1.0; width],
        bias: vec![0.0; width],
        eps: VitConfig::NORM_EPS,
    }
}
