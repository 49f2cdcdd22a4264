//! Where the pixels of a data set lie: in the patient, on the detector, in time.
//!
//! # Source
//! DICOM PS3.3 C.7.6.2 (plane), C.7.6.16 (functional groups), C.7.6.5 (cine), C.8.4.15 (reconstructed
//! nuclear medicine), C.8.5.5 (ultrasound regions), C.8.8.3.2 (dose grid).

mod stepped;

pub(crate) use self::stepped::{slice_distance, step_mm};

use std::borrow::Cow;
use std::collections::HashMap;

use dicom_dictionary_std::tags;

use super::attributes::{self, Dimensions, Values};
use super::dataset::DataSet;
use super::pixels::rescale;
use crate::division::{Images, Quantity, Value};
use crate::error::{Error, Result};
use crate::reason::Code;
use crate::samples::Linear;
use crate::stack::{PLAUSIBLE_MM, Plane};

/// What one frame says of itself.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Frame {
    /// Where it lies, if it says so.
    pub(crate) plane: Option<Plane>,
    /// Spacing along H and W in mm, if it says so.
    pub(crate) spacing_mm: Option<[f64; 2]>,
    /// Its own modality transform.
    pub(crate) rescale: Option<Linear>,
    /// What parts frames at any position: stack and segment.
    key: [Option<String>; 2],
    /// Its number within its stack, if it says so.
    number: Option<f64>,
    /// What may tell it from others at its position, in the order of `Frames::quantities`.
    values: Vec<Value>,
}

/// The frames of one object.
#[derive(Debug, Clone)]
pub(crate) struct Frames {
    /// What may tell frames at one position apart.
    pub(crate) quantities: Vec<Quantity>,
    /// One for each frame.
    pub(crate) list: Vec<Frame>,
}

impl Frames {
    /// Returns true if every frame says where it lies.
    pub(crate) fn are_placed(&self) -> bool {
        self.list.iter().all(|frame| frame.plane.is_some())
    }

    /// Returns the frames by stack and segment, each group in the order of its first member.
    pub(crate) fn by_key(&self) -> Vec<Vec<usize>> {
        let mut groups: Vec<Vec<usize>> = Vec::new();
        let mut known: HashMap<&[Option<String>; 2], usize> = HashMap::new();
        for (index, frame) in self.list.iter().enumerate() {
            let group = *known.entry(&frame.key).or_insert(groups.len());
            match groups.get_mut(group) {
                Some(members) => members.push(index),
                None => groups.push(vec![index]),
            }
        }
        groups
    }

    /// Returns some frames as images to be divided into volumes; all must be placed.
    pub(crate) fn images(&self, members: &[usize]) -> Images {
        let of = || members.iter().filter_map(|&index| self.list.get(index));
        Images {
            quantities: self.quantities.clone(),
            numbers: of().map(|frame| frame.number).collect(),
            planes: of().filter_map(|frame| frame.plane).collect(),
            values: of().map(|frame| frame.values.clone()).collect(),
        }
    }
}

/// Reads the plane that the data set itself states, or that of its first detector (PS3.3 C.8.4.10).
///
/// # Errors
/// As `DataSet::items`.
pub(crate) fn plane(set: &DataSet<'_>) -> Result<Option<Plane>> {
    let spacing = set.decimal_array::<2>(tags::PIXEL_SPACING);
    let of = |set: &DataSet<'_>| {
        let orientation = set.decimal_array::<6>(tags::IMAGE_ORIENTATION_PATIENT)?;
        let position = set.decimal_array::<3>(tags::IMAGE_POSITION_PATIENT)?;
        Plane::new(orientation, position, spacing?)
    };
    if let Some(plane) = of(set) {
        return Ok(Some(plane));
    }
    let detector = set.first_item(tags::DETECTOR_INFORMATION_SEQUENCE)?;
    Ok(detector.as_ref().and_then(of))
}

/// Reads where every frame lies: of an enhanced object, a dose grid, or a stack that states its first
/// plane and a step. `None` for other multi-frames.
///
/// # Errors
/// `Malformed` if there are fewer functional groups than frames.
pub(crate) fn frames(set: &DataSet<'_>, n_frames: usize) -> Result<Option<Frames>> {
    if let Some(offsets) = set.decimals(tags::GRID_FRAME_OFFSET_VECTOR) {
        return dose_grid(set, &offsets, n_frames);
    }
    let per_frame = set.items(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE)?;
    if per_frame.is_empty() {
        return stepped::frames(set, n_frames);
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
    let dimensions = Dimensions::of(set)?;
    let own = per_frame.iter().take(n_frames).enumerate();
    let frame = |(index, own): (usize, &DataSet<'_>)| {
        let groups = Groups::new(own)?.or(&shared);
        Ok(groups.frame(index, &dimensions))
    };
    Ok(Some(Frames {
        list: own.map(frame).collect::<Result<_>>()?,
        quantities: dimensions.quantities(),
    }))
}

/// Reads the plane and the attributes of an object of one frame: its functional groups fill in what the
/// data set itself leaves out.
///
/// # Errors
/// As `DataSet::items`.
pub(crate) fn single(set: &DataSet<'_>) -> Result<(Option<Plane>, Values)> {
    let top = (plane(set)?, attributes::of_header(set));
    let mut groups = Groups::default();
    for tag in [
        tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE,
        tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE,
    ] {
        if let Some(item) = set.first_item(tag)? {
            groups = groups.or(&Groups::new(&item)?);
        }
    }
    let (plane, values) = top;
    let values = attributes::or(values, &groups.values);
    let values = attributes::indexed(values, set, &groups.indices)?;
    Ok((plane.or(groups.plane()), values))
}

/// The functional groups that matter, of one frame or of all.
#[derive(Debug, Clone)]
struct Groups {
    orientation: Option<[f64; 6]>,
    position: Option<[f64; 3]>,
    spacing_mm: Option<[f64; 2]>,
    rescale: Option<Linear>,
    /// Stack and segment, as far as they are stated.
    key: [Option<String>; 2],
    number: Option<f64>,
    indices: Vec<u32>,
    values: Values,
}

impl Default for Groups {
    fn default() -> Self {
        Self {
            orientation: None,
            position: None,
            spacing_mm: None,
            rescale: None,
            key: [const { None }; 2],
            number: None,
            indices: Vec::new(),
            values: attributes::NONE,
        }
    }
}

impl Groups {
    fn new(set: &DataSet<'_>) -> Result<Self> {
        let mut groups = Self {
            values: attributes::of_groups(set)?,
            ..Self::default()
        };
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
        let [stack, segment] = &mut groups.key;
        if let Some(item) = set.first_item(tags::FRAME_CONTENT_SEQUENCE)? {
            *stack = item.text(tags::STACK_ID).map(Cow::into_owned);
            groups.number = item.u32(tags::IN_STACK_POSITION_NUMBER).map(f64::from);
            groups.indices = item.u32s(tags::DIMENSION_INDEX_VALUES);
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
            number: self.number.or(shared.number),
            indices: if self.indices.is_empty() {
                shared.indices.clone()
            } else {
                self.indices
            },
            values: attributes::or(self.values, &shared.values),
        }
    }

    fn plane(&self) -> Option<Plane> {
        Plane::new(self.orientation?, self.position?, self.spacing_mm?)
    }

    fn frame(self, index: usize, dimensions: &Dimensions) -> Frame {
        let plane = self.plane();
        let values = attributes::numbered(self.values, index);
        Frame {
            plane,
            spacing_mm: self.spacing_mm,
            rescale: self.rescale,
            key: self.key,
            number: self.number,
            values: dimensions.values(&self.indices, &values),
        }
    }
}

impl Frame {
    /// A frame of an object without functional groups, at `offset_mm` along the normal of the first.
    fn moved(first: Plane, offset_mm: f64) -> Self {
        let mut plane = first;
        for (p, n) in plane.position.iter_mut().zip(first.normal()) {
            *p += n * offset_mm;
        }
        Self {
            plane: Some(plane),
            spacing_mm: Some(first.spacing_mm),
            rescale: None,
            key: [const { None }; 2],
            number: None,
            values: Vec::new(),
        }
    }
}

/// Planes of a dose grid: the first one, moved along its normal.
fn dose_grid(set: &DataSet<'_>, offsets: &[f64], n_frames: usize) -> Result<Option<Frames>> {
    let Some(first) = plane(set)?.filter(|_| offsets.len() >= n_frames && n_frames > 1) else {
        return Ok(None);
    };
    // The first offset is 0, or the position itself again (PS3.3 C.8.8.3.2).
    let start = offsets.first().copied().unwrap_or(0.0);
    let moved = |(number, &offset): (u32, &f64)| Frame {
        // Every plane is there, however far it lies from the next.
        number: Some(f64::from(number)),
        ..Frame::moved(first, offset - start)
    };
    Ok(Some(Frames {
        quantities: Vec::new(),
        list: (0..)
            .zip(offsets.iter().take(n_frames))
            .map(moved)
            .collect(),
    }))
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
    if stepped::counts_time(set) {
        return Depth::Time(None);
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
