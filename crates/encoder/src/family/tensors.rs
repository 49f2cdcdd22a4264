//! Tensors as a network uses them: norms, linear layers, patch embeddings, positions.

use crate::error::Result;
use crate::kernels::{Kernels, Linear, Precision};
use crate::position::{Position, Resize, Table};
use crate::stem::TAPS;
use crate::vit::Norm;
use crate::weights::Weights;

/// The weights of a folder, and how they are packed.
pub(crate) struct Tensors {
    pub(crate) weights: Weights,
    pub(crate) kernels: Kernels,
    pub(crate) precision: Precision,
}

/// A linear layer before it is packed.
pub(crate) struct Matrix {
    /// [N, K], row-major.
    weight: Vec<f32>,
    bias: Option<Vec<f32>>,
    shape: [usize; 2],
}

/// A patch embedding: the layer, and the one for images repeated along D.
pub(crate) type PatchEmbeds = (Linear, Option<Linear>);

/// A learned table's vector for CLS, if it has one, and its positions for patches.
pub(crate) struct Positions {
    pub(crate) cls: Vec<f32>,
    pub(crate) patches: Position,
}

impl Tensors {
    /// Takes the values of a tensor of exactly this shape, row-major.
    pub(crate) fn vector(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        self.weights.take(name, shape)
    }

    /// Takes a `LayerNorm`.
    pub(crate) fn norm(&mut self, name: &str, width: usize, eps: f32) -> Result<Norm> {
        Ok(Norm {
            weight: self.weights.take(&format!("{name}.weight"), &[width])?,
            bias: self.weights.take(&format!("{name}.bias"), &[width])?,
            eps,
        })
    }

    /// Takes `name.weight` [N, K] and, if it has one, `name.bias` [N].
    pub(crate) fn matrix(
        &mut self,
        name: &str,
        shape: [usize; 2],
        has_bias: bool,
    ) -> Result<Matrix> {
        let weight = self.weights.take(&format!("{name}.weight"), &shape)?;
        let bias = has_bias.then(|| self.weights.take(&format!("{name}.bias"), &shape[..1]));
        Ok(Matrix {
            weight,
            bias: bias.transpose()?,
            shape,
        })
    }

    /// Takes a linear layer with a bias.
    pub(crate) fn linear(&mut self, name: &str, shape: [usize; 2]) -> Result<Linear> {
        Ok(self.matrix(name, shape, true)?.pack(self.precision))
    }

    /// Takes queries, keys and values that are saved apart: [3E, E].
    pub(crate) fn qkv(
        &mut self,
        names: [&str; 3],
        width: usize,
        has_bias: [bool; 3],
    ) -> Result<Linear> {
        let mut parts = Vec::with_capacity(3);
        for (name, has_bias) in names.into_iter().zip(has_bias) {
            parts.push(self.matrix(name, [width, width], has_bias)?);
        }
        Ok(Matrix::stacked(parts).pack(self.precision))
    }

    /// Takes a convolution whose stride is its kernel, `[E, C, ph, pw]`, or `[E, C, pd, ph, pw]`
    /// where `is_deep`.
    pub(crate) fn patch_embed(
        &mut self,
        name: &str,
        [width, n_channels]: [usize; 2],
        patch: [usize; 3],
        (is_deep, has_bias): (bool, bool),
    ) -> Result<PatchEmbeds> {
        let [pd, ph, pw] = patch;
        let shape = [width, n_channels, pd, ph, pw];
        let flat = [width, n_channels, ph, pw];
        let shape = if is_deep { &shape[..] } else { &flat[..] };
        let weight = self.weights.take(&format!("{name}.weight"), shape)?;
        let bias = has_bias.then(|| self.weights.take(&format!("{name}.bias"), &[width]));
        let per_channel = pd * ph * pw;
        let ordered = channels_last(&weight, n_channels, per_channel);
        Ok(Linear::patch_embeds(
            self.precision,
            &ordered,
            [width, n_channels * per_channel],
            pd,
            bias.transpose()?.as_deref(),
        ))
    }

    /// Takes a 3x3 convolution without bias, `[N, C, 3, 3]`, as a product of nine taps of all channels.
    pub(crate) fn kernel_3x3(
        &mut self,
        name: &str,
        [n_outputs, n_channels]: [usize; 2],
    ) -> Result<Matrix> {
        let shape = [n_outputs, n_channels, 3, 3];
        let weight = self.weights.take(&format!("{name}.weight"), &shape)?;
        Ok(Matrix {
            weight: channels_last(&weight, n_channels, TAPS),
            bias: None,
            shape: [n_outputs, TAPS * n_channels],
        })
    }

    /// Takes a learned table of positions, CLS first, of the pretraining grid.
    pub(crate) fn positions(
        &mut self,
        name: &str,
        shape: &[usize],
        grid: [usize; 3],
        antialias: bool,
    ) -> Result<Positions> {
        let mut values = self.weights.take(name, shape)?;
        let n_patches = grid.iter().product::<usize>();
        let width = shape.last().copied().unwrap_or_default();
        let patches = values.split_off(values.len() - n_patches * width);
        Ok(Positions {
            cls: values,
            patches: Position::Table(Table {
                values: patches,
                grid,
                resize: Resize::Bicubic { antialias },
                usual: None,
            }),
        })
    }
}

impl Matrix {
    /// Makes a layer of values that are not saved as one.
    ///
    /// # Shapes
    /// `weight` [N, K] = `shape`; `bias` [N].
    pub(crate) fn new(weight: Vec<f32>, bias: Option<Vec<f32>>, shape: [usize; 2]) -> Self {
        Self {
            weight,
            bias,
            shape,
        }
    }

    /// Puts the outputs of layers of equal inputs one after another; a missing bias is zeros.
    pub(crate) fn stacked(parts: Vec<Self>) -> Self {
        let mut parts = parts.into_iter();
        let Some(mut whole) = parts.next() else {
            return Self::new(Vec::new(), None, [0, 0]);
        };
        let zeros = |matrix: &Self| vec![0.0; matrix.shape[0]];
        let mut bias = whole.bias.take().unwrap_or_else(|| zeros(&whole));
        for part in parts {
            bias.extend(part.bias.as_ref().unwrap_or(&zeros(&part)));
            whole.weight.extend(&part.weight);
            whole.shape[0] += part.shape[0];
        }
        whole.bias = Some(bias);
        whole
    }

    /// Multiplies every output by its own factor: `LayerScale` after the layer.
    pub(crate) fn scaled(mut self, factors: Option<&[f32]>) -> Self {
        let Some(factors) = factors else {
            return self;
        };
        let rows = self.weight.chunks_exact_mut(self.shape[1]);
        for (row, factor) in rows.zip(factors) {
            row.iter_mut().for_each(|weight| *weight *= factor);
        }
        let bias = self.bias.iter_mut().flatten();
        bias.zip(factors).for_each(|(bias, factor)| *bias *= factor);
        self
    }

    pub(crate) fn pack(self, precision: Precision) -> Linear {
        Linear::pack(precision, &self.weight, self.shape, self.bias.as_deref())
    }
}

/// Adds CLS's own position to CLS and appends the registers: the prefix of every sequence.
pub(crate) fn prefix(mut cls: Vec<f32>, position: &[f32], registers: &[f32]) -> Vec<f32> {
    cls.iter_mut()
        .zip(position)
        .for_each(|(value, p)| *value += p);
    cls.extend(registers);
    cls
}

/// [N, C, voxels] -> [N, voxels, C], the order of `patchify`.
fn channels_last(weight: &[f32], n_channels: usize, n_voxels: usize) -> Vec<f32> {
    let mut ordered = Vec::with_capacity(weight.len());
    for kernel in weight.chunks_exact(n_channels * n_voxels) {
        for voxel in 0..n_voxels {
            ordered.extend((0..n_channels).map(|c| kernel[c * n_voxels + voxel]));
        }
    }
    ordered
}
