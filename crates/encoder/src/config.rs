//! The sizes of our own encoder, and the config of its checkpoints.

use m3ret_imaging::InputConfig;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::stem::{Stem, stage_channels};

/// The most tokens one object may become.
pub(crate) const MAX_TOKENS: usize = 1 << 17;

/// The sizes of our own ViT: pre-norm, qkv bias, LayerNorm 1e-6, exact GELU, one CLS.
///
/// # Source
/// Dosovitskiy et al. 2021. Differs: 3D patches, positions from normalised centre coordinates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VitConfig {
    /// `C`: channels of the input, 3.
    pub in_chans: usize,
    /// `E`: width of a token.
    pub embed_dim: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Number of attention heads; divides `embed_dim`.
    pub num_heads: usize,
    /// Width of the hidden layer of a block's MLP.
    pub mlp_hidden: usize,
    /// Number of register tokens, after CLS.
    pub num_registers: usize,
    /// `[pd, ph, pw]`: voxels of one patch.
    pub patch: [usize; 3],
    /// How a patch becomes a token.
    #[serde(default, skip_serializing_if = "Stem::is_patch")]
    pub stem: Stem,
    /// The grid whose centre coordinates positions are normalised to.
    pub ref_grid: [usize; 3],
}

/// Which tokens give the vector of an object, after the final norm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// The CLS token.
    Cls,
    /// The mean of the patch tokens; registers are left out.
    Mean,
}

/// `config.json` of our own model folders.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// The network's sizes.
    #[serde(flatten)]
    pub vit: VitConfig,
    /// How a `Volume` becomes its input.
    #[serde(default)]
    pub input: InputConfig,
    /// Which token is the embedding.
    pub embedding: Pooling,
}

impl VitConfig {
    /// `LayerNorm`'s epsilon.
    pub const NORM_EPS: f32 = 1e-6;

    /// Width 192, 3 heads, 12 blocks: 5.9 million weights with the 3D patch embedding.
    #[must_use]
    pub fn tiny() -> Self {
        Self::preset(192, 3, 12)
    }

    /// Width 384, 6 heads, 12 blocks.
    #[must_use]
    pub fn small() -> Self {
        Self::preset(384, 6, 12)
    }

    /// Width 768, 12 heads, 12 blocks.
    #[must_use]
    pub fn base() -> Self {
        Self::preset(768, 12, 12)
    }

    /// Width 1024, 16 heads, 24 blocks.
    #[must_use]
    pub fn large() -> Self {
        Self::preset(1024, 16, 24)
    }

    /// Returns a preset by name: tiny, small, base or large.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "tiny" => Some(Self::tiny()),
            "small" => Some(Self::small()),
            "base" => Some(Self::base()),
            "large" => Some(Self::large()),
            _ => None,
        }
    }

    /// Patch [4, 16, 16] and positions of the input 64 x 224 x 224.
    fn preset(embed_dim: usize, num_heads: usize, depth: usize) -> Self {
        Self {
            in_chans: 3,
            embed_dim,
            depth,
            num_heads,
            mlp_hidden: 4 * embed_dim,
            num_registers: 0,
            patch: [4, 16, 16],
            stem: Stem::Patch,
            ref_grid: [16, 14, 14],
        }
    }

    /// Checks that the fields make sense together.
    ///
    /// # Errors
    /// `Mismatch` naming the first field that does not.
    pub fn validate(&self) -> Result<()> {
        let bounded = |n: usize, most: usize| 0 < n && n <= most;
        let Self {
            embed_dim,
            num_heads,
            ..
        } = *self;
        let rules = [
            (bounded(self.in_chans, 64), "in_chans", "1..=64"),
            (
                bounded(embed_dim, 1 << 14) && embed_dim.is_multiple_of(2) && embed_dim >= 10,
                "embed_dim",
                "an even number in 10..=16384",
            ),
            (bounded(self.depth, 1 << 10), "depth", "1..=1024"),
            (
                num_heads > 0 && embed_dim.is_multiple_of(num_heads),
                "num_heads",
                "a divisor of embed_dim",
            ),
            (bounded(self.mlp_hidden, 1 << 16), "mlp_hidden", "1..=65536"),
            (self.num_registers <= 1 << 10, "num_registers", "0..=1024"),
            (
                self.patch.iter().all(|&side| bounded(side, 1 << 10)),
                "patch",
                "sides in 1..=1024",
            ),
            (
                self.ref_grid.iter().all(|&side| bounded(side, 1 << 16)),
                "ref_grid",
                "sides in 1..=65536",
            ),
        ];
        match rules.into_iter().find(|(holds, ..)| !holds) {
            Some((_, what, expected)) => {
                // Rules are named by their fields.
                let fields = serde_json::to_value(self).unwrap_or_default();
                Err(Error::mismatch(what, expected, fields[what].to_string()))
            }
            None if self.stem == Stem::Conv => stage_channels(self.patch).map(|_| ()),
            None => Ok(()),
        }
    }

    /// Returns the number of values of one patch, `P`.
    #[must_use]
    pub fn patch_len(&self) -> usize {
        self.patch.iter().product::<usize>() * self.in_chans
    }
}

impl ModelConfig {
    /// Returns the usual config of a network: side 224, CLS.
    #[must_use]
    pub fn new(vit: VitConfig) -> Self {
        let input = InputConfig {
            patch_depth: vit.patch[0],
            ..InputConfig::default()
        };
        Self {
            vit,
            input,
            embedding: Pooling::Cls,
        }
    }

    /// Checks the network, the input, and that both fit each other.
    ///
    /// # Errors
    /// `Mismatch` naming the first field that does not.
    pub fn validate(&self) -> Result<()> {
        self.vit.validate()?;
        self.input.validate()?;
        let [pd, ph, pw] = self.vit.patch;
        let [height, width] = self.input.side;
        let tokens = (self.input.max_depth / pd) * (height / ph) * (width / pw);
        if self.input.patch_depth != pd {
            return Err(Error::mismatch(
                "input.patch_depth",
                format!("the patch's depth, {pd}"),
                self.input.patch_depth.to_string(),
            ));
        }
        if !height.is_multiple_of(ph) || !width.is_multiple_of(pw) {
            return Err(Error::mismatch(
                "input.side",
                format!("multiples of the patch's {ph} x {pw}"),
                format!("{height} x {width}"),
            ));
        }
        if self.vit.in_chans != 3 {
            return Err(Error::mismatch(
                "in_chans",
                "3",
                self.vit.in_chans.to_string(),
            ));
        }
        if tokens > MAX_TOKENS {
            return Err(Error::mismatch(
                "input",
                format!("at most {MAX_TOKENS} tokens"),
                tokens.to_string(),
            ));
        }
        Ok(())
    }
}
