//! Chooses, once at run time, the kernels that this CPU can run.

use std::sync::OnceLock;

use super::{Lanes, MR, Precision, UnitRow, portable};

/// Computes one tile: `out[i][j] = start + sum over k of rows[k][i] * panel[k][j]`, for as many
/// rows as `out` has, at most `MR`. Of int8, results are the bits of i32 sums, from 0.
pub(crate) type TileFn = fn(rows: &[[u32; MR]], panel: &[UnitRow], Start<'_>, out: &mut [Lanes]);

/// The start values of a tile's sums.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Start<'a> {
    /// Whether sums start from the values in `out`.
    pub(crate) is_sum: bool,
    /// Added to every row.
    pub(crate) bias: &'a Lanes,
    /// The units that are read next, which the tile fetches into cache; may be empty.
    pub(crate) ahead: &'a [UnitRow],
}

impl Start<'_> {
    pub(crate) const ZERO: Self = Self {
        is_sum: false,
        bias: &Lanes::ZERO,
        ahead: &[],
    };
}

/// Turns `MR` lines of units, one after another, into a packed tile.
pub(crate) type InterleaveFn = fn(lines: &[u32], units: &mut [[u32; MR]]);

/// Rounds values to bf16, two a unit; an odd last value is paired with 0.
pub(crate) type ToBf16Fn = fn(values: &[f32], units: &mut [u32]);

/// Rounds two neighbouring columns to bf16: one unit of each line, from its values of both.
pub(crate) type PairFn = fn(even: &[f32], odd: &[f32], units: &mut [u32]);

/// Which vector instructions element-wise loops are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Isa {
    /// The instructions that every CPU of the architecture has.
    Portable,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 F, BW, DQ, VL, and AVX2 and FMA.
    Avx512,
}

/// The kernels of one CPU.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kernels {
    isa: Isa,
    f32: TileFn,
    bf16: TileFn,
    int8: TileFn,
    pub(crate) interleave: InterleaveFn,
    pub(crate) to_bf16: ToBf16Fn,
    pub(crate) pair_bf16: PairFn,
    /// Whether the CPU computes products of bf16 in hardware.
    has_bf16: bool,
}

/// A loop worth compiling for several instruction sets; `run` must be `#[inline(always)]`.
pub trait Task {
    /// The result of the loop.
    type Output;
    /// Runs the loop. `FMA`: the code is compiled for fused multiply-add.
    fn run<const FMA: bool>(self) -> Self::Output;
}

impl Kernels {
    /// Returns the plain Rust kernels, correct everywhere.
    pub(crate) fn portable() -> Self {
        Self {
            isa: Isa::Portable,
            f32: portable::tile_f32,
            bf16: portable::tile_bf16,
            int8: portable::tile_int8,
            interleave: portable::interleave,
            to_bf16: portable::to_bf16,
            pair_bf16: portable::pair_bf16,
            has_bf16: false,
        }
    }

    /// Returns the best kernels that this CPU can run.
    pub(crate) fn detect() -> Self {
        let all = Self::available();
        all.last().copied().unwrap_or_else(Self::portable)
    }

    /// Returns `detect`'s kernels, detected once.
    #[inline]
    pub(crate) fn of_this_cpu() -> &'static Self {
        static KERNELS: OnceLock<Kernels> = OnceLock::new();
        KERNELS.get_or_init(Self::detect)
    }

    /// Returns every set of kernels that this CPU can run, the best last.
    #[cfg(not(target_arch = "x86_64"))]
    pub(crate) fn available() -> Vec<Self> {
        vec![Self::portable()]
    }

    /// Returns every set of kernels that this CPU can run, the best last.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn available() -> Vec<Self> {
        let mut all = vec![Self::portable()];
        if !(is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")) {
            return all;
        }
        let avx2 = Self {
            isa: Isa::Avx2,
            f32: super::avx2::tile_f32,
            bf16: super::avx2::tile_bf16,
            int8: super::avx2::tile_int8,
            ..Self::portable()
        };
        all.push(avx2);
        let has_avx512 = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        if !has_avx512 {
            return all;
        }
        let mut avx512 = Self {
            isa: Isa::Avx512,
            f32: super::avx512::tile_f32,
            interleave: super::avx512::interleave,
            ..avx2
        };
        // This set, for CPUs that have neither of the extensions below, is listed even where the CPU
        // has them, so that tests cover it.
        all.push(avx512);
        let has_int8 = is_x86_feature_detected!("avx512vnni");
        if has_int8 {
            avx512.int8 = super::avx512::tile_int8;
        }
        if is_x86_feature_detected!("avx512bf16") {
            (avx512.bf16, avx512.has_bf16) = (super::avx512::tile_bf16, true);
            avx512.to_bf16 = super::avx512::to_bf16;
            avx512.pair_bf16 = super::avx512::pair_bf16;
        }
        if has_int8 || avx512.has_bf16 {
            all.push(avx512);
        }
        all
    }

    /// Returns the tile kernel of a precision.
    pub(crate) fn tile(&self, precision: Precision) -> TileFn {
        match precision {
            Precision::F32 => self.f32,
            Precision::Bf16 => self.bf16,
            Precision::Int8 => self.int8,
        }
    }

    /// Returns the fastest precision whose error stays below bf16 rounding: bf16 where the CPU has
    /// it, else f32.
    pub(crate) fn fastest_precision(&self) -> Precision {
        if self.has_bf16 {
            Precision::Bf16
        } else {
            Precision::F32
        }
    }

    /// Returns the precision that attention runs in, where products run in `precision`.
    pub(crate) fn attention_precision(&self, precision: Precision) -> Precision {
        match precision {
            Precision::Int8 if self.has_bf16 => Precision::Bf16,
            Precision::Int8 => Precision::F32,
            other => other,
        }
    }

    /// Runs a loop compiled for this CPU.
    #[inline]
    pub(crate) fn run<T: Task>(&self, task: T) -> T::Output {
        #[cfg(target_arch = "x86_64")]
        #[allow(unsafe_code, reason = "calls functions compiled for detected features")]
        match self.isa {
            Isa::Portable => task.run::<false>(),
            // SAFETY: `available` makes this value only where the CPU has AVX2 and FMA.
            Isa::Avx2 => unsafe { run_avx2(task) },
            // SAFETY: `available` makes this value only where the CPU has these features.
            Isa::Avx512 => unsafe { run_avx512(task) },
        }
        #[cfg(not(target_arch = "x86_64"))]
        task.run::<false>()
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn run_avx2<T: Task>(task: T) -> T::Output {
    task.run::<true>()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
fn run_avx512<T: Task>(task: T) -> T::Output {
    task.run::<true>()
}
