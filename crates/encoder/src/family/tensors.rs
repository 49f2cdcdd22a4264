//! Tensors as a network uses them: norms, layers, patch embeddings, positions.

use crate::error::Result;
use crate::pack::{Pack, PatchLayers, PlainLayer};
use crate::position::{Position, Resize, Table};
use crate::vit::Norm;
use crate::weights::Weights;

/// The weights of a folder, and how the layers made of them are packed.
pub(crate) struct Tensors<P> {
    pub(crate) weights: Weights,
    pub(crate) pack: P,
}

/// Whether a layer's bias is among the tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bias {
    /// `name.bias` is there.
    Saved,
    /// The model has none.
    Absent,
}

impl Bias {
    /// Translates a field such as `qkv_bias`.
    pub(crate) fn when(is_saved: bool) -> Self {
        if is_saved { Self::Saved } else { Self::Absent }
    }
}

/// The convolution that turns patches into tokens, as the tensors have it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PatchKernel<'a> {
    /// The weight is `name.weight`, the bias `name.bias`.
    pub(crate) name: &'a str,
    /// `E`.
    pub(crate) width: usize,
    pub(crate) n_channels: usize,
    /// `[pd, ph, pw]`
    pub(crate) patch: [usize; 3],
    pub(crate) axes: KernelAxes,
    pub(crate) bias: Bias,
}

/// The axes of a saved patch embedding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KernelAxes {
    /// `[E, C, ph, pw]`
    Plane,
    /// `[E, C, pd, ph, pw]`
    Volume,
}

/// A learned table's vector for CLS, if it has one, and its positions for patches.
pub(crate) struct Positions {
    pub(crate) cls: Vec<f32>,
    pub(crate) patches: Position,
}

impl<P: Pack> Tensors<P> {
    /// Takes the values of a tensor of exactly this shape, row-major.
    pub(crate) fn vector(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        self.weights.take(name, shape)
    }

    /// Takes a `LayerNorm`, [E].
    pub(crate) fn norm(&mut self, name: &str, width: usize, eps: f32) -> Result<Norm> {
        Ok(Norm {
            weight: self.weights.take(&format!("{name}.weight"), &[width])?,
            bias: self.weights.take(&format!("{name}.bias"), &[width])?,
            eps,
        })
    }

    /// Takes `name.weight` [N, K] and, if the layer has one, `name.bias` [N], not packed yet.
    pub(crate) fn layer(
        &mut self,
        name: &str,
        shape: [usize; 2],
        bias: Bias,
    ) -> Result<PlainLayer> {
        let weight = self.weights.take(&format!("{name}.weight"), &shape)?;
        let bias = self.bias(name, shape[0], bias)?;
        Ok(PlainLayer::linear(weight, bias, shape))
    }

    /// Takes a linear layer with a bias, [N, K].
    pub(crate) fn linear(&mut self, name: &str, shape: [usize; 2]) -> Result<P::Layer> {
        let layer = self.layer(name, shape, Bias::Saved)?;
        Ok(layer.pack_with(&self.pack))
    }

    /// Takes queries, keys and values that are saved apart, [E, E] each, as one layer [3E, E].
    pub(crate) fn qkv(
        &mut self,
        names: [&str; 3],
        width: usize,
        biases: [Bias; 3],
    ) -> Result<P::Layer> {
        let mut parts = Vec::with_capacity(3);
        for (name, bias) in names.into_iter().zip(biases) {
            parts.push(self.layer(name, [width, width], bias)?);
        }
        Ok(PlainLayer::stacked(parts).pack_with(&self.pack))
    }

    /// Takes a convolution whose stride is its kernel.
    pub(crate) fn patch_embed(&mut self, kernel: PatchKernel<'_>) -> Result<PatchLayers<P::Layer>> {
        let [pd, ph, pw] = kernel.patch;
        let (width, n_channels) = (kernel.width, kernel.n_channels);
        let (volume, plane) = ([width, n_channels, pd, ph, pw], [width, n_channels, ph, pw]);
        let shape = match kernel.axes {
            KernelAxes::Plane => &plane[..],
            KernelAxes::Volume => &volume[..],
        };
        let weight = self
            .weights
            .take(&format!("{}.weight", kernel.name), shape)?;
        let layer = PlainLayer {
            weight,
            bias: self.bias(kernel.name, width, kernel.bias)?,
            n_outputs: width,
            n_channels,
            kernel: kernel.patch,
            is_exact: false,
        };
        Ok(self.pack.pack_patch_embed(layer))
    }

    /// Takes a 3x3 convolution without bias, [N, C, 3, 3], not packed yet.
    ///
    /// # Shapes
    /// `shape` is [N, C].
    pub(crate) fn kernel_3x3(&mut self, name: &str, shape: [usize; 2]) -> Result<PlainLayer> {
        let [n_outputs, n_channels] = shape;
        let saved = [n_outputs, n_channels, 3, 3];
        Ok(PlainLayer {
            weight: self.weights.take(&format!("{name}.weight"), &saved)?,
            bias: None,
            n_outputs,
            n_channels,
            kernel: [1, 3, 3],
            is_exact: false,
        })
    }

    /// Takes a learned table of positions of the pretraining grid.
    ///
    /// # Shapes
    /// `shape` is [.., L, E]: CLS first, if it has a position, then the patches of `grid`.
    pub(crate) fn positions(
        &mut self,
        name: &str,
        shape: &[usize],
        grid: [usize; 3],
        resize: Resize,
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
                resize,
                usual: None,
            }),
        })
    }

    fn bias(&mut self, name: &str, n_outputs: usize, bias: Bias) -> Result<Option<Vec<f32>>> {
        match bias {
            Bias::Saved => {
                let values = self.weights.take(&format!("{name}.bias"), &[n_outputs])?;
                Ok(Some(values))
            }
            Bias::Absent => Ok(None),
        }
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
