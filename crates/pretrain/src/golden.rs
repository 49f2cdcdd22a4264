//! Reference numbers made by PyTorch in f64; testdata/README.md says which.
//!
//! The folder is `M3RET_GOLDEN` where it is set, else `testdata/golden`; sizes are read from it.

mod hog;
mod salt;
mod stem;

use std::collections::BTreeMap;

use burn::backend::{Autodiff, Flex};
use burn::tensor::{Tensor, TensorData};
use m3ret_encoder::VitConfig;
use m3ret_imaging::Input;
use m3ret_testing::{Tolerance, close, folder_with};
use safetensors::Dtype;
use serde::Deserialize as _;
use serde_json::Value;

use crate::config::{MaeSettings, MaeTarget, SimDinoSettings};
use crate::dataset::Sample;
use crate::mae::{Mae, MaeRunning, Mask, len_keep, target};
use crate::optimizer::{AdamW, Step, follow, is_decayed};
use crate::parameters::{self, Flat, Weight, Weights, numbers};
use crate::random::Initial;
use crate::schedule::{Cosine, mae_lr};
use crate::simdino::{Constants, Head, SimDino, Vectors, loss, rate_limits};
use crate::step::{Plan, mae_step, simdino_step};
use crate::vit::{Patches, Running};

/// A tensor as f64.
#[derive(Debug, Clone)]
struct Golden {
    shape: Vec<usize>,
    values: Vec<f64>,
}

struct Case {
    tensors: BTreeMap<String, Golden>,
    sizes: Value,
}

fn json(name: &str) -> Value {
    m3ret_testing::sizes(&folder_with(name), name)
}

impl Case {
    fn open(name: &str) -> Self {
        let file = m3ret_testing::Case::open(&folder_with(name), name);
        let tensors = file.tensors().tensors().into_iter().map(|(name, view)| {
            let bytes = view.data();
            let values = match view.dtype() {
                Dtype::F32 => f64s(bytes, |b: [u8; 4]| f32::from_le_bytes(b).into()),
                Dtype::F64 => f64s(bytes, f64::from_le_bytes),
                #[allow(clippy::cast_precision_loss, reason = "small indices")]
                Dtype::I64 => f64s(bytes, |b| i64::from_le_bytes(b) as f64),
                // Pictures; 255 is 1.
                Dtype::U8 => bytes.iter().map(|&x| f64::from(x) / 255.0).collect(),
                other => panic!("{name}: {other:?}"),
            };
            let shape = view.shape().to_vec();
            (name, Golden { shape, values })
        });
        Self {
            tensors: tensors.collect(),
            sizes: json(name),
        }
    }

    fn get(&self, name: &str) -> &Golden {
        &self.tensors[name]
    }

    /// Returns the f32 tensors under a prefix.
    fn weights(&self, prefix: &str) -> Weights {
        self.tensors
            .iter()
            .filter_map(|(name, golden)| {
                let name = name.strip_prefix(prefix)?.to_owned();
                let (shape, values) = (golden.shape.clone(), f32s(&golden.values));
                Some((name, Weight { shape, values }))
            })
            .collect()
    }

    fn images(&self, name: &str) -> Vec<Input> {
        let golden = self.get(name);
        let [n, c, d, h, w]: [usize; 5] = golden.shape.clone().try_into().unwrap();
        f32s(&golden.values)
            .chunks_exact(golden.values.len() / n)
            .map(|values| Input::new(values.to_vec(), [c, d, h, w]).unwrap())
            .collect()
    }

    fn tolerance(&self, name: &str) -> Tolerance {
        let tolerance = &self.sizes["tolerance"];
        let tolerance = if name.is_empty() {
            tolerance
        } else {
            &tolerance[name]
        };
        Tolerance::deserialize(tolerance).unwrap()
    }

    fn number(&self, name: &str) -> f64 {
        self.sizes[name].as_f64().unwrap()
    }
}

fn f64s<const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> f64) -> Vec<f64> {
    bytes
        .as_chunks()
        .0
        .iter()
        .map(|&chunk| value(chunk))
        .collect()
}

#[allow(clippy::cast_possible_truncation, reason = "written as f32")]
fn f32s(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&value| value as f32).collect()
}

fn wide(values: Vec<f32>) -> Vec<f64> {
    values.into_iter().map(f64::from).collect()
}

fn usize_of(value: &Value) -> usize {
    usize::try_from(value.as_u64().unwrap()).unwrap()
}

fn plan(vit: VitConfig, micro_tokens: usize) -> Plan {
    Plan {
        vit,
        mae: MaeSettings::default(),
        simdino: SimDinoSettings::default(),
        precision: crate::config::TrainPrecision::F32,
        recompute: false,
        drop_path: 0.0,
        micro_tokens,
        seed: 0,
    }
}

/// Compares gradients or weights by name; each of `wanted` must be there, and nothing else.
fn close_all(found: &Flat<Flex>, wanted: &Weights, tolerance: Tolerance, what: &str) {
    assert_eq!(
        found.keys().collect::<Vec<_>>(),
        wanted.keys().collect::<Vec<_>>(),
        "{what}"
    );
    for (name, value) in found {
        let wanted = wide(wanted[name].values.clone());
        close(
            &wide(numbers(value.clone())),
            &wanted,
            tolerance,
            &format!("{what}: {name}"),
        );
    }
}

fn flat(module: &impl burn::module::Module<Flex>) -> Flat<Flex> {
    let mut flat = Flat::new();
    parameters::visit(module, &mut |name, _, value| {
        flat.insert(name.to_owned(), value);
    });
    flat
}

#[test]
fn golden_c04_mae() {
    let sizes = json("c04_mae.weights");
    let vit: VitConfig = serde_json::from_value(sizes["encoder"].clone()).unwrap();
    let decoder = &sizes["decoder"];
    let settings = MaeSettings {
        decoder_dim: usize_of(&decoder["embed_dim"]),
        decoder_depth: usize_of(&decoder["depth"]),
        decoder_heads: usize_of(&decoder["num_heads"]),
        decoder_hidden: Some(usize_of(&decoder["mlp_hidden"])),
        ..MaeSettings::default()
    };
    let device = burn::tensor::Device::<Flex>::default();
    let weights = Case::open("c04_mae.weights").weights("");
    let model = Mae::<Flex>::new(&vit, &settings, &mut Initial::new(0, &device));
    let (model, missing) = parameters::load(model, weights, &device).unwrap();
    assert!(missing.is_empty(), "{missing:?}");
    for name in ["c04_mae.three_d", "c04_mae.two_d"] {
        let case = Case::open(name);
        mae_case(&case, &model, &settings, &vit);
        for recompute in [false, true] {
            for micro_tokens in [1, 1 << 20] {
                for n_workers in [1, 2] {
                    let plan = Plan {
                        mae: settings.clone(),
                        recompute,
                        ..plan(vit.clone(), micro_tokens)
                    };
                    mae_gradients(&case, &vec![model.clone(); n_workers], &plan);
                }
            }
        }
    }
}

fn masks(case: &Case) -> Vec<Mask> {
    let keep = usize_of(&case.sizes["len_keep"]);
    let noise = case.get("noise");
    f32s(&noise.values)
        .chunks_exact(noise.shape[1])
        .map(|noise| Mask::from_noise(noise, keep))
        .collect()
}

/// Masks, targets and prediction.
fn mae_case(case: &Case, model: &Mae<Flex>, settings: &MaeSettings, vit: &VitConfig) {
    for row in case.sizes["len_keep_table"].as_array().unwrap() {
        let (n, ratio) = (usize_of(&row[0]), row[1].as_f64().unwrap());
        assert_eq!(len_keep(n, ratio), usize_of(&row[2]), "{n} {ratio}");
    }
    let (masks, images) = (masks(case), case.images("input"));
    #[allow(clippy::cast_precision_loss, reason = "small indices")]
    let indices = |of: fn(&Mask) -> &Vec<usize>| -> Vec<f64> {
        masks.iter().flat_map(of).map(|&i| i as f64).collect()
    };
    assert_eq!(indices(|mask| &mask.shown), case.get("ids_keep").values);
    assert_eq!(
        indices(|mask| &mask.restore),
        case.get("ids_restore").values
    );
    let targets: Vec<f32> = images
        .iter()
        .flat_map(|image| target(image, vit.patch, MaeTarget::Pixels).unwrap())
        .collect();
    let tolerance = case.tolerance("pred");
    close(
        &wide(targets),
        &case.get("target").values,
        tolerance,
        "target",
    );
    let shown: Vec<Vec<usize>> = masks.iter().map(|mask| mask.shown.clone()).collect();
    let images: Vec<&Input> = images.iter().collect();
    let patches = Patches::cut(&images, vit, Some(&shown)).unwrap();
    let running = MaeRunning {
        encoder: Running::plain(vit.num_heads),
        decoder: Running::plain(settings.decoder_heads),
        predicts_all: true,
    };
    let latent = model
        .encoder()
        .forward(&patches, vit, None, &running.encoder);
    close(
        &wide(numbers(latent)),
        &case.get("latent").values,
        tolerance,
        "latent",
    );
    let predicted = model.predict(&patches, &masks, vit, &running);
    close(
        &wide(numbers(predicted)),
        &case.get("pred").values,
        tolerance,
        "pred",
    );
}

/// The loss, and the gradient of every parameter.
fn mae_gradients(case: &Case, models: &[Mae<Flex>], plan: &Plan) {
    let masks = masks(case);
    let samples: Vec<Sample> = case
        .images("input")
        .into_iter()
        .enumerate()
        .map(|(item, image)| Sample {
            item,
            views: vec![image],
            relation: Default::default(),
        })
        .collect();
    let mask = |place: usize, _| masks[place].clone();
    let (loss, gradients) = mae_step(models, &samples, plan, 0, mask).unwrap();
    close(
        &[loss],
        &[case.number("loss")],
        case.tolerance("loss"),
        "loss",
    );
    close_all(
        &gradients,
        &case.weights("grad."),
        case.tolerance("grad"),
        "gradient",
    );
}

#[test]
fn golden_c05_simdino() {
    let case = Case::open("c05_simdino");
    let exact = case.tolerance("float64");
    for (i, set) in case.sizes["sets"].as_array().unwrap().iter().enumerate() {
        let (m, p) = (usize_of(&set["m"]), usize_of(&set["p"]));
        let vectors = |name: &str| Vectors {
            values: case.get(&format!("{i}.{name}")).values.clone(),
            n_images: m,
            width: p,
        };
        for (j, config) in set["configs"].as_array().unwrap().iter().enumerate() {
            let number = |name: &str| config[name].as_f64().unwrap();
            let constants = Constants {
                eps: number("eps"),
                coeff: number("coeff"),
                expa_type: u8::try_from(usize_of(&config["expa_type"])).unwrap(),
                n_devices: number("N"),
            };
            let what = format!("set {i}, config {j}");
            let found = loss(
                &vectors("student_unit_f64"),
                &vectors("teacher_unit_f64"),
                &constants,
            );
            let terms = [found.alignment, found.coding_rate, found.total];
            close(&terms, &["A", "R", "total"].map(number), exact, &what);
            let wanted = &case.get(&format!("{i}.{j}.grad_unit_f64")).values;
            close(&found.gradient, wanted, exact, &what);
            let found = loss(
                &vectors("student_unit"),
                &vectors("teacher_unit"),
                &constants,
            );
            let terms = [found.alignment, found.coding_rate, found.total];
            let names = ["A_f32", "R_f32", "total_f32"];
            close(&terms, &names.map(number), case.tolerance("terms"), &what);
            through_the_norm(&case, i, j, &found.gradient, &what);
        }
    }
    simdino_closed_forms(&case);
    simdino_head(&case);
}

/// The gradient goes on through the division by the norm, as it does in a network.
fn through_the_norm(case: &Case, i: usize, j: usize, gradient: &[f64], what: &str) {
    let raw = case.get(&format!("{i}.student_raw"));
    let p = raw.shape[2];
    let device = burn::tensor::Device::<Autodiff<Flex>>::default();
    let shape = [raw.values.len() / p, p];
    let rows = TensorData::new(f32s(&raw.values), shape);
    let rows = Tensor::<Autodiff<Flex>, 2>::from_data(rows, &device).require_grad();
    let slopes = Tensor::from_data(TensorData::new(f32s(gradient), shape), &device);
    let gradients = (crate::simdino::unit(rows.clone()) * slopes)
        .sum()
        .backward();
    let found = wide(numbers(rows.grad(&gradients).unwrap()));
    let wanted = &case.get(&format!("{i}.{j}.grad_raw")).values;
    close(&found, wanted, case.tolerance("grad"), what);
}

fn simdino_closed_forms(case: &Case) {
    let exact = case.tolerance("float64");
    for row in case.sizes["closed_form"].as_array().unwrap() {
        let number = |name: &str| row[name].as_f64().unwrap();
        let constants = Constants {
            eps: number("eps"),
            coeff: 1.0,
            expa_type: 1,
            n_devices: number("N"),
        };
        let found = rate_limits(usize_of(&row["m"]), usize_of(&row["p"]), &constants);
        close(
            &found,
            &["collapsed", "bound"].map(number),
            exact,
            "closed form",
        );
    }
    let tiny = &case.sizes["tiny"];
    let rows = tiny["rows"].as_array().unwrap();
    let values: Vec<f64> = rows
        .iter()
        .flat_map(|row| row.as_array().unwrap())
        .map(|v| v.as_f64().unwrap())
        .collect();
    let twice = Vectors {
        values: [values.clone(), values].concat(),
        n_images: rows.len(),
        width: 4,
    };
    let constants = Constants {
        eps: tiny["eps"].as_f64().unwrap(),
        coeff: 1.0,
        expa_type: 0,
        n_devices: tiny["N"].as_f64().unwrap(),
    };
    let found = loss(&twice, &twice, &constants).coding_rate;
    close(&[found], &[tiny["R"].as_f64().unwrap()], exact, "tiny");
}

fn simdino_head(case: &Case) {
    let sizes = &case.sizes["head"];
    let settings = SimDinoSettings {
        head_hidden: usize_of(&sizes["hidden"]),
        head_out: usize_of(&sizes["p"]),
        ..SimDinoSettings::default()
    };
    let device = burn::tensor::Device::<Flex>::default();
    let width = usize_of(&sizes["d"]);
    let head = Head::<Flex>::new(width, &settings, &mut Initial::new(0, &device));
    let mut weights = case.weights("head.mlp.");
    // A head alone has no field `head` before its layers.
    weights = weights
        .into_iter()
        .map(|(name, weight)| {
            let (layer, rest) = name.split_once('.').unwrap();
            (
                format!("mlp.{}.{rest}", layer.parse::<usize>().unwrap() / 2),
                weight,
            )
        })
        .collect();
    let (head, missing) = parameters::load(head, weights, &device).unwrap();
    assert!(missing.is_empty(), "{missing:?}");
    let input = case.get("head.input");
    let rows = TensorData::new(f32s(&input.values), [input.shape[0], width]);
    let found = head.forward(Tensor::from_data(rows, &device));
    let tolerance = case.tolerance("head");
    close(
        &wide(numbers(found)),
        &case.get("head.output").values,
        tolerance,
        "head",
    );
}

#[test]
fn golden_c06_step() {
    for name in ["c06_step.three_d", "c06_step.two_d"] {
        let case = Case::open(name);
        for micro_tokens in [1, 40, 1 << 20] {
            for n_workers in [1, 2] {
                step_case(&case, micro_tokens, n_workers);
            }
        }
    }
}

fn step_case(case: &Case, micro_tokens: usize, n_workers: usize) {
    let vit: VitConfig = serde_json::from_value(case.sizes["config"].clone()).unwrap();
    let hyper = |name: &str| case.sizes["hyper"][name].as_f64().unwrap();
    let head = &case.sizes["head"];
    let settings = SimDinoSettings {
        head_hidden: usize_of(&head["hidden"]),
        head_out: usize_of(&head["out"]),
        eps: hyper("eps"),
        coeff: hyper("coeff"),
        expa_type: u8::try_from(usize_of(&case.sizes["hyper"]["expa_type"])).unwrap(),
        ..SimDinoSettings::default()
    };
    let device = burn::tensor::Device::<Flex>::default();
    let network = |prefix: &str| {
        let fresh = SimDino::<Flex>::new(&vit, &settings, &mut Initial::new(0, &device));
        let (loaded, missing) = parameters::load(fresh, case.weights(prefix), &device).unwrap();
        assert!(missing.is_empty(), "{missing:?}");
        loaded
    };
    let (student, teacher) = (network("student."), network("teacher."));
    let plan = Plan {
        simdino: settings.clone(),
        ..plan(vit.clone(), micro_tokens)
    };
    let students = vec![student.clone(); n_workers];
    let teachers = vec![teacher.clone(); n_workers];
    let (terms, gradients) = simdino_step(&students, &teachers, &samples(case), &plan, 0).unwrap();
    let found = [terms.alignment, terms.coding_rate, terms.total];
    let wanted = ["A", "R", "loss"].map(|name| case.number(name));
    close(&found, &wanted, case.tolerance("loss"), "terms");
    let m = usize_of(&case.sizes["m"]);
    let first_view = &case.get("teacher_out").values[..m * settings.head_out];
    close(
        &wide(terms.teacher),
        first_view,
        case.tolerance("out"),
        "teacher",
    );
    close_all(
        &gradients,
        &case.weights("grad."),
        case.tolerance("grad"),
        "gradient",
    );
    for (name, weight) in case.weights("student.") {
        let listed = case.sizes["no_decay"]
            .as_array()
            .unwrap()
            .iter()
            .any(|n| *n == *name);
        assert_eq!(is_decayed(&name, &weight.shape), !listed, "{name}");
    }
    optimised(case, student, teacher, gradients);
}

fn samples(case: &Case) -> Vec<Sample> {
    let n_local = usize_of(&case.sizes["n_local"]);
    let names = (0..2).map(|i| format!("global.{i}"));
    let names = names.chain((0..n_local).map(|i| format!("local.{i}")));
    let mut views: Vec<_> = names.map(|name| case.images(&name).into_iter()).collect();
    (0..usize_of(&case.sizes["m"]))
        .map(|item| Sample {
            item,
            views: views.iter_mut().map(|view| view.next().unwrap()).collect(),
            relation: Default::default(),
        })
        .collect()
}

/// The limit, the optimiser and the teacher, from the state given.
fn optimised(case: &Case, student: SimDino<Flex>, teacher: SimDino<Flex>, gradients: Flat<Flex>) {
    let hyper = |name: &str| case.sizes["hyper"][name].as_f64().unwrap();
    let mut adam = AdamW::<Flex> {
        n_steps: case.sizes["hyper"]["steps_before"].as_u64().unwrap(),
        ..AdamW::new()
    };
    let device = burn::tensor::Device::<Flex>::default();
    let seconds = case.weights("adam_v.");
    for (name, first) in case.weights("adam_m.") {
        let second = seconds[&name].clone();
        let moments = [first, second].map(|moment| {
            let n_values = moment.values.len();
            Tensor::from_data(TensorData::new(moment.values, [n_values]), &device)
        });
        adam.moments.insert(name, moments);
    }
    let betas = &case.sizes["hyper"]["betas"];
    let step = Step {
        lr: hyper("lr"),
        weight_decay: hyper("weight_decay"),
        betas: [betas[0].as_f64().unwrap(), betas[1].as_f64().unwrap()],
        clip: hyper("clip"),
    };
    let (student, _) = adam.step(student, gradients, &step);
    let teacher = follow(teacher, &student, hyper("ema"));
    let after = case.tolerance("after");
    close_all(
        &flat(&student),
        &case.weights("student_after."),
        after,
        "student",
    );
    close_all(
        &flat(&teacher),
        &case.weights("teacher_after."),
        after,
        "teacher",
    );
    for (idx, prefix, tolerance) in [
        (0, "adam_m_after.", "adam_m"),
        (1, "adam_v_after.", "adam_v"),
    ] {
        let found = adam
            .moments
            .iter()
            .map(|(name, moments)| (name.clone(), moments[idx].clone()));
        close_all(
            &found.collect(),
            &case.weights(prefix),
            case.tolerance(tolerance),
            prefix,
        );
    }
}

#[test]
#[allow(clippy::too_many_lines, reason = "one case, step by step")]
fn golden_c06_adamw() {
    let case = Case::open("c06_adamw");
    let device = burn::tensor::Device::<Flex>::default();
    let tolerance = case.tolerance("");
    let numbers_of = |name: &str| -> Vec<f64> {
        case.sizes[name]
            .as_array()
            .unwrap()
            .iter()
            .map(|v| v.as_f64().unwrap())
            .collect()
    };
    let (rates, decays, betas) = (
        numbers_of("lr"),
        numbers_of("weight_decay"),
        numbers_of("betas"),
    );
    let param = case.get("param");
    let [n_rows, n_columns] = param.shape.clone().try_into().unwrap();
    let mut layer =
        crate::vit::Linear::<Flex>::new([n_rows, n_columns], &mut Initial::new(0, &device));
    layer.weight = burn::module::Param::from_data(
        TensorData::new(f32s(&param.values), [n_rows, n_columns]),
        &device,
    );
    let mut adam = AdamW::new();
    for k in 0..rates.len() {
        let n_values = n_rows * n_columns;
        let gradient = f32s(&case.get("grads").values[k * n_values..(k + 1) * n_values]);
        let gradient = Tensor::from_data(TensorData::new(gradient, [n_values]), &device);
        let step = Step {
            lr: rates[k],
            weight_decay: decays[k],
            betas: [betas[0], betas[1]],
            clip: 0.0,
        };
        (layer, _) = adam.step(layer, [("weight".to_owned(), gradient)].into(), &step);
        let [first, second] = adam.moments["weight"].clone();
        let found = [numbers(layer.weight.val()), numbers(first), numbers(second)];
        for (found, name) in found.into_iter().zip(["param", "m", "v"]) {
            let wanted = &case.get(&format!("{name}.{}", k + 1)).values;
            close(&wide(found), wanted, tolerance, name);
        }
    }
    let mean = |name: &str| {
        let golden = case.get(name);
        let bias = TensorData::new(f32s(&golden.values), [golden.values.len()]);
        let mut layer = crate::vit::Linear::<Flex>::new(
            [golden.values.len(), 1],
            &mut Initial::new(0, &device),
        );
        layer.bias = burn::module::Param::from_data(bias, &device);
        layer
    };
    let momentum = case.number("ema");
    let after = follow(mean("ema.teacher"), &mean("ema.student"), momentum);
    close(
        &wide(numbers(after.bias.val())),
        &case.get("ema.after").values,
        tolerance,
        "teacher",
    );
}

#[test]
fn golden_c07_schedules() {
    let sizes = json("c07_schedules");
    let number = |value: &Value| value.as_f64().unwrap();
    let tolerance = Tolerance::deserialize(&sizes["tolerance"]).unwrap();
    let simdino = &sizes["simdino"];
    let curve = |name: &str| Cosine {
        start: simdino[name]["start"].as_f64().unwrap_or(0.0),
        base: number(&simdino[name]["base"]),
        end: number(&simdino[name]["final"]),
        n_warmup: simdino[name]["warmup_steps"].as_u64().unwrap(),
        n_steps: sizes["total_steps"].as_u64().unwrap(),
    };
    for sample in simdino["samples"].as_array().unwrap() {
        let step = sample["step"].as_u64().unwrap();
        for name in ["lr", "weight_decay", "ema"] {
            let found = curve(name).at(step);
            close(
                &[found],
                &[number(&sample[name])],
                tolerance,
                &format!("{name} at {step}"),
            );
        }
    }
    let mae = &sizes["mae"];
    let [base, min, warmup, n_epochs] =
        ["base", "min_lr", "warmup_epochs", "epochs"].map(|name| number(&mae[name]));
    for sample in mae["samples"].as_array().unwrap() {
        let found = mae_lr(number(&sample["epoch"]), base, min, [warmup, n_epochs]);
        close(
            &[found],
            &[number(&sample["lr"])],
            tolerance,
            "MAE's learning rate",
        );
    }
}
