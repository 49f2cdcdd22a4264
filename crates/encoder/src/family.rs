//! Model folders of every supported family -> one `Vit`, how it wants to be fed, and a fingerprint.
//!
//! One file a family: its config, its tensors' names, and how they differ. The common parts, which
//! name no family, are here. Loaders are generic over `Pack`, so that a family is written once for
//! all ways to keep its layers.

mod clip;
mod dinov2;
mod dinov3;
mod m3d;
mod open_clip;
mod ours;
pub(crate) mod tensors;
mod vit;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::tensors::{Bias, KernelAxes, PatchKernel, Tensors};
use crate::config::Pooling;
use crate::error::{Error, Result};
use crate::kernels::Activation;
use crate::model::ModelBytes;
use crate::pack::Pack;
use crate::position::{Position, Resize};
use crate::preprocess::{PREPARATION_VERSION, Preparation};
use crate::stem::{STEM_GROUPS, Stage, Stages};
use crate::vit::{Head, Mlp, Norm, Vit, VitSizes};
use crate::weights::{Weights, json_of, parse_json, read_json, shown};

/// The advice of an error about an unknown family.
const SUPPORTED: &str = "supported are our own models, the model types dinov2, \
    dinov2_with_registers, dinov3_vit, vit, vit_mae, clip, clip_vision_model and m3d_clip, and \
    open_clip's ViT towers";

/// The advice of an error about weights that exist only as a pickle.
const CONVERT: &str = "a pickle runs code when it is read; convert it on a machine where that is \
    acceptable, in Python: safetensors.torch.save_file(torch.load(OLD, weights_only=True), \
    'model.safetensors'), or save_pretrained(FOLDER, safe_serialization=True)";

/// What a model folder holds.
#[derive(Debug)]
pub(crate) struct ModelParts<L> {
    pub(crate) vit: Vit<L>,
    pub(crate) preparation: Preparation,
    pub(crate) fingerprint: String,
    /// Tensors of the folder that the network does not use.
    pub(crate) left: Vec<String>,
}

/// Opens a model folder; `pack` decides how the layers of its network are kept.
///
/// # Errors
/// `Io` if a file cannot be read, `Malformed` if config and tensors do not fit each other,
/// `Unsupported` if the family, or a part of it, is not known, or the weights are a pickle.
pub(crate) fn open<P: Pack>(folder: &Path, pack: P) -> Result<ModelParts<P::Layer>> {
    let files = ModelFiles::find(folder)?;
    let config = Config {
        value: read_json(&files.config)?,
        path: files.config,
    };
    let tensors = Tensors {
        weights: Weights::open(&files.weights)?,
        pack,
    };
    assemble(&config, tensors, files.is_open_clip)
}

/// Opens a model that lies in memory.
///
/// # Errors
/// As `open`, but `Io`.
pub(crate) fn open_bytes<P: Pack>(model: &ModelBytes, pack: P) -> Result<ModelParts<P::Layer>> {
    let path = Path::new(model.name).join("config.json");
    let config = Config {
        value: json_of(&path, model.config)?,
        path,
    };
    let tensors = Tensors {
        weights: Weights::of_bytes(Path::new(model.name), model.weights)?,
        pack,
    };
    assemble(&config, tensors, false)
}

fn assemble<P: Pack>(
    config: &Config,
    mut tensors: Tensors<P>,
    is_open_clip: bool,
) -> Result<ModelParts<P::Layer>> {
    let (mut vit, preparation) = if is_open_clip {
        open_clip::load(config, &mut tensors)?
    } else {
        load(config, &mut tensors)?
    };
    if let (Preparation::Planes(input), Position::Table(table)) = (&preparation, &mut vit.position)
        && let Some(grid) = input.usual_grid()
    {
        table.expect(grid, vit.sizes.embed_dim);
    }
    let recipe = Recipe::of(&vit, &preparation);
    let recipe = serde_json::to_string(&recipe)
        .map_err(|error| Error::malformed(&config.path, error.to_string(), "finite numbers"))?;
    Ok(ModelParts {
        fingerprint: tensors.weights.fingerprint(&recipe),
        left: tensors.weights.left(),
        vit,
        preparation,
    })
}

/// Loads a model of the family that `model_type` names.
fn load<P: Pack>(
    config: &Config,
    tensors: &mut Tensors<P>,
) -> Result<(Vit<P::Layer>, Preparation)> {
    let model_type = config.value.get("model_type").and_then(Value::as_str);
    match model_type {
        Some("dinov2") => dinov2::load(config, tensors, dinov2::Class::Plain),
        Some("dinov2_with_registers") => {
            dinov2::load(config, tensors, dinov2::Class::WithRegisters)
        }
        Some("dinov3_vit") => dinov3::load(config, tensors),
        Some("vit") => vit::load(config, tensors),
        Some("vit_mae") => vit::load_mae(config, tensors),
        Some("clip" | "clip_vision_model") => clip::load(config, tensors),
        Some("m3d_clip") => m3d::load(config, tensors),
        Some(other) => Err(Error::unsupported(
            format!("model_type {}", shown(other)),
            SUPPORTED,
        )),
        None if config.value.get("ref_grid").is_some() => ours::load(config, tensors),
        None => Err(Error::unsupported(
            "a config.json without model_type",
            SUPPORTED,
        )),
    }
}

/// The files of a model folder.
struct ModelFiles {
    config: PathBuf,
    weights: PathBuf,
    is_open_clip: bool,
}

impl ModelFiles {
    /// Finds the first config that has its weights beside it.
    fn find(folder: &Path) -> Result<Self> {
        const MODEL: [&str; 2] = ["model.safetensors", "model.safetensors.index.json"];
        const OPEN_CLIP: [&str; 3] = ["open_clip_model.safetensors", MODEL[0], MODEL[1]];
        let entries = std::fs::read_dir(folder)
            .map_err(|error| Error::io("listing the model folder", error))?;
        let has = |name: &str| folder.join(name).exists();
        for (config, weights) in [
            ("config.json", &MODEL[..]),
            ("open_clip_config.json", &OPEN_CLIP[..]),
        ] {
            let weights = weights.iter().find(|name| has(name));
            if let (true, Some(weights)) = (has(config), weights) {
                return Ok(Self {
                    config: folder.join(config),
                    weights: folder.join(weights),
                    is_open_clip: config != "config.json",
                });
            }
        }
        let is_pickle = |path: &Path| {
            let extension = path.extension().and_then(|extension| extension.to_str());
            matches!(extension, Some("bin" | "pt" | "pth" | "ckpt" | "pkl"))
        };
        let mut files = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let has_weights = OPEN_CLIP.into_iter().any(has);
        match files.find(|path| !has_weights && is_pickle(path)) {
            Some(pickle) => {
                let name = pickle.file_name().unwrap_or_default().to_string_lossy();
                Err(Error::unsupported(
                    format!("the pickle {}", shown(&name)),
                    CONVERT,
                ))
            }
            None => Err(Error::malformed(
                folder,
                "no whole model",
                "config.json with model.safetensors (or its index and shards), or \
                 open_clip_config.json with open_clip_model.safetensors",
            )),
        }
    }
}

/// A config file whose fields are not parsed yet.
pub(crate) struct Config {
    pub(crate) path: PathBuf,
    pub(crate) value: Value,
}

impl Config {
    /// Reads the fields that a family knows.
    fn parse<T: serde::de::DeserializeOwned>(&self) -> Result<T> {
        self.parse_value(&self.value)
    }

    fn parse_value<T: serde::de::DeserializeOwned>(&self, value: &Value) -> Result<T> {
        parse_json(&self.path, value)
    }

    /// Checks the field `layer_norm_eps`.
    fn check_eps(&self, eps: f32) -> Result<()> {
        check_eps(&self.path, eps)
    }

    pub(crate) fn malformed(&self, found: impl Into<String>, wanted: impl Into<String>) -> Error {
        Error::malformed(&self.path, found, wanted)
    }

    /// Returns the folder that the config lies in.
    pub(crate) fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }

    /// Translates the name of an activation.
    fn activation(&self, name: &str) -> Result<Activation> {
        match name {
            "gelu" => Ok(Activation::Gelu),
            "quick_gelu" => Ok(Activation::QuickGelu),
            "silu" | "swish" => Ok(Activation::Silu),
            other => Err(Error::unsupported(
                format!("the activation {}", shown(other)),
                "supported are gelu (exact), quick_gelu and silu",
            )),
        }
    }
}

/// Checks the field `layer_norm_eps` of a file.
fn check_eps(path: &Path, eps: f32) -> Result<()> {
    // Also false for NaN.
    if 0.0 < eps && eps < 1.0 {
        return Ok(());
    }
    let found = format!("layer_norm_eps {eps}");
    Err(Error::malformed(
        path,
        found,
        "a number above 0 and below 1",
    ))
}

/// One side for both axes, or `[H, W]`.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(untagged, expecting = "one side, or [height, width]")]
enum Sides {
    Square(usize),
    Both([usize; 2]),
}

impl From<Sides> for [usize; 2] {
    fn from(sides: Sides) -> Self {
        match sides {
            Sides::Square(side) => [side; 2],
            Sides::Both(sides) => sides,
        }
    }
}

/// The sizes that every 2D family states.
#[derive(Debug, Clone, Copy)]
struct PlaneSizes {
    /// `E`.
    width: usize,
    depth: usize,
    n_heads: usize,
    /// Width of the MLP's hidden layer.
    hidden: usize,
    n_channels: usize,
    image: [usize; 2],
    patch: [usize; 2],
    /// The config's fields for `width`, `depth`, `n_heads`, and the one that `hidden` comes from.
    fields: [&'static str; 4],
}

/// The fields of transformers' configs.
const FIELDS: [&str; 4] = [
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
];

impl PlaneSizes {
    /// Checks bounds that every real model keeps, so that no product of sizes overflows.
    fn check(self, config: &Config) -> Result<Self> {
        let bounded = |n: usize, most: usize| 0 < n && n <= most;
        let fits =
            self.image.iter().zip(self.patch).all(|(&image, patch)| {
                bounded(patch, 1 << 10) && patch <= image && image <= 1 << 14
            });
        let [width, depth, n_heads, hidden] = self.fields;
        let both = |[height, width]: [usize; 2]| format!("{height} x {width}");
        let rules = [
            (
                bounded(self.width, 1 << 14),
                format!("{width} {}", self.width),
                "a width of 1..=16384",
            ),
            (
                bounded(self.depth, 1 << 10),
                format!("{depth} {}", self.depth),
                "1..=1024 layers",
            ),
            (
                self.n_heads > 0 && self.width.is_multiple_of(self.n_heads),
                format!("{} heads by {n_heads}, width {}", self.n_heads, self.width),
                "a number of heads that divides the width",
            ),
            (
                bounded(self.hidden, 1 << 16),
                format!("a hidden width of {} by {hidden}", self.hidden),
                "a hidden width of 1..=65536",
            ),
            (
                self.n_channels == 3,
                format!("{} channels", self.n_channels),
                "3 channels",
            ),
            (
                fits,
                format!(
                    "image_size {}, patch_size {}",
                    both(self.image),
                    both(self.patch)
                ),
                "an image of up to 16384 that holds a patch of up to 1024",
            ),
        ];
        match rules.into_iter().find(|(holds, ..)| !holds) {
            Some((_, found, wanted)) => Err(config.malformed(found, wanted)),
            None => Ok(self),
        }
    }

    /// Returns the grid of the pretraining image; pixels beyond the last whole patch are not seen.
    fn grid(&self) -> [usize; 3] {
        let [rows, columns] = [0, 1].map(|axis| self.image[axis] / self.patch[axis]);
        [1, rows, columns]
    }

    /// Returns the sizes of the network.
    fn vit(&self) -> VitSizes {
        VitSizes {
            in_chans: self.n_channels,
            embed_dim: self.width,
            num_heads: self.n_heads,
            patch: [1, self.patch[0], self.patch[1]],
        }
    }

    /// Returns the usual patch embedding: a convolution over a plane, with a bias.
    fn patch_kernel<'a>(&self, name: &'a str) -> PatchKernel<'a> {
        PatchKernel {
            name,
            width: self.width,
            n_channels: self.n_channels,
            patch: self.vit().patch,
            axes: KernelAxes::Plane,
            bias: Bias::Saved,
        }
    }
}

/// Everything but tensors that decides a vector; hashed into the fingerprint.
#[derive(Serialize)]
struct Recipe<'a> {
    version: u32,
    in_chans: usize,
    num_heads: usize,
    patch: [usize; 3],
    /// Absent where patches become tokens by one product.
    #[serde(skip_serializing_if = "Option::is_none")]
    stem: Option<StemRecipe>,
    mlp: [&'static str; 2],
    position: PositionRecipe,
    /// Of the norms before, in, and after the blocks, and on the pooled token.
    eps: [Option<f32>; 4],
    pooling: Pooling,
    is_projected: bool,
    preparation: &'a Preparation,
}

#[derive(Serialize)]
struct StemRecipe {
    channels: Vec<usize>,
    groups: usize,
    eps: Vec<f32>,
}

#[derive(Serialize)]
enum PositionRecipe {
    SinCos { ref_grid: [usize; 3] },
    Table { grid: [usize; 3], antialias: bool },
    Rotary { base: f64 },
}

impl<'a> Recipe<'a> {
    fn of<L>(vit: &Vit<L>, preparation: &'a Preparation) -> Self {
        let name = |activation| match activation {
            Activation::Gelu => "gelu",
            Activation::QuickGelu => "quick_gelu",
            Activation::Silu => "silu",
        };
        let eps = |norm: Option<&Norm>| norm.map(|norm| norm.eps);
        Self {
            version: PREPARATION_VERSION,
            in_chans: vit.sizes.in_chans,
            num_heads: vit.sizes.num_heads,
            patch: vit.sizes.patch,
            stem: vit.stem.as_ref().map(|Stages(stages)| StemRecipe {
                channels: stages.iter().map(Stage::n_channels).collect(),
                groups: STEM_GROUPS,
                eps: stages.iter().map(|stage| stage.norm.eps).collect(),
            }),
            mlp: match vit.mlp {
                Mlp::Plain(activation) => ["plain", name(activation)],
                Mlp::Gated(activation) => ["gated", name(activation)],
            },
            position: match &vit.position {
                Position::SinCos { ref_grid } => PositionRecipe::SinCos {
                    ref_grid: *ref_grid,
                },
                Position::Table(table) => {
                    let Resize::Bicubic { antialias } = table.resize;
                    PositionRecipe::Table {
                        grid: table.grid,
                        antialias,
                    }
                }
                Position::Rotary(rotary) => PositionRecipe::Rotary { base: rotary.base },
            },
            eps: [
                eps(vit.pre_norm.as_ref()),
                eps(vit.blocks.first().map(|block| &block.norm1)),
                eps(vit.norm.as_ref()),
                eps(vit.pooled_norm.as_ref()),
            ],
            pooling: vit.pooling,
            is_projected: matches!(vit.head, Some(Head::Projection(_))),
            preparation,
        }
    }
}

#[cfg(test)]
mod tests;
