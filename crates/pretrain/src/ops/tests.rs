//! The CPU's loops against compositions of Burn's operators, and whole blocks against Burn's autodiff.

use std::sync::atomic::{AtomicBool, Ordering};

use burn::backend::{Autodiff, Flex};
use burn::tensor::activation::{gelu, softmax};
use burn::tensor::{Distribution, Tensor};
use m3ret_encoder::stem::{Around, TAPS};

use super::block::{BlockOptions, BlockWeights};
use super::stem::StageOptions;
use super::{Affine, Dense, Heads, VitBackend, concatenated, plain, stem};
use crate::config::TrainPrecision;
use crate::parameters::numbers;

const F32: TrainPrecision = TrainPrecision::F32;

fn random<B: burn::tensor::backend::Backend, const D: usize>(shape: [usize; D]) -> Tensor<B, D> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), &B::Device::default())
}

/// Sums in another order differ by rounding, which grows with the size of what is summed.
fn close<const D: usize>(found: Tensor<Flex, D>, wanted: Tensor<Flex, D>, what: &str) {
    assert_eq!(found.dims(), wanted.dims(), "{what}");
    let (found, wanted) = (numbers(found), numbers(wanted));
    let largest = wanted
        .iter()
        .fold(1e-3_f32, |most, value| most.max(value.abs()));
    for (found, wanted) in found.iter().zip(&wanted) {
        let difference = (found - wanted).abs();
        assert!(
            difference <= 2e-5 * largest,
            "{what}: {found}, wanted {wanted}"
        );
    }
}

#[test]
fn fused_loops_agree_with_compositions() {
    // One row, odd widths, more rows than one task takes, more tokens than rows of a tile.
    for (n_images, n_tokens, n_heads, head_width) in
        [(1, 1, 1, 10), (3, 5, 2, 7), (2, 70, 3, 16), (5, 33, 1, 64)]
    {
        let (n_rows, width) = (n_images * n_tokens, n_heads * head_width);
        let x = random::<Flex, 2>([n_rows, width]);
        let gradient = random::<Flex, 2>([n_rows, width]);
        let affine = Affine {
            weight: random::<Flex, 1>([width]),
            bias: random::<Flex, 1>([width]),
        };
        close(
            Flex::vit_layer_norm(x.clone(), affine.clone()),
            plain::layer_norm(x.clone(), affine.clone()),
            "norm",
        );
        let found =
            Flex::vit_layer_norm_backward(x.clone(), affine.weight.clone(), gradient.clone());
        let wanted = plain::layer_norm_backward(x.clone(), affine.weight, gradient.clone());
        close(found.0, wanted.0, "norm, input");
        close(found.1.weight, wanted.1.weight, "norm, weight");
        close(found.1.bias, wanted.1.bias, "norm, bias");

        let dense = Dense {
            weight: random::<Flex, 2>([2 * width + 1, width]),
            bias: random::<Flex, 1>([2 * width + 1]),
        };
        close(
            Flex::vit_linear(x.clone(), dense.clone(), F32),
            plain::linear(x.clone(), dense, F32),
            "linear",
        );
        let wide = random::<Flex, 2>([n_rows, 2 * width + 1]);
        let found = Flex::vit_linear_backward(x.clone(), wide.clone(), F32);
        let wanted = plain::linear_backward(x.clone(), wide, F32);
        close(found.weight, wanted.weight, "linear, weight");
        close(found.bias, wanted.bias, "linear, bias");

        close(Flex::vit_gelu(x.clone()), gelu(x.clone()), "gelu");
        let found = Flex::vit_gelu_backward(x.clone(), gradient.clone());
        let wanted = plain::gelu_backward(x, gradient.clone());
        for (found, wanted) in found.into_iter().zip(wanted) {
            close(found, wanted, "gelu, backward");
        }

        let heads = Heads {
            qkv: random::<Flex, 2>([n_rows, 3 * width]),
            n_images,
            n_heads,
        };
        close(
            Flex::vit_attention(heads.clone(), F32),
            plain::attention(heads.clone(), F32),
            "attention",
        );
        close(
            Flex::vit_attention_backward(heads.clone(), gradient.clone(), F32),
            plain::attention_backward(heads, gradient, F32),
            "attention, backward",
        );
    }
}

#[test]
fn a_fused_stage_agrees_with_its_composition() {
    // One patch, several blocks of images, patches with unseen ones around.
    for (n_images, n_seen, side, n_in, n_out) in
        [(1, 1, 2, 3, 32), (11, 9, 8, 3, 32), (5, 4, 4, 16, 64)]
    {
        let cells: Vec<usize> = (0..n_seen).map(|i| i * 2 % 18).collect();
        let around = Around::of([2, 3, 3], &cells);
        let around: Vec<Around> = (0..n_images).flat_map(|_| around.clone()).collect();
        let options = StageOptions {
            n_images,
            around: around.into(),
            side,
            precision: F32,
        };
        let x = random::<Flex, 2>([n_images * n_seen * side * side, n_in]);
        let kernel = random::<Flex, 2>([n_out, TAPS * n_in]);
        let found = Flex::vit_convolve(x.clone(), kernel.clone(), &options);
        close(
            found.clone(),
            stem::convolve(x.clone(), kernel.clone(), &options),
            "convolution",
        );
        let gradient = random::<Flex, 2>(found.dims());
        let [found_x, wanted_x] = [
            Flex::vit_convolve_backward(
                x.clone(),
                kernel.clone(),
                &options,
                gradient.clone(),
                true,
            ),
            stem::convolve_backward(x.clone(), kernel.clone(), &options, gradient.clone(), true),
        ];
        close(found_x.0.unwrap(), wanted_x.0.unwrap(), "convolution, x");
        close(found_x.1, wanted_x.1, "convolution, kernel");
        let alone = Flex::vit_convolve_backward(x, kernel, &options, gradient.clone(), false);
        assert!(alone.0.is_none());

        let affine = Affine {
            weight: random::<Flex, 1>([n_out]),
            bias: random::<Flex, 1>([n_out]),
        };
        close(
            Flex::vit_group_norm_gelu(found.clone(), affine.clone(), n_images),
            stem::group_norm_gelu(found.clone(), affine.clone(), n_images),
            "group norm",
        );
        let [made, wanted] = [
            Flex::vit_group_norm_gelu_backward(
                found.clone(),
                affine.clone(),
                n_images,
                gradient.clone(),
            ),
            stem::group_norm_gelu_backward(found, affine, n_images, gradient),
        ];
        close(made.0, wanted.0, "group norm, x");
        close(made.1.weight, wanted.1.weight, "group norm, weight");
        close(made.1.bias, wanted.1.bias, "group norm, bias");
    }
}

/// A factor of a product is off by at most 2^-8 of itself in bf16, and errors of both signs add up as the root of
/// their number, as the sums themselves do: so results differ by about 2^-8 of their size, of which a chain of products
/// in a block adds up a few.
fn nearly<const D: usize>(found: Tensor<Flex, D>, wanted: Tensor<Flex, D>, what: &str) {
    let norm = |values: &[f32]| values.iter().map(|x| x * x).sum::<f32>().sqrt();
    let (found, wanted) = (numbers(found), numbers(wanted));
    let difference: Vec<f32> = found.iter().zip(&wanted).map(|(a, b)| a - b).collect();
    let share = norm(&difference) / norm(&wanted);
    assert!(share < 0.02, "{what}: {share} of the norm");
}

type Tracked = Autodiff<Flex>;

fn leaf<const D: usize>(shape: [usize; D]) -> Tensor<Tracked, D> {
    random::<Tracked, D>(shape).require_grad()
}

fn dense(n_out: usize, n_in: usize) -> Dense<Tracked> {
    Dense {
        weight: leaf([n_out, n_in]),
        bias: leaf([n_out]),
    }
}

fn affine(width: usize) -> Affine<Tracked> {
    Affine {
        weight: leaf([width]),
        bias: leaf([width]),
    }
}

/// A block of Burn's operators, differentiated by Burn.
fn composed(
    x: Tensor<Tracked, 2>,
    weights: &BlockWeights<Tracked>,
    options: &BlockOptions,
    scales: [Tensor<Tracked, 2>; 2],
) -> Tensor<Tracked, 2> {
    let [for_attention, for_mlp] = scales;
    let normed = plain::layer_norm(x.clone(), weights.norm1.clone());
    let heads = Heads {
        qkv: plain::linear(normed, weights.qkv.clone(), F32),
        n_images: options.n_images,
        n_heads: options.n_heads,
    };
    let [queries, keys, values] = heads.split();
    let [.., head_width] = queries.dims();
    let scores = queries.matmul(keys.swap_dims(2, 3)) * super::scale_of(head_width);
    let attended = Heads::join(softmax(scores, 3).matmul(values));
    let middle = x + plain::linear(attended, weights.proj.clone(), F32) * for_attention;
    let normed = plain::layer_norm(middle.clone(), weights.norm2.clone());
    let hidden = gelu(plain::linear(normed, weights.fc1.clone(), F32));
    middle + plain::linear(hidden, weights.fc2.clone(), F32) * for_mlp
}

#[test]
fn a_block_has_the_gradients_of_burns_autodiff() {
    let (n_images, n_tokens, width) = (3, 5, 12);
    let n_rows = n_images * n_tokens;
    let weights = BlockWeights {
        norm1: affine(width),
        qkv: dense(3 * width, width),
        proj: dense(width, width),
        norm2: affine(width),
        fc1: dense(20, width),
        fc2: dense(width, 20),
    };
    let x = leaf([n_rows, width]);
    let along = random::<Tracked, 2>([n_rows, width]);
    for (recompute, is_dropped) in [(false, false), (true, false), (false, true), (true, true)] {
        let factors: [[f32; 3]; 2] = if is_dropped {
            [[0.0, 1.25, 1.25], [2.0, 0.0, 2.0]]
        } else {
            [[1.0; 3]; 2]
        };
        let options = BlockOptions {
            n_images,
            n_heads: 3,
            precision: F32,
            recompute,
            branch_scale: is_dropped.then(|| factors.map(|of_images| of_images.to_vec().into())),
        };
        let scales = factors.map(|of_images| {
            Tensor::<Tracked, 1>::from_floats(of_images, &Default::default())
                .reshape([n_images, 1])
                .repeat_dim(1, n_tokens)
                .reshape([n_rows, 1])
        });
        let found = Tracked::vit_block(x.clone(), weights.clone(), &options);
        let wanted = composed(x.clone(), &weights, &options, scales);
        close(found.clone().inner(), wanted.clone().inner(), "block");
        let found = (found * along.clone()).sum().backward();
        let wanted = (wanted * along.clone()).sum().backward();
        let same = |name: &str, tensor: &Tensor<Tracked, 2>| {
            let [found, wanted] = [&found, &wanted].map(|all| tensor.grad(all).unwrap());
            close(found, wanted, name);
        };
        let same_row = |name: &str, tensor: &Tensor<Tracked, 1>| {
            let [found, wanted] = [&found, &wanted].map(|all| tensor.grad(all).unwrap());
            close(found, wanted, name);
        };
        same("x", &x);
        for (name, dense) in [
            ("qkv", &weights.qkv),
            ("proj", &weights.proj),
            ("fc1", &weights.fc1),
            ("fc2", &weights.fc2),
        ] {
            same(name, &dense.weight);
            same_row(name, &dense.bias);
        }
        for (name, affine) in [("norm1", &weights.norm1), ("norm2", &weights.norm2)] {
            same_row(name, &affine.weight);
            same_row(name, &affine.bias);
        }
    }
}

#[test]
fn a_block_in_bf16_has_nearly_the_gradients_of_f32() {
    let (n_images, n_tokens, width) = (4, 17, 48);
    let n_rows = n_images * n_tokens;
    let weights = BlockWeights {
        norm1: affine(width),
        qkv: dense(3 * width, width),
        proj: dense(width, width),
        norm2: affine(width),
        fc1: dense(4 * width, width),
        fc2: dense(width, 4 * width),
    };
    // Weights of a network, not of 1: attention to one token only would turn a rounding into another choice.
    let scaled = |dense: &Dense<Tracked>| Dense {
        weight: dense.weight.clone() * 0.05,
        bias: dense.bias.clone(),
    };
    let x = leaf([n_rows, width]);
    let along = random::<Tracked, 2>([n_rows, width]);
    let [wanted, found] = [F32, TrainPrecision::Bf16].map(|precision| {
        let options = BlockOptions {
            n_images,
            n_heads: 3,
            precision,
            recompute: false,
            branch_scale: None,
        };
        let small = BlockWeights {
            norm1: weights.norm1.clone(),
            qkv: scaled(&weights.qkv),
            proj: scaled(&weights.proj),
            norm2: weights.norm2.clone(),
            fc1: scaled(&weights.fc1),
            fc2: scaled(&weights.fc2),
        };
        let result = Tracked::vit_block(x.clone(), small, &options);
        (result.clone(), (result * along.clone()).sum().backward())
    });
    nearly(found.0.inner(), wanted.0.inner(), "block");
    for (name, tensor) in [
        ("x", &x),
        ("qkv", &weights.qkv.weight),
        ("proj", &weights.proj.weight),
        ("fc1", &weights.fc1.weight),
        ("fc2", &weights.fc2.weight),
    ] {
        let [found, wanted] = [&found.1, &wanted.1].map(|all| tensor.grad(all).unwrap());
        nearly(found, wanted, name);
    }
}

#[test]
fn a_linear_layer_has_the_gradients_of_burns_autodiff() {
    let (x, layer) = (leaf([7, 5]), dense(3, 5));
    let along = random::<Tracked, 2>([7, 3]);
    let gradients = |result: Tensor<Tracked, 2>| (result * along.clone()).sum().backward();
    let found = gradients(Tracked::vit_linear(x.clone(), layer.clone(), F32));
    let wanted = gradients(plain::linear(x.clone(), layer.clone(), F32));
    for tensor in [&x, &layer.weight] {
        let [found, wanted] = [&found, &wanted].map(|all| tensor.grad(all).unwrap());
        close(found, wanted, "linear layer");
    }
    let [found, wanted] = [&found, &wanted].map(|all| layer.bias.grad(all).unwrap());
    close(found, wanted, "bias of a linear layer");
}

#[test]
fn parts_keep_their_gradients_while_another_thread_goes_backward() {
    let (n_layers, n_jobs) = (6, 5);
    let n_rounds = 2000;
    let is_done = AtomicBool::new(false);
    let failures: Vec<String> = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                leaf([1, 1]).sum().backward();
            }
        });
        let wrong = (0..n_rounds).filter_map(|round| {
            let (token, weight) = (leaf([1, 4]), leaf([4, 4]));
            let layers: Vec<Tensor<Tracked, 2>> = (0..n_layers).map(|_| leaf([1, 4])).collect();
            // Every leaf begins a graph, which is merged with that of all leaves before it.
            let job = || {
                let rows = Tensor::ones([3, 4], &Default::default());
                let tokens = token.clone().expand([2, 4]);
                let patches = rows.matmul(weight.clone().transpose());
                let all = concatenated(vec![tokens, patches], 0);
                let all = layers.iter().fold(all, |all, layer| all + layer.clone());
                all.sum()
            };
            let jobs = (0..n_jobs).map(|_| job());
            let gradients = jobs.reduce(|sum, part| sum + part).unwrap().backward();
            // Each value is added up once a row that it is in.
            let found = [&token, &weight].map(|leaf| leaf.grad(&gradients).map(numbers));
            let wanted = [vec![2.0 * 5.0; 4], vec![3.0 * 5.0; 16]].map(Some);
            (found != wanted).then(|| format!("round {round}: {found:?}, wanted {wanted:?}"))
        });
        let wrong = wrong.collect();
        is_done.store(true, Ordering::Relaxed);
        wrong
    });
    assert_eq!(failures, [""; 0]);
}
