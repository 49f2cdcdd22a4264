//! Model input -> a vector: vision transformers on a CPU, ours and the public ones.
//!
//! Owns the SIMD kernels and the reading of weights; knows no gradients and no disk layout but
//! that of models.
//!
//! ```
//! use m3ret_encoder::{Model, RunOptions};
//! use m3ret_imaging::{Kind, Volume};
//!
//! let picture = Volume::new((0..64 * 64).map(|i| (i % 64) as f32).collect(), [1, 1, 64, 64], Kind::Image)?;
//! let model = Model::random("tiny", 0, &RunOptions::default())?;
//! let vectors = model.embed(&[&model.prepare(&picture)?])?;
//! assert_eq!(vectors[0].len(), model.width());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod config;
mod error;
mod family;
#[cfg(test)]
mod golden;
pub mod hog;
mod kernels;
mod model;
mod pack;
mod plain;
mod position;
mod preprocess;
pub mod product;
mod random;
pub mod stem;
mod tokens;
pub mod vector;
mod vit;
mod weights;

pub use config::{ModelConfig, Pooling, VitConfig};
pub use error::{Error, Result};
pub use kernels::Precision;
pub use model::{Model, ModelBytes, Prepared, RunOptions};
pub use plain::{PlainTensor, PlainWeights, plain_weights};
pub use position::{part_widths, sin_cos};
pub use stem::Stem;
pub use tokens::{grid_of, patchify, unpatchify};
pub use vit::{Tokens, View};
