//! DICOM: one file -> its Volumes. Series over several files are put together in `series`.

mod absence;
mod attributes;
pub(crate) mod codec;
pub(crate) mod codestream;
mod dataset;
mod frames;
mod jpeg_ls;
mod jpeg_sequential;
mod mosaic;
pub(crate) mod padding;
mod palette;
mod pixels;
mod placement;
mod rle;

use std::borrow::Cow;
use std::cell::Cell;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use dicom_dictionary_std::{tags, uids};

pub(crate) use self::attributes::{QUANTITIES, Values, instance_number};
use self::codec::Codec;
pub(crate) use self::dataset::DataSet;
use self::dataset::{Encoding, confirmed_encoding, trim};
use self::mosaic::Mosaic;
pub(crate) use self::mosaic::is_mosaic;
use self::padding::Marking;
pub(crate) use self::pixels::n_frames;
use self::pixels::{Photometric, PixelModule, Pixels, Wanted};
pub(crate) use self::placement::single;
use self::placement::{Depth, Frame, Frames, plane};
use crate::division::{self, Division, Images};
use crate::error::{Error, Result};
use crate::geometry::canonicalise;
use crate::identifiers::Identifiers;
use crate::limits::Limits;
use crate::read::ReadOptions;
use crate::reason::Code;
use crate::samples::{ByteOrder, Linear};
use crate::stack::{self, Plane};
use crate::timeline::uniform_indices;
use crate::video;
use crate::volume::{Kind, PLAUSIBLE_ASPECT, Volume};

const FORMAT: &str = "dicom";
/// Explicit VR Big Endian, retired and still in archives.
const EXPLICIT_BIG_ENDIAN: &str = "1.2.840.10008.1.2.2";

/// A file taken apart into its file meta and its data set.
pub(crate) struct File<'a> {
    transfer_syntax: String,
    /// The SOP class that the file meta states: it stands before the data set, so a cut file still has it.
    class: Option<String>,
    body: Cow<'a, [u8]>,
    encoding: Encoding,
    /// How the data set contradicts the transfer syntax.
    contradictions: Vec<&'static str>,
}

/// Recognises a data set without preamble: it starts with an element of group 0002 or 0008.
pub(crate) fn is_bare_data_set(head: &[u8]) -> bool {
    let Some(&[g0, g1, e0, e1]) = head.first_chunk::<4>() else {
        return false;
    };
    let element = u16::from_le_bytes([e0, e1]);
    let vr = head.get(4..6).unwrap_or(&[]);
    let is_explicit = vr.len() == 2 && vr.iter().all(u8::is_ascii_uppercase);
    let length = head.get(4..).and_then(|rest| rest.first_chunk::<4>());
    let is_short = length.is_some_and(|raw| u32::from_le_bytes(*raw) <= 64);
    matches!((g0, g1), (2 | 8, 0)) && element <= 0x1030 && (is_explicit || is_short)
}

impl<'a> File<'a> {
    /// Finds the transfer syntax and the data set; inflates a deflated one.
    ///
    /// # Errors
    /// `Malformed` if the file meta is broken.
    pub(crate) fn open(bytes: &'a [u8], limits: &Limits) -> Result<Self> {
        let has_preamble = bytes.get(128..132) == Some(b"DICM");
        let start = if has_preamble {
            bytes.get(132..).unwrap_or(&[])
        } else {
            bytes
        };
        let (meta, body) = split_meta(start, limits)?;
        let uid = |tag| {
            let uid = trim(meta.as_ref()?.bytes(tag)?);
            (!uid.is_empty()).then(|| String::from_utf8_lossy(uid).into_owned())
        };
        let class = uid(tags::MEDIA_STORAGE_SOP_CLASS_UID);
        let Some(transfer_syntax) = uid(tags::TRANSFER_SYNTAX_UID) else {
            // A bare data set: the bytes themselves tell implicit from explicit.
            return Ok(Self {
                transfer_syntax: uids::IMPLICIT_VR_LITTLE_ENDIAN.to_owned(),
                class,
                body: Cow::Borrowed(body),
                encoding: confirmed_encoding(body, Encoding::IMPLICIT),
                contradictions: Vec::new(),
            });
        };
        let stated = match transfer_syntax.as_str() {
            uids::IMPLICIT_VR_LITTLE_ENDIAN => Encoding::IMPLICIT,
            EXPLICIT_BIG_ENDIAN => Encoding {
                order: ByteOrder::Big,
                explicit: true,
            },
            _ => Encoding::EXPLICIT,
        };
        let mut contradictions = Vec::new();
        let is_deflated = transfer_syntax == uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN;
        let body = if is_deflated && !is_bare_data_set(body) {
            Cow::Owned(pixels::inflate(body, limits)?)
        } else {
            Cow::Borrowed(body)
        };
        if is_deflated && matches!(body, Cow::Borrowed(_)) {
            contradictions.push("states a deflated data set; it is not, and was read as it is");
        }
        let encoding = confirmed_encoding(&body, stated);
        if encoding != stated {
            let detail = "states other elements than the file has; the elements were believed";
            contradictions.push(detail);
        }
        Ok(Self {
            transfer_syntax,
            class,
            body,
            encoding,
            contradictions,
        })
    }

    /// Parses the data set.
    ///
    /// # Errors
    /// `Malformed` if an element cannot be one, or leaves its item; `truncated` if the file ends
    /// inside one; `LimitExceeded` if it nests too deep.
    pub(crate) fn data_set(&self, limits: &Limits) -> Result<DataSet<'_>> {
        DataSet::parse(&self.body, self.encoding, limits).map(|set| self.told(set))
    }

    /// Parses the data set up to its pixels, which may be missing from `bytes`.
    ///
    /// # Errors
    /// As `data_set`; `truncated` if the header itself is cut.
    pub(crate) fn header(&self, limits: &Limits) -> Result<DataSet<'_>> {
        DataSet::parse_header(&self.body, self.encoding, limits).map(|set| self.told(set))
    }

    fn told<'s>(&'s self, set: DataSet<'s>) -> DataSet<'s> {
        for &contradiction in &self.contradictions {
            set.repaired(tags::TRANSFER_SYNTAX_UID, contradiction);
        }
        set
    }

    /// Says why a data set of this file holds no pixels: `truncated` for an image that lost them,
    /// `no_pixels` for an object that is no image.
    pub(crate) fn without_pixels(&self, set: &DataSet<'_>) -> Error {
        absence::reason(self.class.as_deref(), set)
    }
}

/// Separates group 0002, always explicit little endian, from the rest.
fn split_meta<'a>(bytes: &'a [u8], limits: &Limits) -> Result<(Option<DataSet<'a>>, &'a [u8])> {
    if bytes.first_chunk::<2>() != Some(&[2, 0]) {
        return Ok((None, bytes));
    }
    let end = dataset::end_of_group(bytes, 2, limits)?;
    let (meta, rest) = bytes.split_at(end);
    Ok((
        Some(DataSet::parse(
            meta,
            confirmed_encoding(meta, Encoding::EXPLICIT),
            limits,
        )?),
        rest,
    ))
}

/// Reads every image of one DICOM file.
///
/// # Errors
/// `Malformed`, `Unsupported` and `LimitExceeded` as found.
pub(crate) fn read(bytes: &[u8], options: &ReadOptions) -> Result<Vec<Volume>> {
    let mut volumes = read_marked(Vec::new(), bytes, options, Marking::Padding)?;
    let is_settled: Vec<bool> = volumes.iter_mut().map(padding::settle).collect();
    if is_settled.contains(&false) {
        let as_stored = read_marked(Vec::new(), bytes, options, Marking::Nothing)?;
        for ((volume, stored), is_settled) in volumes.iter_mut().zip(as_stored).zip(is_settled) {
            if !is_settled {
                *volume = stored;
                padding::note_all(volume);
            }
        }
    }
    Ok(volumes)
}

/// As `read`, with padding that is marked and not yet settled; values may be written into the
/// memory of `scratch`. For series, where fresh memory for every slice costs more than decoding it.
///
/// # Errors
/// As `read`.
pub(crate) fn read_marked(
    scratch: Vec<f32>,
    bytes: &[u8],
    options: &ReadOptions,
    marking: Marking,
) -> Result<Vec<Volume>> {
    let limits = &options.limits;
    let file = File::open(bytes, limits)?;
    let set = file.data_set(limits)?;
    refuse_non_images(&file, &set)?;
    let codec = pixels::stored_codec(&set, Codec::of(&file.transfer_syntax)?, limits)?;
    if let Codec::Video(stream_kind) = codec {
        let stream = frames::stream(&set, limits)?;
        let mut volume = video::read_elementary(&stream, stream_kind, options)?;
        time_video(&mut volume, &set)?;
        describe(&mut volume, &set, is_lossy(&set, &file.transfer_syntax));
        note_repairs(&mut volume, &set);
        return Ok(vec![volume]);
    }
    let mut module = PixelModule::new(&set, limits)?.with_marking(marking);
    module.agree_with(&set, codec, limits)?;
    let source = Source {
        set: &set,
        codec,
        module: &module,
        options,
        frames: placement::frames(&set, module.n_frames)?,
        scratch: Cell::new(scratch),
    };
    let mut volumes = if module.n_frames == 1 {
        source.single()?
    } else {
        source.multi()?
    };
    let is_measured = source.is_measured();
    let is_lossy = is_lossy(&set, &file.transfer_syntax) || pixels::is_lossy(&set, codec);
    for volume in &mut volumes {
        describe(volume, &set, is_lossy);
        describe_values(volume, &set, is_measured);
    }
    for volume in &mut volumes {
        note_repairs(volume, &set);
    }
    Ok(volumes)
}

/// Returns true if the data set holds pixels, or at least their place.
pub(crate) fn has_pixels(set: &DataSet<'_>) -> bool {
    let places = [
        tags::PIXEL_DATA,
        tags::FLOAT_PIXEL_DATA,
        tags::DOUBLE_FLOAT_PIXEL_DATA,
    ];
    places.iter().any(|&tag| set.has(tag))
}

/// Returns a number that tells pixels apart, as they are stored.
pub(crate) fn pixel_digest(bytes: &[u8], limits: &Limits) -> Option<u64> {
    let file = File::open(bytes, limits).ok()?;
    let set = file.data_set(limits).ok()?;
    let mut hasher = DefaultHasher::new();
    set.bytes(tags::PIXEL_DATA)?.hash(&mut hasher);
    Some(hasher.finish())
}

fn refuse_non_images(file: &File<'_>, set: &DataSet<'_>) -> Result<()> {
    if set.has(tags::DIRECTORY_RECORD_SEQUENCE) {
        let found = "a DICOMDIR: pass its folder";
        return Err(Error::refused(FORMAT, Code::NoPixels, found, "an image"));
    }
    if !has_pixels(set) {
        return Err(file.without_pixels(set));
    }
    if set.has(tags::TOTAL_PIXEL_MATRIX_COLUMNS) {
        let advice = "export one level as a single image";
        return Err(Error::unsupported(
            FORMAT,
            "a tiled whole-slide image",
            advice,
        ));
    }
    Ok(())
}

/// One data set on its way to Volumes.
struct Source<'s> {
    set: &'s DataSet<'s>,
    codec: Codec,
    module: &'s PixelModule,
    options: &'s ReadOptions,
    /// What each frame says of itself, where any does.
    frames: Option<Frames>,
    scratch: Cell<Vec<f32>>,
}

impl Source<'_> {
    fn decode(&self, frames: Vec<usize>, maps: Vec<Linear>) -> Result<Pixels> {
        let wanted = Wanted {
            frames,
            maps,
            module: self.module,
            scratch: Cell::new(self.scratch.take()),
        };
        pixels::decode(self.set, self.codec, &wanted, &self.options.limits)
    }

    fn shape(&self, depth: usize) -> [usize; 4] {
        [
            self.module.n_channels(),
            depth,
            self.module.n_rows,
            self.module.n_columns,
        ]
    }

    fn volume(&self, pixels: Pixels, depth: usize, kind: Kind) -> Result<Volume> {
        self.volume_of(pixels, self.shape(depth), kind)
    }

    fn volume_of(&self, pixels: Pixels, shape: [usize; 4], kind: Kind) -> Result<Volume> {
        let mut volume = Volume::new(pixels.values, shape, kind)?;
        volume.reasons = pixels.reasons;
        if self.module.padding.is_some() {
            let is_inverted = self.module.photometric == Photometric::Monochrome1;
            volume.padding = Some(padding::survey(volume.values(), is_inverted));
        }
        volume.full_scale = (self.module.n_channels() > 1).then(|| self.module.full_scale());
        Ok(volume)
    }

    fn map(&self, frame: Option<&Frame>) -> Linear {
        // Rescale is for measurements: never for colours.
        if self.module.n_channels() > 1 {
            return Linear::IDENTITY;
        }
        frame
            .and_then(|f| f.rescale)
            .or(self.module.rescale)
            .unwrap_or(Linear::IDENTITY)
    }

    /// Returns true if the values went through a modality transform.
    fn is_measured(&self) -> bool {
        let frames = self.frames.iter().flat_map(|frames| &frames.list);
        self.module.has_modality_transform() || frames.map(|f| f.rescale).any(|r| r.is_some())
    }

    fn frame(&self, index: usize) -> Option<&Frame> {
        self.frames.as_ref()?.list.get(index)
    }

    fn single(&self) -> Result<Vec<Volume>> {
        let frame = self.frame(0);
        let plane = plane(self.set)?.or_else(|| frame.and_then(|f| f.plane));
        let sides = [self.module.n_rows, self.module.n_columns];
        let mosaic = Mosaic::of(self.set, sides)?;
        let pixels = self.decode(vec![0], vec![self.map(frame)])?;
        if let Some(mosaic) = mosaic {
            return self
                .slices(&mosaic, pixels, plane)
                .map(|volume| vec![volume]);
        }
        let mut volume = self.volume(pixels, 1, Kind::Image)?;
        place_image(&mut volume, self.set, plane);
        Ok(vec![volume])
    }

    /// The slices of a mosaic, placed if its plane and their distance are known.
    fn slices(&self, mosaic: &Mosaic, pixels: Pixels, plane: Option<Plane>) -> Result<Volume> {
        let [height, width] = mosaic.tile;
        let shape = [self.module.n_channels(), mosaic.n_tiles, height, width];
        let cut = Pixels {
            values: mosaic.cut(&pixels.values)?,
            ..pixels
        };
        let mut volume = self.volume_of(cut, shape, Kind::Volume)?;
        let distance =
            placement::slice_distance(self.set).map(|(mm, is_thickness)| (mm.abs(), is_thickness));
        note_thickness(&mut volume, distance);
        let (Some(plane), Some((distance_mm, _))) = (plane, distance) else {
            place_image(&mut volume, self.set, None);
            volume.spacing[0] = distance.map(|(distance_mm, _)| distance_mm);
            return Ok(volume);
        };
        if !mosaic.is_directed() {
            let detail =
                "SliceNormalVector is missing; slices are stacked along the normal of the first";
            volume.note(Code::HeaderRepaired, detail);
        }
        let first = mosaic.first_plane(plane);
        let affine = first.affine(mosaic.step(&first, distance_mm)?);
        volume.affine = Some(affine);
        volume.spacing = affine.spacing_mm().map(Some);
        canonicalise(volume)
    }

    fn multi(&self) -> Result<Vec<Volume>> {
        match &self.frames {
            Some(frames) if frames.are_placed() => self.stacks(frames),
            _ => self.unplaced().map(|volume| vec![volume]),
        }
    }

    /// Frames with positions: one volume for each stack and orientation, and of those that share
    /// positions for each time, echo and other attribute that tells them apart.
    fn stacks(&self, frames: &Frames) -> Result<Vec<Volume>> {
        let mut parts: Vec<((usize, usize), Division)> = Vec::new();
        for (group, members) in frames.by_key().into_iter().enumerate() {
            let of = |mut division: Division| {
                let frame = |&index: &usize| members.get(index).copied();
                division.members = division.members.iter().filter_map(frame).collect();
                ((group, division.grid), division)
            };
            // Frames of one object are never copies of each other.
            let divisions = division::divide(&frames.images(&members), &|_| None);
            parts.extend(divisions.into_iter().map(of));
        }
        let mut stacks: Vec<(usize, usize)> = parts.iter().map(|(stack, _)| *stack).collect();
        stacks.dedup();
        self.options.limits.parts(parts.len() as u64)?;
        let volume = |(stack, division): ((usize, usize), Division)| {
            let mut volume = self.one_part(frames, &division)?;
            volume.reasons.extend(division.notes);
            let number = stacks.iter().position(|known| *known == stack);
            let number = number.filter(|_| stacks.len() > 1);
            let stack = number.map(|number| format!("stack={number}"));
            volume.part = match (stack, division.name) {
                (Some(stack), Some(name)) => Some(format!("{stack}, {name}")),
                (stack, name) => stack.or(name),
            };
            Ok(volume)
        };
        parts.into_iter().map(volume).collect()
    }

    fn one_part(&self, frames: &Frames, division: &Division) -> Result<Volume> {
        let images = frames.images(&division.members);
        if division.is_time {
            return self.film(frames, &division.members, &images);
        }
        let stack = stack::stack(&images.planes, &images.numbers)?;
        let ordered: Vec<usize> = stack
            .order
            .iter()
            .filter_map(|&i| division.members.get(i).copied())
            .collect();
        let depth = ordered.len();
        let pixels = self.decode_mapped(ordered)?;
        if depth == 1 {
            let mut volume = self.volume(pixels, 1, Kind::Image)?;
            place_image(&mut volume, self.set, images.planes.first().copied());
            return Ok(volume);
        }
        let mut volume = self.volume(pixels, depth, Kind::Volume)?;
        if !self.set.has(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE)
            && !self.set.has(tags::GRID_FRAME_OFFSET_VECTOR)
        {
            note_thickness(&mut volume, placement::step_mm(self.set));
        }
        place_stack(volume, stack)
    }

    /// Frames that follow each other at one position.
    fn film(&self, frames: &Frames, members: &[usize], images: &Images) -> Result<Volume> {
        let (order, seconds) = division::in_time(images).unwrap_or_default();
        let n_stored = order.len();
        let n_read = self
            .options
            .n_frames
            .unwrap_or(n_stored)
            .clamp(1, n_stored.max(1));
        let chosen: Vec<usize> = uniform_indices(n_stored, n_read)
            .into_iter()
            .filter_map(|i| members.get(*order.get(i)?).copied())
            .collect();
        let spacing_mm = chosen.first().and_then(|&i| frames.list.get(i)?.spacing_mm);
        let pixels = self.decode_mapped(chosen)?;
        let mut volume = self.volume(pixels, n_read, Kind::Video)?;
        place_film(&mut volume, spacing_mm, n_stored, seconds);
        Ok(volume)
    }

    /// Decodes frames, each with its own modality transform.
    fn decode_mapped(&self, frames: Vec<usize>) -> Result<Pixels> {
        let maps = frames.iter().map(|&i| self.map(self.frame(i))).collect();
        self.decode(frames, maps)
    }

    /// Frames without positions: a cine, or a stack of unknown meaning.
    fn unplaced(&self) -> Result<Volume> {
        let n_stored = self.module.n_frames;
        let meaning = placement::depth_meaning(self.set, self.module.n_channels() > 1);
        let is_time = matches!(meaning, Depth::Time(_));
        let n_read = match self.options.n_frames {
            Some(n) if is_time => n.clamp(1, n_stored),
            _ => n_stored,
        };
        let pixels = self.decode_mapped(uniform_indices(n_stored, n_read))?;
        let kind = if is_time { Kind::Video } else { Kind::Volume };
        let mut volume = self.volume(pixels, n_read, kind)?;
        place_image(&mut volume, self.set, None);
        if let Some([spacing_h, spacing_w]) = self.frame(0).and_then(|f| f.spacing_mm) {
            volume.reasons.retain(|r| r.code != Code::SpacingUnknown);
            volume.spacing = [None, Some(spacing_h), Some(spacing_w)];
        }
        match meaning {
            Depth::Time(seconds) => time_frames(&mut volume, n_stored, seconds),
            Depth::Unknown => {
                let step = placement::step_mm(self.set);
                volume.spacing[0] = step.map(|(mm, _)| mm.abs());
                note_thickness(&mut volume, step);
                if volume.spacing[0].is_none() {
                    let detail = "no distance between frames is stated, and no time";
                    volume.note(Code::StackAxisUnknown, detail);
                }
            }
        }
        Ok(volume)
    }
}

/// Says that the distance of slices is their thickness.
fn note_thickness(volume: &mut Volume, step: Option<(f64, bool)>) {
    if let Some((_, true)) = step {
        let detail = "SpacingBetweenSlices is missing; SliceThickness was used";
        volume.note(Code::HeaderRepaired, detail);
    }
}

/// Places a film of `n_stored` frames, of which `volume` holds all or some.
pub(crate) fn place_film(
    volume: &mut Volume,
    spacing_mm: Option<[f64; 2]>,
    n_stored: usize,
    seconds: Option<f64>,
) {
    if let Some([spacing_h, spacing_w]) = spacing_mm {
        volume.spacing = [None, Some(spacing_h), Some(spacing_w)];
    }
    time_frames(volume, n_stored, seconds);
}

fn time_frames(volume: &mut Volume, n_stored: usize, seconds: Option<f64>) {
    let [_, n_read, ..] = volume.shape();
    volume.spacing[0] = seconds.map(|seconds| seconds * ratio(n_stored, n_read));
    if n_read < n_stored {
        let detail = format!("{n_read} of {n_stored} frames");
        volume.note(Code::FramesSampled, detail);
    }
}

/// The header's times and sizes stand above those of the stream, which often lacks them.
fn time_video(volume: &mut Volume, set: &DataSet<'_>) -> Result<()> {
    let [_, n_read, ..] = volume.shape();
    let n_stored = usize::try_from(n_frames(set)?).unwrap_or(n_read);
    if let Depth::Time(Some(seconds)) = placement::depth_meaning(set, true) {
        volume.spacing[0] = Some(seconds * ratio(n_stored.max(n_read), n_read));
    }
    place_image(volume, set, None);
    Ok(())
}

#[allow(
    clippy::cast_precision_loss,
    reason = "frame counts are far below 2^53"
)]
fn ratio(a: usize, b: usize) -> f64 {
    a as f64 / b as f64
}

/// Places an image: in the patient, if `plane` is known, else by whatever spacing is stated.
fn place_image(volume: &mut Volume, set: &DataSet<'_>, plane: Option<Plane>) {
    if let Some(plane) = plane {
        let thickness = set
            .decimal(tags::SLICE_THICKNESS)
            .filter(|t| stack::PLAUSIBLE_MM.contains(t));
        let step = plane.normal().map(|x| x * thickness.unwrap_or(1.0));
        let [spacing_h, spacing_w] = plane.spacing_mm;
        volume.affine = Some(plane.affine(step));
        volume.spacing = [None, Some(spacing_h), Some(spacing_w)];
        return;
    }
    let modality = set.code(tags::MODALITY);
    let is_sliced = matches!(modality.as_deref(), Some("CT" | "MR" | "PT"));
    if is_sliced || set.has(tags::IMAGE_ORIENTATION_PATIENT) {
        let detail = "orientation, position or spacing is missing or contradicts itself";
        volume.note(Code::OrientationUnknown, detail);
    }
    let (spacing, code) = placement::in_plane(set);
    if let Some([spacing_h, spacing_w]) = spacing {
        volume.spacing = [None, Some(spacing_h), Some(spacing_w)];
    }
    match code {
        Some(Code::SpacingAtDetector) => {
            volume.note(
                Code::SpacingAtDetector,
                "measured at the detector or film, not the patient",
            );
        }
        Some(code) => volume.note(code, "no usable pixel size is stated"),
        None => {}
    }
}

/// Places ordered slices and brings them to the canonical axis order.
pub(crate) fn place_stack(mut volume: Volume, stack: stack::Stack) -> Result<Volume> {
    volume.affine = Some(stack.affine);
    volume.spacing = stack.affine.spacing_mm().map(Some);
    volume.reasons.extend(stack.reasons);
    canonicalise(volume)
}

/// Adds what the header says of the whole object.
fn describe(volume: &mut Volume, set: &DataSet<'_>, is_lossy: bool) {
    volume.modality = set.code(tags::MODALITY);
    volume.body_part = set.code(tags::BODY_PART_EXAMINED);
    volume.identifiers = Identifiers::of(set);
    let photometric = set.code(tags::PHOTOMETRIC_INTERPRETATION);
    volume.inverted = photometric.as_deref() == Some("MONOCHROME1");
    let shape = set.code(tags::PRESENTATION_LUT_SHAPE);
    if let (Some("MONOCHROME2"), Some("INVERSE")) | (Some("MONOCHROME1"), Some("IDENTITY")) =
        (photometric.as_deref(), shape.as_deref())
    {
        let detail = "PresentationLUTShape contradicts PhotometricInterpretation, which was used";
        volume.note(Code::BadPolarity, detail);
    }
    if let [_, None, None] = volume.spacing {
        describe_aspect(volume, set);
    }
    if is_lossy {
        volume.note(Code::LossyCompression, "compressed with loss");
    }
    if volume.modality.as_deref() == Some("SEG") {
        volume.note(Code::LabelMap, "a segmentation, not an image");
    }
}

/// Adds what is known of the values' unit; `is_measured` if they went through a modality transform.
fn describe_values(volume: &mut Volume, set: &DataSet<'_>, is_measured: bool) {
    let states_rescale = [tags::RESCALE_SLOPE, tags::RESCALE_INTERCEPT]
        .iter()
        .any(|&tag| set.text(tag).is_some());
    if states_rescale && !is_measured {
        let detail = "RescaleSlope or RescaleIntercept is unusable; values are as stored";
        volume.note(Code::HeaderRepaired, detail);
    }
    if volume.modality.as_deref() == Some("RTDOSE") || set.has(tags::DOSE_GRID_SCALING) {
        describe_dose(volume, set, is_measured);
    }
    if volume.modality.as_deref() != Some("CT") {
        return;
    }
    let unit = set.code(tags::RESCALE_TYPE);
    if is_measured && matches!(unit.as_deref(), None | Some("HU")) {
        volume.unit = Some("HU");
    } else {
        volume.note(Code::NotHounsfield, "no usable rescale to Hounsfield units");
    }
}

/// Adds the unit of a dose grid: gray, or none for a relative dose.
fn describe_dose(volume: &mut Volume, set: &DataSet<'_>, is_measured: bool) {
    if !is_measured {
        let detail = "DoseGridScaling is missing or unusable; values are as stored";
        volume.note(Code::HeaderRepaired, detail);
    } else if set.code(tags::DOSE_UNITS).as_deref() == Some("GY") {
        volume.unit = Some("Gy");
    }
}

/// Adds the shape of a pixel where only that is stated, not its size.
fn describe_aspect(volume: &mut Volume, set: &DataSet<'_>) {
    if !set.has(tags::PIXEL_ASPECT_RATIO) {
        return;
    }
    let stated = set.decimal_array::<2>(tags::PIXEL_ASPECT_RATIO);
    let aspect = stated.map(|[vertical, horizontal]| vertical / horizontal);
    match aspect.filter(|aspect| PLAUSIBLE_ASPECT.contains(aspect)) {
        Some(aspect) => volume.pixel_aspect = aspect,
        None => volume.note(
            Code::HeaderRepaired,
            "PixelAspectRatio is unusable; pixels are taken as square",
        ),
    }
}

/// Adds what was read although the header is written wrongly, or contradicts the bytes.
fn note_repairs(volume: &mut Volume, set: &DataSet<'_>) {
    for detail in set.repairs() {
        volume.note(Code::HeaderRepaired, detail);
    }
}

fn is_lossy(set: &DataSet<'_>, transfer_syntax: &str) -> bool {
    let stated = set.code(tags::LOSSY_IMAGE_COMPRESSION).as_deref() == Some("01");
    // JPEG DCT, near-lossless JPEG-LS, JPEG XL and videos; J2K and HTJ2K state it in the header.
    let by_syntax = ["50", "51", "53", "55", "81"];
    let number = transfer_syntax.strip_prefix("1.2.840.10008.1.2.4.");
    stated || number.is_some_and(|number| by_syntax.contains(&number))
}
