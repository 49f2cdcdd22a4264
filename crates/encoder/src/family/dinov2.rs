//! Hugging Face `Dinov2Model` and `Dinov2WithRegistersModel`; RAD-DINO is one.

use serde::Deserialize;

use super::tensors::{Bias, Tensors, prefix};
use super::{Config, FIELDS, PlaneSizes, Preparation, Sides};
use crate::error::Result;
use crate::kernels::Activation;
use crate::pack::Pack;
use crate::position::Resize;
use crate::preprocess::{IMAGENET, PlaneInput};
use crate::vit::{Block, Mlp, Vit};

/// Absent fields have the library's defaults.
#[derive(Deserialize)]
#[serde(default)]
struct Fields {
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    mlp_ratio: f64,
    hidden_act: String,
    layer_norm_eps: f32,
    image_size: Sides,
    patch_size: Sides,
    num_channels: usize,
    qkv_bias: bool,
    use_swiglu_ffn: bool,
    num_register_tokens: usize,
}

impl Default for Fields {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            mlp_ratio: 4.0,
            hidden_act: "gelu".to_owned(),
            layer_norm_eps: 1e-6,
            image_size: Sides::Square(224),
            patch_size: Sides::Square(14),
            num_channels: 3,
            qkv_bias: true,
            use_swiglu_ffn: false,
            num_register_tokens: 4,
        }
    }
}

/// `mask_token` serves pretraining, `classifier` a task.
const IGNORED: [&str; 2] = ["embeddings.mask_token", "classifier."];

/// The class of the library that a model was saved from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// `Dinov2Model`
    Plain,
    /// `Dinov2WithRegistersModel`
    WithRegisters,
}

pub(super) fn load<P: Pack>(
    config: &Config,
    tensors: &mut Tensors<P>,
    class: Class,
) -> Result<(Vit<P::Layer>, Preparation)> {
    let fields: Fields = config.parse()?;
    config.check_eps(fields.layer_norm_eps)?;
    let sizes = PlaneSizes {
        width: fields.hidden_size,
        depth: fields.num_hidden_layers,
        n_heads: fields.num_attention_heads,
        hidden: hidden(&fields),
        n_channels: fields.num_channels,
        image: fields.image_size.into(),
        patch: fields.patch_size.into(),
        fields: [FIELDS[0], FIELDS[1], FIELDS[2], "mlp_ratio"],
    }
    .check(config)?;
    let n_registers = fields.num_register_tokens;
    if class == Class::WithRegisters && n_registers > 1 << 10 {
        let found = format!("num_register_tokens {n_registers}");
        return Err(config.malformed(found, "at most 1024"));
    }
    let preparation = PlaneInput::read(config, sizes.image, sizes.patch, IMAGENET)?;
    tensors.weights.strip_prefix("dinov2.");
    tensors.weights.strip_prefix("dinov2_with_registers.");
    let vit = network(config, tensors, &fields, sizes, class)?;
    tensors.weights.finish(&IGNORED)?;
    Ok((vit, Preparation::Planes(preparation)))
}

/// Returns the width of the MLP's hidden layer: gated, 2/3 of it, rounded up to 8.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "the library truncates, too; `PlaneSizes::check` bounds the result"
)]
fn hidden(fields: &Fields) -> usize {
    let hidden = (fields.hidden_size as f64 * fields.mlp_ratio) as usize;
    if !fields.use_swiglu_ffn {
        return hidden;
    }
    let two_thirds = (hidden as f64 * 2.0 / 3.0) as usize;
    two_thirds.saturating_add(7) / 8 * 8
}

fn network<P: Pack>(
    config: &Config,
    tensors: &mut Tensors<P>,
    fields: &Fields,
    sizes: PlaneSizes,
    class: Class,
) -> Result<Vit<P::Layer>> {
    let (width, eps) = (sizes.width, fields.layer_norm_eps);
    let cls = tensors.vector("embeddings.cls_token", &[1, 1, width])?;
    let registers = match (class, fields.num_register_tokens) {
        (Class::Plain, _) | (_, 0) => Vec::new(),
        (Class::WithRegisters, n) => {
            tensors.vector("embeddings.register_tokens", &[1, n, width])?
        }
    };
    let kernel = sizes.patch_kernel("embeddings.patch_embeddings.projection");
    let patch_embed = tensors.patch_embed(kernel)?;
    let grid = sizes.grid();
    let n_positions = 1 + grid.iter().product::<usize>();
    // The library resizes with antialias only in the class with registers.
    let positions = tensors.positions(
        "embeddings.position_embeddings",
        &[1, n_positions, width],
        grid,
        Resize::Bicubic {
            antialias: class == Class::WithRegisters,
        },
    )?;
    let mlp = if fields.use_swiglu_ffn {
        Mlp::Gated(Activation::Silu)
    } else {
        Mlp::Plain(config.activation(&fields.hidden_act)?)
    };
    let mut blocks = Vec::new();
    for i in 0..sizes.depth {
        blocks.push(block(tensors, fields, sizes, i)?);
    }
    let prefix = prefix(cls, &positions.cls, &registers);
    Ok(Vit {
        mlp,
        norm: Some(tensors.norm("layernorm", width, eps)?),
        ..Vit::of(sizes.vit(), patch_embed, prefix, positions.patches, blocks)
    })
}

fn block<P: Pack>(
    tensors: &mut Tensors<P>,
    fields: &Fields,
    sizes: PlaneSizes,
    i: usize,
) -> Result<Block<P::Layer>> {
    let (width, eps) = (sizes.width, fields.layer_norm_eps);
    let at = |name: &str| format!("encoder.layer.{i}.{name}");
    // Gated, one layer makes gate and value: [gate; up].
    let (fc1, fc2, n_inner) = if fields.use_swiglu_ffn {
        ("mlp.weights_in", "mlp.weights_out", 2 * sizes.hidden)
    } else {
        ("mlp.fc1", "mlp.fc2", sizes.hidden)
    };
    let scale1 = tensors.vector(&at("layer_scale1.lambda1"), &[width])?;
    let scale2 = tensors.vector(&at("layer_scale2.lambda1"), &[width])?;
    Ok(Block {
        norm1: tensors.norm(&at("norm1"), width, eps)?,
        qkv: super::vit::attention(tensors, i, width, Bias::when(fields.qkv_bias))?,
        proj: tensors
            .layer(&at("attention.output.dense"), [width, width], Bias::Saved)?
            .scaled(Some(&scale1))
            .pack_with(&tensors.pack),
        norm2: tensors.norm(&at("norm2"), width, eps)?,
        fc1: tensors.linear(&at(fc1), [n_inner, width])?,
        fc2: tensors
            .layer(&at(fc2), [width, sizes.hidden], Bias::Saved)?
            .scaled(Some(&scale2))
            .pack_with(&tensors.pack),
    })
}
