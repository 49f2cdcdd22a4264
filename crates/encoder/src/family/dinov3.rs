//! Hugging Face `DINOv3ViTModel`: rotary positions, registers, plain or gated MLP.

use serde::Deserialize;

use super::tensors::{Bias, Tensors, prefix};
use super::{Config, FIELDS, PlaneSizes, Preparation, Sides};
use crate::error::Result;
use crate::pack::{Pack, PlainLayer};
use crate::position::{Position, Rotary};
use crate::preprocess::{IMAGENET, PlaneInput};
use crate::vit::{Block, Mlp, Vit};

/// Absent fields have the library's defaults.
#[derive(Deserialize)]
#[serde(default)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "the fields of the library's config"
)]
struct Fields {
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    hidden_act: String,
    layer_norm_eps: f32,
    rope_theta: f64,
    rope_parameters: Option<RopeParameters>,
    image_size: Sides,
    patch_size: Sides,
    num_channels: usize,
    num_register_tokens: usize,
    query_bias: bool,
    key_bias: bool,
    value_bias: bool,
    proj_bias: bool,
    mlp_bias: bool,
    use_gated_mlp: bool,
}

/// Where newer versions of the library keep the base.
#[derive(Deserialize)]
struct RopeParameters {
    rope_theta: f64,
}

impl Default for Fields {
    fn default() -> Self {
        Self {
            hidden_size: 384,
            num_hidden_layers: 12,
            num_attention_heads: 6,
            intermediate_size: 1536,
            hidden_act: "gelu".to_owned(),
            layer_norm_eps: 1e-5,
            rope_theta: 100.0,
            rope_parameters: None,
            image_size: Sides::Square(224),
            patch_size: Sides::Square(16),
            num_channels: 3,
            num_register_tokens: 0,
            query_bias: true,
            key_bias: false,
            value_bias: true,
            proj_bias: true,
            mlp_bias: true,
            use_gated_mlp: false,
        }
    }
}

pub(super) fn load<P: Pack>(
    config: &Config,
    tensors: &mut Tensors<P>,
) -> Result<(Vit<P::Layer>, Preparation)> {
    let fields: Fields = config.parse()?;
    config.check_eps(fields.layer_norm_eps)?;
    let sizes = PlaneSizes {
        width: fields.hidden_size,
        depth: fields.num_hidden_layers,
        n_heads: fields.num_attention_heads,
        hidden: fields.intermediate_size,
        n_channels: fields.num_channels,
        image: fields.image_size.into(),
        patch: fields.patch_size.into(),
        fields: FIELDS,
    }
    .check(config)?;
    let head_width = sizes.width / sizes.n_heads;
    if !head_width.is_multiple_of(4) || fields.num_register_tokens > 1 << 10 {
        return Err(config.malformed(
            format!(
                "heads of width {head_width}, num_register_tokens {}",
                fields.num_register_tokens
            ),
            "a multiple of 4, and at most 1024",
        ));
    }
    let preparation = PlaneInput::read(config, sizes.image, sizes.patch, IMAGENET)?;
    tensors.weights.strip_prefix("model.");
    let vit = network(config, tensors, &fields, sizes)?;
    tensors.weights.finish(&["embeddings.mask_token"])?;
    Ok((vit, Preparation::Planes(preparation)))
}

fn network<P: Pack>(
    config: &Config,
    tensors: &mut Tensors<P>,
    fields: &Fields,
    sizes: PlaneSizes,
) -> Result<Vit<P::Layer>> {
    let (width, eps) = (sizes.width, fields.layer_norm_eps);
    let base = fields
        .rope_parameters
        .as_ref()
        .map_or(fields.rope_theta, |parameters| parameters.rope_theta);
    if !(base.is_finite() && base > 0.0) {
        return Err(config.malformed(format!("rope_theta {base}"), "a number above 0"));
    }
    let activation = config.activation(&fields.hidden_act)?;
    let cls = tensors.vector("embeddings.cls_token", &[1, 1, width])?;
    let registers = match fields.num_register_tokens {
        0 => Vec::new(),
        n => tensors.vector("embeddings.register_tokens", &[1, n, width])?,
    };
    let patch_embed = tensors.patch_embed(sizes.patch_kernel("embeddings.patch_embeddings"))?;
    let mut blocks = Vec::new();
    for i in 0..sizes.depth {
        blocks.push(block(tensors, fields, sizes, i)?);
    }
    let prefix = prefix(cls, &[], &registers);
    let position = Position::Rotary(Rotary { base });
    Ok(Vit {
        mlp: if fields.use_gated_mlp {
            Mlp::Gated(activation)
        } else {
            Mlp::Plain(activation)
        },
        norm: Some(tensors.norm("norm", width, eps)?),
        ..Vit::of(sizes.vit(), patch_embed, prefix, position, blocks)
    })
}

fn block<P: Pack>(
    tensors: &mut Tensors<P>,
    fields: &Fields,
    sizes: PlaneSizes,
    i: usize,
) -> Result<Block<P::Layer>> {
    let (width, hidden, eps) = (sizes.width, sizes.hidden, fields.layer_norm_eps);
    let at = |name: &str| format!("layer.{i}.{name}");
    let scale1 = tensors.vector(&at("layer_scale1.lambda1"), &[width])?;
    let scale2 = tensors.vector(&at("layer_scale2.lambda1"), &[width])?;
    let qkv = [
        at("attention.q_proj"),
        at("attention.k_proj"),
        at("attention.v_proj"),
    ];
    let biases = [fields.query_bias, fields.key_bias, fields.value_bias].map(Bias::when);
    let (proj_bias, mlp_bias) = (Bias::when(fields.proj_bias), Bias::when(fields.mlp_bias));
    let mut inner = Vec::with_capacity(2);
    if fields.use_gated_mlp {
        inner.push(tensors.layer(&at("mlp.gate_proj"), [hidden, width], mlp_bias)?);
    }
    inner.push(tensors.layer(&at("mlp.up_proj"), [hidden, width], mlp_bias)?);
    Ok(Block {
        norm1: tensors.norm(&at("norm1"), width, eps)?,
        qkv: tensors.qkv(qkv.each_ref().map(String::as_str), width, biases)?,
        proj: tensors
            .layer(&at("attention.o_proj"), [width, width], proj_bias)?
            .scaled(Some(&scale1))
            .pack_with(&tensors.pack),
        norm2: tensors.norm(&at("norm2"), width, eps)?,
        fc1: PlainLayer::stacked(inner).pack_with(&tensors.pack),
        fc2: tensors
            .layer(&at("mlp.down_proj"), [width, hidden], mlp_bias)?
            .scaled(Some(&scale2))
            .pack_with(&tensors.pack),
    })
}
