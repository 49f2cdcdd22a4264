//! MAE's targets of gradients; tools/golden/hog.py made the case.

use burn::backend::{Autodiff, Flex};
use burn::tensor::{Tensor, TensorData};
use m3ret_imaging::Input;

use super::{Case, close, f32s, wide};
use crate::config::MaeTarget;
use crate::mae::{loss, target};
use crate::parameters::numbers;

#[test]
fn golden_c11_hog_beside_pixels() {
    let case = Case::open("c11_hog");
    let both = &case.sizes["both"];
    let patch: [usize; 3] = serde_json::from_value(both["patch"].clone()).unwrap();
    let image = case.get("both.image");
    let shape = image.shape.clone().try_into().unwrap();
    let image = Input::new(f32s(&image.values), shape).unwrap();
    let found = target(&image, patch, MaeTarget::Both).unwrap();
    let wanted = &case.get("both.target").values;
    close(
        &wide(found.clone()),
        wanted,
        case.tolerance("target"),
        "target",
    );

    let predicted = case.get("both.predicted");
    let [n_rows, n_values] = predicted.shape.clone().try_into().unwrap();
    let device = burn::tensor::Device::<Autodiff<Flex>>::default();
    let predicted = TensorData::new(f32s(&predicted.values), [n_rows, n_values]);
    let predicted = Tensor::<Autodiff<Flex>, 2>::from_data(predicted, &device).require_grad();
    let loss = loss(predicted.clone(), found, MaeTarget::Both);
    let gradients = loss.backward();
    let wanted = both["loss"].as_f64().unwrap();
    close(
        &wide(numbers(loss)),
        &[wanted],
        case.tolerance("loss"),
        "loss",
    );
    let found = wide(numbers(predicted.grad(&gradients).unwrap()));
    let wanted = &case.get("both.gradient").values;
    close(&found, wanted, case.tolerance("gradient"), "gradient");
}
