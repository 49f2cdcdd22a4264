//! Where the pixels of a data set lie: in the patient, on the detector, in time.
//!
//! # Source
//! DICOM PS3.3 C.7.6.2 (plane), C.7.6.16 (functional groups), C.7.6.5 (cine), C.8.5.5 (ultrasound
//! regions), C.8.8.3.2 (dose grid).

use std::borrow::Cow;

use dicom_dictionary_std::tags;

use super::dataset::DataSet;
use super::pixels::rescale;
use crate::error::{Error, Result};
use crate::reason::Code;
use crate::samples::Linear;
use crate::stack::{PLAUSIBLE_MM, Plane};

/// What one frame says of itself.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Frame {
    /// Where it lies, if it says so.
    pub(crate) plane: Option<Plane>,
    /// Its own modality transform.
    pub(crate) rescale: Option<Linear>,
    /// What, apart from the position, tells volumes of one object apart: stack, time, echo, b-value.
    pub(crate) key: Vec<String>,
}

/// Reads the plane that the data set itself states (single frames, and the first of a dose grid).
pub(crate) fn plane(set: &DataSet<'_>) -> Option<Plane> {
    let orientation = set.decimal_array::<6>(tags::IMAGE_ORIENTATION_PATIENT)?;
    let position = set.decimal_array::<3>(tags::IMAGE_POSITION_PATIENT)?;
    let spacing = set.decimal_array::<2>(tags::PIXEL_SPACING)?;
    Plane::new(orientation, position, spacing)
}

/// Reads every frame of an enhanced object, or of a dose grid; `None` for other multi-frames.
///
/// # Errors
/// `Malformed` if there are fewer functional groups than frames.
pub(crate) fn frames(set: &DataSet<'_>, n_frames: usize) -> Result<Option<Vec<Frame>>> {
    if let Some(offsets) = set.decimals(tags::GRID_FRAME_OFFSET_VECTOR) {
        return Ok(dose_grid(set, &offsets, n_frames));
    }
    let per_frame = set.items(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE)?;
    if per_frame.is_empty() {
        return Ok(None);
    }
    if per_frame.len() < n_frames {
        let found = format!(
            "{} functional groups for {n_frames} frames",
            per_frame.len()
        );
        return Err(Error::malformed("dicom", found, "one for each frame"));
    }
    let shared = match set.first_item(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE)? {
        Some(shared) => Groups::new(&shared)?,
        None => Groups::default(),
    };
    let frame = |own: &DataSet<'_>| Ok(Groups::new(own)?.or(&shared).frame());
    let own = per_frame.iter().take(n_frames);
    own.map(frame).collect::<Result<_>>().map(Some)
}

/// The functional groups that matter, of one frame or of all.
#[derive(Debug, Clone, Default)]
struct Groups {
    orientation: Option<[f64; 6]>,
    position: Option<[f64; 3]>,
    spacing_mm: Option<[f64; 2]>,
    rescale: Option<Linear>,
    /// Stack, time, echo, b-value, segment, as far as they are stated.
    key: [Option<String>; 5],
}

impl Groups {
    fn new(set: &DataSet<'_>) -> Result<Self> {
        let mut groups = Self::default();
        if let Some(item) = set.first_item(tags::PLANE_ORIENTATION_SEQUENCE)? {
            groups.orientation = item.decimal_array(tags::IMAGE_ORIENTATION_PATIENT);
        }
        if let Some(item) = set.first_item(tags::PLANE_POSITION_SEQUENCE)? {
            groups.position = item.decimal_array(tags::IMAGE_POSITION_PATIENT);
        }
        if let Some(item) = set.first_item(tags::PIXEL_MEASURES_SEQUENCE)? {
            groups.spacing_mm = item.decimal_array(tags::PIXEL_SPACING);
        }
        if let Some(item) = set.first_item(tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE)? {
            groups.rescale = rescale(&item);
        }
        let [stack, time, echo, b_value, segment] = &mut groups.key;
        if let Some(item) = set.first_item(tags::FRAME_CONTENT_SEQUENCE)? {
            *stack = item.text(tags::STACK_ID).map(Cow::into_owned);
            *time = item
                .u32(tags::TEMPORAL_POSITION_INDEX)
                .map(|n| n.to_string());
        }
        if let Some(item) = set.first_item(tags::MR_ECHO_SEQUENCE)? {
            *echo = item.f64(tags::EFFECTIVE_ECHO_TIME).map(|ms| ms.to_string());
        }
        if let Some(item) = set.first_item(tags::MR_DIFFUSION_SEQUENCE)? {
            *b_value = item.f64(tags::DIFFUSION_B_VALUE).map(|b| b.to_string());
        }
        if let Some(item) = set.first_item(tags::SEGMENT_IDENTIFICATION_SEQUENCE)? {
            *segment = item
                .u16(tags::REFERENCED_SEGMENT_NUMBER)
                .map(|n| n.to_string());
        }
        Ok(groups)
    }

    /// Takes from `shared` what these groups do not state.
    fn or(self, shared: &Self) -> Self {
        let mut key = self.key;
        for (own, shared) in key.iter_mut().zip(&shared.key) {
            if own.is_none() {
                own.clone_from(shared);
            }
        }
        Self {
            orientation: self.orientation.or(shared.orientation),
            position: self.position.or(shared.position),
            spacing_mm: self.spacing_mm.or(shared.spacing_mm),
            rescale: self.rescale.or(shared.rescale),
            key,
        }
    }

    fn frame(self) -> Frame {
        let stated = (self.orientation, self.position, self.spacing_mm);
        let plane = match stated {
            (Some(orientation), Some(position), Some(spacing_mm)) => {
                Plane::new(orientation, position, spacing_mm)
            }
            _ => None,
        };
        Frame {
            plane,
            rescale: self.rescale,
            key: self.key.map(Option::unwrap_or_default).into(),
        }
    }
}

/// Planes of a dose grid: the first one, moved along its normal.
fn dose_grid(set: &DataSet<'_>, offsets: &[f64], n_frames: usize) -> Option<Vec<Frame>> {
    let first = plane(set)?;
    if offsets.len() < n_frames || n_frames < 2 {
        return None;
    }
    let normal = first.normal();
    // The first offset is 0, or the position itself again (PS3.3 C.8.8.3.2).
    let start = offsets.first().copied()?;
    let moved = |&offset: &f64| {
        let mut plane = first;
        for (p, n) in plane.position.iter_mut().zip(normal) {
            *p += n * (offset - start);
        }
        Frame {
            plane: Some(plane),
            rescale: None,
            key: Vec::new(),
        }
    };
    Some(offsets.iter().take(n_frames).map(moved).collect())
}

/// In-plane spacing (H, W) in mm, and what to say about it.
pub(crate) fn in_plane(set: &DataSet<'_>) -> (Option<[f64; 2]>, Option<Code>) {
    let usable = |tag| {
        set.decimal_array::<2>(tag)
            .filter(|s| s.iter().all(|x| PLAUSIBLE_MM.contains(x)))
    };
    if let Some(spacing) = usable(tags::PIXEL_SPACING) {
        return (Some(spacing), None);
    }
    let detector =
        usable(tags::IMAGER_PIXEL_SPACING).or_else(|| usable(tags::NOMINAL_SCANNED_PIXEL_SPACING));
    if let Some(spacing) = detector {
        return (Some(spacing), Some(Code::SpacingAtDetector));
    }
    match ultrasound_spacing(set) {
        Some(spacing) => (Some(spacing), None),
        None => (None, Some(Code::SpacingUnknown)),
    }
}

/// The spacing of ultrasound regions, if all spatial ones agree.
fn ultrasound_spacing(set: &DataSet<'_>) -> Option<[f64; 2]> {
    const CENTIMETRES: u16 = 3;
    let mut agreed: Option<[f64; 2]> = None;
    for region in set.items(tags::SEQUENCE_OF_ULTRASOUND_REGIONS).ok()? {
        let units = [
            tags::PHYSICAL_UNITS_X_DIRECTION,
            tags::PHYSICAL_UNITS_Y_DIRECTION,
        ];
        if units
            .iter()
            .any(|&tag| region.u16(tag) != Some(CENTIMETRES))
        {
            continue;
        }
        let mm = |tag| {
            region
                .f64(tag)
                .map(|cm: f64| cm.abs() * 10.0)
                .filter(|mm| PLAUSIBLE_MM.contains(mm))
        };
        let spacing = [mm(tags::PHYSICAL_DELTA_Y)?, mm(tags::PHYSICAL_DELTA_X)?];
        let differs = |a: &[f64; 2]| a.iter().zip(spacing).any(|(a, b)| (a - b).abs() > 0.01 * b);
        if agreed.as_ref().is_some_and(differs) {
            return None;
        }
        agreed = Some(spacing);
    }
    agreed
}

/// What the third axis of a multi-frame without positions is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Depth {
    /// Time, with the seconds between frames where they are equal and known.
    Time(Option<f64>),
    /// Nothing says.
    Unknown,
}

/// Decides what a multi-frame without positions counts along.
pub(crate) fn depth_meaning(set: &DataSet<'_>, is_colour: bool) -> Depth {
    // Milliseconds, and frames a second.
    let positive = |x: &f64| (1e-6..=1e9).contains(x);
    if let Some(ms) = set.decimal(tags::FRAME_TIME).filter(positive) {
        return Depth::Time(Some(ms / 1000.0));
    }
    if let Some(vector) = set.decimals(tags::FRAME_TIME_VECTOR) {
        // The first increment is 0 by definition.
        let steps = vector.get(1..).unwrap_or(&[]);
        let even = steps.first().copied().filter(positive).filter(|first| {
            steps
                .iter()
                .all(|step| (step - first).abs() <= 0.01 * first)
        });
        return Depth::Time(even.map(|ms| ms / 1000.0));
    }
    let rates = [tags::CINE_RATE, tags::RECOMMENDED_DISPLAY_FRAME_RATE];
    if let Some(rate) = rates
        .iter()
        .find_map(|&tag| set.decimal(tag).filter(positive))
    {
        return Depth::Time(Some(1.0 / rate));
    }
    let modality = set.code(tags::MODALITY);
    let is_cine = matches!(
        modality.as_deref(),
        Some("US" | "IVUS" | "XA" | "RF" | "ES" | "XC" | "GM" | "OP" | "DX" | "CR" | "OPT")
    );
    if is_cine || is_colour {
        Depth::Time(None)
    } else {
        Depth::Unknown
    }
}
