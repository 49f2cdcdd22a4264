//! Every kernel against its plain twin, and against the definition in f64, over random shapes.

use proptest::prelude::*;

use super::attention::{HeadOutputs, Rotation, Span, attend};
use super::dispatch::Start;
use super::linear::{Activation, Finish, Linear, multiply};
use super::math::{exp2, gelu, layer_norm, sigmoid};
use super::rows::{Rows, Source};
use super::{Kernels, Lanes, MR, NR, Panels, Precision, UnitRow, bf16_bits};
use crate::pack::transposed;

const ALL: [Precision; 3] = [Precision::F32, Precision::Bf16, Precision::Int8];

/// A cheap source of test values in -1..1.
struct Noise(u64);

impl Noise {
    fn bits(&mut self) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        u32::try_from(self.0 >> 32).unwrap()
    }

    fn value(&mut self) -> f32 {
        f32::from(u16::try_from(self.bits() >> 16).unwrap()) / 32768.0 - 1.0
    }

    fn values(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.value()).collect()
    }

    /// One unit that the precision's kernel takes: any bytes for int8, small numbers otherwise.
    fn unit(&mut self, precision: Precision) -> u32 {
        match precision {
            Precision::F32 => self.value().to_bits(),
            Precision::Bf16 => bf16_bits(self.value()) | bf16_bits(self.value()) << 16,
            Precision::Int8 => self.bits(),
        }
    }
}

/// A row-major matrix as a source of rows.
struct Matrix<'a> {
    values: &'a [f32],
    width: usize,
}

impl Source for Matrix<'_> {
    #[inline(always)]
    fn fill<const FMA: bool>(&self, rows: std::ops::Range<usize>, lines: &mut [f32]) {
        lines.copy_from_slice(&self.values[rows.start * self.width..][..lines.len()]);
    }
}

/// The operands of one product.
#[derive(Clone)]
struct Factors {
    /// [M, K]
    rows: Vec<f32>,
    /// [N, K]
    weight: Vec<f32>,
    /// [N]
    bias: Vec<f32>,
    /// [M, N]: the output before the product.
    before: Vec<f32>,
    /// `[M, N, K]`
    shape: [usize; 3],
}

impl Factors {
    fn noise(noise: &mut Noise, [m, n, k]: [usize; 3]) -> Self {
        Self {
            rows: noise.values(m * k),
            weight: noise.values(n * k),
            bias: noise.values(n),
            before: noise.values(m * n),
            shape: [m, n, k],
        }
    }
}

/// Returns the results of a product, [M, N].
fn product(kernels: &Kernels, precision: Precision, finish: Finish, factors: &Factors) -> Vec<f32> {
    let Factors {
        rows,
        weight,
        bias,
        before,
        shape: [m, n, k],
    } = factors;
    let (m, n, k) = (*m, *n, *k);
    let linear = Linear::pack(precision, weight, [n, k], Some(bias));
    let mut packed = Rows::empty(precision);
    let source = Matrix {
        values: rows,
        width: k,
    };
    packed.pack(kernels, [m, k], &source);
    let mut out = Panels::zeroed(m, n);
    for (row, line) in before.chunks_exact(n).enumerate() {
        out.write(row, line);
    }
    multiply(kernels, &packed, &linear, finish, &mut out);
    read_all(&out)
}

fn read_all(panels: &Panels) -> Vec<f32> {
    let width = panels.n_cols();
    let mut values = vec![0.0; panels.n_rows() * width];
    for (row, line) in values.chunks_exact_mut(width).enumerate() {
        panels.read(row, 0, line);
    }
    values
}

/// The definition, in f64.
fn wanted(finish: Finish, factors: &Factors) -> Vec<f64> {
    let Factors {
        rows,
        weight,
        bias,
        before,
        shape: [_, n, k],
    } = factors;
    let (n, k) = (*n, *k);
    let results = before.iter().enumerate().map(|(at, &before)| {
        let (i, j) = (at / n, at % n);
        let terms = rows[i * k..][..k].iter().zip(&weight[j * k..][..k]);
        let dot: f64 = terms.map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
        let sum = dot + f64::from(bias[j]);
        match finish {
            Finish::Store => sum,
            Finish::Add => sum + f64::from(before),
            Finish::Activate(Activation::Gelu) => exact_gelu(sum),
            Finish::Activate(Activation::QuickGelu) => sum / (1.0 + (-1.702 * sum).exp()),
            Finish::Activate(Activation::Silu) => sum / (1.0 + (-sum).exp()),
        }
    });
    results.collect()
}

/// GELU with erfc by its continued fraction or series, whichever converges.
fn exact_gelu(x: f64) -> f64 {
    let z = x.abs() / std::f64::consts::SQRT_2;
    let tail = if z < 2.5 {
        let mut term = z;
        let mut sum = z;
        for n in 1..200 {
            let n = f64::from(n);
            term *= -z * z / n;
            sum += term / (2.0 * n + 1.0);
        }
        1.0 - sum * std::f64::consts::FRAC_2_SQRT_PI
    } else {
        let fraction = (1..100)
            .rev()
            .fold(z, |rest, n| z + f64::from(n) / 2.0 / rest);
        (-z * z).exp() / fraction / std::f64::consts::PI.sqrt()
    };
    if x < 0.0 {
        x * tail / 2.0
    } else {
        x * (1.0 - tail / 2.0)
    }
}

/// How far a product of values in -1..1 may be off: f32 by rounding, k times, of a sum that grows
/// like a random walk; bf16 by 2^-8 of each factor,
/// whose errors add like a random walk; int8 by half of 1/127 of each.
fn tolerance(precision: Precision, k: usize) -> f64 {
    let walk = f64::from(u32::try_from(k).unwrap()).sqrt();
    match precision {
        Precision::F32 => 1e-5 + 1e-7 * walk * walk,
        Precision::Bf16 => 1e-5 + 1.2e-2 * walk,
        Precision::Int8 => 1e-5 + 2.4e-2 * walk,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn tiles_of_every_instruction_set_equal_the_portable_ones(
        n_rows in 1..=MR, k in 0..70_usize, is_sum: bool, seed: u64,
    ) {
        let mut noise = Noise(seed);
        for precision in ALL {
            let rows: Vec<[u32; MR]> = (0..k)
                .map(|_| std::array::from_fn(|_| noise.unit(precision)))
                .collect();
            let panel: Vec<UnitRow> = (0..k)
                .map(|_| UnitRow(std::array::from_fn(|_| noise.unit(precision))))
                .collect();
            let bias = Lanes(std::array::from_fn(|_| noise.value()));
            let start = match precision {
                Precision::Int8 => Start::ZERO,
                _ => Start {
                    is_sum,
                    bias: &bias,
                    ahead: &panel[k / 2..],
                },
            };
            let before: Vec<Lanes> = (0..n_rows)
                .map(|_| Lanes(std::array::from_fn(|_| noise.value())))
                .collect();
            let mut expected = before.clone();
            Kernels::portable().tile(precision)(&rows, &panel, start, &mut expected);
            for kernels in Kernels::available() {
                let mut out = before.clone();
                kernels.tile(precision)(&rows, &panel, start, &mut out);
                for (got, want) in out.iter().zip(&expected) {
                    for j in 0..NR {
                        if precision == Precision::Int8 {
                            prop_assert_eq!(got.0[j].to_bits(), want.0[j].to_bits());
                        } else {
                            prop_assert!((got.0[j] - want.0[j]).abs() <= 2e-5, "{kernels:?}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn lines_are_interleaved_alike_by_every_instruction_set(n_units in 1..70_usize, seed: u64) {
        let mut noise = Noise(seed);
        let lines: Vec<u32> = (0..MR * n_units).map(|_| noise.bits()).collect();
        for kernels in Kernels::available() {
            let mut units = vec![[0; MR]; n_units];
            (kernels.interleave)(&lines, &mut units);
            for (k, unit) in units.iter().enumerate() {
                for (i, &unit) in unit.iter().enumerate() {
                    prop_assert_eq!(unit, lines[i * n_units + k]);
                }
            }
        }
    }

    #[test]
    fn products_equal_their_definition(
        m in 1..50_usize, n in 1..80_usize, k in 1..90_usize, seed: u64,
    ) {
        let mut noise = Noise(seed);
        let factors = Factors::noise(&mut noise, [m, n, k]);
        let finishes = [
            Finish::Store,
            Finish::Add,
            Finish::Activate(Activation::Gelu),
            Finish::Activate(Activation::QuickGelu),
            Finish::Activate(Activation::Silu),
        ];
        for finish in finishes {
            let wanted = wanted(finish, &factors);
            for kernels in Kernels::available() {
                for precision in ALL {
                    let got = product(&kernels, precision, finish, &factors);
                    for (&got, want) in got.iter().zip(&wanted) {
                        let error = (f64::from(got) - want).abs();
                        prop_assert!(
                            error <= tolerance(precision, k),
                            "{error} {precision:?} {finish:?} {kernels:?}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn attention_equals_its_definition(
        lengths in prop::collection::vec(1..70_usize, 1..4),
        n_heads in 1..4_usize, width in 1..40_usize, turns: bool, seed: u64,
    ) {
        let mut noise = Noise(seed);
        let width = if turns { 4 * width.div_ceil(4) } else { width };
        let n_rows: usize = lengths.iter().sum();
        let qkv = noise.values(n_rows * 3 * n_heads * width);
        let mut panels = Panels::zeroed(n_rows, 3 * n_heads * width);
        for (row, line) in qkv.chunks_exact(3 * n_heads * width).enumerate() {
            panels.write(row, line);
        }
        let mut first_row = 0;
        let mut spans = Vec::new();
        for &n_tokens in &lengths {
            let rotation = turns.then(|| {
                let angles: Vec<f32> = (1..n_tokens)
                    .flat_map(|_| noise.values(width / 2).repeat(2))
                    .collect();
                Rotation {
                    n_prefix: 1,
                    cosines: angles.iter().map(|angle| angle.cos()).collect(),
                    sines: angles.iter().map(|angle| angle.sin()).collect(),
                }
            });
            spans.push(Span { first_row, n_tokens, rotation });
            first_row += n_tokens;
        }
        let wanted = plain_attention(&qkv, n_heads, width, &spans);
        for kernels in Kernels::available() {
            for (precision, tolerance) in [(Precision::F32, 3e-6), (Precision::Bf16, 2e-2)] {
                let mut out = HeadOutputs { values: Vec::new(), n_heads };
                attend(&kernels, precision, &panels, &spans, &mut out);
                for (got, want) in out.values.iter().zip(&wanted) {
                    prop_assert!((f64::from(*got) - want).abs() <= tolerance, "{got} {want}");
                }
            }
        }
    }
}

/// softmax(Q K^T / sqrt(d)) V in f64, with the L x L scores that the kernel never has.
fn plain_attention(qkv: &[f32], n_heads: usize, width: usize, spans: &[Span]) -> Vec<f64> {
    let mut out = Vec::new();
    for span in spans {
        for head in 0..n_heads {
            let read = |part: usize, token: usize| -> Vec<f64> {
                let row = (span.first_row + token) * 3 * n_heads * width;
                let line = &qkv[row + (part * n_heads + head) * width..][..width];
                let line: Vec<f64> = line.iter().map(|&x| f64::from(x)).collect();
                match (&span.rotation, part, token.checked_sub(1)) {
                    (Some(rotation), 0 | 1, Some(patch)) => turned(&line, rotation, patch),
                    _ => line,
                }
            };
            for query in 0..span.n_tokens {
                let query = read(0, query);
                let scores = (0..span.n_tokens).map(|key| {
                    let dot: f64 = query.iter().zip(read(1, key)).map(|(a, b)| a * b).sum();
                    (dot / f64::from(u32::try_from(width).unwrap()).sqrt()).exp()
                });
                let scores: Vec<f64> = scores.collect();
                let total: f64 = scores.iter().sum();
                let mut sums = vec![0.0; width];
                for (token, score) in scores.iter().enumerate() {
                    for (sum, value) in sums.iter_mut().zip(read(2, token)) {
                        *sum += score / total * value;
                    }
                }
                out.extend(sums);
            }
        }
    }
    out
}

/// `x cos + rotate_half(x) sin`.
fn turned(line: &[f64], rotation: &Rotation, patch: usize) -> Vec<f64> {
    let half = line.len() / 2;
    let parts = (0..line.len()).map(|i| {
        let partner = if i < half {
            -line[i + half]
        } else {
            line[i - half]
        };
        let at = patch * line.len() + i;
        line[i] * f64::from(rotation.cosines[at]) + partner * f64::from(rotation.sines[at])
    });
    parts.collect()
}

#[test]
fn products_longer_than_a_block_equal_their_definition() {
    // More rows than ROW_BLOCK and more units of K than K_BLOCK, even in bf16.
    let (m, n, k) = (211, 33, 1700);
    let mut noise = Noise(7);
    let factors = Factors::noise(&mut noise, [m, n, k]);
    for finish in [
        Finish::Store,
        Finish::Add,
        Finish::Activate(Activation::Gelu),
    ] {
        let wanted = wanted(finish, &factors);
        for precision in ALL {
            let got = product(&Kernels::detect(), precision, finish, &factors);
            for (&got, want) in got.iter().zip(&wanted) {
                let error = (f64::from(got) - want).abs();
                assert!(error <= tolerance(precision, k), "{error} {precision:?}");
            }
        }
    }
}

#[test]
fn products_do_not_depend_on_the_number_of_threads() {
    let (m, n, k) = (40, 200, 100);
    let mut noise = Noise(1);
    let factors = Factors::noise(&mut noise, [m, n, k]);
    for precision in ALL {
        let run = |n_threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads);
            let pool = pool.build().unwrap();
            let kernels = Kernels::detect();
            pool.install(|| product(&kernels, precision, Finish::Add, &factors))
        };
        let alone = run(1);
        for n_threads in [2, 3, 16] {
            let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&run(n_threads)), bits(&alone));
        }
    }
}

#[test]
fn a_row_that_is_not_finite_spoils_no_other_row() {
    let (m, n, k) = (14, 40, 30);
    let factors = Factors::noise(&mut Noise(3), [m, n, k]);
    let kernels = Kernels::detect();
    for precision in ALL {
        let clean = product(&kernels, precision, Finish::Store, &factors);
        for value in [f32::NAN, f32::INFINITY] {
            let mut spoiled = factors.clone();
            spoiled.rows[5 * k] = value;
            let got = product(&kernels, precision, Finish::Store, &spoiled);
            for (row, (got, clean)) in got.chunks(n).zip(clean.chunks(n)).enumerate() {
                if row == 5 {
                    assert!(got.iter().all(|x| !x.is_finite()));
                } else {
                    assert_eq!(got, clean);
                }
            }
        }
    }
}

#[test]
fn int8_of_nearly_nothing_is_nothing() {
    for value in [0.0, 1e-45, -1e-40, 1e-37] {
        for (row, weight) in [(value, 1.0), (1.0, value)] {
            let factors = Factors {
                rows: vec![row; 40],
                weight: vec![weight; 40],
                bias: vec![0.0],
                before: vec![0.0],
                shape: [1, 1, 40],
            };
            let kernels = Kernels::detect();
            let got = product(&kernels, Precision::Int8, Finish::Store, &factors);
            assert!(got[0].abs() <= 1e-35, "{value}: {got:?}");
        }
    }
}

#[test]
fn int8_gives_way_where_sums_would_not_fit() {
    let k = (1 << 16) + 1;
    let (ones, bias) = (vec![1.0; k], [0.0]);
    let linear = Linear::pack(Precision::Int8, &ones, [1, k], Some(&bias));
    assert_eq!(linear.precision(), Precision::Bf16);
}

#[test]
fn bf16_rounds_to_nearest_even_and_keeps_nan() {
    let mut noise = Noise(9);
    let special = [
        0.0,
        -0.0,
        1.0,
        f32::MAX,
        f32::MIN_POSITIVE,
        1e-40,
        f32::INFINITY,
    ];
    let random = (0..100_000).map(|_| f32::from_bits(noise.bits()));
    for value in special.into_iter().chain(random) {
        let got = bf16_bits(value);
        if value.is_nan() {
            assert!(f32::from_bits(got << 16).is_nan());
        } else {
            assert_eq!(
                got,
                u32::from(half::bf16::from_f32(value).to_bits()),
                "{value}"
            );
        }
    }
}

#[test]
fn element_wise_functions_are_right_to_a_few_roundings() {
    for step in -200_000..=200_000 {
        let x = f64::from(step) / 10_000.0;
        #[allow(
            clippy::cast_possible_truncation,
            reason = "the input of an f32 function"
        )]
        let near = x as f32;
        let x = f64::from(near);
        let close = |got: f32, want: f64, scale: f64| {
            let error = (f64::from(got) - want).abs();
            assert!(error <= scale, "{near}: {got}, not {want}");
        };
        for got in [gelu::<true>(near), gelu::<false>(near)] {
            close(got, exact_gelu(x), 4e-7 * x.abs().max(1.0));
        }
        for got in [sigmoid::<true>(near), sigmoid::<false>(near)] {
            close(got, 1.0 / (1.0 + (-x).exp()), 3e-7);
        }
        if x <= 0.0 {
            for got in [exp2::<true>(near), exp2::<false>(near)] {
                close(got, x.exp2(), 4e-7 * x.exp2());
            }
        }
    }
    for (x, want) in [(-1e9, 0.0), (-127.0, 0.0), (f32::NEG_INFINITY, 0.0)] {
        assert!(exp2::<true>(x) - want <= 1e-37, "{x}");
    }
    assert!(exp2::<true>(f32::NAN).is_nan() && gelu::<true>(f32::NAN).is_nan());
    assert!((gelu::<true>(1e30) - 1e30).abs() <= 4e23 && gelu::<true>(-1e30) == 0.0);
}

#[test]
fn layer_norm_equals_its_definition() {
    let mut noise = Noise(4);
    for width in [1, 2, 31, 32, 33, 768] {
        let [line, weight, bias] = [0; 3].map(|_| noise.values(width));
        let wide: Vec<f64> = line.iter().map(|&x| f64::from(x) * 1e-3 + 5.0).collect();
        let n = f64::from(u32::try_from(width).unwrap());
        let mean = wide.iter().sum::<f64>() / n;
        let variance = wide.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
        #[allow(
            clippy::cast_possible_truncation,
            reason = "the input of an f32 function"
        )]
        let mut got: Vec<f32> = wide.iter().map(|&x| x as f32).collect();
        layer_norm::<true>(&mut got, &weight, &bias, 1e-6);
        for (i, &got) in got.iter().enumerate() {
            let normed = (wide[i] - mean) / (variance + 1e-6).sqrt();
            let want = normed * f64::from(weight[i]) + f64::from(bias[i]);
            // The mean of 5 leaves 20 bits for what varies by 1e-3.
            assert!((f64::from(got) - want).abs() < 2e-3, "{got} {want}");
        }
    }
}

#[test]
fn an_f32_layer_keeps_every_bit_of_its_weights() {
    for (n_outputs, n_inputs) in [(1, 1), (NR, 5), (NR + 1, 7), (3 * NR - 1, 64)] {
        // One row for each input, 1 there and 0 elsewhere: the result is the weight, transposed.
        let rows = (0..n_inputs * n_inputs).map(|i| f32::from(u8::from(i % (n_inputs + 1) == 0)));
        let weight = Noise(n_outputs as u64).values(n_outputs * n_inputs);
        let factors = Factors {
            rows: rows.collect(),
            weight: weight.clone(),
            bias: vec![0.0; n_outputs],
            before: vec![0.0; n_inputs * n_outputs],
            shape: [n_inputs, n_outputs, n_inputs],
        };
        let kernels = Kernels::detect();
        let got = product(&kernels, Precision::F32, Finish::Store, &factors);
        assert_eq!(transposed(&got, [n_inputs, n_outputs]), weight);
    }
}
