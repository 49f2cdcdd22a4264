//! Our own models: `config.json` is `ModelConfig`, names are those of timm's ViT.

use m3ret_imaging::InputConfig;

use super::tensors::{Bias, KernelAxes, PatchKernel, Tensors, prefix};
use super::{Config, Preparation};
use crate::config::{ModelConfig, VitConfig};
use crate::error::Result;
use crate::pack::Pack;
use crate::position::Position;
use crate::stem::{Stage, Stages, stage_channels};
use crate::vit::{Block, Head, Vit, VitSizes};

/// Weights of pretraining that an encoder does not use.
const IGNORED: [&str; 3] = ["decoder", "mask_token", "head."];

pub(super) fn load<P: Pack>(
    config: &Config,
    tensors: &mut Tensors<P>,
) -> Result<(Vit<P::Layer>, Preparation)> {
    let parsed: ModelConfig = config.parse()?;
    parsed.validate()?;
    let vit = network(&parsed, tensors)?;
    tensors.weights.finish(&IGNORED)?;
    // The scale that training crops views from changes no vector, so the fingerprint leaves it out.
    let input = InputConfig {
        view_scale: 1,
        ..parsed.input
    };
    Ok((vit, Preparation::Ours(input)))
}

fn network<P: Pack>(config: &ModelConfig, tensors: &mut Tensors<P>) -> Result<Vit<P::Layer>> {
    let sizes = &config.vit;
    let (width, eps) = (sizes.embed_dim, VitConfig::NORM_EPS);
    let cls = tensors.vector("cls_token", &[1, 1, width])?;
    let registers = match sizes.num_registers {
        0 => Vec::new(),
        n => tensors.vector("register_tokens", &[1, n, width])?,
    };
    let stem = stages(sizes, tensors)?;
    // After a stem one position of each patch is left, with the channels of the last stage.
    let (n_channels, patch) = match stem.as_ref().and_then(|Stages(stages)| stages.last()) {
        None => (sizes.in_chans, sizes.patch),
        Some(stage) => (stage.n_channels(), [1; 3]),
    };
    let patch_embed = tensors.patch_embed(PatchKernel {
        name: "patch_embed.proj",
        width,
        n_channels,
        patch,
        axes: KernelAxes::Volume,
        bias: Bias::Saved,
    })?;
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
        let layer = tensors.layer("embedding", [width, width], Bias::Saved)?;
        // Whitening stretches directions of small variance, where rounding errors could exceed the
        // signal in a lower precision.
        Some(Head::Projection(layer.exact().pack_with(&tensors.pack)))
    } else {
        None
    };
    let prefix = prefix(cls, &[], &registers);
    let position = Position::SinCos {
        ref_grid: sizes.ref_grid,
    };
    Ok(Vit {
        stem,
        norm: Some(tensors.norm("norm", width, eps)?),
        pooling: config.embedding,
        head,
        ..Vit::of(VitSizes::of(sizes), patch_embed, prefix, position, blocks)
    })
}

/// Takes the convolutions before `patch_embed.proj`.
fn stages<P: Pack>(
    sizes: &VitConfig,
    tensors: &mut Tensors<P>,
) -> Result<Option<Stages<P::Layer>>> {
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
        // The first stage reads raw pixels and is a small part of the work, so it stays in f32.
        let conv = if i == 0 { conv.exact() } else { conv };
        stages.push(Stage {
            conv: conv.pack_with(&tensors.pack),
            norm,
        });
        n_inputs = n_outputs;
    }
    Ok(Some(Stages(stages)))
}
