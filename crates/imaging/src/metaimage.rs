//! `MetaImage`: `.mha`, and `.mhd` with its data file; raw, zlib and text.
//!
//! What becomes of the axes `(x, y, z, t)`: z = 1 is an image; t gives parts `t=0`, `t=1`, ..., or
//! one video where z = 1. A third axis of kind `list` or `time` (tracked ultrasound) is time too.
//! 3 channels are RGB and 4 RGBA, whose alpha is dropped, if they are integers of 8 or 16 bit.
//!
//! # Source
//! The format has no standard but ITK: where its documents are silent, `SimpleITK` was asked.
//! `ElementToIntensityFunctionSlope` is noted and, as there, not applied.

mod header;

use crate::error::{Error, Result};
use crate::geometry::{Affine, canonicalise};
use crate::inflate::{Wrapper, is_gzip};
use crate::limits::Limits;
use crate::payload::{Stored, gather, parse_text};
use crate::read::{ReadOptions, Siblings};
use crate::reason::{Code, Reason};
use crate::samples::{Linear, Scalar};
use crate::volume::{Kind, Volume};
use header::{DataFiles, Header};

const FORMAT: &str = "metaimage";

/// Tells `MetaImage` by a first line of the format and two fields that every image has.
pub(crate) fn is_metaimage(head: &[u8]) -> bool {
    header::is_header(head)
}

/// Returns the names of the files in which a header, perhaps cut short, says its voxels lie.
pub(crate) fn data_files(head: &[u8]) -> Vec<String> {
    header::data_file_names(head)
}

/// Reads every image of a file: see the module's rules.
pub(crate) fn read(
    bytes: &[u8],
    siblings: Siblings<'_>,
    options: &ReadOptions,
) -> Result<Vec<Volume>> {
    let limits = &options.limits;
    let (header, behind_header) = header::parse(bytes)?;
    let grid = Grid::new(&header, limits)?;
    let place = Place::new(&header, &grid);
    let n_values = grid.part_len() * grid.n_parts;
    let values = match &header.files {
        DataFiles::Local => decode(&header, bytes, behind_header, n_values, limits)?,
        DataFiles::Beside(names) => read_files(&header, names, n_values, siblings, limits)?,
    };
    let mut volumes = Vec::with_capacity(grid.n_parts);
    let mut whole = Some(values);
    for index in 0..grid.n_parts {
        let values = match &whole {
            Some(_) if grid.n_parts == 1 && grid.n_stored_channels == 1 => {
                whole.take().unwrap_or_default()
            }
            Some(all) => {
                let n = grid.n_stored_channels;
                let [_, _, height, width] = grid.shape;
                let strides = [1, n * width * height, n * width, n];
                gather(all, index * grid.part_len(), grid.shape, strides)?
            }
            None => Vec::new(),
        };
        let mut volume = Volume::new(values, grid.shape, grid.kind)?;
        volume.affine = place.affine;
        volume.spacing = place.spacing;
        volume.modality.clone_from(&header.modality);
        volume.full_scale = full_scale(header.scalar).filter(|_| grid.n_stored_channels > 1);
        volume.part = (grid.n_parts > 1).then(|| format!("t={index}"));
        volume.reasons.clone_from(&place.reasons);
        if grid.n_stored_channels == 4 {
            volume.note(Code::AlphaDropped, "the fourth channel");
        }
        volumes.push(canonicalise(volume)?);
    }
    Ok(volumes)
}

/// Decodes all numbers of the files that the header names.
fn read_files(
    header: &Header,
    names: &[String],
    n_values: usize,
    siblings: Siblings<'_>,
    limits: &Limits,
) -> Result<Vec<f32>> {
    limits.parts(names.len() as u64)?;
    if names.is_empty() || !n_values.is_multiple_of(names.len()) {
        let found = format!("{n_values} voxels in {} files", names.len());
        return Err(Error::malformed(FORMAT, found, "the same number in each"));
    }
    let mut values = Vec::new();
    for name in names {
        let file = siblings(name)?;
        let slab = decode(header, &file, 0, n_values / names.len(), limits)?;
        if names.len() == 1 {
            return Ok(slab);
        }
        values.extend(slab);
    }
    Ok(values)
}

/// Decodes the numbers of one file, whose voxels begin at byte `start` unless `HeaderSize` says more.
fn decode(
    header: &Header,
    file: &[u8],
    start: usize,
    n_values: usize,
    limits: &Limits,
) -> Result<Vec<f32>> {
    let n_bytes = (n_values as u64).saturating_mul(header.scalar.n_bytes() as u64);
    let start = match header.header_size {
        -1 if !header.is_compressed => (file.len() as u64).saturating_sub(n_bytes),
        0 => start as u64,
        size => u64::try_from(size).map_err(|_| {
            let wanted = "at least 0, or -1 for plain voxels";
            Error::malformed(FORMAT, format!("a HeaderSize of {size}"), wanted)
        })?,
    };
    let start = usize::try_from(start).unwrap_or(usize::MAX);
    let bytes = file.get(start..).unwrap_or_default();
    if header.is_text {
        return parse_text(FORMAT, bytes, n_values);
    }
    let wrapper = if is_gzip(bytes) {
        Wrapper::Gzip
    } else {
        Wrapper::Zlib
    };
    let stored = Stored {
        format: FORMAT,
        bytes,
        wrapper: header.is_compressed.then_some(wrapper),
        skip: 0,
        layout: (header.scalar, header.order),
        map: Linear::IDENTITY,
    };
    Ok(stored.values(n_values, limits)?.0)
}

fn full_scale(scalar: Scalar) -> Option<f32> {
    match scalar {
        Scalar::U8 => Some(255.0),
        Scalar::U16 => Some(65_535.0),
        _ => None,
    }
}

/// What the header says about the voxels, checked and charged.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Grid {
    /// C, D, H, W of one part.
    shape: [usize; 4],
    n_parts: usize,
    kind: Kind,
    /// 1, 3, or 4 with alpha; channels alternate voxel by voxel.
    n_stored_channels: usize,
}

impl Grid {
    fn new(header: &Header, limits: &Limits) -> Result<Self> {
        let n_channels = header.n_channels;
        match (n_channels, header.scalar) {
            (1, _) | (3 | 4, Scalar::U8 | Scalar::U16) => {}
            _ => {
                let name = format!("{n_channels} channels of this type");
                let advice = "save one channel, or 3 of 8 or 16 bit for colour";
                return Err(Error::unsupported(FORMAT, name, advice));
            }
        }
        let (x, y, z, t) = match *header.sides {
            [x, y] => (x, y, 1, 1),
            [x, y, t] if header.third_is_time => (x, y, 1, t),
            [x, y, z] => (x, y, z, 1),
            [x, y, z, t] => (x, y, z, t),
            _ => {
                let name = format!("{} dimensions", header.sides.len());
                return Err(Error::unsupported(FORMAT, name, "save 2, 3 or 4"));
            }
        };
        let (depth, n_parts, kind) = match (z, t) {
            (1, 1) => (1, 1, Kind::Image),
            (1, _) => (t, 1, Kind::Video),
            _ => (z, t, Kind::Volume),
        };
        limits.frames(depth)?;
        limits.parts(n_parts)?;
        limits.voxels([n_channels, depth, x.saturating_mul(y), n_parts])?;
        let side = |side: u64| limits.voxels([1, 1, 1, side]);
        Ok(Self {
            shape: [side(n_channels.min(3))?, side(depth)?, side(y)?, side(x)?],
            n_parts: side(n_parts)?,
            kind,
            n_stored_channels: side(n_channels)?,
        })
    }

    /// Numbers stored for one part.
    fn part_len(&self) -> usize {
        let [_, depth, height, width] = self.shape;
        self.n_stored_channels * depth * height * width
    }
}

/// Geometry of every part of a file.
struct Place {
    affine: Option<Affine>,
    /// D, H, W.
    spacing: [Option<f64>; 3],
    reasons: Vec<Reason>,
}

impl Place {
    fn new(header: &Header, grid: &Grid) -> Self {
        let mut reasons = Vec::new();
        let sizes = [2, 1, 0].map(|axis| {
            let size = header
                .spacing
                .get(axis)
                .map(|size| size.abs() * header.mm_per_unit);
            size.filter(|size| size.is_finite() && *size > 0.0)
        });
        let mut affine = affine(header).filter(|_| grid.kind != Kind::Video);
        if grid.kind == Kind::Image {
            affine = affine.filter(Affine::is_usable);
        }
        // Only a singular affine has no length, and `canonicalise` refuses it.
        let mut spacing = affine.map_or(sizes, |affine| affine.spacing_mm().map(Some));
        if grid.kind != Kind::Volume {
            // No unit of time is stated anywhere.
            let [along_depth, ..] = &mut spacing;
            *along_depth = None;
        }
        let n_wanted = if grid.kind == Kind::Image { 2 } else { 3 };
        if spacing.iter().flatten().count() < n_wanted {
            let detail = "the header states no size for an axis";
            reasons.push(Reason::new(Code::SpacingUnknown, detail));
        }
        if affine.is_none() && grid.kind == Kind::Volume {
            let detail = "no TransformMatrix; axes are in storage order";
            reasons.push(Reason::new(Code::OrientationUnknown, detail));
        }
        if header.has_intensity_function {
            let detail = "an intensity function is stated and, as in ITK, not applied";
            reasons.push(Reason::new(Code::HeaderRepaired, detail));
        }
        Self {
            affine,
            spacing,
            reasons,
        }
    }
}

/// Builds the affine; the format is LPS, as ITK is.
fn affine(header: &Header) -> Option<Affine> {
    let n_dims = header.sides.len();
    let matrix = header.matrix.as_deref()?;
    let mut columns = [[0.0; 3]; 3];
    for (axis, column) in columns.iter_mut().enumerate() {
        let direction = matrix.get(axis * n_dims..axis * n_dims + 3)?;
        let size = header.spacing.get(axis)?.abs() * header.mm_per_unit;
        for (value, cosine) in column.iter_mut().zip(direction) {
            *value = cosine * size;
        }
    }
    // An unstated offset moves the whole image, and turns nothing.
    let offset = header
        .offset
        .as_deref()
        .and_then(|offset| offset.first_chunk::<3>());
    let origin = offset
        .copied()
        .unwrap_or_default()
        .map(|value| value * header.mm_per_unit);
    let [w, h, d] = columns;
    (n_dims >= 3).then(|| Affine::from_columns(w, h, d, origin))
}

#[cfg(test)]
mod tests;
