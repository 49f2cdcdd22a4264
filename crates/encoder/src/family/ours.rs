//! Our own models: `config.json` is `ModelConfig`, names are those of timm's ViT.

use m3ret_imaging::InputConfig;

use super::tensors::{Tensors, prefix};
use super::{Config, Preparation};
use crate::config::{ModelConfig, VitConfig};
use crate::error::Result;
use crate::kernels::{Activation, Precision};
use crate::position::Position;
use crate::stem::{Stage, Stages, stage_channels};
use crate::vit::{Block, Head, Mlp, Vit};

/// Weights of pretraining that an encoder does not use.
const IGNORED: [&str; 3] = ["decoder", "mask_token", "head."];

pub(super) fn load(config: &Config, tensors: &mut Tensors) -> Result<(Vit, Preparation)> {
    let parsed: ModelConfig = config.parse()?;
    parsed.validate()?;
    let vit = network(&parsed, tensors)?;
    tensors.weights.finish(&IGNORED)?;
    // What training views are cropped from changes no vector, so it is no part of the fingerprint.
    let input = InputConfig {
        view_scale: 1,
        ..parsed.input
    };
    Ok((vit, Preparation::Ours(input)))
}

fn network(config: &ModelConfig, tensors: &mut Tensors) -> Result<Vit> {
    let sizes = &config.vit;
    let (width, eps) = (sizes.embed_dim, VitConfig::NORM_EPS);
    let cls = tensors.vector("cls_token", &[1, 1, width])?;
    let registers = match sizes.num_registers {
        0 => Vec::new(),
        n => tensors.vector("register_tokens", &[1, n, width])?,
    };
    let stem = stages(sizes, tensors)?;
    let (n_inputs, patch) = match &stem {
        None => (sizes.in_chans, sizes.patch),
        Some((_, n_channels)) => (*n_channels, [1; 3]),
    };
    let (patch_embed, flat_patch_embed) =
        tensors.patch_embed("patch_embed.proj", [width, n_inputs], patch, (true, true))?;
    let mut blocks = Vec::new();
    for i in 0..sizes.depth {
        let at = |name: &str| format!("blocks.{i}.{name}");
        blocks.push(Block {
            norm1: tensors.norm(&at("norm1"), width, eps)?,
            qkv: tensors.linear(&at("attn.qkv"), [3 * width, width])?,
            proj: tensors.linear(&at("attn.proj"), [width, width])?,
            norm2: tensors.norm(&at("norm2"), width, eps)?,
            fc1: tensors.linear(&at("mlp.fc1"), [sizes.mlp_hidden, width])?,
            fc2: tensors.linear(&at("mlp.fc2"), [width, sizes.mlp_hidden])?,
        });
    }
    let head = if tensors.weights.has("embedding.weight") {
        let matrix = tensors.matrix("embedding", [width, width], true)?;
        // Whitening stretches small directions, which products of low precision would drown.
        Some(Head::Projection(matrix.pack(Precision::F32)))
    } else {
        None
    };
    Ok(Vit {
        kernels: tensors.kernels,
        in_chans: sizes.in_chans,
        embed_dim: width,
        num_heads: sizes.num_heads,
        patch: sizes.patch,
        stem: stem.map(|(stages, _)| stages),
        patch_embed,
        flat_patch_embed,
        prefix: prefix(cls, &[], &registers),
        position: Position::SinCos {
            ref_grid: sizes.ref_grid,
        },
        pre_norm: None,
        blocks,
        mlp: Mlp::Plain(Activation::Gelu),
        norm: Some(tensors.norm("norm", width, eps)?),
        pooling: config.embedding,
        pooled_norm: None,
        head,
    })
}

/// Takes the convolutions before `patch_embed.proj`, with the channels of the last one.
fn stages(sizes: &VitConfig, tensors: &mut Tensors) -> Result<Option<(Stages, usize)>> {
    if sizes.stem.is_patch() {
        return Ok(None);
    }
    let mut n_inputs = sizes.in_chans;
    let mut stages = Vec::new();
    for (i, n_outputs) in stage_channels(sizes.patch)?.into_iter().enumerate() {
        let norm = tensors.norm(
            &format!("patch_embed.stages.{i}.norm"),
            n_outputs,
            VitConfig::NORM_EPS,
        )?;
        let name = format!("patch_embed.stages.{i}.conv");
        let conv = tensors.kernel_3x3(&name, [n_outputs, n_inputs])?;
        // The first stage sees raw pixels and costs little.
        let precision = if i == 0 {
            Precision::F32
        } else {
            tensors.precision
        };
        stages.push(Stage {
            conv: conv.pack(precision),
            norm,
        });
        n_inputs = n_outputs;
    }
    Ok(Some((Stages(stages), n_inputs)))
}
