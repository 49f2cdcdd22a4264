//! DICOM series: which files belong together, and their slices as one Volume.

mod grouping;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use dicom_dictionary_std::tags;
use rayon::prelude::*;

use crate::archive;
use crate::dicom::padding::{self, Marking};
use crate::dicom::{self, QUANTITIES, Values};
use crate::division::{self, Images};
use crate::error::{Error, Result};
use crate::identifiers::Identifiers;
use crate::limits::Limits;
use crate::memory;
use crate::read::ReadOptions;
use crate::reason::{Code, Reason};
use crate::stack::{self, Plane};
use crate::store::Store;
use crate::timeline::uniform_indices;
use crate::volume::{Kind, Padding, Volume};

pub(crate) use self::grouping::{Part, group, unplaced};

/// First guess at how long a header is; grown where a file holds more before its pixels.
const HEADER_BYTES: u64 = 64 << 10;

/// Most repairs that are told of one series.
const MAX_REPAIRS: usize = 8;

/// What one file says of its place in a series. Identifiers are compared, never shown.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Header {
    /// A slice that may belong to a volume.
    Slice(Box<Slice>),
    /// An image, cine or multi-frame that stands alone.
    Alone,
    /// A slice of CT, MR or PET that does not say where it lies.
    Unplaced(Box<Key>),
    /// A DICOMDIR.
    Index,
    /// A report, a plan, a presentation state: nothing that has pixels.
    NoImage,
}

/// One slice of a series.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Slice {
    /// What all slices of one series share.
    pub(crate) key: Key,
    /// What may tell it from other slices at its position, in the order of `dicom::QUANTITIES`.
    values: Values,
    /// Its number within the series, if it states one.
    number: Option<f64>,
    /// Where it lies.
    plane: Plane,
}

/// What the slices of one series share. One `SeriesInstanceUID` may stand on slices of two patients,
/// after an export that gave new identifiers to both.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    series: String,
    study: String,
    patient: String,
    /// The name, only where there is no `PatientID`.
    name: String,
    frame_of_reference: String,
    modality: Option<String>,
    /// Rows, columns, samples per pixel.
    sides: [Option<u16>; 3],
}

impl Key {
    /// Returns true if this key leaves out identifiers that the other states, and contradicts none.
    fn is_part_of(&self, other: &Self) -> bool {
        let is_alike = self.series == other.series
            && self.modality == other.modality
            && self.sides == other.sides;
        let pairs = [
            (&self.study, &other.study),
            (&self.patient, &other.patient),
            (&self.frame_of_reference, &other.frame_of_reference),
        ];
        let fits = |(own, other): &(&String, &String)| own.is_empty() || own == other;
        let adds = |(own, other): &(&String, &String)| own.is_empty() && !other.is_empty();
        is_alike && pairs.iter().all(fits) && pairs.iter().any(adds)
    }

    /// Returns true if the header names no patient.
    fn has_no_patient(&self) -> bool {
        self.patient.is_empty() && self.name.is_empty()
    }
}

/// Reads the header of a DICOM file, and of the file no more than that.
///
/// # Errors
/// `Io`; `Malformed` if the header is broken.
pub(crate) fn read_header(path: &Path, store: Store<'_>, limits: &Limits) -> Result<Header> {
    let mut n_wanted = HEADER_BYTES;
    loop {
        let (bytes, is_all) = store.prefix(path, n_wanted, limits)?;
        let header = parse_header(&bytes, limits);
        // What is missing, or looks broken, in a part of a file may be whole in all of it.
        let is_settled = match &header {
            Ok(Header::NoImage) => false,
            Ok(_) => true,
            Err(error) => !matches!(error.code(), Code::Truncated | Code::Malformed),
        };
        if is_all || is_settled {
            return header;
        }
        n_wanted = n_wanted.saturating_mul(16);
    }
}

fn parse_header(bytes: &[u8], limits: &Limits) -> Result<Header> {
    let file = dicom::File::open(bytes, limits)?;
    let set = file.header(limits)?;
    if set.has(tags::DIRECTORY_RECORD_SEQUENCE) {
        return Ok(Header::Index);
    }
    if !dicom::has_pixels(&set) {
        let error = file.without_pixels(&set);
        return match error.code() {
            Code::NoPixels => Ok(Header::NoImage),
            _ => Err(error),
        };
    }
    header_of(&set)
}

fn header_of(set: &dicom::DataSet<'_>) -> Result<Header> {
    let is_multi = dicom::n_frames(set).is_ok_and(|n| n > 1) || dicom::is_mosaic(set);
    if is_multi {
        return Ok(Header::Alone);
    }
    let (plane, values) = dicom::single(set)?;
    let Some(plane) = plane else {
        let key = key_of(set);
        let is_sliced = matches!(key.modality.as_deref(), Some("CT" | "MR" | "PT"));
        return Ok(if is_sliced && !key.series.is_empty() {
            Header::Unplaced(Box::new(key))
        } else {
            Header::Alone
        });
    };
    Ok(Header::Slice(Box::new(Slice {
        key: key_of(set),
        values,
        number: dicom::instance_number(set),
        plane,
    })))
}

fn key_of(set: &dicom::DataSet<'_>) -> Key {
    let text = |tag| {
        set.text(tag)
            .map_or_else(String::new, std::borrow::Cow::into_owned)
    };
    let patient = text(tags::PATIENT_ID);
    Key {
        series: text(tags::SERIES_INSTANCE_UID),
        study: text(tags::STUDY_INSTANCE_UID),
        name: if patient.is_empty() {
            text(tags::PATIENT_NAME)
        } else {
            String::new()
        },
        patient,
        frame_of_reference: text(tags::FRAME_OF_REFERENCE_UID),
        modality: set.code(tags::MODALITY),
        sides: [tags::ROWS, tags::COLUMNS, tags::SAMPLES_PER_PIXEL].map(|tag| set.u16(tag)),
    }
}

/// Returns slices as images to be divided into volumes.
fn images<'s>(slices: impl Iterator<Item = &'s Slice>) -> Images {
    let mut images = Images {
        quantities: QUANTITIES.to_vec(),
        ..Images::default()
    };
    for slice in slices {
        images.planes.push(slice.plane);
        images.numbers.push(slice.number);
        images.values.push(slice.values.to_vec());
    }
    images
}

/// Reads the one object of a folder or archive.
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

/// How the files of one object follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Along {
    /// In space: slices of a volume.
    #[default]
    Space,
    /// In time, at one position.
    Time,
}

/// Reads the slices of one object into one Volume.
///
/// # Errors
/// `Malformed` with the reason code of the geometry's fault; as the DICOM reader for a bad slice.
pub(crate) fn read_files(
    files: &[PathBuf],
    along: Along,
    store: Store<'_>,
    options: &ReadOptions,
) -> Result<Volume> {
    let limits = &options.limits;
    limits.parts(files.len() as u64)?;
    let slices: Vec<Slice> = files
        .par_iter()
        .map(
            |path| match read_header(path, store, limits).map_err(|e| e.in_file(path))? {
                Header::Slice(slice) => Ok(*slice),
                Header::Alone | Header::Unplaced(_) | Header::Index | Header::NoImage => {
                    Err(Error::refused(
                        "dicom series",
                        Code::PositionUnknown,
                        "a file that is no slice",
                        "position, orientation and spacing in every file",
                    ))
                }
            },
        )
        .collect::<Result<_>>()?;
    match along {
        Along::Space => read_stack(files, &slices, store, options),
        Along::Time => read_film(files, &slices, store, options),
    }
}

fn read_stack(
    files: &[PathBuf],
    slices: &[Slice],
    store: Store<'_>,
    options: &ReadOptions,
) -> Result<Volume> {
    let (unique, copies) = by_position(slices);
    let of = |index: &usize| slices.get(*index);
    let images = images(unique.iter().filter_map(of));
    let stack = stack::stack(&images.planes, &images.numbers)?;
    for &(copy, first) in &copies {
        if let (Some(copy), Some(first)) = (files.get(copy), files.get(first)) {
            check_copy(copy, first, store, options)?;
        }
    }
    let ordered: Vec<&PathBuf> = stack
        .order
        .iter()
        .filter_map(|&i| unique.get(i))
        .filter_map(|&i| files.get(i))
        .collect();
    let kind = if ordered.len() > 1 {
        Kind::Volume
    } else {
        Kind::Image
    };
    let mut volume = read_slices(&ordered, kind, store, options)?;
    if !copies.is_empty() {
        let n_copies = copies.len();
        let detail = format!("{n_copies} further copies of slices that are there already");
        volume.note(Code::DuplicateInstance, detail);
    }
    dicom::place_stack(volume, stack)
}

fn read_film(
    files: &[PathBuf],
    slices: &[Slice],
    store: Store<'_>,
    options: &ReadOptions,
) -> Result<Volume> {
    let Some((order, seconds)) = division::in_time(&images(slices.iter())) else {
        let wanted = "a time in every file";
        let found = "slices at one position that state no times";
        return Err(Error::refused(
            "dicom series",
            Code::DuplicatePosition,
            found,
            wanted,
        ));
    };
    let n_stored = order.len();
    let n_read = options.n_frames.unwrap_or(n_stored).clamp(1, n_stored);
    let chosen: Vec<&PathBuf> = uniform_indices(n_stored, n_read)
        .into_iter()
        .filter_map(|i| files.get(*order.get(i)?))
        .collect();
    let mut volume = read_slices(&chosen, Kind::Video, store, options)?;
    let spacing_mm = slices.first().map(|slice| slice.plane.spacing_mm);
    dicom::place_film(&mut volume, spacing_mm, n_stored, seconds);
    Ok(volume)
}

/// Returns the first slice of each position, and pairs of a further one and the first.
fn by_position(slices: &[Slice]) -> (Vec<usize>, Vec<(usize, usize)>) {
    let planes: Vec<Plane> = slices.iter().map(|slice| slice.plane).collect();
    let mut first_at: HashMap<usize, usize> = HashMap::new();
    let (mut unique, mut copies) = (Vec::new(), Vec::new());
    for (index, position) in stack::positions(&planes).into_iter().enumerate() {
        let first = *first_at.entry(position).or_insert(index);
        if first == index {
            unique.push(index);
        } else {
            copies.push((index, first));
        }
    }
    (unique, copies)
}

/// Refuses a series in which slices at one position have different pixels: which ones are meant?
fn check_copy(copy: &Path, first: &Path, store: Store<'_>, options: &ReadOptions) -> Result<()> {
    let found = read_slice(copy, &mut Scratch::of(Marking::Nothing), store, options)?;
    let kept = read_slice(first, &mut Scratch::of(Marking::Nothing), store, options)?;
    if found.shape() == kept.shape() && found.values() == kept.values() {
        return Ok(());
    }
    let found = "slices with different pixels at one position";
    let wanted = "one slice a position, or attributes that give each position equally many";
    let code = Code::DuplicatePosition;
    Err(Error::refused("dicom series", code, found, wanted).in_file(copy))
}

/// Reads ordered slices side by side, and settles the padding of all of them together.
fn read_slices(
    ordered: &[&PathBuf],
    kind: Kind,
    store: Store<'_>,
    options: &ReadOptions,
) -> Result<Volume> {
    let mut volume = join_slices(ordered, kind, Marking::Padding, store, options)?;
    if !padding::settle(&mut volume) {
        volume = join_slices(ordered, kind, Marking::Nothing, store, options)?;
        padding::note_all(&mut volume);
    }
    Ok(volume)
}

/// Reads ordered slices side by side; the first one describes them all.
fn join_slices(
    ordered: &[&PathBuf],
    kind: Kind,
    marking: Marking,
    store: Store<'_>,
    options: &ReadOptions,
) -> Result<Volume> {
    let Some((first, rest)) = ordered.split_first() else {
        return Err(Error::refused(
            "dicom series",
            Code::NoPixels,
            "no slice",
            "at least one",
        ));
    };
    let first = read_slice(first, &mut Scratch::of(marking), store, options)?;
    let [n_channels, _, height, width] = first.shape();
    let shape = [n_channels, ordered.len(), height, width];
    let n_values = options.limits.voxels(shape.map(|side| side as u64))?;
    let mut values = memory::zeroed(n_values)?;
    let mut planes = planes_of_slices(&mut values, ordered.len(), height * width);
    let (head, tail) = planes.split_at_mut(1);
    fill(head, &first);
    let notes: Vec<SliceNotes> = tail
        .par_iter_mut()
        .zip(rest)
        .with_min_len(8)
        .map_init(
            || Scratch::of(marking),
            |scratch, (slots, path)| {
                let mut slice = read_slice(path, scratch, store, options)?;
                check_alike(&first, &slice).map_err(|error| error.in_file(path))?;
                fill(std::slice::from_mut(slots), &slice);
                let notes = SliceNotes {
                    reasons: std::mem::take(&mut slice.reasons),
                    identifiers: std::mem::take(&mut slice.identifiers),
                    padding: slice.padding,
                };
                scratch.values = slice.into_values();
                Ok(notes)
            },
        )
        .collect::<Result<_>>()?;
    let mut volume = Volume::new(values, shape, kind)?;
    describe(&mut volume, first, notes);
    Ok(volume)
}

/// Takes from the first slice what is said of all, and from the others what differs.
fn describe(volume: &mut Volume, first: Volume, notes: Vec<SliceNotes>) {
    volume.modality = first.modality;
    volume.body_part = first.body_part;
    volume.unit = first.unit;
    volume.inverted = first.inverted;
    volume.full_scale = first.full_scale;
    volume.padding = first.padding;
    volume.reasons = first.reasons;
    volume.identifiers = first.identifiers;
    for notes in notes {
        volume.identifiers.keep_common(&notes.identifiers);
        volume.padding = padding::joined(volume.padding, notes.padding, volume.inverted);
        for reason in notes.reasons {
            // Several repairs may stand beside each other; of all else, one of a kind is enough.
            let is_known = |known: &Reason| {
                known.code == reason.code
                    && (reason.code != Code::HeaderRepaired || known.detail == reason.detail)
            };
            let n_repairs = volume
                .reasons
                .iter()
                .filter(|r| r.code == reason.code)
                .count();
            if !volume.reasons.iter().any(is_known) && n_repairs < MAX_REPAIRS {
                volume.reasons.push(reason);
            }
        }
    }
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

/// What is kept of a slice beside its values.
struct SliceNotes {
    reasons: Vec<Reason>,
    identifiers: Identifiers,
    padding: Option<Padding>,
}

/// Memory that one thread uses for slice after slice, and what becomes of their padding.
struct Scratch {
    bytes: Vec<u8>,
    values: Vec<f32>,
    marking: Marking,
}

impl Scratch {
    fn of(marking: Marking) -> Self {
        Self {
            bytes: Vec::new(),
            values: Vec::new(),
            marking,
        }
    }
}

fn read_slice(
    path: &Path,
    scratch: &mut Scratch,
    store: Store<'_>,
    options: &ReadOptions,
) -> Result<Volume> {
    read_one(path, scratch, store, options).map_err(|error| error.in_file(path))
}

fn read_one(
    path: &Path,
    scratch: &mut Scratch,
    store: Store<'_>,
    options: &ReadOptions,
) -> Result<Volume> {
    store.plain_into(&mut scratch.bytes, path, &options.limits)?;
    let values = std::mem::take(&mut scratch.values);
    let mut volumes = dicom::read_marked(values, &scratch.bytes, options, scratch.marking)?;
    match (volumes.pop(), volumes.is_empty()) {
        (Some(volume), true) => Ok(volume),
        _ => Err(Error::malformed(
            "dicom series",
            "a file with several images",
            "one slice",
        )),
    }
}
