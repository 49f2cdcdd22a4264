//! What the tests of this crate make of a case: inputs, layers, and files with changes.

use std::collections::HashMap;
use std::ops::Deref;
use std::path::Path;

use m3ret_imaging::Input;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use crate::family::tensors::{Bias, KernelAxes, PatchKernel, Tensors};
use crate::kernels::{CpuPack, Linear, Precision};
use crate::pack::PatchLayers;
use crate::weights::Weights;

/// The packing that reference numbers are compared in.
pub(crate) const F32: CpuPack = CpuPack {
    precision: Precision::F32,
};

/// The tensors of one case, read and written as the tests of this crate need them.
pub(crate) struct Case(m3ret_testing::Case);

impl Deref for Case {
    type Target = m3ret_testing::Case;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Case {
    pub(crate) fn open(folder: &Path, name: &str) -> Self {
        Self(m3ret_testing::Case::open(folder, name))
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.tensors().tensor(name).is_ok()
    }

    /// Returns an image of bytes `[C, D, H, W]` as an input, 255 being 1.
    pub(crate) fn image(&self, name: &str) -> Input {
        let tensors = self.tensors();
        let tensor = tensors.tensor(name).unwrap();
        assert_eq!(tensor.dtype(), Dtype::U8, "{name}");
        let values = tensor.data().iter().map(|&x| f32::from(x) / 255.0);
        Input::new(values.collect(), self.shape(name).try_into().unwrap()).unwrap()
    }

    /// Returns a tensor cut along its first axis.
    pub(crate) fn items(&self, name: &str) -> Vec<Vec<f32>> {
        let values = self.floats(name);
        let n = values.len() / self.shape(name)[0];
        values.chunks_exact(n).map(<[f32]>::to_vec).collect()
    }

    /// Returns the network's inputs of a tensor [B, C, D, H, W].
    pub(crate) fn inputs(&self, name: &str, shape: [usize; 5]) -> Vec<Input> {
        let [_, c, d, h, w] = shape;
        let items = self.items(name).into_iter();
        items
            .map(|values| Input::new(values, [c, d, h, w]).unwrap())
            .collect()
    }

    /// Returns the patch embedding `[E, C]` of patches, as our own models save it.
    pub(crate) fn patch_embed(
        &self,
        name: &str,
        [width, n_channels]: [usize; 2],
        patch: [usize; 3],
    ) -> PatchLayers<Linear> {
        let mut tensors = Tensors {
            weights: Weights::open(self.path()).unwrap(),
            pack: F32,
        };
        let kernel = PatchKernel {
            name,
            width,
            n_channels,
            patch,
            axes: KernelAxes::Volume,
            bias: Bias::Saved,
        };
        tensors.patch_embed(kernel).unwrap()
    }

    /// Returns the names of all tensors.
    pub(crate) fn names(&self) -> Vec<String> {
        let tensors = self.tensors();
        tensors.names().into_iter().map(str::to_owned).collect()
    }

    /// Writes the file again with tensors beside its own, one number each.
    pub(crate) fn save_with(&self, names: &[&str], path: &Path) {
        let tensors = self.tensors();
        let mut all: HashMap<_, _> = tensors.tensors().into_iter().collect();
        for name in names {
            let view = TensorView::new(Dtype::F32, vec![1], &[0; 4]).unwrap();
            all.insert((*name).to_owned(), view);
        }
        safetensors::serialize_to_file(all, None, path).unwrap();
    }

    /// Writes the file again in bf16 or f16.
    pub(crate) fn save_halved(&self, is_bf16: bool, path: &Path) {
        let halved = |value: f32| {
            if is_bf16 {
                half::bf16::from_f32(value).to_le_bytes()
            } else {
                half::f16::from_f32(value).to_le_bytes()
            }
        };
        let names = self.names();
        let bytes: Vec<Vec<u8>> = names
            .iter()
            .map(|name| self.floats(name).into_iter().flat_map(halved).collect())
            .collect();
        let dtype = if is_bf16 { Dtype::BF16 } else { Dtype::F16 };
        let all: HashMap<_, _> = names
            .iter()
            .zip(&bytes)
            .map(|(name, bytes)| {
                let view = TensorView::new(dtype, self.shape(name), bytes).unwrap();
                (name.clone(), view)
            })
            .collect();
        safetensors::serialize_to_file(all, None, path).unwrap();
    }

    /// Writes the file again without some tensors.
    pub(crate) fn save_without(&self, left_out: &[&str], path: &Path) {
        self.save_renamed(
            |name| (!left_out.contains(&name)).then(|| name.to_owned()),
            path,
        );
    }

    /// Writes the file again with other names, without tensors that get none.
    pub(crate) fn save_renamed(&self, rename: impl Fn(&str) -> Option<String>, path: &Path) {
        let tensors = self.tensors();
        let kept: HashMap<String, TensorView<'_>> = tensors
            .tensors()
            .into_iter()
            .filter_map(|(name, view)| Some((rename(&name)?, view)))
            .collect();
        safetensors::serialize_to_file(kept, None, path).unwrap();
    }
}
