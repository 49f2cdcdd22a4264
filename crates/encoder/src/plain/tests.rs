use m3ret_imaging::Input;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use super::*;
use crate::config::ModelConfig;
use crate::golden::case::{Case, F32};
use crate::golden::external::{names, root};
use crate::kernels::{Kernels, Linear};
use crate::position::sin_cos;
use crate::vit::{CpuVit, View};
use crate::weights::read_json;
use m3ret_testing::{Tolerance, close, folder, model_folder};

/// Of the goldens' own: numbers of both sides differ by a few roundings.
const TOLERANCE: Tolerance = Tolerance::new(2e-5, 2e-5);

/// Saves plain weights as a model of our own, and opens it.
fn saved(plain: &PlainWeights) -> CpuVit {
    let config = ModelConfig::new(VitConfig {
        in_chans: 3,
        embed_dim: plain.embed_dim,
        depth: plain.depth,
        num_heads: plain.num_heads,
        mlp_hidden: plain.mlp_hidden,
        num_registers: plain.num_registers,
        patch: plain.patch,
        stem: plain.stem,
        ref_grid: plain.ref_grid.unwrap_or([1, 3, 5]),
    });
    let [_, ph, pw] = plain.patch;
    let config = ModelConfig {
        input: m3ret_imaging::InputConfig {
            side: [4 * ph, 4 * pw],
            ..config.input
        },
        ..config
    };
    let model = tempfile::tempdir().unwrap();
    let text = serde_json::to_vec(&config).unwrap();
    std::fs::write(model.path().join("config.json"), text).unwrap();
    let bytes = |tensor: &PlainTensor| -> Vec<u8> {
        let values = tensor.values.iter();
        values.flat_map(|value| value.to_le_bytes()).collect()
    };
    let tensors: Vec<_> = plain
        .tensors
        .iter()
        .map(|(n, t)| (n, t, bytes(t)))
        .collect();
    let views = tensors.iter().map(|(name, tensor, bytes)| {
        let view = TensorView::new(Dtype::F32, tensor.shape.clone(), bytes).unwrap();
        (*name, view)
    });
    safetensors::serialize_to_file(views, None, &model.path().join("model.safetensors")).unwrap();
    on_cpu(family::open(model.path(), F32).unwrap().vit)
}

fn on_cpu(vit: Vit<Linear>) -> CpuVit {
    CpuVit {
        vit,
        kernels: Kernels::detect(),
    }
}

/// A public model, the plain weights exported from it, and inputs as both want them.
struct Pair {
    theirs: CpuVit,
    plain: PlainWeights,
    /// As the model normalises them, and the same in 0..1.
    inputs: Vec<[Input; 2]>,
}

/// Opens a golden model, or says why it is none to start from.
fn pair(name: &str) -> Result<Pair> {
    let (path, _copy) = model_folder(name);
    let plain = plain_weights(&path)?;
    let parts = family::open(&path, F32)?;
    let Preparation::Planes(normalised) = parts.preparation else {
        panic!("{name} is a model of pictures");
    };
    let case = Case::open(&root().join(name), "io");
    let mut inputs = Vec::new();
    for tag in ["native.pixel_values", "resized.pixel_values"] {
        let shape = case.shape(tag);
        for input in case.inputs(tag, [shape[0], shape[1], 1, shape[2], shape[3]]) {
            let per_channel = shape[2] * shape[3];
            let values = input.values().iter().enumerate().map(|(i, x)| {
                let channel = i / per_channel;
                let x = x * normalised.stats.std[channel] + normalised.stats.mean[channel];
                x / normalised.white
            });
            let plain = Input::new(values.collect(), input.shape()).unwrap();
            inputs.push([input, plain]);
        }
    }
    Ok(Pair {
        theirs: on_cpu(parts.vit),
        plain,
        inputs,
    })
}

/// Multiplies an input with the kernel as the model's file has it: a convolution, [N, E].
fn convolved(name: &str, input: &Input) -> Vec<f32> {
    let file = ["model", "open_clip_model"];
    let file = file.into_iter().find(|file| {
        let path = root().join(name).join(format!("{file}.safetensors"));
        path.exists()
    });
    let case = Case::open(&root().join(name), file.unwrap());
    // The one tensor of four axes.
    let names = case.names();
    let kernel = names.iter().find(|name| case.shape(name).len() == 4);
    let kernel = kernel.unwrap();
    let [width, n_chans, ph, pw]: [usize; 4] = case.shape(kernel).try_into().unwrap();
    let weight = case.floats(kernel);
    let bias = kernel.replace(".weight", ".bias");
    let bias = case.has(&bias).then(|| case.floats(&bias));
    let [_, _, n_rows, n_columns] = input.shape();
    let mut tokens = Vec::new();
    for (y, x) in (0..n_rows / ph).flat_map(|y| (0..n_columns / pw).map(move |x| (y, x))) {
        for e in 0..width {
            let mut sum = bias.as_ref().map_or(0.0, |bias| f64::from(bias[e]));
            for (i, w) in weight[e * n_chans * ph * pw..][..n_chans * ph * pw]
                .iter()
                .enumerate()
            {
                let (c, row, column) = (i / (ph * pw), i / pw % ph, i % pw);
                let pixel = (c * n_rows + y * ph + row) * n_columns + x * pw + column;
                sum += f64::from(*w) * f64::from(input.values()[pixel]);
            }
            #[allow(clippy::cast_possible_truncation, reason = "the one rounding to f32")]
            tokens.push(sum as f32);
        }
    }
    tokens
}

fn view(input: &Input) -> View<'_> {
    View {
        input,
        left_out: &[],
    }
}

/// Returns the golden models that can be started from: all but the gated.
fn mapped() -> Vec<(String, Pair)> {
    let mut pairs = Vec::new();
    for name in names() {
        match pair(&name) {
            Ok(pair) => pairs.push((name, pair)),
            Err(error) => assert!(error.to_string().contains("gated MLP"), "{name}: {error}"),
        }
    }
    assert!(pairs.len() >= 9, "only {} models", pairs.len());
    pairs
}

#[test]
fn golden_c08_plain_weights_give_the_same_patch_tokens() {
    for (name, pair) in mapped() {
        let ours = saved(&pair.plain);
        let ref_grid = match ours.vit.position {
            Position::SinCos { ref_grid } => ref_grid,
            _ => panic!("our own positions"),
        };
        for [theirs, plain] in &pair.inputs {
            let embedded = ours.hidden(&view(plain), 0).unwrap();
            let patches = &embedded[ours.vit.prefix.len()..];
            let [_, _, height, width] = plain.shape();
            let sizes = ours.vit.sizes;
            let grid = [1, height / sizes.patch[1], width / sizes.patch[2]];
            let positions = sin_cos(grid, ref_grid, sizes.embed_dim);
            let found: Vec<f32> = patches.iter().zip(positions).map(|(x, p)| x - p).collect();
            close(&found, &convolved(&name, theirs), TOLERANCE, &name);
        }
    }
}

#[test]
fn golden_c08_plain_weights_and_what_notes_name_are_the_whole_model() {
    for (name, mut pair) in mapped() {
        let mut ours = saved(&pair.plain);
        let theirs = &mut pair.theirs;
        let mut wanted = Vec::new();
        for [input, _] in &pair.inputs {
            let tokens = theirs.tokens(&[view(input)]).unwrap();
            let hidden = (0..=theirs.vit.blocks.len()).map(|n| theirs.hidden(&view(input), n));
            let hidden: Vec<_> = hidden.collect::<Result<_>>().unwrap();
            wanted.push((hidden, theirs.embedding(&tokens[0])));
        }
        // Only what `notes` can name is put back.
        let (own, other) = (&mut ours.vit, &mut theirs.vit);
        let eps = other.blocks[0].norm1.eps;
        for block in &mut own.blocks {
            (block.norm1.eps, block.norm2.eps) = (eps, eps);
        }
        own.norm.iter_mut().for_each(|norm| norm.eps = eps);
        std::mem::swap(&mut own.position, &mut other.position);
        own.pre_norm = other.pre_norm.take();
        own.head = other.head.take();
        (own.mlp, own.pooling) = (other.mlp, other.pooling);
        for ([_, input], (hidden, embedding)) in pair.inputs.iter().zip(wanted) {
            for (n, hidden) in hidden.iter().enumerate() {
                let found = ours.hidden(&view(input), n).unwrap();
                close(&found, hidden, TOLERANCE, &format!("{name}, block {n}"));
            }
            let tokens = ours.tokens(&[view(input)]).unwrap();
            close(&ours.embedding(&tokens[0]), &embedding, TOLERANCE, &name);
        }
    }
}

#[test]
fn golden_c08_gated_models_are_refused_with_the_reason() {
    for name in ["dinov2_swiglu", "dinov3_gated"] {
        let (path, _copy) = model_folder(name);
        let text = plain_weights(&path).unwrap_err().to_string();
        let words = ["gated MLP", "fc1, GELU, fc2", "DINOv2"];
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
    }
}

#[test]
fn golden_c08_what_has_no_counterpart_is_named() {
    let table = "its table of positions, 1 x ";
    let before = "its norm before the first block";
    let projection = "its projection of the embedding";
    let mask = "left out: embeddings.mask_token";
    let cases: [(&str, &[&str]); 9] = [
        ("dinov2", &[table, mask]),
        ("dinov2_registers", &[table, mask]),
        ("dinov3", &["its rotary positions", mask]),
        ("vit", &[table, "its tanh pooler"]),
        ("vit_mae", &[table, "left out: decoder.*"]),
        (
            "clip",
            &[table, before, "its quick GELU becomes", projection],
        ),
        ("clip_gelu", &[table, before, projection]),
        (
            "openclip_native",
            &[
                table,
                before,
                projection,
                "left out: ln_final.*, logit_scale, positional_embedding, text_projection, \
                 token_embedding.weight, transformer.*",
            ],
        ),
        (
            "openclip_timm",
            &[table, projection, "left out: logit_scale, text.*"],
        ),
    ];
    for (name, wanted) in cases {
        let Pair { theirs, plain, .. } = pair(name).unwrap();
        let (of_eps, others): (Vec<_>, Vec<_>) = plain
            .notes
            .into_iter()
            .partition(|note| note.starts_with("LayerNorm adds"));
        let eps = theirs.vit.blocks[0].norm1.eps;
        let is_ours = eps.to_bits() == VitConfig::NORM_EPS.to_bits();
        assert_eq!(of_eps.is_empty(), is_ours, "{name}: {eps}");
        let eps = format!("{eps:e}");
        assert!(of_eps.iter().all(|note| note.contains(&eps)), "{of_eps:?}");
        assert_eq!(others.len(), wanted.len(), "{name}: {others:?}");
        for (found, wanted) in others.iter().zip(wanted) {
            assert!(found.contains(wanted), "{name}: {found}, not {wanted}");
        }
    }
}

#[test]
fn golden_c03_our_own_weights_come_bit_for_bit() {
    let config: VitConfig = read_json(&folder().join("c03_encoder.weights.json")).unwrap();
    let case = Case::open(&folder(), "c03_encoder.weights");
    let model = tempfile::tempdir().unwrap();
    let mut whole = ModelConfig::new(config.clone());
    whole.input.side = [config.patch[1] * 4, config.patch[2] * 4];
    whole.input.max_depth = config.patch[0] * 4;
    let text = serde_json::to_vec(&whole).unwrap();
    std::fs::write(model.path().join("config.json"), text).unwrap();
    case.save_with(
        &["decoder_pred.bias", "head.mlp.0.bias"],
        &model.path().join("model.safetensors"),
    );
    let plain = plain_weights(model.path()).unwrap();
    let mut names = case.names();
    names.sort_unstable();
    assert_eq!(plain.tensors.keys().cloned().collect::<Vec<_>>(), names);
    for (name, tensor) in &plain.tensors {
        assert_eq!(tensor.shape, case.shape(name), "{name}");
        let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&tensor.values), bits(&case.floats(name)), "{name}");
    }
    assert_eq!(plain.ref_grid, Some(config.ref_grid));
    assert_eq!(
        plain.notes,
        [
            "tensors that are no part of its encoder are left out: decoder_pred.bias, head.mlp.0.bias"
        ]
    );
}

#[test]
fn a_kernel_of_one_channel_sees_grey_as_before() {
    let kernels = spread(&[3.0, -6.0, 1.5, 9.0, 0.0, -3.0], 3);
    let wanted = [[1.0, -2.0, 0.5].repeat(3), [3.0, 0.0, -1.0].repeat(3)];
    assert_eq!(kernels, wanted.concat());
}
