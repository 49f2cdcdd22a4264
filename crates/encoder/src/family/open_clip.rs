//! `open_clip` folders: its own ViT, and timm's as a trunk (BiomedCLIP).

mod native;
mod trunk;

use serde::Deserialize;
use serde_json::Value;

use super::tensors::{Matrix, Tensors};
use super::{Config, Preparation, Sides};
use crate::error::{Error, Result};
use crate::kernels::Linear;
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

pub(super) fn load(config: &Config, tensors: &mut Tensors) -> Result<(Vit, Preparation)> {
    let File { model_cfg } = config.parse()?;
    let tower: Tower = config.parse_value(&model_cfg.vision_cfg)?;
    let n_outputs = model_cfg.embed_dim;
    if !(1..=1 << 14).contains(&n_outputs) {
        return Err(config.malformed(format!("embed_dim {n_outputs}"), "1..=16384"));
    }
    let loaded = match &tower.timm_model_name {
        Some(name) => trunk::load(config, tensors, &model_cfg, (name, tower.image_size.into()))?,
        None => native::load(config, tensors, &model_cfg, tower.image_size.into())?,
    };
    tensors.weights.finish(&IGNORED)?;
    Ok(loaded)
}

/// Refuses a field that is set to something else than what is done here.
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
fn transposed(tensors: &mut Tensors, name: &str, [n_in, n_out]: [usize; 2]) -> Result<Linear> {
    let saved = tensors.vector(name, &[n_in, n_out])?;
    let mut weight = Vec::with_capacity(saved.len());
    for output in 0..n_out {
        weight.extend(saved.iter().skip(output).step_by(n_out));
    }
    Ok(Matrix::new(weight, None, [n_out, n_in]).pack(tensors.precision))
}
