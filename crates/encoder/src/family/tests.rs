use std::path::PathBuf;

use serde_json::json;

use super::*;
use crate::golden::case::{Case, F32};
use crate::golden::external::names;
use crate::kernels::{Kernels, Linear};
use crate::vit::{CpuVit, View};
use m3ret_testing::model_folder;

fn opened(folder: &Path) -> Result<ModelParts<Linear>> {
    open(folder, F32)
}

fn network(parts: ModelParts<Linear>) -> CpuVit {
    CpuVit {
        vit: parts.vit,
        kernels: Kernels::detect(),
    }
}

fn message(folder: &Path) -> String {
    opened(folder).unwrap_err().to_string()
}

/// Copies a golden model, to be changed.
fn copied(name: &str) -> tempfile::TempDir {
    let (folder, _copy) = model_folder(name);
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        // Not `copy`: the originals may be read-only.
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(copy.path().join(path.file_name().unwrap()), bytes).unwrap();
    }
    copy
}

fn change(path: PathBuf, key: &str, value: Value) {
    let mut config: Value = read_json(&path).unwrap();
    config[key] = value;
    std::fs::write(path, config.to_string()).unwrap();
}

fn weights_of(folder: &Path) -> &'static str {
    if folder.join("model.safetensors").exists() {
        "model"
    } else {
        "open_clip_model"
    }
}

#[test]
fn a_folder_with_a_pickle_only_says_how_to_convert_it() {
    for name in [
        "pytorch_model.bin",
        "open_clip_pytorch_model.bin",
        "weights.pt",
        "mae.pth",
        "last.ckpt",
    ] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.json"), r#"{"model_type":"vit"}"#).unwrap();
        std::fs::write(folder.path().join(name), [0x80, 2]).unwrap();
        let text = message(folder.path());
        assert!(text.contains(name) && text.contains("save_file"), "{text}");
    }
}

#[test]
fn folders_that_hold_no_model_say_what_is_wanted() {
    let folder = tempfile::tempdir().unwrap();
    assert!(message(folder.path()).contains("no whole model"));
    std::fs::write(folder.path().join("config.json"), "{}").unwrap();
    assert!(message(folder.path()).contains("model.safetensors"));
    assert!(matches!(
        opened(&folder.path().join("none")),
        Err(Error::Io { .. })
    ));
}

#[test]
fn unknown_families_are_named_beside_those_supported() {
    let folder = copied("vit");
    for (model_type, word) in [
        (json!("siglip"), "model_type siglip"),
        (json!("dinov3_convnext"), "dinov3_convnext"),
        (Value::Null, "without model_type"),
        (json!(7), "without model_type"),
    ] {
        change(folder.path().join("config.json"), "model_type", model_type);
        let text = message(folder.path());
        assert!(text.contains(word) && text.contains("vit_mae"), "{text}");
    }
}

#[test]
fn every_tensor_of_a_model_is_needed() {
    for name in names() {
        let folder = copied(&name);
        opened(folder.path()).unwrap_or_else(|e| panic!("{name}: {e}"));
        let file = weights_of(folder.path());
        let case = Case::open(folder.path(), file);
        let path = folder.path().join(format!("{file}.safetensors"));
        let ignored = [
            "decoder.",
            "text.",
            "transformer.",
            "token_embedding",
            "positional_embedding",
            "ln_final",
            "text_projection",
            "logit_scale",
            "embeddings.mask_token",
            // A model without a pooler is saved without this.
            "pooler.dense.weight",
        ];
        for key in case.names() {
            if ignored.iter().any(|prefix| key.starts_with(prefix)) {
                continue;
            }
            case.save_without(&[&key], &path);
            let text = message(folder.path());
            // Messages lack the prefixes that a family strips; sizes of a trunk are
            // read off two of its tensors.
            let short = key.trim_start_matches("vit.").trim_start_matches("visual.");
            let short = short.trim_start_matches("vision_model.");
            let layer = short.trim_end_matches(".weight").trim_end_matches(".bias");
            assert!(text.contains(layer), "{name} without {key}: {text}");
        }
    }
}

#[test]
fn invalid_configs_are_refused_without_harm() {
    let numbers = [
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "image_size",
        "patch_size",
        "num_channels",
        "num_register_tokens",
        "mlp_ratio",
        "projection_dim",
    ];
    let bad = [
        json!(0),
        json!(-1),
        json!(1),
        json!(7),
        json!(1_000_000_000_000_u64),
        json!(u64::MAX),
        json!(1e300),
        json!("x"),
        json!([1, 2, 3]),
        json!([0, 0]),
        json!({}),
        Value::Null,
    ];
    for name in [
        "dinov2_registers",
        "dinov2_swiglu",
        "dinov3",
        "vit",
        "vit_mae",
        "clip",
    ] {
        let folder = copied(name);
        let path = folder.path().join("config.json");
        let config = std::fs::read(&path).unwrap();
        for key in numbers {
            let whole: Value = serde_json::from_slice(&config).unwrap();
            if whole.get(key).is_none() {
                continue;
            }
            for value in &bad {
                change(path.clone(), key, value.clone());
                let is_refused = opened(folder.path()).is_err();
                // One head, and an image whose table is not asked for, make a network all the same.
                let is_sound = value == &json!(1) && key == "num_attention_heads"
                    || key == "image_size" && name == "dinov3";
                assert!(is_refused || is_sound, "{name}: {key} = {value}");
                std::fs::write(&path, &config).unwrap();
            }
        }
    }
}

#[test]
fn an_eps_that_is_none_is_refused_by_name() {
    for name in ["dinov2", "dinov3", "vit", "vit_mae", "clip"] {
        let folder = copied(name);
        let path = folder.path().join("config.json");
        for bad in [json!(-1), json!(0), json!(1), json!(1e30), json!(1e-60)] {
            change(path.clone(), "layer_norm_eps", bad);
            let text = message(folder.path());
            assert!(text.contains("layer_norm_eps"), "{name}: {text}");
        }
    }
    let folder = copied("openclip_timm");
    change(
        folder.path().join("m3ret.json"),
        "trunk_config",
        json!({"num_heads": 2, "layer_norm_eps": -1e-6}),
    );
    let text = message(folder.path());
    assert!(text.contains("m3ret.json: found layer_norm_eps"), "{text}");
}

#[test]
fn messages_name_the_field_what_it_holds_and_what_was_wanted() {
    for (name, key, value, wanted) in [
        (
            "vit",
            "num_attention_heads",
            json!(0),
            "config.json: found 0 heads by num_attention_heads, width ",
        ),
        (
            "vit",
            "hidden_size",
            json!("x"),
            "config.json: found hidden_size \\\"x\\\", wanted a whole number, not negative",
        ),
        (
            "clip",
            "image_size",
            json!([1, 2, 3]),
            "config.json: found image_size [1,2,3], wanted one side, or [height, width]",
        ),
        (
            "dinov2",
            "patch_size",
            json!(0),
            "patch_size 0 x 0, wanted an image of up to 16384",
        ),
        (
            "dinov3",
            "layer_norm_eps",
            json!([]),
            "found layer_norm_eps [], wanted a number",
        ),
    ] {
        let folder = copied(name);
        change(folder.path().join("config.json"), key, value);
        let text = message(folder.path());
        assert!(text.contains(wanted), "{text}");
    }
    let folder = copied("vit");
    let beside = folder.path().join("preprocessor_config.json");
    let mut processor: Value = read_json(&beside).unwrap_or(json!({}));
    processor["image_mean"] = json!("x");
    std::fs::write(&beside, processor.to_string()).unwrap();
    let text = message(folder.path());
    assert!(
        text.contains("image_mean") && text.contains("one for each of three channels"),
        "{text}"
    );
}

#[test]
fn sizes_of_our_own_are_refused_by_field() {
    let sizes = crate::config::VitConfig {
        patch: [4, 0, 16],
        ..crate::config::VitConfig::tiny()
    };
    let text = sizes.validate().unwrap_err().to_string();
    assert_eq!(text, "patch: expected sides in 1..=1024, got [4,0,16]");
    let mut config = serde_json::to_value(crate::config::VitConfig::tiny()).unwrap();
    let parse = |config: &Value| {
        let parsed = parse_json::<crate::config::VitConfig>(Path::new("config.json"), config);
        parsed.unwrap_err().to_string()
    };
    config["depth"] = json!(-1);
    assert!(parse(&config).contains("found depth -1, wanted a whole number"));
    config.as_object_mut().unwrap().remove("depth");
    assert!(parse(&config).contains("found missing field `depth`"));
}

#[test]
fn a_byte_order_mark_before_a_config_is_passed_over() {
    let folder = copied("vit");
    let fingerprint = opened(folder.path()).unwrap().fingerprint;
    let path = folder.path().join("config.json");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("\u{feff}{text}")).unwrap();
    assert_eq!(fingerprint, opened(folder.path()).unwrap().fingerprint);
}

#[test]
fn fields_that_change_the_network_change_the_fingerprint() {
    let folder = copied("vit");
    let path = folder.path().join("config.json");
    let fingerprint = || opened(folder.path()).unwrap().fingerprint;
    let first = fingerprint();
    assert_eq!(first, fingerprint());
    let mut seen = vec![first.clone()];
    for (key, value) in [
        ("num_attention_heads", json!(1)),
        ("layer_norm_eps", json!(1e-6)),
        ("hidden_act", json!("quick_gelu")),
    ] {
        change(path.clone(), key, value);
        seen.push(fingerprint());
    }
    let processor = json!({"image_mean": [0.1, 0.2, 0.3]});
    let beside = folder.path().join("preprocessor_config.json");
    std::fs::write(&beside, processor.to_string()).unwrap();
    seen.push(fingerprint());
    change(path, "initializer_range", json!(0.5));
    assert_eq!(seen.last(), Some(&fingerprint()), "a field of training");
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 5);
}

#[test]
fn activations_that_are_not_supported_are_named() {
    for name in ["vit", "dinov3"] {
        let folder = copied(name);
        let act = json!("gelu_pytorch_tanh");
        change(folder.path().join("config.json"), "hidden_act", act);
        let text = message(folder.path());
        assert!(text.contains("gelu_pytorch_tanh"), "{text}");
    }
}

#[test]
fn models_saved_in_half_precision_point_the_same_way() {
    let (folder, _copy) = model_folder("dinov2");
    let case = Case::open(&folder, "model");
    let exact = opened(&folder).unwrap();
    let fingerprint = exact.fingerprint.clone();
    let exact = network(exact);
    let shape = case_inputs(&folder);
    for is_bf16 in [false, true] {
        let half = copied("dinov2");
        case.save_halved(is_bf16, &half.path().join("model.safetensors"));
        let halved = opened(half.path()).unwrap();
        assert_ne!(fingerprint, halved.fingerprint, "rounded weights");
        let halved = network(halved);
        let vector = |network: &CpuVit| {
            let view = View {
                input: &shape,
                left_out: &[],
            };
            network.embedding(&network.tokens(&[view]).unwrap()[0])
        };
        let (a, b) = (vector(&exact), vector(&halved));
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        let cosine = dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt();
        assert!(cosine > 0.999, "{cosine}");
    }
}

/// Returns the first native input of a golden model.
fn case_inputs(folder: &Path) -> m3ret_imaging::Input {
    let io = Case::open(folder, "io");
    let shape = io.shape("native.pixel_values");
    let shape = [shape[0], shape[1], 1, shape[2], shape[3]];
    io.inputs("native.pixel_values", shape).remove(0)
}

#[test]
fn a_full_clip_model_loads_as_its_vision_tower() {
    let (tower, _copy) = model_folder("clip");
    let alone = opened(&tower).unwrap();
    let folder = copied("clip");
    let vision: Value = read_json(&tower.join("config.json")).unwrap();
    let config = json!({
        "model_type": "clip",
        "projection_dim": vision["projection_dim"],
        "vision_config": vision,
        "text_config": {},
    });
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    Case::open(&tower, "model").save_with(
        &[
            "text_model.embeddings.token_embedding.weight",
            "logit_scale",
            "text_projection.weight",
        ],
        &folder.path().join("model.safetensors"),
    );
    assert_eq!(
        alone.fingerprint,
        opened(folder.path()).unwrap().fingerprint
    );
}

#[test]
fn a_bare_clip_tower_loads_in_both_spellings() {
    let (tower, _copy) = model_folder("clip");
    let case = Case::open(&tower, "model");
    let fingerprints = ["vision_model.", ""].map(|prefix| {
        let folder = copied("clip");
        let path = folder.path().join("config.json");
        change(path, "architectures", json!(["CLIPVisionModel"]));
        let rename = |name: &str| {
            let short = name.strip_prefix("vision_model.")?;
            Some(format!("{prefix}{short}"))
        };
        case.save_renamed(rename, &folder.path().join("model.safetensors"));
        let opened = opened(folder.path()).unwrap();
        let fingerprint = opened.fingerprint.clone();
        let network = network(opened);
        assert_eq!(network.width(), network.vit.sizes.embed_dim);
        fingerprint
    });
    assert_eq!(fingerprints[0], fingerprints[1], "the same network");
}

#[test]
fn a_trunk_that_is_not_known_asks_for_its_heads() {
    let folder = copied("openclip_timm");
    let beside = folder.path().join("m3ret.json");
    let text = std::fs::read(&beside).unwrap();
    std::fs::remove_file(&beside).unwrap();
    let asked = message(folder.path());
    assert!(
        asked.contains("num_heads") && asked.contains("golden_tiny_vit"),
        "{asked}"
    );
    std::fs::write(&beside, text).unwrap();
    opened(folder.path()).unwrap();
    for bad in [
        "{}",
        r#"{"trunk_config":{"num_heads":0}}"#,
        r#"{"trunk_config":{"num_heads":-1}}"#,
        "[",
    ] {
        std::fs::write(&beside, bad).unwrap();
        assert!(opened(folder.path()).is_err(), "{bad}");
    }
}

#[test]
fn towers_that_differ_are_refused_by_field() {
    let folder = copied("openclip_native");
    let path = folder.path().join("open_clip_config.json");
    let config: Value = read_json(&path).unwrap();
    for (field, value) in [
        ("pool_type", json!("avg")),
        ("attentional_pool", json!(true)),
        ("pos_embed_type", json!("sin_cos_2d")),
        ("input_patchnorm", json!(true)),
    ] {
        let mut changed = config.clone();
        changed["model_cfg"]["vision_cfg"][field] = value;
        std::fs::write(&path, changed.to_string()).unwrap();
        assert!(message(folder.path()).contains(field));
    }
}
