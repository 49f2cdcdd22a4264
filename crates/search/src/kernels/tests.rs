//! Every kernel that this CPU can run against the plain one and against the definition in f64.

use proptest::prelude::*;

use super::*;

/// Numbers from -1 to 1 that follow from a seed.
fn numbers(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

fn check_f32(n_queries: usize, n_rows: usize, width: usize, seed: u64) {
    let stride = width.next_multiple_of(LANES);
    let mut queries = vec![0.0; n_queries * stride];
    for (query, values) in queries
        .chunks_exact_mut(stride)
        .zip(numbers(seed, n_queries * width).chunks_exact(width))
    {
        query[..width].copy_from_slice(values);
    }
    let rows = numbers(seed + 1, n_rows * width);
    let mut expected = vec![0.0; n_queries * n_rows];
    portable::dots_f32(&queries, &rows, width, &mut expected);
    for (at, &got) in expected.iter().enumerate() {
        let (i, j) = (at / n_rows, at % n_rows);
        let pairs = queries[i * stride..]
            .iter()
            .zip(&rows[j * width..][..width]);
        let exact: f64 = pairs.map(|(&x, &y)| f64::from(x) * f64::from(y)).sum();
        // 16 chains of width / 16 roundings each.
        let bound = 1e-6 * (1.0 + width as f64).sqrt() + 1e-7 * width as f64 / 16.0;
        assert!((f64::from(got) - exact).abs() <= bound, "{got} {exact}");
        assert_eq!(
            got,
            dot(&queries[i * stride..][..width], &rows[j * width..][..width])
        );
    }
    for kernels in Kernels::available() {
        let mut out = vec![f32::NAN; n_queries * n_rows];
        (kernels.dots_f32)(&queries, &rows, width, &mut out);
        assert_eq!(out, expected);
    }
}

fn check_i8(n_queries: usize, n_rows: usize, stride: usize, seed: u64) {
    let queries = numbers(seed, n_queries * stride);
    let queries: Vec<u8> = queries.iter().map(|x| (x * 127.0 + 128.0) as u8).collect();
    let rows = numbers(seed + 1, n_rows * stride);
    let rows: Vec<i8> = rows.iter().map(|x| (x * 127.0) as i8).collect();
    let mut expected = vec![0; n_queries * n_rows];
    portable::dots_i8(&queries, &rows, stride, &mut expected);
    for kernels in Kernels::available() {
        let mut out = vec![i32::MIN; n_queries * n_rows];
        (kernels.dots_i8)(&queries, &rows, stride, &mut out);
        assert_eq!(out, expected);
    }
}

fn check_common(n_rows: usize, stride: usize, seed: u64) {
    let words = |seed, n| -> Vec<u64> {
        let halves = numbers(seed, 2 * n);
        let halves = halves.chunks_exact(2);
        halves
            .map(|pair| u64::from(pair[0].to_bits()) << 32 | u64::from(pair[1].to_bits()))
            .collect()
    };
    let (planes, bits) = (
        words(seed, PLANES * stride),
        words(seed + 1, n_rows * stride),
    );
    let rows: Vec<u32> = (0..n_rows as u32).rev().step_by(2).collect();
    let mut expected = vec![0; rows.len()];
    portable::common(&planes, &bits, &rows, &mut expected);
    for kernels in Kernels::available() {
        let mut out = vec![u32::MAX; rows.len()];
        (kernels.common)(&planes, &bits, &rows, &mut out);
        assert_eq!(out, expected);
    }
}

fn check_short(n_queries: usize, n_blocks: usize, stride: usize, seed: u64) {
    let n_rows = n_blocks * BLOCK_ROWS;
    let queries = numbers(seed, n_queries * stride);
    let queries: Vec<u8> = queries.iter().map(|x| (x * 127.0 + 128.0) as u8).collect();
    let codes = numbers(seed + 1, n_rows * stride);
    let codes: Vec<i8> = codes.iter().map(|x| (x * 127.0) as i8).collect();
    let sums: Vec<i32> = numbers(seed + 2, n_rows)
        .iter()
        .map(|x| (x * 9000.0) as i32)
        .collect();
    let (scales, query_scales) = (numbers(seed + 3, n_rows), numbers(seed + 4, n_queries));
    let blocks = ShortBlocks {
        codes: &codes,
        sums: &sums,
        scales: &scales,
    };
    // By the definition: code `k` of row `r` lies at block `r / 16`, group `k / 4`, row `r % 16`, `k % 4`.
    let expected = (0..n_queries * n_rows).map(|at| {
        let (query, row) = (at / n_rows, at % n_rows);
        let product: i32 = (0..stride)
            .map(|k| {
                let at = ((row / 16 * (stride / 4) + k / 4) * 16 + row % 16) * 4 + k % 4;
                i32::from(queries[query * stride + k]) * i32::from(codes[at])
            })
            .sum();
        (product - 128 * sums[row]) as f32 * (query_scales[query] * scales[row])
    });
    let expected: Vec<f32> = expected.collect();
    for kernels in Kernels::available() {
        let mut out = vec![f32::NAN; n_queries * n_rows];
        (kernels.short_scores)(&queries, &query_scales, blocks, &mut out);
        assert_eq!(out, expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn all_kernels_agree_to_the_bit(
        n_queries in 1_usize..10, n_rows in 1_usize..20, width in 1_usize..200, seed in 0_u64..1000,
    ) {
        check_f32(n_queries, n_rows, width, seed);
        check_i8(n_queries, n_rows, width.next_multiple_of(64), seed);
        check_common(n_rows, width.div_ceil(64), seed);
        check_short(n_queries, n_rows, width.next_multiple_of(4), seed);
    }
}

#[test]
fn usual_widths_agree_too() {
    for width in [63, 64, 65, 192, 768, 1024] {
        check_f32(5, 9, width, 3);
        check_i8(5, 9, width.next_multiple_of(64), 3);
        check_common(9, width.div_ceil(64), 3);
    }
}

#[test]
fn the_largest_codes_do_not_overflow() {
    let (queries, rows) = (vec![255_u8; 1024], vec![-127_i8; 1024]);
    for kernels in Kernels::available() {
        let mut out = [0];
        (kernels.dots_i8)(&queries, &rows, 1024, &mut out);
        assert_eq!(out, [-255 * 127 * 1024]);
    }
}

#[test]
fn a_rotation_keeps_lengths_and_angles_on_every_cpu() {
    for width in [1_usize, 2, 3, 63, 64, 100, 192, 768, 1024] {
        let signs: Vec<u64> = (0..4 * width.div_ceil(64) as u64)
            .map(|i: u64| (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
            .collect();
        let (x, y) = (numbers(1, width), numbers(2, width));
        let exact = |x: &[f32], y: &[f32]| -> f64 {
            x.iter()
                .zip(y)
                .map(|(&x, &y)| f64::from(x) * f64::from(y))
                .sum()
        };
        let mut first: Option<Vec<f32>> = None;
        for kernels in Kernels::available() {
            let (mut turned, mut other) = (x.clone(), y.clone());
            (kernels.rotate)(&mut turned, &signs);
            (kernels.rotate)(&mut other, &signs);
            let bound = 1e-5 * width as f64;
            assert!(
                (exact(&turned, &other) - exact(&x, &y)).abs() < bound,
                "{width}"
            );
            assert!(
                (exact(&turned, &turned) - exact(&x, &x)).abs() < bound,
                "{width}"
            );
            assert_eq!(*first.get_or_insert_with(|| turned.clone()), turned);
        }
    }
}
