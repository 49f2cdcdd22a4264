//! Element-wise functions on `f32`, written so that loops over them become vector code.

/// Returns `2^x`, right to 2e-7 relative; 0 below -126 and huge above 127, never NaN for numbers.
///
/// # Source
/// `2^x = 2^n * 2^f` with `n` the nearest integer; `2^f` by its Taylor series to degree 6, whose
/// remainder on `|f| <= 1/2` is 1.2e-7.
#[inline(always)]
pub(crate) fn exp2(x: f32) -> f32 {
    /// Adding and taking away 1.5 * 2^23 rounds to an integer.
    const ROUND: f32 = 12_582_912.0;
    const LN_2: f32 = std::f32::consts::LN_2;
    const C2: f32 = LN_2 * LN_2 / 2.0;
    const C3: f32 = C2 * LN_2 / 3.0;
    const C4: f32 = C3 * LN_2 / 4.0;
    const C5: f32 = C4 * LN_2 / 5.0;
    const C6: f32 = C5 * LN_2 / 6.0;
    let clamped = x.clamp(-126.0, 127.0);
    let shifted = clamped + ROUND;
    let f = clamped - (shifted - ROUND);
    let series = ((((((C6 * f + C5) * f) + C4) * f + C3) * f + C2) * f + LN_2) * f + 1.0;
    // The integer sits in the low bits of `shifted`; the exponent field of 1.0 is 127.
    let power = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    if x < -126.0 { 0.0 } else { series * power }
}

/// Returns `e^x`.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    exp2(x * std::f32::consts::LOG2_E)
}

/// Returns the exact GELU, `x / 2 * (1 + erf(x / sqrt(2)))`, right to 2e-7 times `max(|x|, 1)`.
///
/// # Source
/// Hendrycks and Gimpel 2016; erf by Abramowitz and Stegun 7.1.26, wrong by at most 1.5e-7.
#[inline(always)]
pub(crate) fn gelu(x: f32) -> f32 {
    let magnitude = (x * std::f32::consts::FRAC_1_SQRT_2).abs();
    let t = 1.0 / (1.0 + 0.327_591_1 * magnitude);
    let series = ((((1.061_405_4 * t - 1.453_152_1) * t + 1.421_413_8) * t - 0.284_496_74) * t
        + 0.254_829_6)
        * t;
    // `tail` is 1 - erf(|x| / sqrt(2)).
    let tail = series * exp(-magnitude * magnitude);
    let positive = 0.5 * tail * x.abs();
    // For x < 0 GELU is -|x| / 2 * tail, for x >= 0 it is x - x / 2 * tail.
    if x < 0.0 { -positive } else { x - positive }
}

/// Returns `1 / (1 + e^-x)`.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Normalises a token to mean 0 and variance 1 over its width, then scales and shifts.
///
/// # Source
/// Ba et al. 2016; biased variance, `eps` inside the root.
#[inline(always)]
pub(crate) fn layer_norm(line: &mut [f32], weight: &[f32], bias: &[f32], eps: f32) {
    #[allow(clippy::cast_precision_loss, reason = "widths are far below 2^24")]
    let n = line.len() as f32;
    let mean = sum(line, |value| value) / n;
    let variance = sum(line, |value| (value - mean) * (value - mean)) / n;
    let scale = 1.0 / (variance + eps).sqrt();
    for ((value, weight), bias) in line.iter_mut().zip(weight).zip(bias) {
        *value = (*value - mean) * scale * weight + bias;
    }
}

/// Sums a function of the values in 32 parts, which vectorises and rounds little.
#[inline(always)]
fn sum(line: &[f32], term: impl Fn(f32) -> f32) -> f32 {
    let mut parts = [0.0; 32];
    let mut chunks = line.chunks_exact(32);
    for chunk in chunks.by_ref() {
        for (part, &value) in parts.iter_mut().zip(chunk) {
            *part += term(value);
        }
    }
    for (part, &value) in parts.iter_mut().zip(chunks.remainder()) {
        *part += term(value);
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
