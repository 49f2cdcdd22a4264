//! MGH and MGZ, the volumes of `FreeSurfer`: a header of 284 bytes, voxels, and what was recorded.
//!
//! depth = 1 is an image, or with several frames a video; depth > 1 is one volume a frame, part
//! `t=0`, `t=1`, ..., each reoriented to `SPL`. Numbers are big endian and never scaled. A file of
//! one row holds values of a surface's vertices, which are no image.
//!
//! # Source
//! The format's page in the `FreeSurfer` wiki; nibabel where the page is silent (voxel `n / 2` is
//! the centre, also of an odd side). Differs: without valid RAS fields nibabel assumes a coronal
//! orientation and 1 mm; here both stay unknown.

use crate::error::{Error, Result};
use crate::geometry::{Affine, Turn};
use crate::inflate::{Wrapper, gunzip_prefix, is_gzip};
use crate::limits::Limits;
use crate::payload::Stored;
use crate::read::ReadOptions;
use crate::reason::{Code, Reason};
use crate::samples::{ByteOrder, Linear, Scalar};
use crate::volume::{Kind, Volume};

const FORMAT: &str = "mgh";
/// Bytes in front of the voxels, of which 90 are used.
const HEADER_BYTES: usize = 284;
/// The low byte of the version; the next one states the intent since `FreeSurfer` 7.
const VERSION: u8 = 1;

/// What the values are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Intent {
    Image,
    Label,
    Shape,
    Warp,
}

/// The fields of the header.
#[derive(Debug, Clone, PartialEq)]
struct Header {
    intent: Intent,
    /// width, height, depth, frames: x is fastest.
    sides: [u64; 4],
    data_type: i32,
    /// Directions, distances and centre; `None` if the header says that they are not valid.
    place: Option<Place>,
}

/// Where the voxels lie, in RAS mm.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Place {
    delta: [f64; 3],
    /// One unit vector for x, y and z.
    directions: [[f64; 3]; 3],
    centre: [f64; 3],
}

/// Tells MGH by its version and by fields that have few legal values.
pub(crate) fn is_mgh(head: &[u8]) -> bool {
    Header::parse(head).is_some()
}

/// Returns true if the file, plain or gzip, holds values of vertices: one row of them.
pub(crate) fn is_surface(head: &[u8]) -> bool {
    let is_row = |header: Header| matches!(header.sides, [n, 1, 1, _] if n > 1);
    Header::parse(&plain_head(head)).is_some_and(is_row)
}

/// Says that a file holds values of vertices.
pub(crate) fn surface_refusal() -> Error {
    Error::refused(
        FORMAT,
        Code::NoPixels,
        "values of a surface's vertices",
        "an image or a volume",
    )
}

/// Returns the leading decompressed bytes.
fn plain_head(bytes: &[u8]) -> Vec<u8> {
    if is_gzip(bytes) {
        gunzip_prefix(bytes, HEADER_BYTES as u64)
    } else {
        bytes.get(..HEADER_BYTES).unwrap_or(bytes).to_vec()
    }
}

/// Reads every image of a file: see the module's rules.
///
/// # Errors
/// `Malformed`, `Unsupported`, `LimitExceeded`.
pub(crate) fn read(bytes: &[u8], options: &ReadOptions) -> Result<Vec<Volume>> {
    if is_surface(bytes) {
        return Err(surface_refusal());
    }
    let Some(header) = Header::parse(&plain_head(bytes)) else {
        let wanted = "the header of an MGH file";
        return Err(Error::malformed(FORMAT, "no header", wanted));
    };
    if header.intent == Intent::Warp {
        let advice = "pass the image that it warps";
        return Err(Error::unsupported(
            FORMAT,
            "a field of displacements",
            advice,
        ));
    }
    let grid = Grid::new(&header, &options.limits)?;
    let stored = Stored {
        format: FORMAT,
        bytes,
        wrapper: is_gzip(bytes).then_some(Wrapper::Gzip),
        skip: HEADER_BYTES as u64,
        layout: (scalar(header.data_type)?, ByteOrder::Big),
        map: Linear::IDENTITY,
    };
    volumes(&stored, &header, &grid, &options.limits)
}

/// Decodes every part where it lies in the patient.
fn volumes(
    stored: &Stored<'_>,
    header: &Header,
    grid: &Grid,
    limits: &Limits,
) -> Result<Vec<Volume>> {
    let mut reasons = Vec::new();
    let mut affine = affine(header, grid, &mut reasons)?;
    let mut spacing = affine.map_or([None; 3], |affine| affine.spacing_mm().map(Some));
    if grid.kind != Kind::Volume {
        let [along_depth, ..] = &mut spacing;
        *along_depth = None;
    }
    if spacing.iter().flatten().next().is_none() {
        let detail = "the header calls its own RAS fields invalid";
        reasons.push(Reason::new(Code::SpacingUnknown, detail));
    }
    // In a video D is time, and no frame lies beside another.
    affine = affine.filter(|_| grid.kind != Kind::Video);
    let [_, depth, height, width] = grid.shape;
    let mut shape = grid.shape;
    let turn = affine
        .filter(|_| grid.kind == Kind::Volume)
        .and_then(|affine| Turn::canonical(&affine, [depth, height, width]));
    if let Some(turn) = &turn {
        let [new_depth, new_height, new_width] = turn.sides;
        shape = [1, new_depth, new_height, new_width];
        affine = affine.map(|affine| turn.affine(&affine));
        spacing = turn.spacing(spacing);
    }
    let part_len = depth * height * width;
    let raw = stored.raw(part_len * grid.n_parts, limits)?;
    let part_bytes = part_len * stored.layout.0.n_bytes();
    let mut volumes = Vec::with_capacity(grid.n_parts);
    for (index, voxels) in raw.voxels().chunks_exact(part_bytes).enumerate() {
        let values = stored.turned(voxels, turn.as_ref())?;
        let mut volume = Volume::new(values, shape, grid.kind)?;
        volume.affine = affine;
        volume.spacing = spacing;
        volume.part = (grid.n_parts > 1).then(|| format!("t={index}"));
        volume.reasons.clone_from(&reasons);
        volumes.push(volume);
    }
    Ok(volumes)
}

/// Finds the affine and notes what is not known.
///
/// # Errors
/// `Malformed` with `bad_geometry` for a volume whose stated axes are singular or not finite.
fn affine(header: &Header, grid: &Grid, reasons: &mut Vec<Reason>) -> Result<Option<Affine>> {
    if header.intent == Intent::Label {
        reasons.push(Reason::new(Code::LabelMap, "the intent says label"));
    }
    let Some(place) = header.place else {
        let detail = "the header calls its own RAS fields invalid; axes are in storage order";
        reasons.push(Reason::new(Code::OrientationUnknown, detail));
        return Ok(None);
    };
    let affine = place.affine(header.sides);
    if affine.is_usable() && place.delta.iter().all(|&step| step > 0.0) {
        return Ok(Some(affine));
    }
    if grid.kind == Kind::Volume {
        return Err(Error::refused(
            FORMAT,
            Code::BadGeometry,
            "axes that are singular or not finite",
            "three independent axes with positive distances",
        ));
    }
    let detail = "axes are singular or not finite; they are in storage order";
    reasons.push(Reason::new(Code::OrientationUnknown, detail));
    Ok(None)
}

/// What the header says about the voxels, checked and charged.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Grid {
    /// C, D, H, W of one part.
    shape: [usize; 4],
    kind: Kind,
    n_parts: usize,
}

impl Grid {
    fn new(header: &Header, limits: &Limits) -> Result<Self> {
        let [width, height, depth, n_frames] = header.sides;
        let (depth, kind, n_parts) = match (depth, n_frames) {
            (1, 1) => (1, Kind::Image, 1),
            (1, _) => (n_frames, Kind::Video, 1),
            _ => (depth, Kind::Volume, n_frames),
        };
        limits.frames(depth)?;
        limits.parts(n_parts)?;
        // Charged as one object: all parts are in memory at once.
        limits.voxels([n_parts, depth, height, width])?;
        let side = |side: u64| limits.voxels([1, 1, 1, side]);
        Ok(Self {
            shape: [1, side(depth)?, side(height)?, side(width)?],
            kind,
            n_parts: side(n_parts)?,
        })
    }
}

impl Header {
    /// Parses the fields; `None` if one of them has no legal value.
    fn parse(head: &[u8]) -> Option<Self> {
        let fields = Fields(head);
        let intent = match head.first_chunk::<4>()? {
            [0, 0, 0, VERSION] => Intent::Image,
            [0, 0, 1, VERSION] => Intent::Label,
            [0, 0, 2, VERSION] => Intent::Shape,
            [0, 0, 3 | 4, VERSION] => Intent::Warp,
            _ => return None,
        };
        let mut sides = [0; 4];
        for (index, side) in sides.iter_mut().enumerate() {
            *side = u64::try_from(fields.i32(4 + 4 * index)?).ok()?;
        }
        let data_type = fields.i32(20)?;
        let ras_is_valid = match fields.0.get(28..30)? {
            [0, 0] => false,
            [0, 1] => true,
            _ => return None,
        };
        let is_legal = sides.iter().all(|side| (1..1 << 28).contains(side));
        if !is_legal || !(0..=10).contains(&data_type) {
            return None;
        }
        let place = Place {
            delta: fields.vector(30)?,
            directions: [fields.vector(42)?, fields.vector(54)?, fields.vector(66)?],
            centre: fields.vector(78)?,
        };
        Some(Self {
            intent,
            sides,
            data_type,
            place: ras_is_valid.then_some(place),
        })
    }
}

impl Place {
    /// Returns the affine of a grid of `width, height, depth` voxels, in LPS.
    fn affine(&self, sides: [u64; 4]) -> Affine {
        // RAS to LPS: x and y change their sign.
        let lps = |[x, y, z]: [f64; 3]| [-x, -y, z];
        let [x, y, z] = self.directions.map(lps);
        let [step_x, step_y, step_z] = self.delta;
        let scaled = |axis: [f64; 3], step: f64| axis.map(|v| v * step);
        let axes = [scaled(x, step_x), scaled(y, step_y), scaled(z, step_z)];
        let mut origin = lps(self.centre);
        for (axis, side) in axes.iter().zip(sides) {
            let half = crate::samples::widen_u64(side) / 2.0;
            for (at, step) in origin.iter_mut().zip(axis) {
                *at -= step * half;
            }
        }
        let [w, h, d] = axes;
        Affine::from_columns(w, h, d, origin)
    }
}

fn scalar(data_type: i32) -> Result<Scalar> {
    let name = match data_type {
        0 => return Ok(Scalar::U8),
        1 => return Ok(Scalar::I32),
        3 => return Ok(Scalar::F32),
        4 => return Ok(Scalar::I16),
        10 => return Ok(Scalar::U16),
        2 => "data type long",
        5 => "data type bitmap",
        6 => "data type tensor",
        7 | 8 => "complex numbers",
        _ => "data type RGB",
    };
    let advice = "convert it with mri_convert to uchar, short, int or float";
    Err(Error::unsupported(FORMAT, name, advice))
}

/// Big-endian numbers at fixed offsets.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn raw(&self, at: usize) -> Option<[u8; 4]> {
        self.0.get(at..)?.first_chunk::<4>().copied()
    }

    fn i32(&self, at: usize) -> Option<i32> {
        self.raw(at).map(i32::from_be_bytes)
    }

    fn vector(&self, at: usize) -> Option<[f64; 3]> {
        let number = |at| self.raw(at).map(|raw| f64::from(f32::from_be_bytes(raw)));
        Some([number(at)?, number(at + 4)?, number(at + 8)?])
    }
}

#[cfg(test)]
mod tests;
