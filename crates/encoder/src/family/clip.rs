//! Hugging Face CLIP: the vision tower, alone or in a full `CLIPModel`.

use serde::Deserialize;

use super::tensors::{Bias, PatchKernel, Tensors, prefix};
use super::{Config, FIELDS, PlaneSizes, Preparation, Sides};
use crate::error::Result;
use crate::pack::Pack;
use crate::position::Resize;
use crate::preprocess::{CLIP, PlaneInput};
use crate::vit::{Block, Head, Mlp, Vit};

/// Absent fields have the library's defaults.
#[derive(Deserialize)]
#[serde(default)]
struct Fields {
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    projection_dim: usize,
    hidden_act: String,
    layer_norm_eps: f32,
    image_size: Sides,
    patch_size: Sides,
    num_channels: usize,
    architectures: Vec<String>,
}

impl Default for Fields {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            projection_dim: 512,
            hidden_act: "quick_gelu".to_owned(),
            layer_norm_eps: 1e-5,
            image_size: Sides::Square(224),
            patch_size: Sides::Square(32),
            num_channels: 3,
            architectures: Vec::new(),
        }
    }
}

/// The fields of a full model that concern the vision tower.
#[derive(Deserialize)]
struct Full {
    #[serde(default)]
    vision_config: serde_json::Value,
    projection_dim: Option<usize>,
}

/// The text tower, and tables of plain counts.
const IGNORED: [&str; 4] = [
    "text_model.",
    "text_projection.",
    "logit_scale",
    "embeddings.position_ids",
];

pub(super) fn load<P: Pack>(
    config: &Config,
    tensors: &mut Tensors<P>,
) -> Result<(Vit<P::Layer>, Preparation)> {
    let is_full = config.value.get("vision_config").is_some()
        || config
            .value
            .get("model_type")
            .and_then(serde_json::Value::as_str)
            == Some("clip");
    let fields: Fields = if is_full {
        let full: Full = config.parse()?;
        let vision = match full.vision_config {
            serde_json::Value::Null => Fields::default(),
            vision => config.parse_value(&vision)?,
        };
        Fields {
            projection_dim: full.projection_dim.unwrap_or(512),
            architectures: Vec::new(),
            ..vision
        }
    } else {
        config.parse()?
    };
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
    let preparation = PlaneInput::read(config, sizes.image, sizes.patch, CLIP)?;
    // Newer versions of the library save a tower alone without the prefix.
    tensors.weights.strip_prefix("vision_model.");
    let mut vit = network(config, tensors, &fields, sizes)?;
    // A tower saved without its projection says so: its embedding is the pooled token.
    let is_bare = fields
        .architectures
        .iter()
        .any(|class| class == "CLIPVisionModel");
    if !is_bare || tensors.weights.has("visual_projection.weight") {
        let shape = [fields.projection_dim, sizes.width];
        let projection = tensors.layer("visual_projection", shape, Bias::Absent)?;
        vit.head = Some(Head::Projection(projection.pack_with(&tensors.pack)));
    }
    tensors.weights.finish(&IGNORED)?;
    Ok((vit, Preparation::Planes(preparation)))
}

fn network<P: Pack>(
    config: &Config,
    tensors: &mut Tensors<P>,
    fields: &Fields,
    sizes: PlaneSizes,
) -> Result<Vit<P::Layer>> {
    let (width, eps) = (sizes.width, fields.layer_norm_eps);
    let cls = tensors.vector("embeddings.class_embedding", &[width])?;
    let patch_embed = tensors.patch_embed(PatchKernel {
        bias: Bias::Absent,
        ..sizes.patch_kernel("embeddings.patch_embedding")
    })?;
    let grid = sizes.grid();
    let n_positions = 1 + grid.iter().product::<usize>();
    let positions = tensors.positions(
        "embeddings.position_embedding.weight",
        &[n_positions, width],
        grid,
        Resize::Bicubic { antialias: false },
    )?;
    let mut blocks = Vec::new();
    for i in 0..sizes.depth {
        let at = |name: &str| format!("encoder.layers.{i}.{name}");
        let qkv = ["q_proj", "k_proj", "v_proj"].map(|name| at(&format!("self_attn.{name}")));
        blocks.push(Block {
            norm1: tensors.norm(&at("layer_norm1"), width, eps)?,
            qkv: tensors.qkv(qkv.each_ref().map(String::as_str), width, [Bias::Saved; 3])?,
            proj: tensors.linear(&at("self_attn.out_proj"), [width, width])?,
            norm2: tensors.norm(&at("layer_norm2"), width, eps)?,
            fc1: tensors.linear(&at("mlp.fc1"), [sizes.hidden, width])?,
            fc2: tensors.linear(&at("mlp.fc2"), [width, sizes.hidden])?,
        });
    }
    let prefix = prefix(cls, &positions.cls, &[]);
    Ok(Vit {
        // The name is misspelt in the library, and so in every file.
        pre_norm: Some(tensors.norm("pre_layrnorm", width, eps)?),
        mlp: Mlp::Plain(config.activation(&fields.hidden_act)?),
        pooled_norm: Some(tensors.norm("post_layernorm", width, eps)?),
        ..Vit::of(sizes.vit(), patch_embed, prefix, positions.patches, blocks)
    })
}
