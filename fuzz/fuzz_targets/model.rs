//! A tiny model of one of the families, of which the input patches the config, the list of tensors and their numbers;
//! it is opened and, where it stays small, run.

#![no_main]

use m3ret_encoder::{Model, Precision, RunOptions};
use m3ret_fuzz::input::Input;
use m3ret_fuzz::patch;
use m3ret_imaging::{Kind, Volume};

/// The name of a model's config, the config, the name of its weights, and the weights.
type Files = (&'static str, &'static [u8], &'static str, &'static [u8]);

macro_rules! model {
    ($folder:literal) => {
        model!($folder, "config.json", "model.safetensors")
    };
    ($folder:literal, $config:literal, $weights:literal) => {
        (
            $config,
            include_bytes!(concat!("../../testdata/", $folder, "/", $config)),
            $weights,
            include_bytes!(concat!("../../testdata/", $folder, "/", $weights)),
        )
    };
}

const MODELS: [Files; 9] = [
    model!("runs/version1/run/checkpoints/step-000000002/model"),
    model!("golden/c08_external/clip"),
    model!("golden/c08_external/dinov2"),
    model!("golden/c08_external/dinov2_registers"),
    model!("golden/c08_external/dinov2_swiglu"),
    model!("golden/c08_external/dinov3_gated"),
    model!("golden/c08_external/vit"),
    model!("golden/c08_external/vit_mae"),
    model!("golden/c08_external/openclip_native", "open_clip_config.json", "open_clip_model.safetensors"),
];

const TEXTS: [&str; 12] = [
    "", "dinov2", "vit", "clip", "vit_mae", "m3d_clip", "gelu", "quick_gelu", "BF16", "F16", "I64", "image_size",
];

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let (config_name, config, weights_name, weights) = input.of(&MODELS);
    let mut config = config.to_vec();
    let n_header = weights.first_chunk().map_or(0, |raw| u64::from_le_bytes(*raw)) as usize;
    let mut header = weights[8..8 + n_header].to_vec();
    let mut numbers = weights[8 + n_header..].to_vec();
    for _ in 0..input.byte() % 5 {
        match input.byte() % 12 {
            0..=2 => patch::number(&mut config, &mut input),
            3 => patch::text(&mut config, &mut input, &TEXTS),
            4 => patch::bytes(&mut config, &mut input),
            5 | 6 => patch::number(&mut header, &mut input),
            7 => patch::text(&mut header, &mut input, &TEXTS),
            8 => patch::bytes(&mut header, &mut input),
            9 => patch::length(&mut header, &mut input),
            10 => patch::length(&mut numbers, &mut input),
            _ => patch::word(&mut numbers, &mut input),
        }
    }
    let n_header = match input.byte() {
        255 => u64::from(input.byte()) << input.below(57),
        _ => header.len() as u64,
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let weights = [&n_header.to_le_bytes()[..], &header, &numbers].concat();
    std::fs::write(folder.path().join(config_name), &config).expect("a writable folder");
    std::fs::write(folder.path().join(weights_name), weights).expect("a writable folder");
    let options = RunOptions { precision: Some(Precision::F32), n_threads: None };
    let Ok(model) = Model::open(folder.path(), &options) else {
        return;
    };
    if is_small(&config) {
        run(&model);
    }
});

/// Says whether a config states no number of four digits: a large picture is an honest cost.
fn is_small(config: &[u8]) -> bool {
    !config.windows(4).any(|four| four.iter().all(u8::is_ascii_digit))
}

fn run(model: &Model) {
    let values = (0..24 * 24).map(|i| (i % 37) as f32).collect();
    let volume = Volume::new(values, [1, 1, 24, 24], Kind::Image).expect("a small picture");
    let Ok(prepared) = model.prepare(&volume) else {
        return;
    };
    for vector in model.embed(&[&prepared]).unwrap_or_default() {
        let length: f32 = vector.iter().map(|x| x * x).sum();
        assert!(vector.len() == model.width() && (length - 1.0).abs() < 1e-3, "length {length}");
    }
}
