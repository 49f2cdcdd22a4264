//! A ViT of timm as the trunk of `open_clip`'s vision tower (BiomedCLIP).
//!
//! The config names the trunk and no sizes: widths and depth come from the tensors' shapes; heads,
//! norm and activation from the name, or from `m3ret.json`.

use serde::Deserialize;
use serde_json::json;

use super::{ModelCfg, refuse_unless};
use crate::config::Pooling;
use crate::error::{Error, Result};
use crate::family::tensors::{Bias, PatchKernel, Tensors, prefix};
use crate::family::{Config, PlaneSizes, Preparation, check_eps};
use crate::kernels::Activation;
use crate::pack::Pack;
use crate::position::Resize;
use crate::preprocess::PlaneInput;
use crate::vit::{Block, Head, Mlp, Vit};
use crate::weights::{Weights, read_json, shown};

/// `m3ret.json`, which a user writes beside a model whose config lacks these fields.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Beside {
    trunk_config: TrunkConfig,
}

/// The fields that a trunk's name does not give. Sizes may be repeated here; the tensors decide.
#[derive(Deserialize)]
struct TrunkConfig {
    num_heads: usize,
    #[serde(default = "usual_eps")]
    layer_norm_eps: f32,
    /// `gelu` (the default), `gelu (exact)`, `quick_gelu` or `silu`.
    #[serde(default = "usual_act")]
    act: String,
}

fn usual_eps() -> f32 {
    1e-6
}

fn usual_act() -> String {
    "gelu".to_owned()
}

impl TrunkConfig {
    /// Reads `m3ret.json` where there is one; otherwise knows timm's plain ViTs by name.
    fn read(config: &Config, name: &str, width: usize) -> Result<Self> {
        let beside = config.folder().join("m3ret.json");
        if beside.exists() {
            let stated = read_json::<Beside>(&beside)?.trunk_config;
            check_eps(&beside, stated.layer_norm_eps)?;
            return Ok(stated);
        }
        let is_wide = ["huge", "giant", "gigantic", "so400m"]
            .iter()
            .any(|size| name.contains(size));
        let num_heads = if is_wide { 16 } else { width / 64 };
        if !name.starts_with("vit_") || num_heads == 0 {
            return Err(Error::unsupported(
                format!("the trunk {}", shown(name)),
                "write its heads into a file m3ret.json beside the config: \
                 {\"trunk_config\": {\"num_heads\": 12, \"layer_norm_eps\": 1e-6, \"act\": \"gelu\"}}",
            ));
        }
        let is_clip = name.contains("_clip_");
        let is_quick = name.contains("quickgelu");
        Ok(Self {
            num_heads,
            layer_norm_eps: if is_clip { 1e-5 } else { usual_eps() },
            act: if is_quick { "quick_gelu" } else { "gelu" }.to_owned(),
        })
    }
}

pub(super) fn load<P: Pack>(
    config: &Config,
    tensors: &mut Tensors<P>,
    model: &ModelCfg,
    name: &str,
    image: [usize; 2],
) -> Result<(Vit<P::Layer>, Preparation)> {
    let tower = &model.vision_cfg;
    refuse_unless(
        config,
        tower,
        "timm_proj",
        &[json!("linear"), json!("none")],
    )?;
    refuse_unless(
        config,
        tower,
        "timm_pool",
        &[json!(""), json!("token"), json!("avg")],
    )?;
    tensors.weights.strip_prefix("visual.");
    let sizes = sizes(config, &tensors.weights, image)?;
    let stated = TrunkConfig::read(config, name, sizes.width)?;
    let sizes = PlaneSizes {
        n_heads: stated.num_heads,
        ..sizes
    }
    .check(config)?;
    let preparation = PlaneInput::read_open_clip(config, sizes.image, sizes.patch)?;
    let act = match &*stated.act {
        "gelu (exact)" => Activation::Gelu,
        other => config.activation(other)?,
    };
    let mut vit = network(tensors, sizes, stated.layer_norm_eps, act)?;
    let text = |field: &str| tower.get(field).and_then(serde_json::Value::as_str);
    if text("timm_pool") == Some("avg") {
        vit.pooling = Pooling::Mean;
    }
    if text("timm_proj") != Some("none") {
        let bias = Bias::when(tensors.weights.has("head.proj.bias"));
        let shape = [model.embed_dim, sizes.width];
        let projection = tensors.layer("head.proj", shape, bias)?;
        vit.head = Some(Head::Projection(projection.pack_with(&tensors.pack)));
    }
    Ok((vit, Preparation::Planes(preparation)))
}

/// Reads the sizes off the tensors; the number of heads is not among them.
fn sizes(config: &Config, weights: &Weights, image: [usize; 2]) -> Result<PlaneSizes> {
    let patch = weights.shape("trunk.patch_embed.proj.weight");
    let fc1 = weights.shape("trunk.blocks.0.mlp.fc1.weight");
    let (Some(&[width, n_channels, ph, pw]), Some(&[hidden, _])) = (patch, fc1) else {
        return Err(config.malformed(
            format!(
                "patch embedding {:?} and hidden layer {:?} in the trunk",
                patch.unwrap_or_default(),
                fc1.unwrap_or_default()
            ),
            "trunk.patch_embed.proj.weight [E, 3, ph, pw] and \
             trunk.blocks.0.mlp.fc1.weight [hidden, E], as timm's ViTs have",
        ));
    };
    Ok(PlaneSizes {
        width,
        depth: weights.n_numbered("trunk.blocks."),
        n_heads: 0,
        hidden,
        n_channels,
        image,
        patch: [ph, pw],
        fields: ["the patch embedding", "blocks", "num_heads", "mlp.fc1"],
    })
}

/// Returns true if any block has a tensor; all blocks must have it then.
fn any_has(weights: &Weights, depth: usize, name: &str) -> bool {
    let at = |i: usize| format!("trunk.blocks.{i}.{name}");
    (0..depth).any(|i| weights.has(&at(i)))
}

/// What the blocks of one trunk share.
#[derive(Debug, Clone, Copy)]
struct BlockShape {
    width: usize,
    /// Width of the MLP's hidden layer.
    hidden: usize,
    eps: f32,
    qkv_bias: Bias,
    /// Whether `LayerScale` follows attention and MLP.
    has_scale: bool,
}

fn network<P: Pack>(
    tensors: &mut Tensors<P>,
    sizes: PlaneSizes,
    eps: f32,
    activation: Activation,
) -> Result<Vit<P::Layer>> {
    let width = sizes.width;
    let cls = tensors.vector("trunk.cls_token", &[1, 1, width])?;
    let registers = match tensors.weights.shape("trunk.reg_token") {
        Some(&[1, n, _]) => tensors.vector("trunk.reg_token", &[1, n, width])?,
        _ => Vec::new(),
    };
    let has_pre_norm = tensors.weights.has("trunk.norm_pre.weight");
    let patch_embed = tensors.patch_embed(PatchKernel {
        // timm omits this bias only where a norm follows.
        bias: Bias::when(!has_pre_norm),
        ..sizes.patch_kernel("trunk.patch_embed.proj")
    })?;
    let grid = sizes.grid();
    let n_positions = 1 + grid.iter().product::<usize>();
    let shape = [1, n_positions, width];
    let resize = Resize::Bicubic { antialias: true };
    let positions = tensors.positions("trunk.pos_embed", &shape, grid, resize)?;
    let pre_norm = if has_pre_norm {
        Some(tensors.norm("trunk.norm_pre", width, eps)?)
    } else {
        None
    };
    let (weights, depth) = (&tensors.weights, sizes.depth);
    let shape = BlockShape {
        width,
        hidden: sizes.hidden,
        eps,
        qkv_bias: Bias::when(any_has(weights, depth, "attn.qkv.bias")),
        has_scale: any_has(weights, depth, "ls1.gamma"),
    };
    let mut blocks = Vec::new();
    for i in 0..depth {
        blocks.push(block(tensors, shape, i)?);
    }
    let prefix = prefix(cls, &positions.cls, &registers);
    Ok(Vit {
        pre_norm,
        mlp: Mlp::Plain(activation),
        norm: Some(tensors.norm("trunk.norm", width, eps)?),
        ..Vit::of(sizes.vit(), patch_embed, prefix, positions.patches, blocks)
    })
}

fn block<P: Pack>(
    tensors: &mut Tensors<P>,
    shape: BlockShape,
    i: usize,
) -> Result<Block<P::Layer>> {
    let BlockShape {
        width, hidden, eps, ..
    } = shape;
    let at = |name: &str| format!("trunk.blocks.{i}.{name}");
    let mut scales = [None, None];
    if shape.has_scale {
        scales[0] = Some(tensors.vector(&at("ls1.gamma"), &[width])?);
        scales[1] = Some(tensors.vector(&at("ls2.gamma"), &[width])?);
    }
    Ok(Block {
        norm1: tensors.norm(&at("norm1"), width, eps)?,
        qkv: tensors
            .layer(&at("attn.qkv"), [3 * width, width], shape.qkv_bias)?
            .pack_with(&tensors.pack),
        proj: tensors
            .layer(&at("attn.proj"), [width, width], Bias::Saved)?
            .scaled(scales[0].as_deref())
            .pack_with(&tensors.pack),
        norm2: tensors.norm(&at("norm2"), width, eps)?,
        fc1: tensors.linear(&at("mlp.fc1"), [hidden, width])?,
        fc2: tensors
            .layer(&at("mlp.fc2"), [width, hidden], Bias::Saved)?
            .scaled(scales[1].as_deref())
            .pack_with(&tensors.pack),
    })
}
