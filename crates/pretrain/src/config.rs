//! Everything about a run: one TOML file, changed by `--set key=value`.

mod check;
mod load;

use std::path::PathBuf;

use m3ret_encoder::{ModelConfig, Pooling, Stem, VitConfig};
use m3ret_imaging::InputConfig;
use m3ret_manifest::columns::BODY_PART;
use serde::{Deserialize, Serialize};

/// A run. Absent fields take the values of `default`; unknown ones are refused.
///
/// Paths in a file are relative to it; once loaded they are absolute.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The run's folder: checkpoints, logs, the report and the finished model.
    pub out: PathBuf,
    /// Manifests with the images.
    pub manifests: Vec<PathBuf>,
    /// What is trained for.
    pub method: Method,
    /// Everything random follows from it.
    #[serde(default)]
    pub seed: u64,
    /// A folder with public or own weights to start from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<PathBuf>,
    /// The network.
    #[serde(default)]
    pub model: ModelSettings,
    /// Which images, how often, and how they are read.
    #[serde(default)]
    pub images: ImageSettings,
    /// How views are cut and changed.
    #[serde(default)]
    pub views: ViewSettings,
    /// Masked autoencoding.
    #[serde(default)]
    pub mae: MaeSettings,
    /// Self-distillation with a coding rate.
    #[serde(default)]
    pub simdino: SimDinoSettings,
    /// Prediction of the tokens of frozen teachers.
    #[serde(default)]
    pub salt: SaltSettings,
    /// Learning rates and decay.
    #[serde(default)]
    pub optimizer: OptimizerSettings,
    /// Length, batches, checkpoints.
    #[serde(default)]
    pub train: TrainSettings,
    /// What is watched meanwhile.
    #[serde(default)]
    pub monitor: MonitorSettings,
}

/// The objective.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Masked autoencoders (He et al. 2022).
    Mae,
    /// SimDINO (Wu et al. 2025).
    SimDino,
    /// SALT: the tokens of frozen teachers at hidden patches (Li et al. 2025).
    Salt,
}

/// The network; what is absent comes from the folder of `init`, or without one from `preset`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelSettings {
    /// `tiny`, `small`, `base` or `large`; `tiny` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
    /// `[pd, ph, pw]`, if not the preset's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch: Option<[usize; 3]>,
    /// `patch` (one product a patch; the default) or `conv` (3x3 convolutions).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stem: Option<Stem>,
    /// The side of the input of the finished model, H = W.
    pub side: usize,
    /// The largest depth of its input.
    pub max_depth: usize,
    /// Width, if not the preset's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embed_dim: Option<usize>,
    /// Blocks, if not the preset's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub depth: Option<usize>,
    /// Heads, if not the preset's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_heads: Option<usize>,
    /// Width of the MLP's hidden layer; by default four times the width.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mlp_hidden: Option<usize>,
    /// Registers; by default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_registers: Option<usize>,
    /// The grid that positions are normalised to; by default that of the largest input.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ref_grid: Option<[usize; 3]>,
    /// Which vector stands for an image: `cls` or `mean`; by default that of the method.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embedding: Option<Pooling>,
    /// Evens out the directions of the finished model's vectors: variances are raised to `1 - whitening`.
    /// 0 leaves the vectors as they are, 1 makes all variances equal.
    pub whitening: f64,
    /// How many of the directions of largest variance the finished model's vectors leave out; what tells
    /// modalities apart lies there.
    pub directions_out: usize,
}

/// Which images, how often, and how they are read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImageSettings {
    /// Only rows with this `split`; all rows where the manifest has no such column.
    pub split: String,
    /// Share of the patients that is kept for validation and not trained on, 0 to 0.5.
    pub validation: f64,
    /// Groups whose share is changed by `temperature`.
    pub weight_by: WeightBy,
    /// A group of n of N items is drawn in proportion to `(n / N)^temperature`: 1 keeps the shares, 0 makes
    /// them equal.
    pub temperature: f64,
    /// Share of a batch that is synthetic, 0 to 0.5: random shapes, each shown in two random contrasts where
    /// the method takes several views.
    pub synthetic: f64,
    /// Whether one batch holds all modalities.
    pub batch_composition: Composition,
    /// Allows MR, which is kept unseen otherwise.
    pub allow_mr: bool,
    /// A folder that keeps prepared images, for faster epochs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<PathBuf>,
    /// Threads that read and cut views; 0 means one for each core.
    pub readers: usize,
    /// The most memory that images and views on their way may hold, in MiB.
    pub memory_mib: usize,
}

/// A grouping of items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightBy {
    /// Column `modality`.
    Modality,
    /// Column `source`.
    Source,
}

/// What a batch is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Composition {
    /// Items of every modality.
    Mixed,
    /// Items of one modality; the modality changes from batch to batch.
    SingleModality,
}

/// How views are cut and changed. Intervals are `[low, high]`, drawn uniformly unless said otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ViewSettings {
    /// Side of the large views, H = W.
    pub side: usize,
    /// Depth of large views of deep objects.
    pub depth: usize,
    /// Side of the small views (SimDINO).
    pub local_side: usize,
    /// Depth of small views of deep objects.
    pub local_depth: usize,
    /// Small views an item (SimDINO).
    pub n_local: usize,
    /// Share of the plane's area that a large view covers.
    pub area: [f64; 2],
    /// Share of the plane's area that a small view covers.
    pub local_area: [f64; 2],
    /// Width over height of a crop, drawn log-uniformly.
    pub aspect: [f64; 2],
    /// Share of the depth that a large view covers.
    pub depth_share: [f64; 2],
    /// Share of the depth that a small view covers.
    pub local_depth_share: [f64; 2],
    /// Chance of mirroring left and right, where laterality does not matter.
    pub flip: f64,
    /// Chance that brightness and contrast change.
    pub jitter: f64,
    /// Largest change of brightness (added) and contrast (a factor 1 +- it).
    pub jitter_strength: f64,
    /// Exponent of the intensities, drawn log-uniformly, where jitter happens.
    pub gamma: [f64; 2],
    /// Chance of a Gaussian blur in-plane: first large view, second large view, small views.
    pub blur: [f64; 3],
    /// Standard deviation of the blur, in pixels of the view.
    pub blur_sigma: [f64; 2],
    /// Chance of additive noise.
    pub noise: f64,
    /// Standard deviation of the noise, values being 0 to 1.
    pub noise_sigma: [f64; 2],
    /// Chance that hue and saturation of true colour change; grey images have neither.
    pub colour: f64,
    /// Chance that true colour becomes grey (SimDINO).
    pub grey: f64,
    /// Chance that intensities go through a random curve, which need not rise (SimDINO).
    pub remap: f64,
    /// Chance that a volume is seen as a picture of the rays through it, like a radiograph.
    pub project: f64,
    /// Chance that a volume or clip, where it is not projected, is seen as one of its planes.
    pub slice: f64,
}

/// Masked autoencoding.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MaeSettings {
    /// Share of hidden patches where the grid has one slab.
    pub mask_ratio: f64,
    /// Share of hidden patches where it is deeper.
    pub mask_ratio_deep: f64,
    /// Width of the decoder.
    pub decoder_dim: usize,
    /// Blocks of the decoder.
    pub decoder_depth: usize,
    /// Heads of the decoder.
    pub decoder_heads: usize,
    /// Width of the hidden layer of the decoder's MLPs; `4 * decoder_dim` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decoder_hidden: Option<usize>,
    /// What is predicted of a hidden patch: `pixels`, `hog` (its gradients by orientation) or `both`.
    pub target: MaeTarget,
}

/// What MAE predicts of a hidden patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MaeTarget {
    /// Its pixels, scaled to mean 0 and variance 1.
    Pixels,
    /// Its histograms of oriented gradients.
    Hog,
    /// Pixels, then histograms.
    Both,
}

/// Self-distillation with a coding rate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SimDinoSettings {
    /// Width of the head's hidden layers.
    pub head_hidden: usize,
    /// Width of the unit vectors, p.
    pub head_out: usize,
    /// Distortion of the coding rate.
    pub eps: f64,
    /// Weight of the alignment.
    pub coeff: f64,
    /// 0: the rate of the student's vectors; 1: of the mean of student and teacher.
    pub expa_type: u8,
    /// Momentum of the teacher at the start; it ends at 1.
    pub momentum: f64,
    /// Weight of the alignment of masked patches with the teacher's (SimDINOv2); 0 leaves it out.
    pub patch_weight: f64,
    /// Share of the student's patches that are masked for it, of half of the images.
    pub patch_mask: [f64; 2],
}

/// Prediction of the tokens of frozen teachers. The predictor has the sizes of MAE's decoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SaltSettings {
    /// One or two model folders that m3ret trained (SALT); they stay as they are.
    pub teachers: Vec<PathBuf>,
    /// Share of the patches that the student does not see where the grid has one slab.
    pub mask_ratio: f64,
    /// Share of the patches that the student does not see where it is deeper.
    pub mask_ratio_deep: f64,
    /// Chance that the student sees a changed version of what the teachers see: other intensities, a plane
    /// of a volume or clip, or the rays through a volume.
    pub changed: f64,
}

/// Learning rates and decay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OptimizerSettings {
    /// Learning rate for 256 items a batch, scaled linearly; by default that of the method.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_lr: Option<f64>,
    /// Learning rate at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_lr: Option<f64>,
    /// Share of the steps with a rising learning rate.
    pub warmup: f64,
    /// Weight decay at the start and at the end; by default that of the method.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<[f64; 2]>,
    /// Decay of the moments; by default that of the method.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub betas: Option<[f64; 2]>,
    /// Largest norm of the gradient of one parameter; 0 leaves gradients as they are.
    pub clip: f64,
}

/// Length, batches, checkpoints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainSettings {
    /// Optimiser steps; the run ends there. 0 means `epochs`.
    pub steps: u64,
    /// Passes over the items, where `steps` is 0.
    pub epochs: u64,
    /// Items an optimiser step.
    pub batch: usize,
    /// The most tokens that go through the network at a time; larger batches are cut.
    pub micro_tokens: usize,
    /// Largest chance that a block leaves an image as it is (stochastic depth).
    pub drop_path: f64,
    /// Keeps only the input of each block for the backward pass, and computes the rest again.
    pub recompute: bool,
    /// Numbers that products are computed with.
    pub precision: TrainPrecision,
    /// Where the network runs.
    pub device: Device,
    /// Devices (GPUs) or threads (CPU) that share each batch.
    pub workers: usize,
    /// Steps between checkpoints.
    pub checkpoint_every: u64,
    /// Checkpoints kept beside the best.
    pub keep: usize,
}

/// The numbers that products of training are computed with. Sums, norms, softmax and losses are f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrainPrecision {
    /// 32-bit floats.
    F32,
    /// bfloat16 factors.
    Bf16,
}

/// Where the network runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Device {
    /// This machine's processor.
    Cpu,
    /// NVIDIA GPUs, in a build with the feature `cuda`.
    Cuda,
}

/// What is watched meanwhile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MonitorSettings {
    /// Steps between lines of the log.
    pub log_every: u64,
    /// Steps between kNN on the validation part; 0 leaves it out.
    pub knn_every: u64,
    /// The column whose equality is a hit; `body_part` by default.
    pub knn_relevance: String,
    /// The most validation items that kNN looks at.
    pub knn_items: usize,
    /// Stops the run when the coding rate falls below this share of the way from its collapsed
    /// value to the run's own maximum, after the warm-up; 0 never stops.
    pub collapse_share: f64,
}

impl Default for ModelSettings {
    fn default() -> Self {
        Self {
            preset: None,
            patch: None,
            stem: None,
            side: 224,
            max_depth: 64,
            embed_dim: None,
            depth: None,
            num_heads: None,
            mlp_hidden: None,
            num_registers: None,
            ref_grid: None,
            embedding: None,
            whitening: 0.0,
            directions_out: 0,
        }
    }
}

impl Default for ImageSettings {
    fn default() -> Self {
        Self {
            split: "pretrain".to_owned(),
            validation: 0.05,
            weight_by: WeightBy::Source,
            temperature: 1.0,
            synthetic: 0.0,
            batch_composition: Composition::Mixed,
            allow_mr: false,
            cache: None,
            readers: 0,
            memory_mib: 512,
        }
    }
}

impl Default for ViewSettings {
    fn default() -> Self {
        Self {
            side: 224,
            depth: 16,
            local_side: 96,
            local_depth: 8,
            n_local: 6,
            area: [0.25, 1.0],
            local_area: [0.05, 0.25],
            aspect: [0.75, 4.0 / 3.0],
            depth_share: [0.5, 1.0],
            local_depth_share: [0.2, 0.5],
            flip: 0.0,
            jitter: 0.8,
            jitter_strength: 0.2,
            gamma: [0.7, 1.4],
            blur: [0.5, 0.1, 0.3],
            blur_sigma: [0.1, 2.0],
            noise: 0.2,
            noise_sigma: [0.0, 0.05],
            colour: 0.3,
            grey: 0.0,
            remap: 0.0,
            project: 0.0,
            slice: 0.0,
        }
    }
}

impl Default for MaeSettings {
    fn default() -> Self {
        Self {
            mask_ratio: 0.75,
            mask_ratio_deep: 0.9,
            decoder_dim: 192,
            decoder_depth: 4,
            decoder_heads: 6,
            decoder_hidden: None,
            target: MaeTarget::Pixels,
        }
    }
}

impl Default for SimDinoSettings {
    fn default() -> Self {
        Self {
            head_hidden: 2048,
            head_out: 256,
            eps: 0.05,
            coeff: 1.0,
            expa_type: 1,
            momentum: 0.996,
            patch_weight: 0.0,
            patch_mask: [0.1, 0.5],
        }
    }
}

impl Default for SaltSettings {
    fn default() -> Self {
        Self {
            teachers: Vec::new(),
            mask_ratio: 0.6,
            mask_ratio_deep: 0.8,
            changed: 0.0,
        }
    }
}

impl Default for OptimizerSettings {
    fn default() -> Self {
        Self {
            base_lr: None,
            min_lr: None,
            warmup: 0.1,
            weight_decay: None,
            betas: None,
            clip: 3.0,
        }
    }
}

impl Default for TrainSettings {
    fn default() -> Self {
        Self {
            steps: 0,
            epochs: 100,
            batch: 64,
            micro_tokens: 16_384,
            drop_path: 0.0,
            recompute: false,
            precision: TrainPrecision::F32,
            device: Device::Cpu,
            workers: 1,
            checkpoint_every: 500,
            keep: 2,
        }
    }
}

impl Default for MonitorSettings {
    fn default() -> Self {
        Self {
            log_every: 1,
            knn_every: 500,
            knn_relevance: BODY_PART.to_owned(),
            knn_items: 1000,
            collapse_share: 0.5,
        }
    }
}

impl Config {
    /// Returns what the finished model's `config.json` says. What `init` decides must be filled in.
    #[must_use]
    pub fn model_config(&self) -> ModelConfig {
        let model = &self.model;
        let preset = model.preset.as_deref().and_then(VitConfig::named);
        let preset = preset.unwrap_or_else(VitConfig::tiny);
        let embed_dim = model.embed_dim.unwrap_or(preset.embed_dim);
        let patch = model.patch.unwrap_or(preset.patch);
        // A side of 0 is refused when the result is validated.
        let [pd, ph, pw] = patch.map(|side| side.max(1));
        let side = model.side;
        let largest = [model.max_depth / pd, side / ph, side / pw];
        ModelConfig {
            vit: VitConfig {
                embed_dim,
                depth: model.depth.unwrap_or(preset.depth),
                num_heads: model.num_heads.unwrap_or(preset.num_heads),
                mlp_hidden: model.mlp_hidden.unwrap_or(embed_dim.saturating_mul(4)),
                num_registers: model.num_registers.unwrap_or(preset.num_registers),
                patch,
                stem: model.stem.unwrap_or_default(),
                ref_grid: model.ref_grid.unwrap_or(largest),
                ..preset
            },
            input: InputConfig {
                side: [side, side],
                patch_depth: patch[0],
                max_depth: model.max_depth,
                ..InputConfig::default()
            },
            embedding: model.embedding.unwrap_or(match self.method {
                Method::Mae | Method::Salt => Pooling::Mean,
                Method::SimDino => Pooling::Cls,
            }),
        }
    }
}
