//! Public models as their libraries save them, and what they computed.

use std::path::{Path, PathBuf};

use m3ret_testing::{Tolerance, close, folder, model_folder};
use serde_json::Value;

use super::case::{Case, F32};
use crate::family;
use crate::kernels::{Kernels, Precision};
use crate::model::{Model, Prepared, RunOptions};
use crate::vit::{CpuVit, View};
use crate::weights::read_json;

/// Those with a test of their own.
const KNOWN: [&str; 11] = [
    "clip",
    "clip_gelu",
    "dinov2",
    "dinov2_registers",
    "dinov2_swiglu",
    "dinov3",
    "dinov3_gated",
    "openclip_native",
    "openclip_timm",
    "vit",
    "vit_mae",
];

pub(crate) fn root() -> PathBuf {
    folder().join("c08_external")
}

fn tolerance(name: &str) -> Tolerance {
    let io: Value = read_json(&root().join(name).join("io.json")).unwrap();
    serde::Deserialize::deserialize(&io["tolerance"]).unwrap()
}

/// Compares every tensor that a case has, natively and resized.
fn check(name: &str) {
    let (path, _copy) = model_folder(name);
    let vit = CpuVit {
        vit: family::open(&path, F32).unwrap().vit,
        kernels: Kernels::detect(),
    };
    let options = RunOptions {
        precision: Some(Precision::F32),
        n_threads: None,
    };
    let model = Model::open(&path, &options).unwrap();
    let case = Case::open(&root().join(name), "io");
    let tolerance = tolerance(name);
    let mut n_checked = 0;
    for tag in ["native", "resized"] {
        let pixels = format!("{tag}.pixel_values");
        let shape = case.shape(&pixels);
        let inputs = case.inputs(&pixels, [shape[0], shape[1], 1, shape[2], shape[3]]);
        let views: Vec<_> = inputs
            .iter()
            .map(|input| View {
                input,
                left_out: &[],
            })
            .collect();
        let all = vit.tokens(&views).unwrap();
        let objects: Vec<_> = inputs
            .iter()
            .map(|input| Prepared::new(vec![input.clone()]))
            .collect();
        let units = model.embed(&objects.iter().collect::<Vec<_>>()).unwrap();
        for (i, (tokens, unit)) in all.iter().zip(&units).enumerate() {
            let pooled = vit.pooled(tokens);
            let embedding = vit.embedding(tokens);
            // The tanh pooler of ViT is the only head that does not give the embedding.
            let reported = vit.head(&pooled).filter(|_| name == "vit");
            let outputs = [
                ("last_hidden_state", tokens.values()),
                ("tokens", tokens.values()),
                ("pooler_output", reported.as_ref().unwrap_or(&pooled)),
                ("pooled", &pooled),
                ("mean_patch", &embedding),
                ("image_embeds", &embedding),
                ("image_features", &embedding),
                ("image_embeds_l2", unit),
                ("image_features_l2", unit),
            ];
            for (output, found) in outputs {
                let key = format!("{tag}.{output}");
                if case.has(&key) {
                    close(
                        found,
                        &case.items(&key)[i],
                        tolerance,
                        &format!("{name} {key}"),
                    );
                    n_checked += 1;
                }
            }
        }
    }
    assert!(n_checked >= 4, "{name}: only {n_checked} outputs");
}

/// Returns every folder of external models.
pub(crate) fn names() -> Vec<String> {
    let entries = std::fs::read_dir(root()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect()
}

macro_rules! golden {
    ($($test:ident $name:literal,)*) => {
        $(#[test]
        fn $test() {
            check($name);
        })*
    };
}

golden! {
    golden_c08_clip "clip",
    golden_c08_clip_gelu "clip_gelu",
    golden_c08_dinov2 "dinov2",
    golden_c08_dinov2_registers "dinov2_registers",
    golden_c08_dinov2_swiglu "dinov2_swiglu",
    golden_c08_dinov3 "dinov3",
    golden_c08_dinov3_gated "dinov3_gated",
    golden_c08_openclip_native "openclip_native",
    golden_c08_openclip_timm "openclip_timm",
    golden_c08_vit "vit",
    golden_c08_vit_mae "vit_mae",
}

#[test]
fn golden_c08_every_other_folder() {
    let mut others = names();
    others.retain(|name| !KNOWN.contains(&name.as_str()));
    // None with the goldens that are shipped: this is for those of `M3RET_GOLDEN`.
    println!("{} folders beyond the known ones", others.len());
    for name in others {
        check(&name);
    }
}

#[test]
fn golden_c08_low_precision_keeps_the_direction() {
    for name in names() {
        let (path, _copy) = model_folder(&name);
        let case = Case::open(&root().join(&name), "io");
        let shape = case.shape("native.pixel_values");
        let inputs = case.inputs(
            "native.pixel_values",
            [shape[0], shape[1], 1, shape[2], shape[3]],
        );
        let objects: Vec<_> = inputs
            .into_iter()
            .map(|input| Prepared::new(vec![input]))
            .collect();
        let objects: Vec<_> = objects.iter().collect();
        let embed = |precision| {
            let options = RunOptions {
                precision: Some(precision),
                n_threads: None,
            };
            let model = Model::open(Path::new(&path), &options).unwrap();
            (
                model.embed(&objects).unwrap(),
                model.fingerprint().to_owned(),
            )
        };
        let (exact, fingerprint) = embed(Precision::F32);
        // Errors of tiny networks do not average out as those of real ones do.
        for (precision, least) in [(Precision::Bf16, 0.999), (Precision::Int8, 0.99)] {
            let (rounded, other) = embed(precision);
            assert_eq!(fingerprint, other, "{name} {precision:?}");
            for (exact, rounded) in exact.iter().zip(rounded) {
                let cosine: f32 = exact.iter().zip(rounded).map(|(a, b)| a * b).sum();
                assert!(cosine >= least, "{name} {precision:?}: {cosine}");
            }
        }
    }
}
