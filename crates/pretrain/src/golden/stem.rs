//! The convolutional stem, of whole images and of the patches that are seen.

use super::{Autodiff, Case, Flex, Initial, Patches, Running, Tensor, TensorData, VitConfig};
use super::{close, close_all, json, numbers, parameters, usize_of, wide};
use crate::config::TrainPrecision;
use crate::vit::Vit;

#[test]
fn golden_c12_stem() {
    let config: VitConfig = serde_json::from_value(json("c12_stem.weights")).unwrap();
    let device = burn::tensor::Device::<Flex>::default();
    let drawn = Vit::<Flex>::new(&config, &mut Initial::new(0, &device));
    let weights = Case::open("c12_stem.weights").weights("");
    let (vit, missing) = parameters::load(drawn, weights, &device).unwrap();
    assert!(missing.is_empty(), "{missing:?}");
    let case = Case::open("c12_stem");
    for (kind, input) in case.sizes["inputs"].as_object().unwrap() {
        for (part, seen) in input["seen"].as_object().unwrap() {
            let seen: Vec<Vec<usize>> = seen
                .as_array()
                .unwrap()
                .iter()
                .map(|cells| cells.as_array().unwrap().iter().map(usize_of).collect())
                .collect();
            let images = case.images(&format!("{kind}.input"));
            let images: Vec<_> = images.iter().collect();
            let patches = Patches::cut(&images, &config, Some(&seen)).unwrap();
            stem_case(&case, &vit, &config, &patches, &format!("{kind}.{part}"));
        }
    }
}

fn stem_case(case: &Case, vit: &Vit<Flex>, config: &VitConfig, patches: &Patches, at: &str) {
    let check = |found: Vec<f32>, name: &str| {
        let wanted = &case.get(&format!("{at}.{name}")).values;
        close(
            &wide(found),
            wanted,
            case.tolerance("tokens"),
            &format!("{at}.{name}"),
        );
    };
    let running = Running::plain(config.num_heads);
    check(
        numbers(vit.embed(patches, TrainPrecision::F32)),
        "patch_embed",
    );
    check(
        numbers(vit.forward(patches, config, None, &running)),
        "tokens",
    );
    let tracked = parameters::tracked::<Autodiff<Flex>, _>(vit);
    let tokens = tracked.forward(patches, config, None, &running);
    let probe = &case.weights(&format!("{at}."))["probe"];
    let probe = TensorData::new(probe.values.clone(), tokens.dims());
    let loss = (tokens.clone() * Tensor::from_data(probe, &tokens.device())).sum();
    let mut gradients = parameters::gradients(&tracked, loss.backward());
    gradients.retain(|name, _| name.starts_with("patch_embed"));
    let wanted = case.weights(&format!("{at}.gradient."));
    close_all(&gradients, &wanted, case.tolerance("gradient"), at);
}
