//! Measures what one core computes at most, in 10^9 operations a second: `f32 bf16 int8`.
//!
//! Loops of multiply-adds that touch no memory: 12 sums, and each step adds the product of the same
//! register to all. Best of 80 runs of a few ms, so that some run undisturbed on a busy machine; 0
//! where the CPU lacks the instruction.

#![allow(clippy::print_stdout, reason = "an example talks to its caller")]

#[cfg(target_arch = "x86_64")]
fn main() {
    let peak = |is_there: bool, per_step: u32, run: fn(u64) -> f32| {
        if is_there { best(per_step, run) } else { 0.0 }
    };
    let has_avx512 = is_x86_feature_detected!("avx512f");
    let f32 = if has_avx512 {
        best(16 * 2, x86::f32_512)
    } else {
        let has_fma = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        peak(has_fma, 8 * 2, x86::f32_256)
    };
    let bf16 = peak(
        has_avx512 && is_x86_feature_detected!("avx512bf16"),
        32 * 2,
        x86::bf16_512,
    );
    let int8 = peak(
        has_avx512 && is_x86_feature_detected!("avx512vnni"),
        64 * 2,
        x86::int8_512,
    );
    println!("{f32:.1} {bf16:.1} {int8:.1}");
}

#[cfg(not(target_arch = "x86_64"))]
fn main() {
    println!("0 0 0");
}

/// Returns 10^9 operations a second of `run`, which does that many steps of `N_SUMS` instructions.
#[cfg(target_arch = "x86_64")]
fn best(per_instruction: u32, run: fn(u64) -> f32) -> f64 {
    const N_STEPS: u64 = 1_000_000;
    let rates = (0..80).map(|_| {
        let started = std::time::Instant::now();
        std::hint::black_box(run(N_STEPS));
        let n_operations = N_STEPS as f64 * x86::N_SUMS as f64 * f64::from(per_instruction);
        n_operations / started.elapsed().as_secs_f64() / 1e9
    });
    rates.fold(0.0, f64::max)
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "calls functions compiled for detected features")]
mod x86 {
    use std::arch::x86_64::{
        __m256, __m512bh, __m512i, _mm256_fmadd_ps, _mm256_set1_ps, _mm256_setzero_ps,
        _mm512_cvtepi32_ps, _mm512_dpbf16_ps, _mm512_dpbusd_epi32, _mm512_fmadd_ps,
        _mm512_reduce_add_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps,
        _mm512_setzero_si512,
    };
    use std::hint::black_box;
    use std::mem::transmute;

    /// Chains of sums: latency times throughput is at most 10 today, and AVX2 has 16 registers.
    pub(crate) const N_SUMS: usize = 12;

    macro_rules! peak {
        ($name:ident, $inner:ident, $features:literal, $zero:expr, $term:expr, $finish:expr) => {
            pub(crate) fn $name(n_steps: u64) -> f32 {
                // SAFETY: `main` calls this only where the CPU has these features.
                unsafe { $inner(n_steps) }
            }

            #[target_feature(enable = $features)]
            fn $inner(n_steps: u64) -> f32 {
                let mut sums = [$zero; N_SUMS];
                let factor = black_box(0x0101_0101);
                for _ in 0..n_steps {
                    for sum in &mut sums {
                        *sum = $term(*sum, factor);
                    }
                }
                sums.into_iter().map(|sum| $finish(sum)).sum()
            }
        };
    }

    peak!(
        f32_512,
        f32_512_inner,
        "avx512f",
        _mm512_setzero_ps(),
        |sum, factor: i32| {
            let factor = _mm512_set1_ps(f32::from_bits(factor.cast_unsigned()));
            _mm512_fmadd_ps(factor, factor, sum)
        },
        |sum| _mm512_reduce_add_ps(sum)
    );

    peak!(
        bf16_512,
        bf16_512_inner,
        "avx512f,avx512bf16",
        _mm512_setzero_ps(),
        |sum, factor: i32| {
            // SAFETY: a vector of 32 bf16 is 512 bits, and every bit pattern is valid.
            let factor = unsafe { transmute::<__m512i, __m512bh>(_mm512_set1_epi32(factor)) };
            _mm512_dpbf16_ps(sum, factor, factor)
        },
        |sum| _mm512_reduce_add_ps(sum)
    );

    peak!(
        int8_512,
        int8_512_inner,
        "avx512f,avx512vnni",
        _mm512_setzero_si512(),
        |sum, factor: i32| {
            let factor = _mm512_set1_epi32(factor);
            _mm512_dpbusd_epi32(sum, factor, factor)
        },
        |sum| _mm512_reduce_add_ps(_mm512_cvtepi32_ps(sum))
    );

    peak!(
        f32_256,
        f32_256_inner,
        "avx2,fma",
        _mm256_setzero_ps(),
        |sum, factor: i32| {
            let factor = _mm256_set1_ps(f32::from_bits(factor.cast_unsigned()));
            _mm256_fmadd_ps(factor, factor, sum)
        },
        |sum: __m256| {
            // SAFETY: a vector of 8 f32 is an array of 8 f32.
            unsafe { transmute::<__m256, [f32; 8]>(sum) }
                .iter()
                .sum::<f32>()
        }
    );
}
