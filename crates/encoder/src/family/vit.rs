//! Hugging Face `ViTModel` and `ViTMAEModel`.

use serde::Deserialize;

use super::tensors::{Bias, Tensors, prefix};
use super::{Config, FIELDS, PlaneSizes, Preparation, Sides};
use crate::config::Pooling;
use crate::error::Result;
use crate::pack::Pack;
use crate::position::Resize;
use crate::preprocess::{HALVES, IMAGENET, PlaneInput};
use crate::vit::{Block, Head, Mlp, Vit};

/// Absent fields have the library's defaults, which are the same for both.
#[derive(Deserialize)]
#[serde(default)]
struct Fields {
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    hidden_act: String,
    layer_norm_eps: f32,
    image_size: Sides,
    patch_size: Sides,
    num_channels: usize,
    qkv_bias: bool,
    pooler_output_size: Option<usize>,
    pooler_act: String,
}

impl Default for Fields {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: "gelu".to_owned(),
            layer_norm_eps: 1e-12,
            image_size: Sides::Square(224),
            patch_size: Sides::Square(16),
            num_channels: 3,
            qkv_bias: true,
            pooler_output_size: None,
            pooler_act: "tanh".to_owned(),
        }
    }
}

impl Fields {
    fn sizes(&self, config: &Config) -> Result<PlaneSizes> {
        config.check_eps(self.layer_norm_eps)?;
        PlaneSizes {
            width: self.hidden_size,
            depth: self.num_hidden_layers,
            n_heads: self.num_attention_heads,
            hidden: self.intermediate_size,
            n_channels: self.num_channels,
            image: self.image_size.into(),
            patch: self.patch_size.into(),
            fields: FIELDS,
        }
        .check(config)
    }
}

/// Loads a ViT: CLS after the final norm. The pooler, where it is saved, is not the embedding.
pub(super) fn load<P: Pack>(
    config: &Config,
    tensors: &mut Tensors<P>,
) -> Result<(Vit<P::Layer>, Preparation)> {
    let fields: Fields = config.parse()?;
    let sizes = fields.sizes(config)?;
    let preparation = PlaneInput::read(config, sizes.image, sizes.patch, HALVES)?;
    tensors.weights.strip_prefix("vit.");
    let mut vit = network(config, tensors, &fields, sizes)?;
    if tensors.weights.has("pooler.dense.weight") && fields.pooler_act == "tanh" {
        let n_outputs = fields.pooler_output_size.unwrap_or(sizes.width);
        let pooler = tensors.linear("pooler.dense", [n_outputs, sizes.width])?;
        vit.head = Some(Head::TanhPooler(pooler));
    }
    tensors.weights.finish(&[
        "classifier.",
        "pooler.",
        "decoder.",
        "embeddings.mask_token",
    ])?;
    Ok((vit, Preparation::Planes(preparation)))
}

/// Loads the encoder of a masked autoencoder: the mean of the patches after the final norm.
pub(super) fn load_mae<P: Pack>(
    config: &Config,
    tensors: &mut Tensors<P>,
) -> Result<(Vit<P::Layer>, Preparation)> {
    let fields: Fields = config.parse()?;
    let sizes = fields.sizes(config)?;
    let preparation = PlaneInput::read(config, sizes.image, sizes.patch, IMAGENET)?;
    tensors.weights.strip_prefix("vit.");
    let mut vit = network(config, tensors, &fields, sizes)?;
    vit.pooling = Pooling::Mean;
    tensors.weights.finish(&["decoder."])?;
    Ok((vit, Preparation::Planes(preparation)))
}

fn network<P: Pack>(
    config: &Config,
    tensors: &mut Tensors<P>,
    fields: &Fields,
    sizes: PlaneSizes,
) -> Result<Vit<P::Layer>> {
    let (width, eps) = (sizes.width, fields.layer_norm_eps);
    let cls = tensors.vector("embeddings.cls_token", &[1, 1, width])?;
    let kernel = sizes.patch_kernel("embeddings.patch_embeddings.projection");
    let patch_embed = tensors.patch_embed(kernel)?;
    let grid = sizes.grid();
    let n_positions = 1 + grid.iter().product::<usize>();
    let positions = tensors.positions(
        "embeddings.position_embeddings",
        &[1, n_positions, width],
        grid,
        Resize::Bicubic { antialias: false },
    )?;
    let mut blocks = Vec::new();
    for i in 0..sizes.depth {
        let at = |name: &str| format!("encoder.layer.{i}.{name}");
        blocks.push(Block {
            norm1: tensors.norm(&at("layernorm_before"), width, eps)?,
            qkv: attention(tensors, i, width, Bias::when(fields.qkv_bias))?,
            proj: tensors.linear(&at("attention.output.dense"), [width, width])?,
            norm2: tensors.norm(&at("layernorm_after"), width, eps)?,
            fc1: tensors.linear(&at("intermediate.dense"), [sizes.hidden, width])?,
            fc2: tensors.linear(&at("output.dense"), [width, sizes.hidden])?,
        });
    }
    let prefix = prefix(cls, &positions.cls, &[]);
    Ok(Vit {
        mlp: Mlp::Plain(config.activation(&fields.hidden_act)?),
        norm: Some(tensors.norm("layernorm", width, eps)?),
        ..Vit::of(sizes.vit(), patch_embed, prefix, positions.patches, blocks)
    })
}

/// Takes the queries, keys and values of a layer, named as ViT, ViTMAE and DINOv2 name them.
pub(super) fn attention<P: Pack>(
    tensors: &mut Tensors<P>,
    layer: usize,
    width: usize,
    bias: Bias,
) -> Result<P::Layer> {
    let names = ["query", "key", "value"]
        .map(|name| format!("encoder.layer.{layer}.attention.attention.{name}"));
    let names = names.each_ref().map(String::as_str);
    tensors.qkv(names, width, [bias; 3])
}
