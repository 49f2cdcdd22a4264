//! Contexts, prediction, Golomb codes and runs: one line at a time.

#![allow(
    clippy::indexing_slicing,
    reason = "lines have one length, x lies between their ends, and indices of tables are masked or bounded"
)]

use super::bits::Bits;
use super::broken;
use crate::error::Result;

/// Exponents of the lengths of runs, by the run index (T.87 A.7.1).
#[rustfmt::skip]
const RUN_EXPONENTS: [u32; 32] = [
    0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 9, 10, 11, 12, 13, 14, 15,
];
/// No error of 16-bit samples is larger.
const MAX_ERROR: i32 = 65_535;

/// The numbers that govern a scan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Presets {
    largest: i32,
    near: i32,
    thresholds: [i32; 3],
    reset: i32,
    /// Number of different errors.
    range: i32,
    /// Bits of an error.
    n_error_bits: u32,
    /// Longest code word.
    limit: u32,
}

impl Presets {
    /// Completes what an LSE segment leaves open: MAXVAL, T1, T2, T3, RESET, each 0 for its default.
    pub(super) fn new(precision: u8, near: i32, custom: Option<[u16; 5]>) -> Option<Self> {
        let full = (1 << precision) - 1;
        let [largest, t1, t2, t3, reset] = custom.unwrap_or_default().map(i32::from);
        let largest = if largest == 0 { full } else { largest };
        if largest > full || near > (largest / 2).min(255) {
            return None;
        }
        let defaults = default_thresholds(largest, near);
        let mut thresholds = [t1, t2, t3];
        let mut least = near + 1;
        for (threshold, default) in thresholds.iter_mut().zip(defaults) {
            if *threshold == 0 {
                *threshold = default;
            }
            if !(least..=largest).contains(threshold) {
                return None;
            }
            least = *threshold;
        }
        let reset = if reset == 0 { 64 } else { reset };
        if reset < 3 || reset > largest.max(255) {
            return None;
        }
        let range = (largest + 2 * near) / (2 * near + 1) + 1;
        let n_sample_bits = bit_length(largest + 1).max(2);
        Some(Self {
            largest,
            near,
            thresholds,
            reset,
            range,
            n_error_bits: bit_length(range),
            limit: 2 * (n_sample_bits + n_sample_bits.max(8)),
        })
    }
}

/// Returns the least number of bits that count up to `n` different values.
fn bit_length(n: i32) -> u32 {
    i32::BITS - (n - 1).leading_zeros()
}

/// T.87 C.2.4.1.1.1.
fn default_thresholds(largest: i32, near: i32) -> [i32; 3] {
    let clamp = |value: i32, least: i32| {
        if value > largest || value < least {
            least
        } else {
            value
        }
    };
    let [t1, t2, t3] = if largest >= 128 {
        let factor = (largest.min(4095) + 128) / 256;
        [factor + 2, 4 * factor + 3, 17 * factor + 4]
    } else {
        let factor = 256 / (largest + 1);
        [
            (3 / factor).max(2),
            (7 / factor).max(3),
            (21 / factor).max(4),
        ]
    };
    let t1 = clamp(t1 + 3 * near, near + 1);
    let t2 = clamp(t2 + 5 * near, t1);
    let t3 = clamp(t3 + 7 * near, t2);
    [t1, t2, t3]
}

/// Statistics of the errors in one context of regular mode.
#[derive(Clone, Copy)]
struct Context {
    /// A: sum of magnitudes.
    magnitude: i32,
    /// B: sum of errors.
    bias: i32,
    /// C: correction of the prediction.
    correction: i32,
    /// N: how many.
    count: i32,
}

/// Statistics of the samples that end runs.
#[derive(Clone, Copy)]
struct RunContext {
    magnitude: i32,
    count: i32,
    n_negative: i32,
    /// `RItype`.
    kind: i32,
}

/// The state of a scan between restart markers.
pub(super) struct Coder<'a> {
    presets: &'a Presets,
    contexts: [Context; 365],
    run_contexts: [RunContext; 2],
}

/// The four decoded neighbours of a sample.
#[derive(Clone, Copy)]
struct Neighbours {
    left: i32,
    above: i32,
    above_left: i32,
    above_right: i32,
}

impl Neighbours {
    #[inline]
    fn at(above: &[i32], current: &[i32], x: usize) -> Self {
        Self {
            left: current[x - 1],
            above: above[x],
            above_left: above[x - 1],
            above_right: above[x + 1],
        }
    }

    /// The median edge detector.
    #[inline]
    fn prediction(self) -> i32 {
        let (least, largest) = (self.left.min(self.above), self.left.max(self.above));
        if self.above_left >= largest {
            least
        } else if self.above_left <= least {
            largest
        } else {
            self.left + self.above - self.above_left
        }
    }
}

impl<'a> Coder<'a> {
    pub(super) fn new(presets: &'a Presets) -> Self {
        let magnitude = ((presets.range + 32) / 64).max(2);
        let run = |kind| RunContext {
            magnitude,
            count: 1,
            n_negative: 0,
            kind,
        };
        Self {
            presets,
            contexts: [Context {
                magnitude,
                bias: 0,
                correction: 0,
                count: 1,
            }; 365],
            run_contexts: [run(0), run(1)],
        }
    }

    /// Decodes one line of one component; both lines have a place before and behind.
    ///
    /// # Errors
    /// `Malformed`.
    pub(super) fn line(
        &mut self,
        bits: &mut Bits<'_>,
        above: &[i32],
        current: &mut [i32],
        run_index: &mut usize,
    ) -> Result<()> {
        let end = current.len() - 1;
        let mut x = 1;
        while x < end {
            let near = Neighbours::at(above, current, x);
            let context = self.context(near);
            if context != 0 {
                current[x] = self.regular(bits, near, context)?;
                x += 1;
                continue;
            }
            let n_run = self.run(bits, end - x, run_index)?;
            current[x..x + n_run].fill(near.left);
            x += n_run;
            if x < end {
                current[x] = self.interruption(bits, near.left, above[x], *run_index)?;
                *run_index = run_index.saturating_sub(1);
                x += 1;
            }
        }
        Ok(())
    }

    /// Decodes one line of pixels whose components take turns sample by sample.
    ///
    /// # Errors
    /// `Malformed`.
    pub(super) fn pixels(
        &mut self,
        bits: &mut Bits<'_>,
        above: &[Vec<i32>],
        current: &mut [Vec<i32>],
        run_index: &mut usize,
    ) -> Result<()> {
        let end = above.first().map_or(0, Vec::len).saturating_sub(1);
        let mut x = 1;
        while x < end {
            let is_run = above
                .iter()
                .zip(current.iter())
                .all(|(above, current)| self.context(Neighbours::at(above, current, x)) == 0);
            if !is_run {
                for (above, current) in above.iter().zip(current.iter_mut()) {
                    let near = Neighbours::at(above, current, x);
                    current[x] = self.regular(bits, near, self.context(near))?;
                }
                x += 1;
                continue;
            }
            let n_run = self.run(bits, end - x, run_index)?;
            for current in current.iter_mut() {
                let left = current[x - 1];
                current[x..x + n_run].fill(left);
            }
            x += n_run;
            if x < end {
                for (above, current) in above.iter().zip(current.iter_mut()) {
                    let (left, above) = (current[x - 1], above[x]);
                    let error = self.run_error(bits, 0, *run_index)?;
                    let error = if above < left { -error } else { error };
                    current[x] = self.reconstruct(above, error);
                }
                *run_index = run_index.saturating_sub(1);
                x += 1;
            }
        }
        Ok(())
    }

    /// Quantises the three gradients into one number; 0 is a flat neighbourhood.
    #[inline]
    fn context(&self, near: Neighbours) -> i32 {
        let first = self.quantise(near.above_right - near.above);
        let second = self.quantise(near.above - near.above_left);
        let third = self.quantise(near.above_left - near.left);
        (first * 9 + second) * 9 + third
    }

    #[inline]
    fn quantise(&self, gradient: i32) -> i32 {
        let size = gradient.abs();
        if size <= self.presets.near {
            return 0;
        }
        let [t1, t2, t3] = self.presets.thresholds;
        let level = 1 + i32::from(size >= t1) + i32::from(size >= t2) + i32::from(size >= t3);
        if gradient < 0 { -level } else { level }
    }

    #[inline]
    fn regular(&mut self, bits: &mut Bits<'_>, near: Neighbours, context: i32) -> Result<i32> {
        let sign = if context < 0 { -1 } else { 1 };
        let presets = self.presets;
        let state = &mut self.contexts[context.unsigned_abs() as usize];
        let prediction = near.prediction() + sign * state.correction;
        let prediction = prediction.clamp(0, presets.largest);
        let k = golomb_exponent(state.count, state.magnitude);
        let mapped = code_word(bits, presets, k, presets.limit)?;
        let mut error = mapped >> 1;
        if mapped & 1 != 0 {
            error = -error - 1;
        }
        if presets.near == 0 && k == 0 && 2 * state.bias <= -state.count {
            error = -error - 1;
        }
        if error.abs() > MAX_ERROR {
            return Err(broken("an error that no sample has"));
        }
        state.update(error, presets);
        Ok(self.reconstruct(prediction, sign * error))
    }

    #[inline]
    fn reconstruct(&self, prediction: i32, error: i32) -> i32 {
        let step = 2 * self.presets.near + 1;
        let mut value = prediction + error * step;
        if value < -self.presets.near {
            value += self.presets.range * step;
        } else if value > self.presets.largest + self.presets.near {
            value -= self.presets.range * step;
        }
        value.clamp(0, self.presets.largest)
    }

    /// Reads the length of a run of at most `n_left` samples.
    fn run(&self, bits: &mut Bits<'_>, n_left: usize, run_index: &mut usize) -> Result<usize> {
        let mut n_run = 0;
        while bits.read(1)? == 1 {
            let n_more = 1_usize << RUN_EXPONENTS[*run_index];
            if n_more > n_left - n_run {
                return Ok(n_left);
            }
            n_run += n_more;
            *run_index = (*run_index + 1).min(31);
            if n_run == n_left {
                return Ok(n_run);
            }
        }
        n_run += bits.read(RUN_EXPONENTS[*run_index])? as usize;
        if n_run > n_left {
            return Err(broken("a run past the end of its line"));
        }
        Ok(n_run)
    }

    /// Decodes the sample that ends a run within a line.
    fn interruption(
        &mut self,
        bits: &mut Bits<'_>,
        left: i32,
        above: i32,
        run_index: usize,
    ) -> Result<i32> {
        if (left - above).abs() <= self.presets.near {
            let error = self.run_error(bits, 1, run_index)?;
            return Ok(self.reconstruct(left, error));
        }
        let error = self.run_error(bits, 0, run_index)?;
        let error = if above < left { -error } else { error };
        Ok(self.reconstruct(above, error))
    }

    fn run_error(&mut self, bits: &mut Bits<'_>, kind: usize, run_index: usize) -> Result<i32> {
        let state = &mut self.run_contexts[kind];
        let magnitude = state.magnitude + (state.count >> 1) * state.kind;
        let k = golomb_exponent(state.count, magnitude);
        let limit = self.presets.limit - RUN_EXPONENTS[run_index] - 1;
        let mapped = code_word(bits, self.presets, k, limit)?;
        let doubled = mapped + state.kind;
        let is_odd = doubled & 1 != 0;
        let size = (doubled + 1) / 2;
        let is_negative = (k != 0 || 2 * state.n_negative >= state.count) == is_odd;
        let error = if is_negative { -size } else { size };
        if size > MAX_ERROR {
            return Err(broken("an error that no sample has"));
        }
        if error < 0 {
            state.n_negative += 1;
        }
        state.magnitude += (mapped + 1 - state.kind) >> 1;
        if state.count == self.presets.reset {
            state.magnitude >>= 1;
            state.count >>= 1;
            state.n_negative >>= 1;
        }
        state.count += 1;
        Ok(error)
    }
}

impl Context {
    #[inline]
    fn update(&mut self, error: i32, presets: &Presets) {
        self.magnitude += error.abs();
        self.bias += error * (2 * presets.near + 1);
        if self.count == presets.reset {
            self.magnitude >>= 1;
            self.bias >>= 1;
            self.count >>= 1;
        }
        self.count += 1;
        if self.bias <= -self.count {
            self.bias = (self.bias + self.count).max(1 - self.count);
            self.correction = (self.correction - 1).max(-128);
        } else if self.bias > 0 {
            self.bias = (self.bias - self.count).min(0);
            self.correction = (self.correction + 1).min(127);
        }
    }
}

/// Returns the least k with `count << k >= magnitude`.
#[inline]
fn golomb_exponent(count: i32, magnitude: i32) -> u32 {
    let mut k = 0;
    while (count << k) < magnitude {
        k += 1;
    }
    k
}

/// Reads a Golomb code of limited length (T.87 A.5.3).
#[inline]
fn code_word(bits: &mut Bits<'_>, presets: &Presets, k: u32, limit: u32) -> Result<i32> {
    // At most 31 bits: of a stream that only pretends to be large, no magnitude passes 2^24.
    let n_unary = limit.saturating_sub(presets.n_error_bits + 1);
    let n_zeros = bits.zeros(n_unary)?;
    let value = if n_zeros < n_unary {
        (n_zeros << k) | bits.read(k)?
    } else {
        bits.read(presets.n_error_bits)? + 1
    };
    i32::try_from(value).map_err(|_| broken("a code word that is too large"))
}
