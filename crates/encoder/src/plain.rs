//! A model folder -> plain numbers under the names of our own models, which training starts from.
//!
//! Every family is opened as a `Vit` whose layers keep their numbers. This file names its parts,
//! adapts its patch embedding to images in 0..1, and notes the parts without a counterpart in ours.

use std::collections::BTreeMap;
use std::path::Path;

use crate::config::VitConfig;
use crate::error::{Error, Result};
use crate::family::{self, ModelParts};
use crate::kernels::Activation;
use crate::pack::{Pack, PatchLayers, PlainLayer};
use crate::position::Position;
use crate::preprocess::{PlaneInput, Preparation};
use crate::stem::{Stages, Stem};
use crate::vit::{Block, Head, Mlp, Norm, Vit};

/// Channels of our own models' input.
const IN_CHANS: usize = 3;

/// The weights of a model as f32, named and shaped as those of our own models.
#[derive(Debug, Clone, PartialEq)]
pub struct PlainWeights {
    /// `E`: width of a token.
    pub embed_dim: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Number of attention heads.
    pub num_heads: usize,
    /// Width of the hidden layer of a block's MLP.
    pub mlp_hidden: usize,
    /// Number of register tokens.
    pub num_registers: usize,
    /// `[pd, ph, pw]`; `pd` is 1 in 2D models.
    pub patch: [usize; 3],
    /// How a patch becomes a token.
    pub stem: Stem,
    /// The grid that positions are normalised to; `None` for other positions than ours.
    pub ref_grid: Option<[usize; 3]>,
    /// `cls_token`, `patch_embed.proj.weight` [E, 3, pd, ph, pw], `blocks.0.attn.qkv.weight` ...
    pub tensors: BTreeMap<String, PlainTensor>,
    /// The parts of the model without a counterpart in ours, one sentence each; empty for our own.
    pub notes: Vec<String>,
}

/// One tensor, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct PlainTensor {
    /// Its sides, slowest first.
    pub shape: Vec<usize>,
    /// Its values, as many as the product of its sides.
    pub values: Vec<f32>,
}

/// Keeps every layer in f32, laid out as the model's file has it.
#[derive(Debug, Clone, Copy)]
struct PlainPack;

impl Pack for PlainPack {
    type Layer = PlainLayer;

    fn pack(&self, layer: PlainLayer) -> PlainLayer {
        layer
    }

    fn pack_patch_embed(&self, layer: PlainLayer) -> PatchLayers<PlainLayer> {
        PatchLayers {
            whole: layer,
            flat: None,
        }
    }
}

/// Reads a model folder of any family, public or ours, for training to start from.
///
/// Our own weights are returned bit for bit. Public ones are mapped so that patches of an image in 0..1 get
/// the tokens that the model gives them, before positions, for the image as it normalises it: mean
/// and standard deviation are multiplied into the patch embedding. `LayerScale` is multiplied into
/// the layer before it, CLS holds its own position, biases that a model lacks are zeros, and a norm
/// that a model applies to CLS only is that of all tokens.
///
/// # Errors
/// As `Model::open`; `Unsupported` if the MLP is gated, which ours is not.
pub fn plain_weights(folder: &Path) -> Result<PlainWeights> {
    let parts = family::open(folder, PlainPack)?;
    let vit = &parts.vit;
    if let Mlp::Gated(_) = vit.mlp {
        return Err(Error::unsupported(
            "a gated MLP (SwiGLU) as the start of our own network",
            "its MLP is plain (fc1, GELU, fc2): start from a model with a plain one, as DINOv2 and \
             DINOv3 have in sizes S, B and L",
        ));
    }
    let fc1 = vit.blocks.first().map(|block| &block.fc1);
    Ok(PlainWeights {
        embed_dim: vit.sizes.embed_dim,
        depth: vit.blocks.len(),
        num_heads: vit.sizes.num_heads,
        mlp_hidden: fc1.map_or(0, |layer| layer.n_outputs),
        num_registers: vit.n_prefix() - 1,
        patch: vit.sizes.patch,
        stem: match vit.stem {
            None => Stem::Patch,
            Some(_) => Stem::Conv,
        },
        ref_grid: match vit.position {
            Position::SinCos { ref_grid } => Some(ref_grid),
            Position::Table(_) | Position::Rotary(_) => None,
        },
        notes: notes(&parts),
        tensors: named(parts.vit, &parts.preparation),
    })
}

/// Returns every tensor that has a name in our own models.
fn named(vit: Vit<PlainLayer>, preparation: &Preparation) -> BTreeMap<String, PlainTensor> {
    let width = vit.sizes.embed_dim;
    let mut tensors = NamedTensors::default();
    let (cls, registers) = vit.prefix.split_at(width);
    tensors.put("cls_token", &[1, 1, width], cls.to_vec());
    if !registers.is_empty() {
        let shape = [1, registers.len() / width, width];
        tensors.put("register_tokens", &shape, registers.to_vec());
    }
    let layer = of_unit_images(vit.patch_embed.whole, vit.sizes.in_chans, preparation);
    // After a stem one position of each patch is left, which a convolution of kernel 1 reads.
    let [kd, kh, kw] = match vit.stem {
        None => vit.sizes.patch,
        Some(_) => [1; 3],
    };
    let n_channels = layer.n_inputs() / (kd * kh * kw);
    let shape = [width, n_channels, kd, kh, kw];
    tensors.put_layer("patch_embed.proj", &shape, layer);
    if let Some(stages) = vit.stem {
        tensors.put_stages(stages);
    }
    for (i, block) in vit.blocks.into_iter().enumerate() {
        tensors.put_block(&format!("blocks.{i}"), block);
    }
    if let Some(norm) = vit.norm.or(vit.pooled_norm) {
        tensors.put_norm("norm", norm);
    }
    tensors.0
}

/// Tensors under the names of our own models.
#[derive(Default)]
struct NamedTensors(BTreeMap<String, PlainTensor>);

impl NamedTensors {
    fn put(&mut self, name: &str, shape: &[usize], values: Vec<f32>) {
        let shape = shape.to_vec();
        self.0
            .insert(name.to_owned(), PlainTensor { shape, values });
    }

    fn put_stages(&mut self, Stages(stages): Stages<PlainLayer>) {
        for (i, stage) in stages.into_iter().enumerate() {
            let name = format!("patch_embed.stages.{i}");
            self.put_norm(&format!("{name}.norm"), stage.norm);
            let shape = [stage.conv.n_outputs, stage.conv.n_channels, 3, 3];
            self.put(&format!("{name}.conv.weight"), &shape, stage.conv.weight);
        }
    }

    fn put_block(&mut self, name: &str, block: Block<PlainLayer>) {
        let at = |part: &str| format!("{name}.{part}");
        self.put_norm(&at("norm1"), block.norm1);
        self.put_linear(&at("attn.qkv"), block.qkv);
        self.put_linear(&at("attn.proj"), block.proj);
        self.put_norm(&at("norm2"), block.norm2);
        self.put_linear(&at("mlp.fc1"), block.fc1);
        self.put_linear(&at("mlp.fc2"), block.fc2);
    }

    fn put_norm(&mut self, name: &str, norm: Norm) {
        let width = norm.weight.len();
        self.put(&format!("{name}.weight"), &[width], norm.weight);
        self.put(&format!("{name}.bias"), &[width], norm.bias);
    }

    fn put_linear(&mut self, name: &str, layer: PlainLayer) {
        let shape = [layer.n_outputs, layer.n_inputs()];
        self.put_layer(name, &shape, layer);
    }

    /// Adds a layer with its bias; a missing bias is zeros.
    fn put_layer(&mut self, name: &str, shape: &[usize], layer: PlainLayer) {
        let bias = layer.bias.unwrap_or_else(|| vec![0.0; layer.n_outputs]);
        self.put(&format!("{name}.weight"), shape, layer.weight);
        self.put(&format!("{name}.bias"), &[layer.n_outputs], bias);
    }
}

/// Returns the norm whose output is compared: of all tokens, or of CLS only.
fn final_norm<L>(vit: &Vit<L>) -> Option<&Norm> {
    vit.norm.as_ref().or(vit.pooled_norm.as_ref())
}

/// Adapts a patch embedding to images with three channels in 0..1.
///
/// # Shapes
/// [E, C, pd, ph, pw] -> [E, 3, pd, ph, pw]; after a stem the layer stays as it is.
fn of_unit_images(mut layer: PlainLayer, in_chans: usize, preparation: &Preparation) -> PlainLayer {
    match preparation {
        Preparation::Planes(input) => {
            let n_inputs = layer.n_inputs();
            let kernels = layer.weight.chunks_exact_mut(n_inputs);
            let bias = layer.bias.get_or_insert_with(|| vec![0.0; layer.n_outputs]);
            for (kernel, bias) in kernels.zip(bias) {
                fold(input, kernel, bias);
            }
            layer
        }
        // -> [E, 3, pd, ph, pw]: the models of whole volumes have one channel.
        Preparation::Deep(_) => PlainLayer {
            weight: spread(&layer.weight, layer.n_inputs() / in_chans),
            n_channels: layer.n_channels * IN_CHANS,
            ..layer
        },
        // Our own models take 0..1 without normalisation.
        Preparation::Ours(_) | Preparation::Pixels => layer,
    }
}

/// Multiplies the normalisation into one output's kernel, [3, voxels], and its bias:
/// `w (white x - mean) / std + b = (w white / std) x + (b - w mean / std)`.
#[allow(clippy::cast_possible_truncation, reason = "the one rounding to f32")]
fn fold(input: &PlaneInput, kernel: &mut [f32], bias: &mut f32) {
    // Both sums are in f64, so that folded and normalised inputs give the same tokens to a few roundings.
    let mut shift = 0.0;
    let n_voxels = kernel.len() / IN_CHANS;
    for (c, channel) in kernel.chunks_exact_mut(n_voxels).enumerate() {
        let [mean, std] = [input.stats.mean[c], input.stats.std[c]].map(f64::from);
        let sum: f64 = channel.iter().map(|&w| f64::from(w)).sum();
        shift += sum * mean / std;
        let factor = f64::from(input.white) / std;
        channel
            .iter_mut()
            .for_each(|w| *w = (f64::from(*w) * factor) as f32);
    }
    *bias = (f64::from(*bias) - shift) as f32;
}

/// Spreads kernels of one channel evenly over three, so that a grey image gives the same numbers.
///
/// # Shapes
/// `weight` [E, voxels] -> [E, 3, voxels]
fn spread(weight: &[f32], n_voxels: usize) -> Vec<f32> {
    let mut kernels = Vec::with_capacity(IN_CHANS * weight.len());
    for kernel in weight.chunks_exact(n_voxels) {
        for _ in 0..IN_CHANS {
            kernels.extend(kernel.iter().map(|w| w / 3.0));
        }
    }
    kernels
}

/// Describes the parts of a model that our own network lacks or replaces.
fn notes(parts: &ModelParts<PlainLayer>) -> Vec<String> {
    let vit = &parts.vit;
    let mut notes = Vec::new();
    notes.extend(note_of_positions(&vit.position));
    if vit.sizes.in_chans != IN_CHANS {
        notes.push("its one channel is spread over three".to_owned());
    }
    if vit.pre_norm.is_some() {
        notes.push("its norm before the first block is left out".to_owned());
    }
    let activation = match vit.mlp {
        Mlp::Plain(Activation::Gelu) | Mlp::Gated(_) => None,
        Mlp::Plain(Activation::QuickGelu) => Some("quick GELU"),
        Mlp::Plain(Activation::Silu) => Some("SiLU"),
    };
    notes.extend(activation.map(|name| format!("its {name} becomes the exact GELU")));
    notes.extend(note_of_norms(vit));
    let head = match vit.head {
        None => None,
        Some(Head::Projection(_)) => Some("projection of the embedding"),
        Some(Head::TanhPooler(_)) => Some("tanh pooler"),
    };
    notes.extend(head.map(|name| format!("its {name} is left out")));
    if !parts.left.is_empty() {
        notes.push(format!(
            "tensors that are no part of its encoder are left out: {}",
            parts.left.join(", ")
        ));
    }
    notes
}

fn note_of_positions(position: &Position) -> Option<String> {
    let theirs = match position {
        Position::SinCos { .. } => return None,
        Position::Table(table) => {
            let [depth, rows, columns] = table.grid;
            format!("its table of positions, {depth} x {rows} x {columns}, is left out")
        }
        Position::Rotary(_) => "its rotary positions are left out".to_owned(),
    };
    Some(format!("{theirs}; ours are fixed sines and cosines"))
}

fn note_of_norms<L>(vit: &Vit<L>) -> Option<String> {
    let Some(last) = final_norm(vit) else {
        return Some("it has no norm after the last block; ours begins fresh".to_owned());
    };
    let ours = VitConfig::NORM_EPS;
    let norms = vit.blocks.iter().map(|block| &block.norm1);
    let mut eps = norms.chain([last]).map(|norm| norm.eps);
    let eps = eps.find(|eps| eps.to_bits() != ours.to_bits())?;
    Some(format!(
        "LayerNorm adds {ours:e} to a variance, not {eps:e} as its own"
    ))
}

#[cfg(test)]
mod tests;
