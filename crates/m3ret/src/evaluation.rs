//! What evaluating, comparing and studying models share: the rules, evaluations on disk, and comparisons of two
//! evaluations.

pub mod comparison;
pub mod protocol;
pub(crate) mod runs;
