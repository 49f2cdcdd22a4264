//! What evaluating, comparing and studying models share: the rules, evaluations on disk, and comparisons of two.

pub(crate) mod comparison;
pub(crate) mod protocol;
pub(crate) mod runs;
