//! Element-wise loops compiled for the CPU at hand, which training shares, so that both compute the
//! same functions.

use std::sync::OnceLock;

use crate::kernels::Kernels;
pub use crate::kernels::{Task, exp2, gelu, gelu_and_slope};

/// Runs a loop compiled for the vector instructions that this CPU has.
#[inline]
pub fn run<T: Task>(task: T) -> T::Output {
    static KERNELS: OnceLock<Kernels> = OnceLock::new();
    KERNELS.get_or_init(Kernels::detect).run(task)
}
