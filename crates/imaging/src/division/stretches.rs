//! Stretches of equal slice distance within one series: a head CT thin at the base and thick above,
//! two blocks with nothing between them.

use crate::stack::{self, Plane};

/// Fewest slices of a stretch: two distances that are equal; with fewer, any three slices have two.
const MIN_SLICES: usize = 3;

/// Slices that follow each other at one distance.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Stretch {
    /// Indices of the given planes, in the order of their positions.
    pub(super) members: Vec<usize>,
    /// The distance, in mm.
    pub(super) distance_mm: f64,
}

/// Parts planes at distinct positions into stretches, each a sound stack; `None` if that leaves a
/// slice out, or if the numbers of the images say that slices are missing.
pub(super) fn of(planes: &[Plane], numbers: &[Option<f64>]) -> Option<Vec<Stretch>> {
    let steps = stack::Steps::new(planes, numbers)?;
    if steps.has_missing() {
        return None;
    }
    let mut runs = runs(&steps.gaps);
    lend(&mut runs);
    let ends = runs.iter().filter_map(|run| run.last().copied());
    if ends
        .into_iter()
        .any(|place| steps.skips(place) == Some(true))
    {
        return None;
    }
    if runs.len() < 2 || runs.iter().any(|run| run.len() < MIN_SLICES) {
        return None;
    }
    let stretch = |run: &Vec<usize>| {
        let members: Vec<usize> = run
            .iter()
            .filter_map(|&place| steps.order.get(place).copied())
            .collect();
        let of = |members: &[usize]| -> (Vec<Plane>, Vec<Option<f64>>) {
            let pair = |&index: &usize| Some((*planes.get(index)?, *numbers.get(index)?));
            members.iter().filter_map(pair).unzip()
        };
        let (planes, numbers) = of(&members);
        let stack = stack::stack(&planes, &numbers).ok()?;
        let [distance_mm, _, _] = stack.affine.spacing_mm();
        Some(Stretch {
            members,
            distance_mm,
        })
    };
    runs.iter().map(stretch).collect()
}

/// Places 0 to n of slices in runs of equal gaps; a slice between two runs goes to the first.
fn runs(gaps: &[f64]) -> Vec<Vec<usize>> {
    let mut runs = vec![vec![0]];
    let mut usual: Option<f64> = None;
    for (place, &gap) in gaps.iter().enumerate() {
        let is_usual = usual.is_none_or(|usual| stack::is_same_step(gap, usual));
        match runs.last_mut() {
            Some(run) if is_usual => {
                run.push(place + 1);
                usual = usual.or(Some(gap));
            }
            _ => {
                runs.push(vec![place + 1]);
                usual = None;
            }
        }
    }
    runs
}

/// Gives the slice between two runs to the second, where that one is short of it.
fn lend(runs: &mut [Vec<usize>]) {
    for place in 1..runs.len() {
        let Some([first, second]) = runs.get_mut(place - 1..=place) else {
            return;
        };
        if first.len() > MIN_SLICES && second.len() + 1 == MIN_SLICES {
            second.splice(..0, first.pop());
        }
    }
}
