//! How a network keeps its layers, which the loader of every family is generic over.
//!
//! A family knows the names, shapes and order of its layers. It hands each one over in f32, laid out
//! as the model's file has it; the caller's `Pack` decides what the network holds afterwards. The
//! CPU's packing is `kernels::CpuPack`, the one that keeps the numbers as they are `plain::PlainPack`.

/// Turns the layers of a model into the form that a network keeps.
pub(crate) trait Pack {
    /// A layer as the network keeps it.
    type Layer;

    /// Packs a linear map or a convolution.
    fn pack(&self, layer: PlainLayer) -> Self::Layer;

    /// Packs the convolution that turns patches into tokens; its stride is its kernel.
    fn pack_patch_embed(&self, layer: PlainLayer) -> PatchLayers<Self::Layer>;
}

/// A linear map or a convolution in f32, laid out as a model's file has it.
///
/// A linear map is a convolution that has a channel for each input and a kernel of one voxel.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PlainLayer {
    /// [N, C, kd, kh, kw], row-major.
    pub(crate) weight: Vec<f32>,
    /// [N]; `None` where the model has no bias.
    pub(crate) bias: Option<Vec<f32>>,
    /// `N`.
    pub(crate) n_outputs: usize,
    /// `C`: channels of the input.
    pub(crate) n_channels: usize,
    /// `[kd, kh, kw]`; all 1 in a linear map.
    pub(crate) kernel: [usize; 3],
    /// Whether the layer is computed in f32 where the model runs in a lower precision.
    pub(crate) is_exact: bool,
}

/// The layers that turn patches into tokens.
#[derive(Debug)]
pub(crate) struct PatchLayers<L> {
    /// [E, P]; after a stem [E, channels of its last stage].
    pub(crate) whole: L,
    /// [E, P / pd]: `whole` summed over the depth of a patch, where `pd` > 1. An image repeated
    /// along D gives the same numbers with it, for less work.
    pub(crate) flat: Option<L>,
}

impl PlainLayer {
    /// Returns a linear map.
    ///
    /// # Shapes
    /// `weight` [N, K] = `shape`; `bias` [N].
    pub(crate) fn linear(weight: Vec<f32>, bias: Option<Vec<f32>>, shape: [usize; 2]) -> Self {
        let [n_outputs, n_channels] = shape;
        Self {
            weight,
            bias,
            n_outputs,
            n_channels,
            kernel: [1; 3],
            is_exact: false,
        }
    }

    /// Returns the number of inputs of one output, `K`.
    pub(crate) fn n_inputs(&self) -> usize {
        self.n_channels * self.n_voxels()
    }

    /// Returns the number of voxels that the kernel covers.
    pub(crate) fn n_voxels(&self) -> usize {
        self.kernel.iter().product()
    }

    /// Puts the outputs of layers with equal inputs one after another; a missing bias is zeros.
    pub(crate) fn stacked(parts: Vec<Self>) -> Self {
        let mut parts = parts.into_iter();
        let Some(mut whole) = parts.next() else {
            return Self::linear(Vec::new(), None, [0, 0]);
        };
        let zeros = |layer: &Self| vec![0.0; layer.n_outputs];
        let mut bias = whole.bias.take().unwrap_or_else(|| zeros(&whole));
        for part in parts {
            bias.extend(part.bias.as_ref().unwrap_or(&zeros(&part)));
            whole.weight.extend(&part.weight);
            whole.n_outputs += part.n_outputs;
        }
        whole.bias = Some(bias);
        whole
    }

    /// Multiplies every output by its own factor, which is `LayerScale` after the layer.
    pub(crate) fn scaled(mut self, factors: Option<&[f32]>) -> Self {
        let Some(factors) = factors else {
            return self;
        };
        let n_inputs = self.n_inputs();
        let rows = self.weight.chunks_exact_mut(n_inputs);
        for (row, factor) in rows.zip(factors) {
            row.iter_mut().for_each(|weight| *weight *= factor);
        }
        let bias = self.bias.iter_mut().flatten();
        bias.zip(factors).for_each(|(bias, factor)| *bias *= factor);
        self
    }

    /// Marks the layer as one that is computed in f32 in every precision of the model.
    pub(crate) fn exact(self) -> Self {
        Self {
            is_exact: true,
            ..self
        }
    }

    /// Packs the layer.
    pub(crate) fn pack_with<P: Pack>(self, pack: &P) -> P::Layer {
        pack.pack(self)
    }
}

/// Transposes every matrix of a run of them.
///
/// # Shapes
/// `values` [.., rows, columns] -> [.., columns, rows]
pub(crate) fn transposed(values: &[f32], [n_rows, n_columns]: [usize; 2]) -> Vec<f32> {
    let mut turned = Vec::with_capacity(values.len());
    for matrix in values.chunks_exact(n_rows * n_columns) {
        for column in 0..n_columns {
            turned.extend(matrix.iter().skip(column).step_by(n_columns));
        }
    }
    turned
}
