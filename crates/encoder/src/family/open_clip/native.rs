//! `open_clip`'s own `VisionTransformer` (OpenAI's CLIP, LAION's, BMC-CLIP).

use serde::Deserialize;
use serde_json::{Value, json};

use super::{ModelCfg, refuse_unless, transposed};
use crate::config::Pooling;
use crate::error::Result;
use crate::family::tensors::{Matrix, Tensors, prefix};
use crate::family::{Config, Preparation, Sides, Sizes};
use crate::kernels::Activation;
use crate::preprocess::PlaneInput;
use crate::vit::{Block, Head, Mlp, Vit};

/// Absent fields have the library's defaults.
#[derive(Deserialize)]
#[serde(default)]
struct Fields {
    layers: usize,
    width: usize,
    head_width: usize,
    mlp_ratio: f64,
    patch_size: Sides,
    ls_init_value: Option<f64>,
    no_ln_pre: bool,
}

impl Default for Fields {
    fn default() -> Self {
        Self {
            layers: 12,
            width: 768,
            head_width: 64,
            mlp_ratio: 4.0,
            patch_size: Sides::Square(16),
            ls_init_value: None,
            no_ln_pre: false,
        }
    }
}

/// `LayerNorm`'s default in torch.
const NORM_EPS: f32 = 1e-5;

pub(super) fn load(
    config: &Config,
    tensors: &mut Tensors,
    model: &ModelCfg,
    image: [usize; 2],
) -> Result<(Vit, Preparation)> {
    let tower = &model.vision_cfg;
    for (field, usual) in [
        ("attentional_pool", vec![json!(false), json!("")]),
        ("pool_type", vec![json!("tok")]),
        ("global_average_pool", vec![json!(false)]),
        ("pos_embed_type", vec![json!("learnable")]),
        ("input_patchnorm", vec![json!(false)]),
        ("final_ln_after_pool", vec![json!(false)]),
        ("qk_norm", vec![json!(false)]),
        ("scaled_cosine_attn", vec![json!(false)]),
        ("act_kwargs", vec![json!({})]),
        ("norm_kwargs", vec![json!({})]),
        ("block_type", vec![json!("default")]),
    ] {
        refuse_unless(config, tower, field, &usual)?;
    }
    let fields: Fields = config.parse_value(tower)?;
    let sizes = Sizes {
        width: fields.width,
        depth: fields.layers,
        n_heads: fields.width / fields.head_width.max(1),
        hidden: hidden(&fields),
        n_channels: 3,
        image,
        patch: fields.patch_size.into(),
        fields: ["width", "layers", "head_width", "mlp_ratio"],
    }
    .check(config)?;
    let preparation = PlaneInput::read_open_clip(config, sizes.image, sizes.patch)?;
    let mut vit = network(tensors, &fields, sizes, activation(model))?;
    let head = transposed(tensors, "visual.proj", [sizes.width, model.embed_dim])?;
    vit.head = Some(Head::Projection(head));
    Ok((vit, Preparation::Planes(preparation)))
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "the library truncates, too; `Sizes::check` bounds the result"
)]
fn hidden(fields: &Fields) -> usize {
    (fields.width as f64 * fields.mlp_ratio) as usize
}

fn activation(model: &ModelCfg) -> Activation {
    // Some configs state it beside the widths instead.
    let beside = model.vision_cfg.get("quick_gelu");
    if model.quick_gelu || beside.and_then(Value::as_bool) == Some(true) {
        Activation::QuickGelu
    } else {
        Activation::Gelu
    }
}

fn network(
    tensors: &mut Tensors,
    fields: &Fields,
    sizes: Sizes,
    activation: Activation,
) -> Result<Vit> {
    let width = sizes.width;
    let cls = tensors.vector("visual.class_embedding", &[width])?;
    let (patch_embed, flat_patch_embed) = tensors.patch_embed(
        "visual.conv1",
        [width, sizes.n_channels],
        sizes.patch(),
        (false, false),
    )?;
    let grid = sizes.grid();
    let n_positions = 1 + grid.iter().product::<usize>();
    let positions = tensors.positions(
        "visual.positional_embedding",
        &[n_positions, width],
        grid,
        true,
    )?;
    let pre_norm = if fields.no_ln_pre {
        None
    } else {
        Some(tensors.norm("visual.ln_pre", width, NORM_EPS)?)
    };
    let mut blocks = Vec::new();
    for i in 0..sizes.depth {
        blocks.push(block(tensors, fields, sizes, i)?);
    }
    Ok(Vit {
        kernels: tensors.kernels,
        in_chans: sizes.n_channels,
        embed_dim: width,
        num_heads: sizes.n_heads,
        patch: sizes.patch(),
        stem: None,
        patch_embed,
        flat_patch_embed,
        prefix: prefix(cls, &positions.cls, &[]),
        position: positions.patches,
        pre_norm,
        blocks,
        mlp: Mlp::Plain(activation),
        norm: Some(tensors.norm("visual.ln_post", width, NORM_EPS)?),
        pooling: Pooling::Cls,
        pooled_norm: None,
        head: None,
    })
}

fn block(tensors: &mut Tensors, fields: &Fields, sizes: Sizes, i: usize) -> Result<Block> {
    let width = sizes.width;
    let at = |name: &str| format!("visual.transformer.resblocks.{i}.{name}");
    let mut scales = [None, None];
    if fields.ls_init_value.is_some() {
        scales[0] = Some(tensors.vector(&at("ls_1.gamma"), &[width])?);
        scales[1] = Some(tensors.vector(&at("ls_2.gamma"), &[width])?);
    }
    let qkv = Matrix::new(
        tensors.vector(&at("attn.in_proj_weight"), &[3 * width, width])?,
        Some(tensors.vector(&at("attn.in_proj_bias"), &[3 * width])?),
        [3 * width, width],
    );
    Ok(Block {
        norm1: tensors.norm(&at("ln_1"), width, NORM_EPS)?,
        qkv: qkv.pack(tensors.precision),
        proj: tensors
            .matrix(&at("attn.out_proj"), [width, width], true)?
            .scaled(scales[0].as_deref())
            .pack(tensors.precision),
        norm2: tensors.norm(&at("ln_2"), width, NORM_EPS)?,
        fc1: tensors.linear(&at("mlp.c_fc"), [sizes.hidden, width])?,
        fc2: tensors
            .matrix(&at("mlp.c_proj"), [width, sizes.hidden], true)?
            .scaled(scales[1].as_deref())
            .pack(tensors.precision),
    })
}
