//! Element-wise functions on `f32`, written so that loops over them become vector code.
//!
//! `FMA` is true where the surrounding code is compiled for fused multiply-add; without that
//! instruction `mul_add` is a slow call.

/// Returns `a * b + c`.
#[inline(always)]
fn fma<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// Returns `2^x` for `x` <= 0, right to 2e-7 relative; 0 below -126.
///
/// # Source
/// `2^x = 2^n * 2^f` with `n` the nearest integer; `2^f` by its Taylor series to degree 6, whose
/// remainder on `|f| <= 1/2` is 1.2e-7.
#[inline(always)]
pub fn exp2<const FMA: bool>(x: f32) -> f32 {
    /// Adding and taking away 1.5 * 2^23 rounds to an integer.
    const ROUND: f32 = 12_582_912.0;
    const LN_2: f32 = std::f32::consts::LN_2;
    const C2: f32 = LN_2 * LN_2 / 2.0;
    const C3: f32 = C2 * LN_2 / 3.0;
    const C4: f32 = C3 * LN_2 / 4.0;
    const C5: f32 = C4 * LN_2 / 5.0;
    const C6: f32 = C5 * LN_2 / 6.0;
    // Written so that NaN stays NaN. 2^-127 and below come out as 0 by the power.
    let clamped = if x < -127.0 { -127.0 } else { x };
    let shifted = clamped + ROUND;
    let f = clamped - (shifted - ROUND);
    let mut series = fma::<FMA>(C6, f, C5);
    for coefficient in [C4, C3, C2, LN_2, 1.0] {
        series = fma::<FMA>(series, f, coefficient);
    }
    // The integer sits in the low bits of `shifted`; the exponent field of 1.0 is 127.
    let power = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    series * power
}

/// Returns `1 / (1 + e^-x)`.
#[inline(always)]
pub(crate) fn sigmoid<const FMA: bool>(x: f32) -> f32 {
    let power = exp2::<FMA>(-x.abs() * std::f32::consts::LOG2_E);
    // 1 / (1 + e^-x) of |x|, and 1 minus it on the other side.
    if x < 0.0 {
        power / (1.0 + power)
    } else {
        1.0 / (1.0 + power)
    }
}

/// Returns the exact GELU, `x * Phi(x)`, right to 2.1e-7 times `max(|x|, 1)`.
///
/// # Source
/// Hendrycks and Gimpel 2016; beyond 5.3 the result is `x` or 0 to 3.1e-7.
#[inline(always)]
pub fn gelu<const FMA: bool>(x: f32) -> f32 {
    if x < -PHI_LIMIT {
        0.0
    } else {
        x * phi::<FMA>(x)
    }
}

/// Returns the GELU and its derivative, `Phi(x) + x * phi(x)` with the normal density `phi`, right
/// to 5e-7.
#[inline(always)]
pub fn gelu_and_slope<const FMA: bool>(x: f32) -> (f32, f32) {
    /// 1 / sqrt(2 pi)
    const DENSITY: f32 = 0.398_942_3;
    let below = if x < -PHI_LIMIT { 0.0 } else { phi::<FMA>(x) };
    let density = DENSITY * exp2::<FMA>(-0.5 * std::f32::consts::LOG2_E * x * x);
    (x * below, fma::<FMA>(x, density, below))
}

/// Beyond it the normal distribution function is 0 or 1 to 6e-8.
const PHI_LIMIT: f32 = 5.3;

/// Returns the normal distribution function, for `x` clamped to `PHI_LIMIT`.
///
/// # Source
/// `Phi(x) - 1/2` is `x` times a polynomial in `2 x^2 / 5.3^2 - 1`, fitted by `tools/fit/gelu.py`.
#[inline(always)]
fn phi<const FMA: bool>(x: f32) -> f32 {
    const SERIES: [f32; 14] = [
        -0.000_652_012_2,
        0.001_668_350_3,
        -0.001_433_516_7,
        0.001_925_146_3,
        -0.005_462_876_5,
        0.009_600_127,
        -0.013_396_306,
        0.018_674_161,
        -0.025_242_982,
        0.032_118_38,
        -0.039_595_075,
        0.049_261_928,
        -0.066_518_314,
        0.133_392_59,
    ];
    // Comparisons that keep NaN.
    let low = if x < -PHI_LIMIT { -PHI_LIMIT } else { x };
    let clamped = if low > PHI_LIMIT { PHI_LIMIT } else { low };
    let u = fma::<FMA>(clamped * clamped, 2.0 / (PHI_LIMIT * PHI_LIMIT), -1.0);
    let mut series = SERIES[0];
    for coefficient in &SERIES[1..] {
        series = fma::<FMA>(series, u, *coefficient);
    }
    fma::<FMA>(series, clamped, 0.5)
}

/// Normalises a token to mean 0 and variance 1 over its width, then scales and shifts.
///
/// # Source
/// Ba et al. 2016; biased variance, `eps` inside the root.
#[inline(always)]
pub(crate) fn layer_norm<const FMA: bool>(
    line: &mut [f32],
    weight: &[f32],
    bias: &[f32],
    eps: f32,
) {
    #[allow(clippy::cast_precision_loss, reason = "widths are far below 2^24")]
    let n = line.len() as f32;
    let mean = sum(line, |total, value| total + value) / n;
    let squares = sum(line, |total, value| {
        fma::<FMA>(value - mean, value - mean, total)
    });
    let scale = 1.0 / (squares / n + eps).sqrt();
    for ((value, weight), bias) in line.iter_mut().zip(weight).zip(bias) {
        *value = fma::<FMA>((*value - mean) * scale, *weight, *bias);
    }
}

/// Sums a function of the values in 32 parts, which vectorises and rounds little.
#[inline(always)]
fn sum(line: &[f32], add: impl Fn(f32, f32) -> f32) -> f32 {
    let mut parts = [0.0; 32];
    let (chunks, rest) = line.as_chunks::<32>();
    for chunk in chunks {
        for i in 0..32 {
            parts[i] = add(parts[i], chunk[i]);
        }
    }
    for (part, &value) in parts.iter_mut().zip(rest) {
        *part = add(*part, value);
    }
    let mut n = 16;
    while n > 0 {
        for i in 0..n {
            parts[i] += parts[i + n];
        }
        n /= 2;
    }
    parts[0]
}
