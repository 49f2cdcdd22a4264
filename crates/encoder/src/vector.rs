//! Element-wise loops compiled for the CPU at hand, which training shares, so that both compute the
//! same functions.

use crate::kernels::Kernels;
pub use crate::kernels::{Task, exp2, gelu, gelu_and_slope};

/// Runs a loop compiled for the vector instructions that this CPU has.
#[inline]
pub fn run<T: Task>(task: T) -> T::Output {
    Kernels::of_this_cpu().run(task)
}
