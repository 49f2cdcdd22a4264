//! Reference numbers made by other programs; testdata/README.md says which.
//!
//! The folder is `M3RET_GOLDEN` where it is set, else `testdata/golden`; sizes are read from it.

pub(crate) mod case;
pub(crate) mod external;
mod stem;

use serde::Deserialize;

use m3ret_testing::{Tolerance, close, folder, folder_with};

use self::case::{Case, F32};
use crate::config::{ModelConfig, Pooling, VitConfig};
use crate::family;
use crate::hog::patch_targets;
use crate::kernels::{
    Activation, Finish, Kernels, Linear, Panels, Precision, Rows, Source, layer_norm, multiply,
};
use crate::model::{Model, Prepared};
use crate::position::{part_widths, sin_cos};
use crate::tokens::{grid_of, patchify, unpatchify};
use crate::vit::{CpuVit, View};
use crate::weights::read_json;

#[derive(Deserialize)]
struct Patchify {
    cases: Vec<PatchifyCase>,
    tolerance: PatchifyTolerance,
}

#[derive(Deserialize)]
struct PatchifyCase {
    embed_dim: usize,
    grid: [usize; 3],
    patch: [usize; 3],
    shape: [usize; 5],
}

#[derive(Deserialize)]
struct PatchifyTolerance {
    tokens: Tolerance,
    embedded: Tolerance,
}

#[test]
fn golden_c01_patchify() {
    let case = Case::open(&folder(), "c01_patchify");
    let sizes: Patchify = read_json(&folder().join("c01_patchify.json")).unwrap();
    for (i, row) in sizes.cases.iter().enumerate() {
        let [_, channels, depth, height, width] = row.shape;
        let shape = [channels, depth, height, width];
        assert_eq!(grid_of(shape, row.patch).unwrap(), row.grid);
        let at = |name: &str| format!("{i}.{name}");
        let (volumes, tokens) = (case.items(&at("volume")), case.items(&at("tokens")));
        let back = case.items(&at("unpatchified"));
        for ((volume, wanted), back) in volumes.iter().zip(&tokens).zip(&back) {
            let patches = patchify(volume, shape, row.patch).unwrap();
            close(&patches, wanted, sizes.tolerance.tokens, &at("tokens"));
            let again = unpatchify(&patches, row.grid, row.patch, channels).unwrap();
            close(&again, back, sizes.tolerance.tokens, &at("unpatchified"));
        }
        let layers = case.patch_embed(&at("proj"), [row.embed_dim, channels], row.patch);
        let embedded = case.items(&at("embedded"));
        for (volume, wanted) in case.items(&at("rand_volume")).iter().zip(&embedded) {
            let patches = patchify(volume, shape, row.patch).unwrap();
            let found = product(&layers.whole, &patches);
            close(&found, wanted, sizes.tolerance.embedded, &at("embedded"));
            if let (1, Some(flat)) = (depth, &layers.flat) {
                let [_, ph, pw] = row.patch;
                let plane = patchify(volume, shape, [1, ph, pw]).unwrap();
                let found = product(flat, &plane);
                close(
                    &found,
                    wanted,
                    sizes.tolerance.embedded,
                    &at("embedded, flat"),
                );
            }
        }
    }
}

/// Multiplies plain rows with a packed layer.
fn product(linear: &Linear, values: &[f32]) -> Vec<f32> {
    struct Lines<'a>(&'a [f32]);
    impl Source for Lines<'_> {
        fn fill<const FMA: bool>(&self, rows: std::ops::Range<usize>, lines: &mut [f32]) {
            let start = rows.start * lines.len() / rows.len();
            lines.copy_from_slice(&self.0[start..][..lines.len()]);
        }
    }
    let kernels = Kernels::detect();
    let n_rows = values.len() / linear.n_inputs();
    let shape = [n_rows, linear.n_inputs()];
    let mut rows = Rows::empty(Precision::F32);
    rows.pack(&kernels, shape, &Lines(values));
    let mut out = Panels::zeroed(n_rows, linear.n_outputs());
    multiply(&kernels, &rows, linear, Finish::Store, &mut out);
    let mut found = vec![0.0; n_rows * linear.n_outputs()];
    for (row, line) in found.chunks_exact_mut(linear.n_outputs()).enumerate() {
        out.read(row, 0, line);
    }
    found
}

#[derive(Deserialize)]
struct Positions {
    cases: Vec<PositionsCase>,
    tolerance: Tolerance,
    width_split_table_zyx: std::collections::BTreeMap<String, [usize; 3]>,
}

#[derive(Deserialize)]
struct PositionsCase {
    embed_dim: usize,
    grid: [usize; 3],
    ref_grid: [usize; 3],
    parts_zyx: [usize; 3],
}

#[test]
fn golden_c02_positions() {
    let case = Case::open(&folder(), "c02_positions");
    let sizes: Positions = read_json(&folder().join("c02_positions.json")).unwrap();
    for (i, row) in sizes.cases.iter().enumerate() {
        assert_eq!(part_widths(row.embed_dim), row.parts_zyx);
        let found = sin_cos(row.grid, row.ref_grid, row.embed_dim);
        close(
            &found,
            &case.floats(&format!("{i}.pos")),
            sizes.tolerance,
            "pos",
        );
        let with_cls = [vec![0.0; row.embed_dim], found].concat();
        let wanted = case.floats(&format!("{i}.pos_with_cls"));
        close(&with_cls, &wanted, sizes.tolerance, "pos_with_cls");
    }
    for (width, parts) in sizes.width_split_table_zyx {
        assert_eq!(part_widths(width.parse().unwrap()), parts, "{width}");
    }
}

#[derive(Deserialize)]
struct Encoder {
    config: VitConfig,
    inputs: std::collections::BTreeMap<String, EncoderInput>,
    layer_norm_eps: f32,
    tolerance: Tolerance,
}

#[derive(Deserialize)]
struct EncoderInput {
    grid: [usize; 3],
    shape: [usize; 5],
}

/// Opens the golden encoder from a folder as our own models are saved.
fn ours(sizes: &VitConfig, has_registers: bool, pooling: Pooling) -> CpuVit {
    let mut sizes = sizes.clone();
    let left_out: &[&str] = if has_registers {
        &[]
    } else {
        sizes.num_registers = 0;
        &["register_tokens"]
    };
    let weights = Case::open(&folder(), "c03_encoder.weights");
    saved_as_ours(&weights, left_out, &sizes, pooling, Kernels::detect())
}

fn saved_as_ours(
    weights: &Case,
    left_out: &[&str],
    sizes: &VitConfig,
    pooling: Pooling,
    kernels: Kernels,
) -> CpuVit {
    let model = tempfile::tempdir().unwrap();
    let vit = sizes.clone();
    let [_, ph, pw] = vit.patch;
    let mut config = ModelConfig::new(vit.clone());
    config.embedding = pooling;
    config.input.side = [4 * ph, 4 * pw];
    config.input.max_depth = 4 * vit.patch[0];
    let text = serde_json::to_vec_pretty(&config).unwrap();
    std::fs::write(model.path().join("config.json"), text).unwrap();
    weights.save_without(left_out, &model.path().join("model.safetensors"));
    let vit = family::open(model.path(), F32).unwrap().vit;
    CpuVit { vit, kernels }
}

#[test]
fn golden_c03_encoder() {
    let case = Case::open(&folder(), "c03_encoder");
    let sizes: Encoder = read_json(&folder().join("c03_encoder.json")).unwrap();
    let saved: VitConfig = read_json(&folder().join("c03_encoder.weights.json")).unwrap();
    assert_eq!(saved, sizes.config);
    for (kind, input) in &sizes.inputs {
        for (name, has_registers) in [("reg", true), ("noreg", false)] {
            let at = |step: &str| format!("{kind}.{name}.{step}");
            let by_cls = ours(&sizes.config, has_registers, Pooling::Cls);
            let by_mean = ours(&sizes.config, has_registers, Pooling::Mean);
            let inputs = case.inputs(&format!("{kind}.input"), input.shape);
            for (i, input) in inputs.iter().enumerate() {
                let view = View {
                    input,
                    left_out: &[],
                };
                let tokens = by_cls.tokens(&[view]).unwrap().remove(0);
                let check = |found: &[f32], step: &str| {
                    let wanted = &case.items(&at(step))[i];
                    close(found, wanted, sizes.tolerance, &at(step));
                };
                check(tokens.values(), "tokens");
                check(&by_cls.embedding(&tokens), "cls");
                check(&by_mean.embedding(&tokens), "mean");
                if has_registers {
                    let steps = |n| by_cls.hidden(&view, n).unwrap();
                    check(&steps(0), "embedded");
                    check(
                        &unplaced(&steps(0), &sizes.config, tokens.grid()),
                        "patch_embed",
                    );
                    for block in 0..sizes.config.depth {
                        check(&steps(block + 1), &format!("block{block}"));
                    }
                }
            }
            assert_eq!(
                grid_of(
                    [3, input.shape[2], input.shape[3], input.shape[4]],
                    sizes.config.patch
                )
                .unwrap(),
                input.grid
            );
        }
    }
}

/// Takes the prefix and the positions away from embedded patches.
fn unplaced(embedded: &[f32], sizes: &VitConfig, grid: [usize; 3]) -> Vec<f32> {
    let positions = sin_cos(grid, sizes.ref_grid, sizes.embed_dim);
    let patches = &embedded[(1 + sizes.num_registers) * sizes.embed_dim..];
    patches.iter().zip(positions).map(|(x, p)| x - p).collect()
}

#[test]
fn golden_c03_encoder_units() {
    let case = Case::open(&folder(), "c03_encoder");
    let sizes: Encoder = read_json(&folder().join("c03_encoder.json")).unwrap();
    let (weight, bias) = (case.floats("unit.ln_weight"), case.floats("unit.ln_bias"));
    let mut rows = case.floats("unit.ln_input");
    for row in rows.chunks_exact_mut(weight.len()) {
        layer_norm::<true>(row, &weight, &bias, sizes.layer_norm_eps);
    }
    close(&rows, &case.floats("unit.ln_output"), sizes.tolerance, "ln");
    let mut values = case.floats("unit.gelu_input");
    Activation::Gelu.apply::<true>(&mut values);
    close(
        &values,
        &case.floats("unit.gelu_output"),
        sizes.tolerance,
        "gelu",
    );
}

#[test]
fn golden_c03_encoder_with_every_instruction_set() {
    let case = Case::open(&folder(), "c03_encoder");
    let sizes: Encoder = read_json(&folder().join("c03_encoder.json")).unwrap();
    let weights = Case::open(&folder(), "c03_encoder.weights");
    for kernels in Kernels::available() {
        let vit = saved_as_ours(&weights, &[], &sizes.config, Pooling::Cls, kernels);
        // Both grids in one batch.
        let all: Vec<_> = sizes.inputs.iter().collect();
        let inputs: Vec<_> = all
            .iter()
            .map(|(kind, input)| case.inputs(&format!("{kind}.input"), input.shape))
            .collect();
        let views: Vec<_> = inputs
            .iter()
            .flatten()
            .map(|input| View {
                input,
                left_out: &[],
            })
            .collect();
        let wanted = all
            .iter()
            .flat_map(|(kind, _)| case.items(&format!("{kind}.reg.tokens")));
        let together = vit.tokens(&views).unwrap();
        for ((tokens, wanted), view) in together.iter().zip(wanted).zip(&views) {
            close(tokens.values(), &wanted, sizes.tolerance, "tokens");
            // Bit for bit: a vector does not depend on its neighbours in a batch.
            assert_eq!(vit.tokens(&[*view]).unwrap()[0], *tokens);
        }
    }
}

#[derive(Deserialize)]
struct Mae {
    encoder: VitConfig,
}

#[test]
fn golden_c04_encoder_of_the_patches_left_to_see() {
    let sizes: Mae = read_json(&folder().join("c04_mae.weights.json")).unwrap();
    let weights = Case::open(&folder(), "c04_mae.weights");
    let names = weights.names();
    let decoder: Vec<_> = names
        .iter()
        .map(String::as_str)
        .filter(|name| name.starts_with("decoder_") || *name == "mask_token")
        .collect();
    let pooling = Pooling::Mean;
    let vit = saved_as_ours(
        &weights,
        &decoder,
        &sizes.encoder,
        pooling,
        Kernels::detect(),
    );
    let tolerance = Tolerance::new(1e-5, 1e-5);
    for kind in ["three_d", "two_d"] {
        let case = Case::open(&folder(), &format!("c04_mae.{kind}"));
        let shape: [usize; 5] = case.shape("input").try_into().unwrap();
        let (hidden, latents) = (case.items("mask"), case.items("latent"));
        let kept = case.integers("ids_keep");
        let n_kept = kept.len() / latents.len();
        for (i, input) in case.inputs("input", shape).iter().enumerate() {
            let left_out: Vec<_> = (0..hidden[i].len())
                .filter(|&patch| hidden[i][patch] > 0.5)
                .collect();
            let view = View {
                input,
                left_out: &left_out,
            };
            let tokens = vit.tokens(&[view]).unwrap().remove(0);
            // MAE sees the patches in the order of its noise, we in that of the grid.
            let width = tokens.embed_dim();
            let n_prefix = tokens.values().len() / width - n_kept;
            let mut order: Vec<_> = kept[i * n_kept..][..n_kept].iter().zip(0..).collect();
            order.sort_unstable();
            let rows = (0..n_prefix).chain(order.iter().map(|(_, place)| n_prefix + place));
            let wanted: Vec<f32> = rows
                .flat_map(|row| latents[i][row * width..][..width].to_vec())
                .collect();
            close(tokens.values(), &wanted, tolerance, "latent");
        }
    }
}

#[derive(Deserialize)]
struct Hog {
    descriptors: Vec<HogImage>,
    targets: Vec<HogImage>,
    tolerance: HogTolerance,
}

#[derive(Deserialize)]
struct HogImage {
    shape: [usize; 4],
    #[serde(default)]
    patch: [usize; 3],
}

#[derive(Deserialize)]
struct HogTolerance {
    descriptor: Tolerance,
    target: Tolerance,
}

#[test]
fn golden_c11_hog() {
    const NAME: &str = "c11_hog";
    let case = Case::open(&folder_with(NAME), NAME);
    let sizes: Hog = read_json(&folder_with(NAME).join("c11_hog.json")).unwrap();
    let model = Model::hog();
    for (i, row) in sizes.descriptors.iter().enumerate() {
        let input = case.image(&format!("descriptor.{i}.image"));
        assert_eq!(input.shape(), row.shape);
        let found = model.embed(&[&Prepared::new(vec![input])]).unwrap();
        let wanted = case.floats(&format!("descriptor.{i}.wanted"));
        let what = format!("descriptor {i}");
        close(&found[0], &wanted, sizes.tolerance.descriptor, &what);
    }
    for (i, row) in sizes.targets.iter().enumerate() {
        let image = case.image(&format!("target.{i}.image"));
        assert_eq!(image.shape(), row.shape);
        let found = patch_targets(&image, row.patch).unwrap();
        let wanted = case.floats(&format!("target.{i}.wanted"));
        close(
            &found,
            &wanted,
            sizes.tolerance.target,
            &format!("target {i}"),
        );
    }
    assert!(!sizes.descriptors.is_empty() && !sizes.targets.is_empty());
}
