//! Manifests to views: which images, in which order, read ahead of the network.

use m3ret_imaging::Input;

/// The views of one item, as one optimiser step sees them.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The item's place in `Items`.
    pub item: usize,
    /// `[3, D, side, side]` each: SimDINO the two large views, then the small ones; MAE one.
    pub views: Vec<Input>,
}

/// What one optimiser step is made of, in the order that the sampler drew.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// The optimiser step, from 0.
    pub step: u64,
    /// The items that could be read.
    pub samples: Vec<Sample>,
    /// Items that could not be read, with the reason's code.
    pub refused: Vec<(usize, &'static str)>,
}
