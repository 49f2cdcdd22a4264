//! DICOM series: which files belong together, and their slices as one Volume.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use dicom_dictionary_std::tags;
use rayon::prelude::*;

use crate::archive;
use crate::dicom;
use crate::error::{Error, Result};
use crate::identifiers::Identifiers;
use crate::limits::Limits;
use crate::memory;
use crate::read::{ReadOptions, read_plain_into, read_prefix};
use crate::reason::{Code, Reason};
use crate::stack::{self, Plane};
use crate::volume::{Kind, Volume};

/// First guess at how long a header is; grown where a file holds more before its pixels.
const HEADER_BYTES: u64 = 64 << 10;

/// What one file says of its place in a series. Identifiers are compared, never shown.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Header {
    /// A slice that may belong to a volume.
    Slice(Box<Slice>),
    /// An image, cine or multi-frame that stands alone.
    Alone,
    /// A DICOMDIR.
    Index,
    /// A report, a plan, a presentation state: nothing that has pixels.
    NoImage,
}

/// One slice of a series.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Slice {
    /// What all slices of one volume share, beside their grid: series, matrix, echo.
    pub(crate) key: Vec<String>,
    /// What tells overlapping volumes of one series apart, in this order: acquisition, time,
    /// diffusion, trigger, image type.
    pub(crate) refinements: Vec<String>,
    /// The instance; the same one may lie in an archive twice.
    pub(crate) instance: String,
    /// Where it lies.
    pub(crate) plane: Plane,
}

/// Reads the header of a DICOM file, and of the file no more than that.
///
/// # Errors
/// `Io`; `Malformed` if the header is broken.
pub(crate) fn read_header(path: &Path, limits: &Limits) -> Result<Header> {
    let mut n_wanted = HEADER_BYTES;
    loop {
        let (bytes, is_all) = read_prefix(path, n_wanted, limits)?;
        match parse_header(&bytes, limits) {
            // A longer header; every other fault stays one, however much is read.
            Err(error) if !is_all && error.code() == Code::Truncated => {
                n_wanted = n_wanted.saturating_mul(16);
            }
            header => return header,
        }
    }
}

fn parse_header(bytes: &[u8], limits: &Limits) -> Result<Header> {
    header_of(&dicom::File::open(bytes, limits)?.header(limits)?)
}

fn header_of(set: &dicom::DataSet<'_>) -> Result<Header> {
    if set.has(tags::DIRECTORY_RECORD_SEQUENCE) {
        return Ok(Header::Index);
    }
    if !dicom::has_pixels(set) && !set.has(tags::ROWS) {
        return Ok(Header::NoImage);
    }
    let text = |tag| {
        set.text(tag)
            .map_or_else(String::new, std::borrow::Cow::into_owned)
    };
    let is_multi = set
        .text(tags::NUMBER_OF_FRAMES)
        .is_some_and(|n| n.trim() != "1");
    let series = text(tags::SERIES_INSTANCE_UID);
    let (Some(plane), false, false) = (dicom::plane(set), is_multi, series.is_empty()) else {
        return Ok(Header::Alone);
    };
    let key = vec![
        series,
        format!("{:?}x{:?}", set.u16(tags::ROWS), set.u16(tags::COLUMNS)),
        format!("{:?}", set.u16(tags::SAMPLES_PER_PIXEL)),
        text(tags::ECHO_NUMBERS),
        text(tags::ECHO_TIME),
    ];
    let diffusion = set.f64(tags::DIFFUSION_B_VALUE);
    let refinements = vec![
        text(tags::ACQUISITION_NUMBER),
        text(tags::TEMPORAL_POSITION_IDENTIFIER),
        format!("{diffusion:?}"),
        text(tags::TRIGGER_TIME),
        text(tags::IMAGE_TYPE),
    ];
    let instance = text(tags::SOP_INSTANCE_UID);
    Ok(Header::Slice(Box::new(Slice {
        key,
        refinements,
        instance,
        plane,
    })))
}

/// Splits slices that share a key into volumes: by their grid, and where positions collide by the
/// first refinements that resolve it. What stays ambiguous stays together, and is refused on
/// reading.
pub(crate) fn split(slices: &[Slice]) -> Vec<Vec<usize>> {
    let planes: Vec<Plane> = slices.iter().map(|slice| slice.plane).collect();
    let grids = stack::aligned(&planes);
    grids
        .into_iter()
        .flat_map(|members| split_grid(slices, members))
        .collect()
}

fn split_grid(slices: &[Slice], members: Vec<usize>) -> Vec<Vec<usize>> {
    let of = |index: &usize| slices.get(*index);
    let collides = |members: &[usize]| {
        let unique = without_copies(slices, members);
        let planes: Vec<Plane> = unique.iter().filter_map(of).map(|s| s.plane).collect();
        stack::has_collision(&planes)
    };
    if !collides(&members) {
        return vec![members];
    }
    let n_refinements = members
        .first()
        .and_then(of)
        .map_or(0, |s| s.refinements.len());
    for depth in 1..=n_refinements {
        let mut groups: BTreeMap<&[String], Vec<usize>> = BTreeMap::new();
        for &index in &members {
            let key = of(&index).and_then(|slice| slice.refinements.get(..depth));
            groups.entry(key.unwrap_or(&[])).or_default().push(index);
        }
        if groups.len() > 1 && !groups.values().any(|group| collides(group)) {
            return groups.into_values().collect();
        }
    }
    vec![members]
}

/// Returns true if the members are one instance, however often it is there.
pub(crate) fn is_one_slice(slices: &[Slice], members: &[usize]) -> bool {
    without_copies(slices, members).len() == 1
}

/// Keeps the first copy of each instance; slices without an instance identifier are all kept.
fn without_copies(slices: &[Slice], members: &[usize]) -> Vec<usize> {
    let mut seen: HashSet<&str> = HashSet::new();
    let mut is_first = |index: &usize| {
        slices
            .get(*index)
            .is_some_and(|s| s.instance.is_empty() || seen.insert(&s.instance))
    };
    members
        .iter()
        .copied()
        .filter(|index| is_first(index))
        .collect()
}

/// Reads the one object of a folder.
///
/// # Errors
/// `Mismatch` if the folder holds none or several; as `read_files` otherwise.
pub(crate) fn read_folder(path: &Path, options: &ReadOptions) -> Result<Vec<Volume>> {
    let (objects, _) = archive::find_objects(path, options)?;
    match objects.as_slice() {
        [only] => archive::read_object(only, options),
        several => Err(Error::Mismatch {
            what: "objects in the folder",
            expected: "one DICOM series, or one file".into(),
            got: format!("{}", several.len()),
        }),
    }
}

/// Reads the slices of one series into one Volume.
///
/// # Errors
/// `Malformed` with the reason code of the geometry's fault; as the DICOM reader for a bad slice.
pub(crate) fn read_files(files: &[PathBuf], options: &ReadOptions) -> Result<Volume> {
    let limits = &options.limits;
    limits.parts(files.len() as u64)?;
    let slices: Vec<Slice> = files
        .par_iter()
        .map(
            |path| match read_header(path, limits).map_err(|e| e.in_file(path))? {
                Header::Slice(slice) => Ok(*slice),
                Header::Alone | Header::Index | Header::NoImage => Err(Error::refused(
                    "dicom series",
                    Code::PositionUnknown,
                    "a file that is no slice",
                    "position, orientation and spacing in every file",
                )),
            },
        )
        .collect::<Result<_>>()?;
    let everything: Vec<usize> = (0..slices.len()).collect();
    let unique = without_copies(&slices, &everything);
    let planes: Vec<Plane> = unique
        .iter()
        .filter_map(|&i| slices.get(i))
        .map(|s| s.plane)
        .collect();
    let stack = stack::stack(&planes)?;
    let ordered: Vec<&PathBuf> = stack
        .order
        .iter()
        .filter_map(|&i| unique.get(i))
        .filter_map(|&i| files.get(i))
        .collect();
    let mut volume = read_slices(&ordered, options)?;
    let n_copies = slices.len() - unique.len();
    if n_copies > 0 {
        check_copies(files, &slices, &unique, options)?;
        let detail = format!("{n_copies} further copies of slices that are there already");
        volume.note(Code::DuplicateInstance, detail);
    }
    dicom::place_stack(volume, stack)
}

/// Refuses a series in which one instance stands for different pixels: which ones are meant?
fn check_copies(
    files: &[PathBuf],
    slices: &[Slice],
    unique: &[usize],
    options: &ReadOptions,
) -> Result<()> {
    let first_of = |instance: &str| {
        let is_same = |&&index: &&usize| slices.get(index).is_some_and(|s| s.instance == instance);
        unique
            .iter()
            .find(is_same)
            .and_then(|&index| files.get(index))
    };
    for (index, (slice, path)) in slices.iter().zip(files).enumerate() {
        let Some(first) = first_of(&slice.instance).filter(|_| !unique.contains(&index)) else {
            continue;
        };
        let copy = read_slice(path, &mut Scratch::default(), options)?;
        let kept = read_slice(first, &mut Scratch::default(), options)?;
        if copy.shape() != kept.shape() || copy.values() != kept.values() {
            return Err(Error::refused(
                "dicom series",
                Code::DuplicatePosition,
                "one instance identifier on slices with different pixels",
                "copies that are equal",
            )
            .in_file(path));
        }
    }
    Ok(())
}

/// Reads ordered slices side by side; the first one describes them all.
fn read_slices(ordered: &[&PathBuf], options: &ReadOptions) -> Result<Volume> {
    let Some((first, rest)) = ordered.split_first() else {
        return Err(Error::refused(
            "dicom series",
            Code::NoPixels,
            "no slice",
            "at least one",
        ));
    };
    let mut first = read_slice(first, &mut Scratch::default(), options)?;
    let [n_channels, _, height, width] = first.shape();
    let shape = [n_channels, ordered.len(), height, width];
    let n_values = options.limits.voxels(shape.map(|side| side as u64))?;
    let mut values = memory::zeroed(n_values)?;
    let mut planes = planes_of_slices(&mut values, ordered.len(), height * width);
    let (head, tail) = planes.split_at_mut(1);
    fill(head, &first);
    let notes: Vec<(Vec<Reason>, Identifiers)> = tail
        .par_iter_mut()
        .zip(rest)
        .with_min_len(8)
        .map_init(Scratch::default, |scratch, (slots, path)| {
            let mut slice = read_slice(path, scratch, options)?;
            check_alike(&first, &slice).map_err(|error| error.in_file(path))?;
            fill(std::slice::from_mut(slots), &slice);
            let reasons = std::mem::take(&mut slice.reasons);
            let identifiers = std::mem::take(&mut slice.identifiers);
            scratch.values = slice.into_values();
            Ok((reasons, identifiers))
        })
        .collect::<Result<_>>()?;
    let kind = if ordered.len() > 1 {
        Kind::Volume
    } else {
        Kind::Image
    };
    let mut volume = Volume::new(values, shape, kind)?;
    volume.modality = first.modality;
    volume.body_part = first.body_part;
    volume.unit = first.unit;
    volume.inverted = first.inverted;
    volume.full_scale = first.full_scale;
    volume.reasons = first.reasons;
    volume.identifiers = std::mem::take(&mut first.identifiers);
    for (reasons, identifiers) in notes {
        volume.identifiers.keep_common(&identifiers);
        for reason in reasons {
            if !volume.reasons.iter().any(|known| known.code == reason.code) {
                volume.reasons.push(reason);
            }
        }
    }
    Ok(volume)
}

/// Returns the planes of each slice: in `[C, D, H, W]` they lie `D` planes apart.
fn planes_of_slices(values: &mut [f32], n_slices: usize, n_pixels: usize) -> Vec<Vec<&mut [f32]>> {
    let mut planes: Vec<Vec<&mut [f32]>> = (0..n_slices).map(|_| Vec::new()).collect();
    for (index, plane) in values.chunks_exact_mut(n_pixels).enumerate() {
        if let Some(slots) = planes.get_mut(index % n_slices) {
            slots.push(plane);
        }
    }
    planes
}

/// Slices of one volume mean the same: HU beside raw values would be a wrong picture.
fn check_alike(first: &Volume, slice: &Volume) -> Result<()> {
    if slice.shape() != first.shape() {
        let found = format!("a slice of shape {:?}", slice.shape());
        let wanted = format!("{:?}", first.shape());
        return Err(Error::malformed("dicom series", found, wanted));
    }
    let meaning = |v: &Volume| (v.inverted, v.unit, v.modality.clone());
    if meaning(slice) != meaning(first) {
        let found = "slices of other modality, unit or photometric interpretation";
        return Err(Error::malformed("dicom series", found, "the same in all"));
    }
    Ok(())
}

fn fill(slots: &mut [Vec<&mut [f32]>], slice: &Volume) {
    for (channel, slot) in slots.iter_mut().flatten().enumerate() {
        if let Some(plane) = slice.plane(channel, 0) {
            slot.copy_from_slice(plane);
        }
    }
}

/// Memory that one thread uses for slice after slice.
#[derive(Default)]
struct Scratch {
    bytes: Vec<u8>,
    values: Vec<f32>,
}

fn read_slice(path: &Path, scratch: &mut Scratch, options: &ReadOptions) -> Result<Volume> {
    read_one(path, scratch, options).map_err(|error| error.in_file(path))
}

fn read_one(path: &Path, scratch: &mut Scratch, options: &ReadOptions) -> Result<Volume> {
    read_plain_into(&mut scratch.bytes, path, &options.limits)?;
    let values = std::mem::take(&mut scratch.values);
    let mut volumes = dicom::read_reusing(values, &scratch.bytes, options)?;
    match (volumes.pop(), volumes.is_empty()) {
        (Some(volume), true) => Ok(volume),
        _ => Err(Error::malformed(
            "dicom series",
            "a file with several images",
            "one slice",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(z: f64, acquisition: &str, instance: &str) -> Slice {
        let plane = Plane::new([1.0, 0.0, 0.0, 0.0, 1.0, 0.0], [0.0, 0.0, z], [1.0, 1.0]);
        Slice {
            key: Vec::new(),
            refinements: vec![acquisition.into(), "1".into()],
            instance: instance.into(),
            plane: plane.unwrap(),
        }
    }

    #[test]
    fn an_acquisition_number_splits_a_series_only_where_positions_collide() {
        let contiguous = [
            slice(0.0, "1", "a"),
            slice(1.0, "2", "b"),
            slice(2.0, "3", "c"),
        ];
        assert_eq!(split(&contiguous), [vec![0, 1, 2]]);
        let overlapping = [
            slice(0.0, "1", "a"),
            slice(0.0, "2", "b"),
            slice(1.0, "1", "c"),
            slice(1.0, "2", "d"),
        ];
        assert_eq!(split(&overlapping), [vec![0, 2], vec![1, 3]]);
        let ambiguous = [slice(0.0, "1", "a"), slice(0.0, "1", "b")];
        assert_eq!(split(&ambiguous), [vec![0, 1]]);
    }

    #[test]
    fn copies_of_one_instance_do_not_collide() {
        let copied = [
            slice(0.0, "1", "a"),
            slice(0.0, "1", "a"),
            slice(1.0, "1", "b"),
        ];
        assert_eq!(split(&copied), [vec![0, 1, 2]]);
    }
}
