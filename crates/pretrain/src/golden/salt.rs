//! One step of SALT: `tools/golden/salt.py`.

use m3ret_encoder::{ModelConfig, Pooling};

use super::*;
use crate::dataset::{Along, ViewRelation};
use crate::salt::Teacher;
use crate::step::{SaltWorker, salt_step};

fn relation(value: &Value) -> ViewRelation {
    match value[0].as_str().unwrap() {
        "same" => ViewRelation::Same,
        "plane" => ViewRelation::Plane {
            plane: usize_of(&value[1]),
            n_planes: usize_of(&value[2]),
        },
        "rows" => ViewRelation::Rays(Along::Rows),
        "columns" => ViewRelation::Rays(Along::Columns),
        other => panic!("{other}"),
    }
}

fn samples(case: &Case) -> Vec<Sample> {
    let samples = case.sizes["samples"].as_array().unwrap().iter();
    let samples = samples.enumerate().map(|(item, sample)| {
        let mut views = case.images(&format!("original.{item}"));
        if sample["changed"].as_bool().unwrap() {
            views.extend(case.images(&format!("seen.{item}")));
        }
        Sample {
            item,
            views,
            relation: relation(&sample["relation"]),
        }
    });
    samples.collect()
}

fn teacher(case: &Case, idx: usize) -> Teacher<Flex> {
    let sizes = &case.sizes["teachers"][idx];
    let mut config = ModelConfig::new(serde_json::from_value(sizes["vit"].clone()).unwrap());
    config.embedding = Pooling::Mean;
    config.input.side = [usize_of(&sizes["side"]); 2];
    config.input.patch_depth = config.vit.patch[0];
    config.input.max_depth = usize_of(&sizes["max_depth"]);
    let weights = case.weights(&format!("teacher.{idx}."));
    Teacher {
        vit: Teacher::network(&config, weights, &Default::default()).unwrap(),
        config,
        fingerprint: String::new(),
    }
}

#[test]
fn golden_c13_salt() {
    let case = Case::open("c13_salt");
    let vit: VitConfig = serde_json::from_value(case.sizes["student"].clone()).unwrap();
    let decoder = &case.sizes["decoder"];
    let settings = MaeSettings {
        decoder_dim: usize_of(&decoder["embed_dim"]),
        decoder_depth: usize_of(&decoder["depth"]),
        decoder_heads: usize_of(&decoder["num_heads"]),
        decoder_hidden: Some(usize_of(&decoder["mlp_hidden"])),
        ..MaeSettings::default()
    };
    let teachers = vec![teacher(&case, 0), teacher(&case, 1)];
    let device = burn::tensor::Device::<Flex>::default();
    let n_outputs = teachers.iter().map(|t| t.config.vit.embed_dim).sum();
    let initial = &mut Initial::new(0, &device);
    let student = Mae::<Flex>::with_outputs(&vit, &settings, n_outputs, initial);
    let (student, missing) = parameters::load(student, case.weights("student."), &device).unwrap();
    assert!(missing.is_empty(), "{missing:?}");
    let samples = samples(&case);
    let mask = |place: usize, grid: [usize; 3]| {
        let noise = f32s(&case.get(&format!("noise.{place}")).values);
        let ratio = if grid[0] == 1 {
            "mask_ratio"
        } else {
            "mask_ratio_deep"
        };
        Mask::from_noise(&noise, len_keep(noise.len(), case.number(ratio)))
    };
    for micro_tokens in [1, 40, 1 << 20] {
        for n_workers in [1, 2] {
            let plan = Plan {
                mae: settings.clone(),
                ..plan(vit.clone(), micro_tokens)
            };
            let worker = SaltWorker {
                student: student.clone(),
                teachers: teachers.clone(),
            };
            let workers = vec![worker; n_workers];
            let (loss, gradients) = salt_step(&workers, &samples, &plan, 0, mask).unwrap();
            let wanted = case.number("loss");
            close(&[loss], &[wanted], case.tolerance("loss"), "loss");
            let wanted = case.weights("grad.");
            close_all(&gradients, &wanted, case.tolerance("grad"), "gradient");
        }
    }
}
