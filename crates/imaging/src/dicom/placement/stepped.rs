//! Multi-frames without functional groups whose header states the first plane and a step: nuclear
//! medicine, cone-beam CT, tomosynthesis.
//!
//! # Source
//! DICOM PS3.3 C.7.6.6 (`FrameIncrementPointer`), C.8.4.8 and C.8.4.15 (nuclear medicine: vectors, and the
//! sign of `SpacingBetweenSlices`).

use dicom_core::Tag;
use dicom_dictionary_std::tags;

use super::{Frame, Frames};
use crate::dicom::dataset::DataSet;
use crate::dicom::n_frames;
use crate::division::{Quantity, Role, Shows, TIME, Value};
use crate::error::Result;
use crate::stack::PLAUSIBLE_MM;

/// Vectors that count what lies in one volume or another, and their word in names.
const VECTORS: [(Tag, &str); 6] = [
    (tags::ENERGY_WINDOW_VECTOR, "energy"),
    (tags::DETECTOR_VECTOR, "detector"),
    (tags::RR_INTERVAL_VECTOR, "interval"),
    (tags::PHASE_VECTOR, TIME),
    (tags::TIME_SLOT_VECTOR, TIME),
    (tags::TIME_SLICE_VECTOR, TIME),
];

/// Places the frames of an object by its first plane and its step; `None` if it states neither, or if
/// its frames count something else.
///
/// # Errors
/// As `placement::plane`.
pub(super) fn frames(set: &DataSet<'_>, n_frames: usize) -> Result<Option<Frames>> {
    let Some(first) = super::plane(set)?.filter(|_| n_frames > 1) else {
        return Ok(None);
    };
    let (Some((step_mm, _)), Some(slices)) = (step_mm(set), slices(set, n_frames)) else {
        return Ok(None);
    };
    let varying = varying(set);
    let frame = |(index, &slice): (usize, &f64)| {
        let value = |(vector, _): &(Vec<u16>, &str)| {
            let number = vector.get(index).copied().map(f64::from);
            number.map_or(Value::Missing, Value::Number)
        };
        Frame {
            values: varying.iter().map(value).collect(),
            number: Some(slice),
            ..Frame::moved(first, slice * step_mm)
        }
    };
    let quantity = |&(_, name): &(Vec<u16>, &'static str)| Quantity {
        name,
        role: Role::Number,
        shows: Shows::Place(usize::from(name != TIME)),
    };
    Ok(Some(Frames {
        quantities: varying.iter().map(quantity).collect(),
        list: slices.iter().enumerate().map(frame).collect(),
    }))
}

/// Returns the distance between slices as the header states it, with its sign, and whether it had to be
/// taken from their thickness.
pub(crate) fn slice_distance(set: &DataSet<'_>) -> Option<(f64, bool)> {
    let usable = |tag| {
        set.decimal(tag)
            .filter(|mm| PLAUSIBLE_MM.contains(&mm.abs()))
    };
    let between = usable(tags::SPACING_BETWEEN_SLICES).map(|mm| (mm, false));
    between.or_else(|| usable(tags::SLICE_THICKNESS).map(|mm| (mm, true)))
}

/// Returns the distance from a frame to the next one along the normal of the first, in mm, and whether it
/// had to be taken from their thickness; `None` where frames are no slices.
///
/// Negative distances put the next slice in front of the first (PS3.3 C.8.4.15).
pub(crate) fn step_mm(set: &DataSet<'_>) -> Option<(f64, bool)> {
    let modality = set.code(tags::MODALITY);
    if modality.as_deref() == Some("NM") && !is_reconstruction(set) {
        return None;
    }
    let is_sliced = matches!(modality.as_deref(), Some("CT" | "MR" | "PT" | "NM"));
    slice_distance(set).filter(|(_, is_thickness)| is_sliced || !is_thickness)
}

/// Returns true if frames of nuclear medicine are slices, and not views of the patient.
fn is_reconstruction(set: &DataSet<'_>) -> bool {
    let stated = set.text(tags::IMAGE_TYPE);
    let kind = stated.as_deref().and_then(|text| text.split('\\').nth(2));
    let is_recon = kind.is_some_and(|kind| kind.trim_start().starts_with("RECON"));
    let pointers = set.tags(tags::FRAME_INCREMENT_POINTER);
    (is_recon || pointers.contains(&tags::SLICE_VECTOR)) && !counts_views(set)
}

/// Returns how many steps each frame lies from the first plane, if frames count slices.
fn slices(set: &DataSet<'_>, n_frames: usize) -> Option<Vec<f64>> {
    let pointers = set.tags(tags::FRAME_INCREMENT_POINTER);
    if pointers.contains(&tags::SLICE_VECTOR) {
        let vector = set.u16s(tags::SLICE_VECTOR)?;
        let slice = |&number: &u16| f64::from(number) - 1.0;
        return (vector.len() >= n_frames && !counts_views(set))
            .then(|| vector.iter().take(n_frames).map(slice).collect());
    }
    let counts_slices = |tag: &Tag| {
        matches!(
            *tag,
            tags::SLICE_LOCATION_VECTOR | tags::SLICE_LOCATION | tags::IMAGE_POSITION_PATIENT
        )
    };
    let is_film = states_times(set) || counts_moments(set, n_frames);
    if !pointers.iter().all(counts_slices) || (pointers.is_empty() && is_film) {
        return None;
    }
    let n_frames = u32::try_from(n_frames).ok()?;
    Some((0..n_frames).map(f64::from).collect())
}

/// Returns true if frames are views from several angles, as before a reconstruction.
fn counts_views(set: &DataSet<'_>) -> bool {
    let pointers = set.tags(tags::FRAME_INCREMENT_POINTER);
    let is_view = |tag| pointers.contains(&tag) && is_varying(&vector(set, tag));
    is_view(tags::ROTATION_VECTOR) || is_view(tags::ANGULAR_VIEW_VECTOR)
}

/// Returns true if frames state when they were made: a film, even where a plane is stated.
fn states_times(set: &DataSet<'_>) -> bool {
    let times = [tags::FRAME_TIME, tags::FRAME_TIME_VECTOR, tags::CINE_RATE];
    times.iter().any(|&tag| set.text(tag).is_some())
}

/// Returns true if as many moments are stated as there are frames.
fn counts_moments(set: &DataSet<'_>, n_frames: usize) -> bool {
    let moments = [
        tags::CARDIAC_NUMBER_OF_IMAGES,
        tags::NUMBER_OF_TEMPORAL_POSITIONS,
    ];
    let n_frames = u32::try_from(n_frames).map_or(0.0, f64::from);
    #[allow(clippy::float_cmp, reason = "whole numbers, exact in f64")]
    let is_it = |tag| set.decimal(tag) == Some(n_frames);
    moments.into_iter().any(is_it)
}

fn vector(set: &DataSet<'_>, tag: Tag) -> Vec<u16> {
    set.u16s(tag).unwrap_or_default()
}

fn is_varying(vector: &[u16]) -> bool {
    vector.iter().any(|value| Some(value) != vector.first())
}

/// Returns the vectors, besides that of slices, in which frames differ.
fn varying(set: &DataSet<'_>) -> Vec<(Vec<u16>, &'static str)> {
    let pointers = set.tags(tags::FRAME_INCREMENT_POINTER);
    let stated = VECTORS.iter().filter(|(tag, _)| pointers.contains(tag));
    stated
        .map(|&(tag, name)| (vector(set, tag), name))
        .filter(|(vector, _)| is_varying(vector))
        .collect()
}

/// Returns true if frames differ in nothing but a vector that counts time.
pub(super) fn counts_time(set: &DataSet<'_>) -> bool {
    let n_frames = n_frames(set).ok().and_then(|n| usize::try_from(n).ok());
    if n_frames.is_some_and(|n| n > 1 && counts_moments(set, n)) {
        return true;
    }
    let varying = varying(set);
    let is_sliced = is_varying(&vector(set, tags::SLICE_VECTOR)) || counts_views(set);
    !is_sliced && !varying.is_empty() && varying.iter().all(|&(_, name)| name == TIME)
}
