//! Reference numbers made by other programs; testdata/README.md says which.
//!
//! The folder is `M3RET_GOLDEN` where it is set, else `testdata/golden`; sizes are read from it.

pub(crate) mod case;
pub(crate) mod external;

use serde::Deserialize;

use self::case::{Case, Tolerance, close, folder};
use crate::config::{ModelConfig, Pooling, VitConfig};
use crate::family::{self, Opened};
use crate::kernels::{
    Activation, Finish, Kernels, Linear, Panels, Precision, Rows, Source, layer_norm, multiply,
};
use crate::position::{part_widths, sin_cos};
use crate::tokens::{grid_of, patchify, unpatchify};
use crate::vit::View;
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
        let (deep, flat) = case.patch_embed(&at("proj"), [row.embed_dim, channels], row.patch);
        let embedded = case.items(&at("embedded"));
        for (volume, wanted) in case.items(&at("rand_volume")).iter().zip(&embedded) {
            let patches = patchify(volume, shape, row.patch).unwrap();
            let found = product(&deep, &patches);
            close(&found, wanted, sizes.tolerance.embedded, &at("embedded"));
            if let (1, Some(flat)) = (depth, &flat) {
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
            &case.get(&format!("{i}.pos")),
            sizes.tolerance,
            "pos",
        );
        let with_cls = [vec![0.0; row.embed_dim], found].concat();
        let wanted = case.get(&format!("{i}.pos_with_cls"));
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
fn ours(sizes: &VitConfig, has_registers: bool, pooling: Pooling) -> Opened {
    let model = tempfile::tempdir().unwrap();
    let mut vit = sizes.clone();
    let left_out: &[&str] = if has_registers {
        &[]
    } else {
        vit.num_registers = 0;
        &["register_tokens"]
    };
    let [_, ph, pw] = vit.patch;
    let mut config = ModelConfig::new(vit.clone());
    config.embedding = pooling;
    config.input.side = [4 * ph, 4 * pw];
    config.input.max_depth = 4 * vit.patch[0];
    let text = serde_json::to_vec_pretty(&config).unwrap();
    std::fs::write(model.path().join("config.json"), text).unwrap();
    Case::open(&folder(), "c03_encoder.weights")
        .save_without(left_out, &model.path().join("model.safetensors"));
    family::open(model.path(), Kernels::detect(), Precision::F32).unwrap()
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
            let by_cls = ours(&sizes.config, has_registers, Pooling::Cls).vit;
            let by_mean = ours(&sizes.config, has_registers, Pooling::Mean).vit;
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
    let (weight, bias) = (case.get("unit.ln_weight"), case.get("unit.ln_bias"));
    let mut rows = case.get("unit.ln_input");
    for row in rows.chunks_exact_mut(weight.len()) {
        layer_norm::<true>(row, &weight, &bias, sizes.layer_norm_eps);
    }
    close(&rows, &case.get("unit.ln_output"), sizes.tolerance, "ln");
    let mut values = case.get("unit.gelu_input");
    Activation::Gelu.apply::<true>(&mut values);
    close(
        &values,
        &case.get("unit.gelu_output"),
        sizes.tolerance,
        "gelu",
    );
}
