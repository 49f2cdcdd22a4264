//! `open_clip`'s own `VisionTransformer` (OpenAI's CLIP, LAION's, BMC-CLIP).

use serde::Deserialize;
use serde_json::{Value, json};

use super::{ModelCfg, refuse_unless, transposed};
use crate::error::Result;
use crate::family::tensors::{Bias, PatchKernel, Tensors, prefix};
use crate::family::{Config, PlaneSizes, Preparation, Sides};
use crate::kernels::Activation;
use crate::pack::{Pack, PlainLayer};
use crate::position::Resize;
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

pub(super) fn load<P: Pack>(
    config: &Config,
    tensors: &mut Tensors<P>,
    model: &ModelCfg,
    image: [usize; 2],
) -> Result<(Vit<P::Layer>, Preparation)> {
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
    let sizes = PlaneSizes {
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
    reason = "the library truncates, too; `PlaneSizes::check` bounds the result"
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

fn network<P: Pack>(
    tensors: &mut Tensors<P>,
    fields: &Fields,
    sizes: PlaneSizes,
    activation: Activation,
) -> Result<Vit<P::Layer>> {
    let width = sizes.width;
    let cls = tensors.vector("visual.class_embedding", &[width])?;
    let patch_embed = tensors.patch_embed(PatchKernel {
        bias: Bias::Absent,
        ..sizes.patch_kernel("visual.conv1")
    })?;
    let grid = sizes.grid();
    let n_positions = 1 + grid.iter().product::<usize>();
    let positions = tensors.positions(
        "visual.positional_embedding",
        &[n_positions, width],
        grid,
        Resize::Bicubic { antialias: true },
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
    let prefix = prefix(cls, &positions.cls, &[]);
    Ok(Vit {
        pre_norm,
        mlp: Mlp::Plain(activation),
        norm: Some(tensors.norm("visual.ln_post", width, NORM_EPS)?),
        ..Vit::of(sizes.vit(), patch_embed, prefix, positions.patches, blocks)
    })
}

fn block<P: Pack>(
    tensors: &mut Tensors<P>,
    fields: &Fields,
    sizes: PlaneSizes,
    i: usize,
) -> Result<Block<P::Layer>> {
    let width = sizes.width;
    let at = |name: &str| format!("visual.transformer.resblocks.{i}.{name}");
    let mut scales = [None, None];
    if fields.ls_init_value.is_some() {
        scales[0] = Some(tensors.vector(&at("ls_1.gamma"), &[width])?);
        scales[1] = Some(tensors.vector(&at("ls_2.gamma"), &[width])?);
    }
    let qkv = PlainLayer::linear(
        tensors.vector(&at("attn.in_proj_weight"), &[3 * width, width])?,
        Some(tensors.vector(&at("attn.in_proj_bias"), &[3 * width])?),
        [3 * width, width],
    );
    Ok(Block {
        norm1: tensors.norm(&at("ln_1"), width, NORM_EPS)?,
        qkv: qkv.pack_with(&tensors.pack),
        proj: tensors
            .layer(&at("attn.out_proj"), [width, width], Bias::Saved)?
            .scaled(scales[0].as_deref())
            .pack_with(&tensors.pack),
        norm2: tensors.norm(&at("ln_2"), width, NORM_EPS)?,
        fc1: tensors.linear(&at("mlp.c_fc"), [sizes.hidden, width])?,
        fc2: tensors
            .layer(&at("mlp.c_proj"), [width, sizes.hidden], Bias::Saved)?
            .scaled(scales[1].as_deref())
            .pack_with(&tensors.pack),
    })
}
