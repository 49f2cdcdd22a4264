//! A model folder -> plain numbers under the names of our own models: what training starts from.
//!
//! Every family is opened as the one `Vit` already; what is left is to name its parts, to let it see
//! 0..1 as our own models do, and to say what of it has no counterpart.

use std::collections::BTreeMap;
use std::path::Path;

use crate::config::VitConfig;
use crate::error::{Error, Result};
use crate::family::{self, Opened};
use crate::kernels::{Activation, Kernels, Linear, Precision};
use crate::position::Position;
use crate::preprocess::{PlaneInput, Preparation};
use crate::stem::{Stages, Stem, TAPS};
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
    /// The grid that positions are normalised to, where they are ours.
    pub ref_grid: Option<[usize; 3]>,
    /// `cls_token`, `patch_embed.proj.weight` [E, 3, pd, ph, pw], `blocks.0.attn.qkv.weight` ...
    pub tensors: BTreeMap<String, PlainTensor>,
    /// What of the model has no counterpart in ours, in words, one part each; empty for our own.
    pub notes: Vec<String>,
}

/// One tensor, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct PlainTensor {
    /// Its sides.
    pub shape: Vec<usize>,
    /// As many values as the product of its sides.
    pub values: Vec<f32>,
}

/// Reads a model folder of any family, public or ours, for training to start from.
///
/// Our own weights come bit for bit. Public ones are mapped so that patches of an image in 0..1 get
/// the tokens that the model gives them, before positions, for the image as it normalises it: mean
/// and standard deviation are multiplied into the patch embedding. `LayerScale` is multiplied into
/// the layer before it, CLS holds its own position, biases that a model lacks are zeros, and a norm
/// that a model applies to CLS only is that of all tokens.
///
/// # Errors
/// As `Model::open`; `Unsupported` if the MLP is gated, which ours is not.
pub fn plain_weights(folder: &Path) -> Result<PlainWeights> {
    let opened = family::open(folder, Kernels::detect(), Precision::F32)?;
    let Opened {
        vit, preparation, ..
    } = &opened;
    if let Mlp::Gated(_) = vit.mlp {
        return Err(Error::unsupported(
            "a gated MLP (SwiGLU) as the start of our own network",
            "its MLP is plain (fc1, GELU, fc2): start from a model with a plain one, as DINOv2 and \
             DINOv3 have in sizes S, B and L",
        ));
    }
    let fc1 = vit.blocks.first().map(|block| &block.fc1);
    Ok(PlainWeights {
        embed_dim: vit.embed_dim,
        depth: vit.blocks.len(),
        num_heads: vit.num_heads,
        mlp_hidden: fc1.map_or(0, Linear::n_outputs),
        num_registers: vit.n_prefix() - 1,
        patch: vit.patch,
        stem: match vit.stem {
            None => Stem::Patch,
            Some(_) => Stem::Conv,
        },
        ref_grid: match vit.position {
            Position::SinCos { ref_grid } => Some(ref_grid),
            Position::Table(_) | Position::Rotary(_) => None,
        },
        tensors: named(vit, preparation),
        notes: notes(&opened),
    })
}

/// Returns every tensor that has a name in our own models.
fn named(vit: &Vit, preparation: &Preparation) -> BTreeMap<String, PlainTensor> {
    let width = vit.embed_dim;
    let mut tensors = Named::default();
    let (cls, registers) = vit.prefix.split_at(width);
    tensors.put("cls_token", &[1, 1, width], cls.to_vec());
    if !registers.is_empty() {
        let shape = [1, registers.len() / width, width];
        tensors.put("register_tokens", &shape, registers.to_vec());
    }
    tensors.put_patch_embed(vit, preparation);
    for (i, block) in vit.blocks.iter().enumerate() {
        tensors.put_block(&format!("blocks.{i}"), block);
    }
    if let Some(norm) = final_norm(vit) {
        tensors.put_norm("norm", norm);
    }
    tensors.0
}

#[derive(Default)]
struct Named(BTreeMap<String, PlainTensor>);

impl Named {
    fn put(&mut self, name: &str, shape: &[usize], values: Vec<f32>) {
        let shape = shape.to_vec();
        self.0
            .insert(name.to_owned(), PlainTensor { shape, values });
    }

    fn put_patch_embed(&mut self, vit: &Vit, preparation: &Preparation) {
        let width = vit.embed_dim;
        let [pd, ph, pw] = vit.patch;
        let (shape, (weight, bias)) = match &vit.stem {
            None => ([width, IN_CHANS, pd, ph, pw], patch_embed(vit, preparation)),
            // Only our own models have a stem, and they see 0..1 as it is.
            Some(stages) => {
                self.put_stages(stages);
                let shape = [width, vit.patch_embed.n_inputs(), 1, 1, 1];
                (shape, vit.patch_embed.unpack())
            }
        };
        self.put("patch_embed.proj.weight", &shape, weight);
        self.put("patch_embed.proj.bias", &[width], bias);
    }

    fn put_stages(&mut self, Stages(stages): &Stages) {
        for (i, stage) in stages.iter().enumerate() {
            let name = format!("patch_embed.stages.{i}");
            self.put_norm(&format!("{name}.norm"), &stage.norm);
            let (n_outputs, n_inputs) = (stage.conv.n_outputs(), stage.conv.n_inputs());
            let (rows, _) = stage.conv.unpack();
            let n_channels = n_inputs / TAPS;
            let mut weight = Vec::with_capacity(rows.len());
            for row in rows.chunks_exact(n_inputs) {
                for channel in 0..n_channels {
                    weight.extend(row.iter().skip(channel).step_by(n_channels));
                }
            }
            let shape = [n_outputs, n_channels, 3, 3];
            self.put(&format!("{name}.conv.weight"), &shape, weight);
        }
    }

    fn put_block(&mut self, name: &str, block: &Block) {
        let at = |part: &str| format!("{name}.{part}");
        self.put_norm(&at("norm1"), &block.norm1);
        self.put_linear(&at("attn.qkv"), &block.qkv);
        self.put_linear(&at("attn.proj"), &block.proj);
        self.put_norm(&at("norm2"), &block.norm2);
        self.put_linear(&at("mlp.fc1"), &block.fc1);
        self.put_linear(&at("mlp.fc2"), &block.fc2);
    }

    fn put_norm(&mut self, name: &str, norm: &Norm) {
        let width = norm.weight.len();
        self.put(&format!("{name}.weight"), &[width], norm.weight.clone());
        self.put(&format!("{name}.bias"), &[width], norm.bias.clone());
    }

    fn put_linear(&mut self, name: &str, linear: &Linear) {
        let (weight, bias) = linear.unpack();
        let shape = [linear.n_outputs(), linear.n_inputs()];
        self.put(&format!("{name}.weight"), &shape, weight);
        self.put(&format!("{name}.bias"), &shape[..1], bias);
    }
}

/// Returns the norm whose output is compared: of all tokens, or of CLS only.
fn final_norm(vit: &Vit) -> Option<&Norm> {
    vit.norm.as_ref().or(vit.pooled_norm.as_ref())
}

/// Returns the convolution that makes tokens of an image in 0..1.
///
/// # Shapes
/// -> [E, 3, pd, ph, pw], [E]
fn patch_embed(vit: &Vit, preparation: &Preparation) -> (Vec<f32>, Vec<f32>) {
    let (rows, mut bias) = vit.patch_embed.unpack();
    let n_chans = vit.in_chans;
    let mut weight = Vec::with_capacity(rows.len());
    for (row, bias) in rows.chunks_exact(vit.patch_embed.n_inputs()).zip(&mut bias) {
        let mut kernel: Vec<Vec<f32>> = (0..n_chans)
            .map(|c| row.iter().skip(c).step_by(n_chans).copied().collect())
            .collect();
        match preparation {
            Preparation::Planes(input) => fold(input, &mut kernel, bias),
            Preparation::Deep(_) => kernel = spread(&kernel),
            Preparation::Ours(_) | Preparation::Pixels => (),
        }
        weight.extend(kernel.into_iter().flatten());
    }
    (weight, bias)
}

/// Multiplies the normalisation into one output's kernel, by channel, and its bias:
/// `w (white x - mean) / std + b = (w white / std) x + (b - w mean / std)`.
#[allow(clippy::cast_possible_truncation, reason = "the one rounding to f32")]
fn fold(input: &PlaneInput, kernel: &mut [Vec<f32>], bias: &mut f32) {
    let mut shift = 0.0;
    for (c, channel) in kernel.iter_mut().enumerate() {
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

/// Spreads the kernel of one channel evenly over three: a grey image gives the same numbers.
fn spread(kernel: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let third = |channel: &Vec<f32>| channel.iter().map(|w| w / 3.0).collect();
    kernel.iter().map(third).cycle().take(IN_CHANS).collect()
}

/// Says what our own network does not have, or has otherwise.
fn notes(opened: &Opened) -> Vec<String> {
    let vit = &opened.vit;
    let mut notes = Vec::new();
    notes.extend(note_of_positions(&vit.position));
    if vit.in_chans != IN_CHANS {
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
    if !opened.left.is_empty() {
        notes.push(format!(
            "tensors that are no part of its encoder are left out: {}",
            opened.left.join(", ")
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

fn note_of_norms(vit: &Vit) -> Option<String> {
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
