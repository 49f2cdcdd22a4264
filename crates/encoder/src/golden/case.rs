//! Reading one case, and comparing with it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use m3ret_imaging::Input;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use crate::family::tensors::{Bias, KernelAxes, PatchKernel, Tensors};
use crate::kernels::{CpuPack, Linear, Precision};
use crate::pack::PatchLayers;
use crate::weights::Weights;

/// `|found - wanted| <= atol + rtol * |wanted|`.
#[derive(Debug, Clone, Copy, serde::Deserialize)]
pub(crate) struct Tolerance {
    pub(crate) atol: f32,
    pub(crate) rtol: f32,
}

/// The packing that reference numbers are compared in.
pub(crate) const F32: CpuPack = CpuPack {
    precision: Precision::F32,
};

/// The tensors of one case.
pub(crate) struct Case {
    path: PathBuf,
    bytes: Vec<u8>,
}

pub(crate) fn folder() -> PathBuf {
    #[allow(
        clippy::disallowed_methods,
        reason = "a test may be told where other cases of the same layout lie"
    )]
    let chosen = std::env::var_os("M3RET_GOLDEN");
    chosen.map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/golden"),
        PathBuf::from,
    )
}

/// Returns `folder`, or that of this repository where `folder` is an older set without the case.
pub(crate) fn folder_with(name: &str) -> PathBuf {
    let chosen = folder();
    if chosen.join(format!("{name}.json")).is_file() {
        return chosen;
    }
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/golden")
}

impl Case {
    pub(crate) fn open(folder: &Path, name: &str) -> Self {
        let path = folder.join(format!("{name}.safetensors"));
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Self { path, bytes }
    }

    fn tensors(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.bytes).unwrap()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.tensors().tensor(name).is_ok()
    }

    /// Returns a whole tensor.
    pub(crate) fn get(&self, name: &str) -> Vec<f32> {
        let tensors = self.tensors();
        let tensor = tensors
            .tensor(name)
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(tensor.dtype(), Dtype::F32, "{name}");
        let floats = tensor.data().as_chunks().0.iter();
        floats.map(|&bytes| f32::from_le_bytes(bytes)).collect()
    }

    /// Returns an image of bytes `[C, D, H, W]` as an input, 255 being 1.
    pub(crate) fn image(&self, name: &str) -> Input {
        let tensors = self.tensors();
        let tensor = tensors.tensor(name).unwrap();
        assert_eq!(tensor.dtype(), Dtype::U8, "{name}");
        let values = tensor.data().iter().map(|&x| f32::from(x) / 255.0);
        Input::new(values.collect(), self.shape(name).try_into().unwrap()).unwrap()
    }

    /// Returns a whole tensor of integers.
    pub(crate) fn integers(&self, name: &str) -> Vec<i64> {
        let tensors = self.tensors();
        let tensor = tensors.tensor(name).unwrap();
        assert_eq!(tensor.dtype(), Dtype::I64, "{name}");
        let numbers = tensor.data().as_chunks().0.iter();
        numbers.map(|&bytes| i64::from_le_bytes(bytes)).collect()
    }

    pub(crate) fn shape(&self, name: &str) -> Vec<usize> {
        self.tensors().tensor(name).unwrap().shape().to_vec()
    }

    /// Returns a tensor cut along its first axis.
    pub(crate) fn items(&self, name: &str) -> Vec<Vec<f32>> {
        let values = self.get(name);
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
            weights: Weights::open(&self.path).unwrap(),
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
            .map(|name| self.get(name).into_iter().flat_map(halved).collect())
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

/// Fails at the value that is worst beside its tolerance.
pub(crate) fn close(found: &[f32], wanted: &[f32], tolerance: Tolerance, what: &str) {
    assert_eq!(found.len(), wanted.len(), "{what}: number of values");
    let pairs = found.iter().zip(wanted).enumerate();
    for (i, (found, wanted)) in pairs {
        let allowed = tolerance.atol + tolerance.rtol * wanted.abs();
        assert!(
            (found - wanted).abs() <= allowed,
            "{what}: value {i} is {found}, wanted {wanted} within {allowed}"
        );
    }
}
