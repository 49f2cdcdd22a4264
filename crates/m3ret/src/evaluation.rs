//! What evaluating, comparing and studying models share: the rules, evaluations on disk, and comparisons of two.

pub mod comparison;
pub mod protocol;
pub mod runs;
