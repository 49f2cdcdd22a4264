//! `open_clip` folders: its own ViT, and timm's as a trunk (BiomedCLIP).

mod native;
mod trunk;

use serde::Deserialize;
use serde_json::Value;

use super::tensors::Tensors;
use super::{Config, Preparation, Sides};
use crate::error::{Error, Result};
use crate::pack::{self, Pack, PlainLayer};
use crate::vit::Vit;
use crate::weights::shown;

/// `open_clip_config.json`, as far as the vision tower goes.
#[derive(Deserialize)]
struct File {
    model_cfg: ModelCfg,
}

#[derive(Deserialize)]
struct ModelCfg {
    embed_dim: usize,
    vision_cfg: Value,
    #[serde(default)]
    quick_gelu: bool,
}

/// Fields of `vision_cfg` that both kinds of tower share.
#[derive(Deserialize)]
struct Tower {
    timm_model_name: Option<String>,
    #[serde(default = "usual_image")]
    image_size: Sides,
}

fn usual_image() -> Sides {
    Sides::Square(224)
}

/// The text tower of either layout.
const IGNORED: [&str; 10] = [
    "text.",
    "transformer.",
    "token_embedding.",
    "positional_embedding",
    "ln_final.",
    "text_projection",
    "logit_scale",
    "logit_bias",
    "attn_mask",
    "cls_emb",
];

pub(super) fn load<P: Pack>(
    config: &Config,
    tensors: &mut Tensors<P>,
) -> Result<(Vit<P::Layer>, Preparation)> {
    let File { model_cfg } = config.parse()?;
    let tower: Tower = config.parse_value(&model_cfg.vision_cfg)?;
    let n_outputs = model_cfg.embed_dim;
    if !(1..=1 << 14).contains(&n_outputs) {
        return Err(config.malformed(format!("embed_dim {n_outputs}"), "1..=16384"));
    }
    let image = tower.image_size.into();
    let loaded = match &tower.timm_model_name {
        Some(name) => trunk::load(config, tensors, &model_cfg, name, image)?,
        None => native::load(config, tensors, &model_cfg, image)?,
    };
    tensors.weights.finish(&IGNORED)?;
    Ok(loaded)
}

/// Refuses a field whose value is not among those that the network supports.
fn refuse_unless(config: &Config, tower: &Value, field: &str, usual: &[Value]) -> Result<()> {
    match tower.get(field) {
        None | Some(Value::Null) => Ok(()),
        Some(value) if usual.contains(value) => Ok(()),
        Some(value) => Err(Error::unsupported(
            format!("vision_cfg.{field} = {}", shown(&value.to_string())),
            format!(
                "towers of {} need it absent or {}",
                config
                    .path
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy(),
                Value::from(usual)
            ),
        )),
    }
}

/// Takes a projection that is saved as [inputs, outputs].
fn transposed<P: Pack>(
    tensors: &mut Tensors<P>,
    name: &str,
    [n_in, n_out]: [usize; 2],
) -> Result<P::Layer> {
    let saved = tensors.vector(name, &[n_in, n_out])?;
    let weight = pack::transposed(&saved, [n_in, n_out]);
    Ok(PlainLayer::linear(weight, None, [n_out, n_in]).pack_with(&tensors.pack))
}
