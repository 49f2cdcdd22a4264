//! Orders parallel slices into one volume, or says why they are none.
//!
//! # Source
//! DICOM PS3.3 C.7.6.2.1.1: the direction cosines of a row and of a column, and the position of
//! the first voxel, in the patient's LPS system.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use crate::error::{Error, Result};
use crate::geometry::{Affine, cross, dot, length, unit};
use crate::reason::{Code, Reason};

/// Slice distances may differ by this share of their median: positions are written as rounded text.
const SPACING_TOLERANCE: f64 = 0.05;
/// Positions closer than this share of the median distance, or than 1 um, are the same position.
const SAME_POSITION: f64 = 0.01;
/// Direction cosines and relative spacings that differ by less are the same: both are written as
/// rounded text, in some archives with other digits in each slice.
const SAME_GRID: f64 = 1e-3;
/// Sizes beyond are no lengths in a patient, and their squares no numbers.
pub(crate) const PLAUSIBLE_MM: RangeInclusive<f64> = 1e-6..=1e6;
/// Shear below this angle is rounding.
const TILT_DEGREES: f64 = 0.5;

/// One slice in the patient.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Plane {
    /// Unit vector along W: from one column to the next.
    pub(crate) along_w: [f64; 3],
    /// Unit vector along H: from one row to the next.
    pub(crate) along_h: [f64; 3],
    /// Centre of the first voxel in mm.
    pub(crate) position: [f64; 3],
    /// Spacing along H and W in mm.
    pub(crate) spacing_mm: [f64; 2],
}

impl Plane {
    /// Checks that both directions are perpendicular unit vectors and the spacing is positive.
    pub(crate) fn new(
        orientation: [f64; 6],
        position: [f64; 3],
        spacing_mm: [f64; 2],
    ) -> Option<Self> {
        let [w0, w1, w2, h0, h1, h2] = orientation;
        let (w, h) = ([w0, w1, w2], [h0, h1, h2]);
        let is_unit = |v| (length(v) - 1.0).abs() < 1e-2;
        let is_positive = spacing_mm.iter().all(|s| PLAUSIBLE_MM.contains(s));
        let is_placed = position.iter().all(|p| p.abs() <= *PLAUSIBLE_MM.end());
        (is_unit(w) && is_unit(h) && dot(w, h).abs() < 1e-2 && is_positive && is_placed).then(
            || Self {
                along_w: unit(w),
                along_h: unit(h),
                position,
                spacing_mm,
            },
        )
    }

    /// Returns the unit vector perpendicular to the slice.
    pub(crate) fn normal(&self) -> [f64; 3] {
        unit(cross(self.along_w, self.along_h))
    }

    /// Returns true if both slices are parallel, turned alike, and spaced alike.
    fn is_aligned(&self, other: &Self) -> bool {
        let cosines = |p: &Self| p.along_w.into_iter().chain(p.along_h);
        let mut turned = cosines(self).zip(cosines(other)).map(|(a, b)| a - b);
        let mut spaced = self
            .spacing_mm
            .iter()
            .zip(other.spacing_mm)
            .map(|(a, b)| a / b - 1.0);
        turned.all(|difference| difference.abs() < SAME_GRID)
            && spaced.all(|ratio| ratio.abs() < SAME_GRID)
    }

    /// Returns how far along `normal` the slice lies, in mm.
    pub(crate) fn distance(&self, normal: [f64; 3]) -> f64 {
        dot(self.position, normal)
    }

    /// Returns the affine of a volume that starts with this slice and steps by `step` in mm.
    pub(crate) fn affine(&self, step: [f64; 3]) -> Affine {
        let [spacing_h, spacing_w] = self.spacing_mm;
        let w = self.along_w.map(|x| x * spacing_w);
        let h = self.along_h.map(|x| x * spacing_h);
        Affine::from_columns(w, h, step, self.position)
    }
}

/// Slices in order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stack {
    /// Indices of the given planes, along their normal.
    pub(crate) order: Vec<usize>,
    /// Where the ordered volume lies.
    pub(crate) affine: Affine,
    /// What is unusual about it.
    pub(crate) reasons: Vec<Reason>,
}

/// Groups the indices of planes that can lie in one volume, in the order of their first member.
pub(crate) fn aligned(planes: &[Plane]) -> Vec<Vec<usize>> {
    let mut groups: Vec<(&Plane, Vec<usize>)> = Vec::new();
    for (index, plane) in planes.iter().enumerate() {
        match groups.iter_mut().find(|(first, _)| first.is_aligned(plane)) {
            Some((_, members)) => members.push(index),
            None => groups.push((plane, vec![index])),
        }
    }
    groups.into_iter().map(|(_, members)| members).collect()
}

/// Returns the number of the position of each plane, counted along the normal of the first; planes
/// at the same position have the same number.
pub(crate) fn positions(planes: &[Plane]) -> Vec<usize> {
    let mut numbers = vec![0; planes.len()];
    let Some(steps) = Steps::new(planes, &[]) else {
        return numbers;
    };
    // Many copies would make the median 0: the distance between positions is that of the others.
    let apart: Vec<f64> = steps
        .gaps
        .iter()
        .copied()
        .filter(|&gap| gap > 1e-3)
        .collect();
    let same = same_position_mm(&apart);
    let mut number = 0;
    for (place, &index) in steps.order.iter().enumerate() {
        let gap = place
            .checked_sub(1)
            .and_then(|before| steps.gaps.get(before));
        if gap.is_some_and(|&gap| gap >= same) {
            number += 1;
        }
        if let Some(slot) = numbers.get_mut(index) {
            *slot = number;
        }
    }
    numbers
}

/// Returns how far apart planes lie within their own plane, in mm.
pub(crate) fn spread_mm(planes: &[Plane]) -> f64 {
    let Some(first) = planes.first() else {
        return 0.0;
    };
    let normal = first.normal();
    let beside = |plane: &Plane| {
        let off = difference(plane.position, first.position);
        let along = dot(off, normal);
        length(difference(off, normal.map(|n| n * along)))
    };
    planes.iter().map(beside).fold(0.0, f64::max)
}

/// Parts planes into columns that lie beside each other, by the places at the position that holds most
/// of them; one group where no position holds places that are further apart than `apart_mm`.
pub(crate) fn beside(planes: &[Plane], apart_mm: f64) -> Vec<Vec<usize>> {
    let everything: Vec<usize> = (0..planes.len()).collect();
    let numbers = positions(planes);
    let mut at: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (index, &number) in numbers.iter().enumerate() {
        at.entry(number).or_default().push(index);
    }
    // A gantry's tilt moves slices beside each other too, but not at one position.
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for here in at.values() {
        let of: Vec<Plane> = here
            .iter()
            .filter_map(|&i| planes.get(i).copied())
            .collect();
        if spread_mm(&of) < apart_mm {
            continue;
        }
        let mut places: Vec<(Plane, Vec<usize>)> = Vec::new();
        for (&index, plane) in here.iter().zip(&of) {
            let is_here = |(first, _): &&mut (Plane, Vec<usize>)| {
                length(difference(first.position, plane.position)) < apart_mm
            };
            match places.iter_mut().find(is_here) {
                Some((_, members)) => members.push(index),
                None => places.push((*plane, vec![index])),
            }
        }
        // Stations keep their order at every position.
        places.sort_by(|(a, _), (b, _)| {
            let [a, b] = [a, b].map(|plane| plane.position);
            a.partial_cmp(&b).unwrap_or(Ordering::Equal)
        });
        groups.resize_with(groups.len().max(places.len()), Vec::new);
        for (group, (_, members)) in groups.iter_mut().zip(places) {
            group.extend(members);
        }
    }
    let n_parted: usize = groups.iter().map(Vec::len).sum();
    // Only where every position has all stations is it known which slice belongs to which.
    let first = groups.first().map(Vec::len);
    let is_even = groups.iter().all(|group| Some(group.len()) == first);
    if groups.len() < 2 || n_parted != planes.len() || !is_even {
        return vec![everything];
    }
    groups
}

/// Planes in the order of their distance along the normal of the first, and the gaps between them.
pub(crate) struct Steps {
    /// Indices of the given planes.
    pub(crate) order: Vec<usize>,
    /// Distance from each to the next, in mm.
    pub(crate) gaps: Vec<f64>,
    /// By how much the number of the image grows over each gap, where both state one.
    jumps: Vec<Option<f64>>,
}

impl Steps {
    /// Orders planes; `numbers` are those of the images, or empty. `None` without a plane.
    pub(crate) fn new(planes: &[Plane], numbers: &[Option<f64>]) -> Option<Self> {
        let normal = planes.first()?.normal();
        let mut order: Vec<usize> = (0..planes.len()).collect();
        let distance = |index: usize| planes.get(index).map_or(0.0, |p| p.distance(normal));
        order.sort_by(|&a, &b| distance(a).total_cmp(&distance(b)));
        let number = |index: usize| numbers.get(index).copied().flatten();
        let pairs = || order.iter().zip(order.iter().skip(1));
        let gaps = pairs().map(|(&a, &b)| distance(b) - distance(a)).collect();
        let jump = |(&a, &b): (&usize, &usize)| Some((number(b)? - number(a)?).abs());
        let jumps = pairs().map(jump).collect();
        Some(Self { order, gaps, jumps })
    }

    /// Returns true if a gap is wider than usual because slices are not there.
    pub(crate) fn has_missing(&self) -> bool {
        (0..self.gaps.len()).any(|place| self.is_missing(place))
    }

    /// Returns true if the numbers of the images leave some out at a gap that is wider than usual.
    pub(crate) fn has_skips(&self) -> bool {
        let usual = median(&self.gaps);
        let is_wide = |gap: &f64| *gap > usual && !is_same_step(*gap, usual);
        let gaps = self.gaps.iter().enumerate();
        gaps.filter(|(_, gap)| is_wide(gap))
            .any(|(place, _)| self.skips(place) == Some(true))
    }

    /// Returns whether the numbers of the images leave some out at a gap; `None` where not all state
    /// one.
    pub(crate) fn skips(&self, place: usize) -> Option<bool> {
        let known: Vec<f64> = self.jumps.iter().copied().collect::<Option<_>>()?;
        Some(*known.get(place)? > median(&known))
    }

    /// Decides by the numbers of the images where they are stated: those of slices that are not
    /// there are left out. Without numbers, a single gap that is a multiple of the others.
    fn is_missing(&self, place: usize) -> bool {
        let usual = median(&self.gaps);
        let gap = |place: usize| self.gaps.get(place).copied();
        let Some(wide) = gap(place).filter(|&gap| gap > usual && !is_same_step(gap, usual)) else {
            return false;
        };
        if let Some(skips) = self.skips(place) {
            return skips;
        }
        let times = (wide / usual).round();
        let is_multiple =
            times >= 2.0 && (wide - times * usual).abs() <= usual * SPACING_TOLERANCE * times;
        let before = place.checked_sub(1).and_then(gap);
        let mut beside = before.into_iter().chain(gap(place + 1));
        is_multiple && beside.all(|gap| is_same_step(gap, usual))
    }
}

/// Returns true if two slice distances are the same but for rounding.
pub(crate) fn is_same_step(gap: f64, usual: f64) -> bool {
    (gap - usual).abs() <= usual * SPACING_TOLERANCE
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

fn same_position_mm(gaps: &[f64]) -> f64 {
    (median(gaps) * SAME_POSITION).max(1e-3)
}

/// Orders the planes of one series along their normal. `numbers` are those of the images, where
/// they state one, or empty.
///
/// # Errors
/// `Malformed` with `duplicate_position`, `missing_slices`, `mixed_spacing` or `bad_geometry`.
pub(crate) fn stack(planes: &[Plane], numbers: &[Option<f64>]) -> Result<Stack> {
    let (Some(first), Some(steps)) = (planes.first(), Steps::new(planes, numbers)) else {
        return Err(refused(Code::PositionUnknown, "no slice", "at least one"));
    };
    let normal = first.normal();
    let ordered: Vec<&Plane> = (steps.order.iter())
        .filter_map(|&index| planes.get(index))
        .collect();
    let (Some(low), Some(high)) = (ordered.first(), ordered.last()) else {
        return Err(refused(Code::PositionUnknown, "no slice", "at least one"));
    };
    if steps.gaps.is_empty() {
        return Ok(Stack {
            affine: low.affine(normal),
            order: steps.order,
            reasons: Vec::new(),
        });
    }
    check_gaps(&steps)?;
    let n_gaps = f64::from(u32::try_from(steps.gaps.len()).unwrap_or(u32::MAX));
    let step = difference(high.position, low.position).map(|x| x / n_gaps);
    check_line(&ordered, step, median(&steps.gaps))?;
    let tilt = (dot(unit(step), normal).clamp(-1.0, 1.0))
        .acos()
        .to_degrees();
    let mut reasons = Vec::new();
    if tilt > TILT_DEGREES {
        let detail = format!("slices are sheared by {tilt:.1} degrees; the affine keeps the shear");
        reasons.push(Reason::new(Code::GantryTilt, detail));
    }
    Ok(Stack {
        affine: low.affine(step),
        order: steps.order,
        reasons,
    })
}

fn difference(a: [f64; 3], b: [f64; 3]) -> [f64; 3] {
    let [a0, a1, a2] = a;
    let [b0, b1, b2] = b;
    [a0 - b0, a1 - b1, a2 - b2]
}

fn check_gaps(steps: &Steps) -> Result<()> {
    let gaps = &steps.gaps;
    let same = same_position_mm(gaps);
    let n_same = gaps.iter().filter(|&&gap| gap < same).count();
    if n_same > 0 {
        let found = format!(
            "{n_same} pair{} of slices at the same position",
            if n_same == 1 { "" } else { "s" }
        );
        return Err(refused(
            Code::DuplicatePosition,
            found,
            "one slice a position, or attributes that give each position equally many",
        ));
    }
    let usual = median(gaps);
    let is_unusual = |place: &usize| {
        gaps.get(*place)
            .is_some_and(|&gap| !is_same_step(gap, usual))
    };
    let unusual: Vec<usize> = (0..gaps.len()).filter(is_unusual).collect();
    if unusual.is_empty() {
        return Ok(());
    }
    if unusual.iter().all(|&place| steps.is_missing(place)) {
        let gap = |&place: &usize| gaps.get(place).copied().unwrap_or(usual);
        let n_missing: f64 = unusual.iter().map(|p| (gap(p) / usual).round() - 1.0).sum();
        let n_missing = n_missing.max(1.0);
        let found = format!(
            "{n_missing} slice{} missing in {} gap{} of a {usual:.3} mm grid",
            if n_missing > 1.0 { "s" } else { "" },
            unusual.len(),
            if unusual.len() == 1 { "" } else { "s" }
        );
        return Err(refused(Code::MissingSlices, found, "every slice"));
    }
    let (low, high) = gaps
        .iter()
        .fold((f64::INFINITY, 0.0_f64), |(l, h), &g| (l.min(g), h.max(g)));
    let found = format!("slice distances from {low:.3} to {high:.3} mm, median {usual:.3}");
    Err(refused(
        Code::MixedSpacing,
        found,
        "one distance within 5 %",
    ))
}

/// Every position must lie on the line from the first to the last slice.
fn check_line(ordered: &[&Plane], step: [f64; 3], usual: f64) -> Result<()> {
    let Some(first) = ordered.first() else {
        return Ok(());
    };
    let mut worst = 0.0_f64;
    for (index, plane) in (0_u32..).zip(ordered) {
        let along = step.map(|x| x * f64::from(index));
        let off = difference(difference(plane.position, first.position), along);
        worst = worst.max(length(off));
    }
    // Distances along the normal were checked: what is left is a jump inside the plane.
    let [spacing_h, spacing_w] = first.spacing_mm;
    if worst > usual.max(spacing_h).max(spacing_w) {
        let found = format!("a slice {worst:.2} mm away from the line of the others");
        return Err(refused(Code::BadGeometry, found, "slices on one line"));
    }
    Ok(())
}

fn refused(code: Code, found: impl Into<String>, wanted: &str) -> Error {
    Error::refused("dicom series", code, found, wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axial(x: f64, z: f64) -> Plane {
        Plane::new([1.0, 0.0, 0.0, 0.0, 1.0, 0.0], [x, 0.0, z], [0.5, 0.5]).unwrap()
    }

    fn check(positions: &[f64], expected: std::result::Result<&[usize], Code>) {
        let planes: Vec<Plane> = positions.iter().map(|&z| axial(0.0, z)).collect();
        let got = stack(&planes, &[])
            .map(|stack| stack.order)
            .map_err(|e| e.code());
        assert_eq!(got.as_deref(), expected.as_deref(), "{positions:?}");
    }

    #[test]
    fn slices_are_ordered_or_refused_with_their_reason() {
        check(&[5.0, 0.0, 2.5], Ok(&[1, 2, 0]));
        check(&[0.0], Ok(&[0]));
        check(&[0.0, 1.01, 1.98, 3.0], Ok(&[0, 1, 2, 3]));
        check(&[0.0, 1.0, 2.0, 4.0, 5.0], Err(Code::MissingSlices));
        check(&[0.0, 1.0, 2.0, 2.0, 3.0], Err(Code::DuplicatePosition));
        check(&[0.0, 1.0, 2.0, 3.5, 5.0], Err(Code::MixedSpacing));
        check(&[], Err(Code::PositionUnknown));
    }

    #[test]
    fn a_tilted_gantry_keeps_its_shear_in_the_affine_and_is_told() {
        let planes: Vec<Plane> = (0..4)
            .map(|i| axial(0.3 * f64::from(i), f64::from(i)))
            .collect();
        let stack = stack(&planes, &[]).unwrap();
        assert_eq!(
            stack.reasons.first().map(|r| r.code),
            Some(Code::GantryTilt)
        );
        let [_, _, step, _] = stack.affine.columns();
        assert!((step[0] - 0.3).abs() < 1e-12 && (step[2] - 1.0).abs() < 1e-12);
    }

    #[test]
    fn a_slice_that_jumps_sideways_is_refused() {
        let planes = [axial(0.0, 0.0), axial(30.0, 1.0), axial(0.0, 2.0)];
        let got = stack(&planes, &[]).map_err(|e| e.code());
        assert_eq!(got, Err(Code::BadGeometry));
    }

    #[test]
    fn rounding_does_not_part_slices_and_a_turn_does() {
        let turned = |angle: f64| {
            let (sin, cos) = angle.sin_cos();
            let orientation = [cos, sin, 0.0, -sin, cos, 0.0];
            Plane::new(orientation, [0.0; 3], [0.97655, 0.97655]).unwrap()
        };
        let planes = [turned(0.3), turned(0.3 + 1e-5), turned(0.31)];
        assert_eq!(aligned(&planes), [vec![0, 1], vec![2]]);
    }

    #[test]
    fn skewed_or_non_finite_planes_do_not_exist() {
        let straight = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0];
        assert!(Plane::new([1.0, 0.0, 0.0, 0.7, 0.7, 0.0], [0.0; 3], [1.0; 2]).is_none());
        assert!(Plane::new(straight, [f64::NAN, 0.0, 0.0], [1.0; 2]).is_none());
        assert!(Plane::new(straight, [0.0; 3], [0.0, 1.0]).is_none());
    }
}
