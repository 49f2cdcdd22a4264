//! The convolutional stem, of whole images and with patches left out.

use std::collections::BTreeMap;

use m3ret_testing::{Tolerance, close, folder_with};
use serde::Deserialize;

use super::case::Case;
use super::saved_as_ours;
use crate::config::{Pooling, VitConfig};
use crate::kernels::Kernels;
use crate::vit::View;
use crate::weights::read_json;

#[derive(Deserialize)]
struct StemCase {
    config: VitConfig,
    inputs: BTreeMap<String, StemInput>,
    tolerance: BTreeMap<String, Tolerance>,
}

#[derive(Deserialize)]
struct StemInput {
    shape: [usize; 5],
    grid: [usize; 3],
    /// The patches that each image shows, whole or with some hidden.
    seen: BTreeMap<String, Vec<Vec<usize>>>,
}

#[test]
fn golden_c12_stem() {
    let folder = folder_with("c12_stem");
    let weights = Case::open(&folder, "c12_stem.weights");
    let case = Case::open(&folder, "c12_stem");
    let sizes: StemCase = read_json(&folder.join("c12_stem.json")).unwrap();
    for kernels in [Kernels::detect(), Kernels::portable()] {
        let vit = saved_as_ours(&weights, &[], &sizes.config, Pooling::Cls, kernels);
        for (kind, input) in &sizes.inputs {
            let images = case.inputs(&format!("{kind}.input"), input.shape);
            let n_patches = input.grid.iter().product::<usize>();
            for (part, seen) in &input.seen {
                let at = format!("{kind}.{part}.tokens");
                let wanted = case.items(&at);
                for ((image, seen), wanted) in images.iter().zip(seen).zip(wanted) {
                    let left_out: Vec<_> = (0..n_patches).filter(|i| !seen.contains(i)).collect();
                    let view = View {
                        input: image,
                        left_out: &left_out,
                    };
                    let tokens = vit.tokens(&[view]).unwrap().remove(0);
                    close(tokens.values(), &wanted, sizes.tolerance["tokens"], &at);
                }
            }
        }
    }
}
