use std::path::Path;

use burn::backend::Flex;
use m3ret_encoder::{Model, ModelConfig, Precision, RunOptions, Stem, View};
use m3ret_imaging::Input;
use m3ret_testing::{Tolerance, close, model_folder};
use safetensors::SafeTensors;

use super::*;
use crate::checkpoint::save_model;
use crate::config::TrainPrecision;
use crate::parameters::{self, numbers};
use crate::random::{Initial, generator, uniform};
use crate::vit::{Patches, Running, Vit};

/// The golden models that ours can begin with, and the mean and deviation of their input.
const MAPPED: [(&str, [[f32; 3]; 2]); 9] = [
    ("clip", CLIP),
    ("clip_gelu", CLIP),
    ("dinov2", IMAGENET),
    ("dinov2_registers", IMAGENET),
    ("dinov3", IMAGENET),
    ("openclip_native", CLIP),
    ("openclip_timm", CLIP),
    ("vit", [[0.5; 3]; 2]),
    ("vit_mae", IMAGENET),
];
const IMAGENET: [[f32; 3]; 2] = [[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]];
const CLIP: [[f32; 3]; 2] = [
    [0.481_454_66, 0.457_827_5, 0.408_210_7],
    [0.268_629_54, 0.261_302_6, 0.275_777_1],
];

/// That of the cases: two networks differ by a few roundings.
const TOLERANCE: Tolerance = Tolerance::new(2e-5, 2e-5);

fn config(init: &Path, model: &str) -> Config {
    let text = format!(
        "out = 'run'\nmanifests = ['m.csv']\nmethod = 'mae'\ninit = '{}'\n[model]\n{model}",
        init.display()
    );
    toml::from_str(&text).unwrap()
}

/// One tensor of a file: shape and values.
type Plain = (Vec<usize>, Vec<f32>);

fn tensors(path: &Path) -> Vec<(String, Plain)> {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensors = file.tensors().into_iter().map(|(name, view)| {
        let values = view.data().as_chunks().0.iter();
        let values = values.map(|&bytes| f32::from_le_bytes(bytes));
        (name, (view.shape().to_vec(), values.collect()))
    });
    tensors.collect()
}

/// The patch embedding of a public model's file, applied to the images of a case, [N, E] each.
struct Public {
    images: Vec<[usize; 3]>,
    pixels: Vec<Vec<f32>>,
    tokens: Vec<Vec<f32>>,
}

impl Public {
    fn open(folder: &Path) -> Self {
        let file = ["model.safetensors", "open_clip_model.safetensors"];
        let file = file.into_iter().find(|file| folder.join(file).exists());
        let weights = tensors(&folder.join(file.unwrap()));
        // The one tensor of four axes.
        let (name, kernel) = weights
            .iter()
            .find(|(_, (shape, _))| shape.len() == 4)
            .unwrap();
        let bias = name.replace(".weight", ".bias");
        let bias = weights.iter().find(|(name, _)| *name == bias);
        let bias = bias.map(|(_, (_, values))| &values[..]);
        let mut public = Self {
            images: Vec::new(),
            pixels: Vec::new(),
            tokens: Vec::new(),
        };
        for (name, (shape, values)) in tensors(&folder.join("io.safetensors")) {
            if !name.ends_with(".pixel_values") {
                continue;
            }
            let shape: [usize; 4] = shape.try_into().unwrap();
            let [_, c, h, w] = shape;
            for pixels in values.chunks_exact(c * h * w) {
                public.images.push([c, h, w]);
                public.pixels.push(pixels.to_vec());
                public.tokens.push(convolved(kernel, bias, pixels, w));
            }
        }
        public
    }
}

/// A convolution whose stride is its kernel, by its definition.
fn convolved(kernel: &Plain, bias: Option<&[f32]>, pixels: &[f32], width: usize) -> Vec<f32> {
    let [n_outputs, c, ph, pw]: [usize; 4] = kernel.0.clone().try_into().unwrap();
    let height = pixels.len() / c / width;
    let mut tokens = Vec::new();
    for (y, x) in (0..height / ph).flat_map(|y| (0..width / pw).map(move |x| (y, x))) {
        for (e, w) in kernel.1.chunks_exact(c * ph * pw).enumerate() {
            let pixel = |i: usize| {
                let (channel, row, column) = (i / (ph * pw), i / pw % ph, i % pw);
                pixels[(channel * height + y * ph + row) * width + x * pw + column]
            };
            let products = (0..w.len()).map(|i| f64::from(w[i]) * f64::from(pixel(i)));
            let sum = products.sum::<f64>() + bias.map_or(0.0, |bias| f64::from(bias[e]));
            #[allow(clippy::cast_possible_truncation, reason = "the one rounding to f32")]
            tokens.push(sum as f32);
        }
    }
    assert_eq!(tokens.len(), height / ph * (width / pw) * n_outputs);
    tokens
}

fn network(vit: &VitConfig, weights: Weights) -> Vit<Flex> {
    let device = burn::tensor::Device::<Flex>::default();
    let fresh = Vit::<Flex>::new(vit, &mut Initial::new(0, &device));
    let (loaded, missing) = parameters::load(fresh, weights, &device).unwrap();
    assert!(missing.is_empty(), "{missing:?}");
    loaded
}

#[test]
fn golden_c08_an_image_gives_the_patch_tokens_of_the_public_model() {
    for (name, [mean, std]) in MAPPED {
        let (path, _copy) = model_folder(name);
        let public = Public::open(&path);
        let [_, ph, pw] = plain_weights(&path).unwrap().patch;
        for (settings, pd) in [
            (String::new(), 4),
            (format!("patch = [1, {ph}, {pw}]"), 1),
            (format!("patch = [3, {ph}, {pw}]"), 3),
        ] {
            let (config, start) = open(&config(&path, &settings)).unwrap();
            let vit = config.model_config().vit;
            assert_eq!(vit.patch, [pd, ph, pw], "{name}");
            let network = network(&vit, start.unwrap().weights);
            for (i, &[c, h, w]) in public.images.iter().enumerate() {
                let pixels = public.pixels[i].iter().enumerate();
                // What a reader of 0..1 sees where the model sees normalised pixels.
                let pixels = pixels.map(|(i, x)| x * std[i / (h * w)] + mean[i / (h * w)]);
                let pixels: Vec<f32> = pixels.collect();
                let channels = pixels.chunks_exact(h * w);
                let repeated = channels.flat_map(|channel| channel.repeat(pd)).collect();
                for (image, shape) in [(pixels.clone(), [c, 1, h, w]), (repeated, [c, pd, h, w])] {
                    let image = Input::new(image, shape).unwrap();
                    let patches = Patches::cut(&[&image], &vit, None).unwrap();
                    let found = numbers(network.embed(&patches, TrainPrecision::F32));
                    let what = format!("{name} at {shape:?}");
                    close(&found, &public.tokens[i], TOLERANCE, &what);
                }
            }
        }
    }
}

#[test]
fn golden_c08_gated_models_are_refused_with_folder_and_reason() {
    for name in ["dinov2_swiglu", "dinov3_gated"] {
        let (path, _copy) = model_folder(name);
        let text = open(&config(&path, "")).unwrap_err().to_string();
        assert!(text.contains(name) && text.contains("gated MLP"), "{text}");
    }
}

#[test]
fn golden_c08_notes_of_the_folder_are_handed_on() {
    let (path, _copy) = model_folder("clip");
    let (_, start) = open(&config(&path, "")).unwrap();
    let notes = start.unwrap().notes;
    assert!(
        notes.iter().any(|note| note.contains("quick GELU")),
        "{notes:?}"
    );
}

#[test]
fn golden_c08_settings_that_contradict_the_folder_are_refused_by_name() {
    let (path, _copy) = model_folder("dinov2_registers");
    let plain = plain_weights(&path).unwrap();
    let [_, ph, pw] = plain.patch;
    let sizes = [
        ("embed_dim", plain.embed_dim),
        ("depth", plain.depth),
        ("num_heads", plain.num_heads),
        ("mlp_hidden", plain.mlp_hidden),
        ("num_registers", plain.num_registers),
    ];
    let sizes = sizes.map(|(size, has)| (format!("{size} = {}", has + 2), size, has.to_string()));
    let others = [
        (
            format!("patch = [4, {}, {pw}]", ph + 1),
            "patch",
            format!("[any depth, {ph}, {pw}]"),
        ),
        (
            "preset = 'base'".to_owned(),
            "preset",
            plain.embed_dim.to_string(),
        ),
        (
            "preset = 'huge'".to_owned(),
            "preset",
            "tiny, small".to_owned(),
        ),
    ];
    for (settings, setting, has) in sizes.into_iter().chain(others) {
        let text = open(&config(&path, &settings)).unwrap_err().to_string();
        let (_, asked) = settings.split_once(" = ").unwrap();
        let setting = format!("setting model.{setting}: ");
        let words = [&setting, &has, asked.trim_matches('\'')];
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
    }
    let agreeing = format!(
        "embed_dim = {}\npatch = [2, {ph}, {pw}]\nref_grid = [3, 5, 7]\nside = 64",
        plain.embed_dim
    );
    let (filled, _) = open(&config(&path, &agreeing)).unwrap();
    let vit = filled.model_config().vit;
    assert_eq!((vit.patch, vit.ref_grid), ([2, ph, pw], [3, 5, 7]));
    assert_eq!(open(&filled).unwrap().0, filled, "filled in already");
}

#[test]
fn a_folder_that_is_none_is_named() {
    let text = open(&config(Path::new("nowhere"), ""))
        .unwrap_err()
        .to_string();
    assert!(text.starts_with("nowhere: "), "{text}");
    let mut without = config(Path::new("nowhere"), "");
    without.init = None;
    assert_eq!(open(&without).unwrap(), (without, None));
}

#[test]
fn planes_of_an_inflated_kernel_add_up_to_the_kernel() {
    let kernel = Weight {
        shape: vec![1, 2, 1, 1, 2],
        values: vec![0.1, -3.3, 7.7, 1e-8],
    };
    let deep = inflated(&kernel, 4);
    assert_eq!(deep.shape, [1, 2, 4, 1, 2]);
    for (channel, plane) in kernel.values.chunks_exact(2).enumerate() {
        for (i, wanted) in plane.iter().enumerate() {
            let planes = deep.values[channel * 8..(channel + 1) * 8].iter();
            let sum: f32 = planes.skip(i).step_by(2).sum();
            // A quarter is exact.
            assert_eq!(sum.to_bits(), wanted.to_bits());
        }
    }
}

fn noise(n: usize, key: u64) -> Vec<f32> {
    let mut rng = generator("test", &[key]);
    (0..n).map(|_| uniform(&mut rng)).collect()
}

/// Draws a network whose biases and norms are no defaults either.
fn drawn(vit: &VitConfig) -> Weights {
    let device = burn::tensor::Device::<Flex>::default();
    let fresh = Vit::<Flex>::new(vit, &mut Initial::new(3, &device));
    let mut weights = parameters::weights(&fresh);
    for (key, weight) in (0..).zip(weights.values_mut()) {
        let noise = noise(weight.values.len(), key);
        let values = weight.values.iter_mut().zip(noise);
        values.for_each(|(value, x)| *value += 0.2 * (x - 0.5));
    }
    weights
}

/// Returns all tokens by the network of training.
fn tokens_of(network: &Vit<Flex>, vit: &VitConfig, image: &Input) -> Vec<f32> {
    let patches = Patches::cut(&[image], vit, None).unwrap();
    let running = Running::plain(vit.num_heads);
    numbers(network.forward(&patches, vit, None, &running))
}

#[test]
fn encoder_and_training_load_each_other_and_give_the_same_tokens() {
    for (num_registers, stem, patch) in [
        (0, Stem::Patch, [2, 8, 4]),
        (3, Stem::Patch, [2, 8, 4]),
        (1, Stem::Conv, [2, 8, 8]),
    ] {
        let vit = VitConfig {
            embed_dim: 48,
            depth: 3,
            num_heads: 4,
            mlp_hidden: 80,
            num_registers,
            patch,
            stem,
            ref_grid: [3, 6, 5],
            ..VitConfig::tiny()
        };
        let mut saved = ModelConfig::new(vit.clone());
        saved.input.side = [32, 32];
        saved.input.max_depth = 8;
        saved.embedding = m3ret_encoder::Pooling::Mean;
        let weights = drawn(&vit);
        let folder = tempfile::tempdir().unwrap();
        save_model(folder.path(), &saved, &weights).unwrap();

        let settings = "side = 32\nmax_depth = 8";
        let (config, start) = open(&config(folder.path(), settings)).unwrap();
        let start = start.unwrap();
        assert_eq!(config.model_config(), saved);
        assert_eq!(start.notes, [""; 0]);
        assert_eq!(start.weights, weights, "bit for bit");

        let options = RunOptions {
            precision: Some(Precision::F32),
            n_threads: None,
        };
        let model = Model::open(folder.path(), &options).unwrap();
        let network = network(&vit, start.weights);
        for (key, shape) in [[3, 1, 32, 32], [3, 6, 16, 24]].into_iter().enumerate() {
            let image = noise(shape.iter().product(), 100 + key as u64);
            let image = Input::new(image, shape).unwrap();
            let view = View {
                input: &image,
                left_out: &[],
            };
            let by_encoder = model.tokens(&[view]).unwrap();
            let by_training = tokens_of(&network, &vit, &image);
            close(&by_training, by_encoder[0].values(), TOLERANCE, "tokens");
        }
    }
}

#[test]
fn our_own_kernel_of_one_plane_is_inflated_only_when_asked() {
    let vit = VitConfig {
        embed_dim: 24,
        depth: 1,
        patch: [1, 8, 8],
        ..VitConfig::tiny()
    };
    let mut saved = ModelConfig::new(vit.clone());
    saved.input.side = [32, 32];
    let folder = tempfile::tempdir().unwrap();
    save_model(folder.path(), &saved, &drawn(&vit)).unwrap();
    let image = Input::new(noise(3 * 32 * 32, 5), [3, 1, 32, 32]).unwrap();
    let mut all = Vec::new();
    for (settings, pd) in [("", 1), ("patch = [4, 8, 8]", 4)] {
        let (config, start) = open(&config(folder.path(), settings)).unwrap();
        let vit = config.model_config().vit;
        assert_eq!(vit.patch, [pd, 8, 8]);
        assert_eq!(vit.ref_grid, saved.vit.ref_grid);
        let network = network(&vit, start.unwrap().weights);
        all.push(tokens_of(&network, &vit, &image));
    }
    close(&all[1], &all[0], TOLERANCE, "deeper");
    let deep = config(folder.path(), "patch = [1, 4, 4]");
    assert!(open(&deep).unwrap_err().to_string().contains("model.patch"));
}

#[test]
fn a_convolutional_stem_serves_every_depth_of_patches_and_is_named_as_configs_do() {
    let vit = VitConfig {
        embed_dim: 24,
        depth: 1,
        patch: [4, 8, 8],
        stem: Stem::Conv,
        ..VitConfig::tiny()
    };
    let mut saved = ModelConfig::new(vit.clone());
    saved.input.side = [32, 32];
    let folder = tempfile::tempdir().unwrap();
    save_model(folder.path(), &saved, &drawn(&vit)).unwrap();
    let image = Input::new(noise(3 * 32 * 32, 5), [3, 1, 32, 32]).unwrap();
    let mut all = Vec::new();
    for (settings, pd) in [("", 4), ("patch = [2, 8, 8]", 2)] {
        let (config, start) = open(&config(folder.path(), settings)).unwrap();
        let vit = config.model_config().vit;
        assert_eq!(vit.patch, [pd, 8, 8]);
        let network = network(&vit, start.unwrap().weights);
        all.push(tokens_of(&network, &vit, &image));
    }
    close(&all[1], &all[0], TOLERANCE, "another depth");
    for (settings, has, asked) in [
        ("stem = 'patch'", "expected conv, as", "found patch"),
        ("patch = [4, 4, 4]", "[any depth, 8, 8]", "[4, 4, 4]"),
    ] {
        let error = open(&config(folder.path(), settings)).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(has) && text.contains(asked), "{text}");
    }
}
