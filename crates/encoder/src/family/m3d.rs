//! M3D-CLIP: MONAI's 3D ViT with a perceptron patch embedding and a projection.
//!
//! Reference numbers of the published weights were not available: the network is checked only
//! against `tools/oracles/make_models.py`, which was written from the same description.

use serde::Deserialize;

use super::tensors::{Bias, Tensors, prefix};
use super::{Config, Preparation};
use crate::config::MAX_TOKENS;
use crate::error::{Error, Result};
use crate::pack::{Pack, PatchLayers};
use crate::position::Resize;
use crate::preprocess::DeepInput;
use crate::vit::{Block, Head, Vit, VitSizes};

/// Absent fields have the defaults of the model's own code.
#[derive(Deserialize)]
#[serde(default)]
struct Fields {
    in_channels: usize,
    img_size: [usize; 3],
    patch_size: [usize; 3],
    hidden_size: usize,
    mlp_dim: usize,
    num_layers: usize,
    num_heads: usize,
    pos_embed: String,
    spatial_dims: usize,
}

impl Default for Fields {
    fn default() -> Self {
        Self {
            in_channels: 1,
            img_size: [32, 256, 256],
            patch_size: [4, 16, 16],
            hidden_size: 768,
            mlp_dim: 3072,
            num_layers: 12,
            num_heads: 12,
            pos_embed: "perceptron".to_owned(),
            spatial_dims: 3,
        }
    }
}

/// `LayerNorm`'s default in torch.
const NORM_EPS: f32 = 1e-5;

/// The text tower.
const IGNORED: [&str; 3] = ["language_encoder.", "mm_language_proj.", "logit_scale"];

pub(super) fn load<P: Pack>(
    config: &Config,
    tensors: &mut Tensors<P>,
) -> Result<(Vit<P::Layer>, Preparation)> {
    let fields: Fields = config.parse()?;
    if fields.pos_embed != "perceptron" || fields.in_channels != 1 || fields.spatial_dims != 3 {
        return Err(Error::unsupported(
            "an m3d_clip of another patch embedding, number of channels or of dimensions",
            "supported is pos_embed perceptron, in_channels 1, spatial_dims 3",
        ));
    }
    let bounded = |n: usize, most: usize| 0 < n && n <= most;
    let fits = fields
        .img_size
        .iter()
        .zip(fields.patch_size)
        .all(|(&side, patch)| {
            bounded(patch, 1 << 8) && bounded(side, 1 << 11) && side.is_multiple_of(patch)
        });
    let has_bounds = bounded(fields.hidden_size, 1 << 14)
        && bounded(fields.mlp_dim, 1 << 16)
        && bounded(fields.num_layers, 1 << 10)
        && bounded(fields.num_heads, fields.hidden_size)
        && fields.hidden_size.is_multiple_of(fields.num_heads);
    let product = |sides: [usize; 3]| sides.into_iter().fold(1, usize::saturating_mul);
    let n_voxels = product(fields.img_size);
    if fits && n_voxels / product(fields.patch_size) > MAX_TOKENS {
        return Err(config.malformed(
            format!(
                "img_size {:?} in patches of {:?}",
                fields.img_size, fields.patch_size
            ),
            format!("at most {MAX_TOKENS} patches"),
        ));
    }
    if !(fits && has_bounds && n_voxels <= 1 << 28) {
        return Err(config.malformed(
            "sizes that do not fit each other",
            "img_size in whole patches and at most 2^28 voxels, heads that divide hidden_size",
        ));
    }
    let vit = network(tensors, &fields)?;
    tensors.weights.finish(&IGNORED)?;
    let input = DeepInput {
        sides: fields.img_size,
    };
    Ok((vit, Preparation::Deep(input)))
}

fn network<P: Pack>(tensors: &mut Tensors<P>, fields: &Fields) -> Result<Vit<P::Layer>> {
    let (width, hidden) = (fields.hidden_size, fields.mlp_dim);
    let patch = fields.patch_size;
    let grid = [0, 1, 2].map(|axis| fields.img_size[axis] / patch[axis]);
    let n_patches = grid.iter().product::<usize>();
    let cls = tensors.vector("vision_encoder.cls_token", &[1, 1, width])?;
    // The model saves this as a linear map whose inputs run (z, y, x, channel), as `patchify` lists
    // them. Its input always has the depth of `img_size`, so it has no use for `flat`.
    let patch_embed = PatchLayers {
        whole: tensors.linear(
            "vision_encoder.patch_embedding.patch_embeddings.1",
            [width, patch.iter().product()],
        )?,
        flat: None,
    };
    let positions = tensors.positions(
        "vision_encoder.patch_embedding.position_embeddings",
        &[1, n_patches, width],
        grid,
        Resize::Bicubic { antialias: false },
    )?;
    let mut blocks = Vec::new();
    for i in 0..fields.num_layers {
        let at = |name: &str| format!("vision_encoder.blocks.{i}.{name}");
        blocks.push(Block {
            norm1: tensors.norm(&at("norm1"), width, NORM_EPS)?,
            qkv: tensors
                .layer(&at("attn.qkv"), [3 * width, width], Bias::Absent)?
                .pack_with(&tensors.pack),
            proj: tensors.linear(&at("attn.out_proj"), [width, width])?,
            norm2: tensors.norm(&at("norm2"), width, NORM_EPS)?,
            fc1: tensors.linear(&at("mlp.linear1"), [hidden, width])?,
            fc2: tensors.linear(&at("mlp.linear2"), [width, hidden])?,
        });
    }
    let sizes = VitSizes {
        in_chans: fields.in_channels,
        embed_dim: width,
        num_heads: fields.num_heads,
        patch,
    };
    let prefix = prefix(cls, &[], &[]);
    Ok(Vit {
        norm: Some(tensors.norm("vision_encoder.norm", width, NORM_EPS)?),
        head: Some(Head::Projection(
            tensors.linear("mm_vision_proj", [width, width])?,
        )),
        ..Vit::of(sizes, patch_embed, prefix, positions.patches, blocks)
    })
}
