//! The CPU's packing: the layers of a network become the panels that tiles read front to back.

use super::{Linear, Precision};
use crate::pack::{Pack, PatchLayers, PlainLayer, transposed};

/// Packs layers for products on a CPU.
///
/// No instruction set is chosen here: the panels are the same for all of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CpuPack {
    /// The precision of every layer that need not be exact.
    pub(crate) precision: Precision,
}

impl CpuPack {
    fn precision_of(self, layer: &PlainLayer) -> Precision {
        if layer.is_exact {
            Precision::F32
        } else {
            self.precision
        }
    }
}

impl Pack for CpuPack {
    type Layer = Linear;

    fn pack(&self, mut layer: PlainLayer) -> Linear {
        let (precision, bias) = (self.precision_of(&layer), layer.bias.take());
        let shape = [layer.n_outputs, layer.n_inputs()];
        Linear::pack(precision, &channels_last(layer), shape, bias.as_deref())
    }

    fn pack_patch_embed(&self, mut layer: PlainLayer) -> PatchLayers<Linear> {
        let (precision, bias) = (self.precision_of(&layer), layer.bias.take());
        let [depth, ..] = layer.kernel;
        let (n_outputs, n_inputs) = (layer.n_outputs, layer.n_inputs());
        // [E, pd * ph * pw * C], the order in which `patchify` lists a patch.
        let weight = channels_last(layer);
        let pack = |weight: &[f32], n_inputs: usize| {
            Linear::pack(precision, weight, [n_outputs, n_inputs], bias.as_deref())
        };
        PatchLayers {
            whole: pack(&weight, n_inputs),
            flat: (depth > 1).then(|| {
                let n_flat = n_inputs / depth;
                pack(&depth_sums(&weight, depth, n_flat), n_flat)
            }),
        }
    }
}

/// Returns a layer's weight [N, C, voxels] as [N, voxels, C].
///
/// Rows of pixels and of taps have their channels side by side, because these are copied together.
fn channels_last(layer: PlainLayer) -> Vec<f32> {
    match layer.n_voxels() {
        1 => layer.weight,
        n_voxels => transposed(&layer.weight, [layer.n_channels, n_voxels]),
    }
}

/// Sums a patch embedding over the depth of a patch: [E, pd, P / pd] -> [E, P / pd].
fn depth_sums(weight: &[f32], depth: usize, n_flat: usize) -> Vec<f32> {
    let mut sums = vec![0.0; weight.len() / depth];
    let rows = weight.chunks_exact(depth * n_flat);
    for (sums, row) in sums.chunks_exact_mut(n_flat).zip(rows) {
        // Depth is the slowest axis of a patch, so a chunk is one plane of it.
        for plane in row.chunks_exact(n_flat) {
            sums.iter_mut().zip(plane).for_each(|(sum, w)| *sum += w);
        }
    }
    sums
}
