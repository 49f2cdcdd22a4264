//! Weights to begin with: a model folder, ours or public, as the weights of our own network.

use m3ret_encoder::{PlainTensor, PlainWeights, VitConfig, plain_weights};
use serde::Serialize;

use crate::config::{Config, ModelSettings};
use crate::error::{Error, Result};
use crate::parameters::{Weight, Weights};

/// What a run begins with.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Start {
    /// The tensors of the encoder that the folder has: all, but for a norm that a model may lack.
    pub(crate) weights: Weights,
    /// What of the folder has no counterpart in our network, in words.
    pub(crate) notes: Vec<String>,
}

/// Opens the folder of `init`, if there is one, and returns the config with all that `[model]` left
/// open filled in from it. A config that is filled in already comes back as it was.
///
/// # Errors
/// `Run` if the folder cannot be read or holds no network that ours can begin with; `Config` if a
/// setting asks for another size than the folder has.
pub(crate) fn open(config: &Config) -> Result<(Config, Option<Start>)> {
    let mut config = config.clone();
    let Some(folder) = config.init.clone() else {
        return Ok((config, None));
    };
    let plain = plain_weights(&folder).map_err(|error| Error::run(&folder, error.to_string()))?;
    config.model = filled(&config.model, &plain)?;
    let vit = config.model_config().vit;
    let not_ours = |error: m3ret_encoder::Error| Error::run(&folder, error.to_string());
    vit.validate().map_err(not_ours)?;
    let start = Start {
        notes: plain.notes,
        weights: if vit.stem.is_patch() {
            deepened(plain.tensors, vit.patch[0])
        } else {
            weights(plain.tensors)
        },
    };
    Ok((config, Some(start)))
}

/// Fills in what `[model]` leaves open.
fn filled(model: &ModelSettings, plain: &PlainWeights) -> Result<ModelSettings> {
    check_preset(model, plain)?;
    let ref_grid = match plain.ref_grid {
        Some(has) => Some(agreed("model.ref_grid", model.ref_grid, has)?),
        None => model.ref_grid,
    };
    let sizes = [
        ("model.embed_dim", model.embed_dim, plain.embed_dim),
        ("model.depth", model.depth, plain.depth),
        ("model.num_heads", model.num_heads, plain.num_heads),
        ("model.mlp_hidden", model.mlp_hidden, plain.mlp_hidden),
        (
            "model.num_registers",
            model.num_registers,
            plain.num_registers,
        ),
    ];
    for (setting, asked, has) in sizes {
        agreed(setting, asked, has)?;
    }
    Ok(ModelSettings {
        patch: Some(patch(model.patch, plain)?),
        stem: Some(agreed("model.stem", model.stem, plain.stem)?),
        embed_dim: Some(plain.embed_dim),
        depth: Some(plain.depth),
        num_heads: Some(plain.num_heads),
        mlp_hidden: Some(plain.mlp_hidden),
        num_registers: Some(plain.num_registers),
        ref_grid,
        ..model.clone()
    })
}

/// Returns what the folder has, if nothing else is asked for.
fn agreed<T: PartialEq + Serialize>(setting: &str, asked: Option<T>, has: T) -> Result<T> {
    match asked {
        Some(asked) if asked != has => Err(Error::config(
            setting,
            format!(
                "{}, as the folder of init has it, or nothing",
                written(&has)
            ),
            written(&asked),
        )),
        Some(_) | None => Ok(has),
    }
}

/// Returns a value as a config spells it, which is not how Rust does.
fn written(value: &impl Serialize) -> String {
    serde_json::json!(value).to_string().replace('"', "")
}

/// Refuses a preset that asks for other sizes than the folder has.
fn check_preset(model: &ModelSettings, plain: &PlainWeights) -> Result<()> {
    let Some(name) = &model.preset else {
        return Ok(());
    };
    let Some(preset) = VitConfig::named(name) else {
        let known = "tiny, small, base or large";
        return Err(Error::config("model.preset", known, name));
    };
    // A size that is set by itself counts instead of the preset's.
    let sizes = [
        (
            "embed_dim",
            model.embed_dim,
            preset.embed_dim,
            plain.embed_dim,
        ),
        ("depth", model.depth, preset.depth, plain.depth),
        (
            "num_heads",
            model.num_heads,
            preset.num_heads,
            plain.num_heads,
        ),
    ];
    for (size, set, asked, has) in sizes {
        if set.is_none() && asked != has {
            return Err(Error::config(
                "model.preset",
                format!("nothing, or a preset of {size} {has}, as the folder of init has it"),
                format!("{name} of {size} {asked}"),
            ));
        }
    }
    Ok(())
}

/// Returns the patch of the network. A kernel of one plane serves every depth, and so does a convolutional
/// stem, which averages the planes of a patch first; other sides stay.
fn patch(asked: Option<[usize; 3]>, plain: &PlainWeights) -> Result<[usize; 3]> {
    let [pd, ph, pw] = plain.patch;
    let is_ours = plain.ref_grid.is_some();
    let [usual_depth, ..] = VitConfig::tiny().patch;
    let patch = match asked {
        Some(patch) => patch,
        None if pd == 1 && !is_ours => [usual_depth, ph, pw],
        None => plain.patch,
    };
    let is_any_depth = pd == 1 || !plain.stem.is_patch();
    let has_depth = patch[0] == pd || is_any_depth && patch[0] > 0;
    if has_depth && patch[1..] == [ph, pw] {
        return Ok(patch);
    }
    let has = if is_any_depth {
        format!("[any depth, {ph}, {pw}]")
    } else {
        format!("{:?}", plain.patch)
    };
    Err(Error::config(
        "model.patch",
        format!("{has}, as the folder of init has it, or nothing: its kernels are not resized"),
        format!("{patch:?}"),
    ))
}

/// The one tensor whose shape depends on the patch.
const KERNEL: &str = "patch_embed.proj.weight";

fn weights(tensors: impl IntoIterator<Item = (String, PlainTensor)>) -> Weights {
    let tensors = tensors.into_iter().map(|(name, tensor)| {
        let PlainTensor { shape, values } = tensor;
        (name, Weight { shape, values })
    });
    tensors.collect()
}

/// Returns the weights of a network whose patches are `pd` deep.
fn deepened(tensors: impl IntoIterator<Item = (String, PlainTensor)>, pd: usize) -> Weights {
    let mut weights = weights(tensors);
    if let Some(kernel) = weights.get_mut(KERNEL)
        && kernel.shape[2] == 1
    {
        *kernel = inflated(kernel, pd);
    }
    weights
}

/// Spreads a kernel of one plane evenly over `pd` planes: an image repeated along D, as ours repeats
/// a 2D image, gives the numbers that it gave before.
///
/// # Shapes
/// [E, C, 1, ph, pw] -> [E, C, pd, ph, pw]
/// # Source
/// Carreira and Zisserman 2017, "Bootstrapping parameters from pre-trained ImageNet models".
fn inflated(kernel: &Weight, pd: usize) -> Weight {
    let mut shape = kernel.shape.clone();
    shape[2] = pd;
    let per_plane = shape[3] * shape[4];
    #[allow(clippy::cast_precision_loss, reason = "a depth of at most 1024")]
    let share = |w: &f32| w / pd as f32;
    let mut values = Vec::with_capacity(kernel.values.len() * pd);
    for plane in kernel.values.chunks_exact(per_plane) {
        let plane: Vec<f32> = plane.iter().map(share).collect();
        (0..pd).for_each(|_| values.extend_from_slice(&plane));
    }
    Weight { shape, values }
}

#[cfg(test)]
mod tests;
