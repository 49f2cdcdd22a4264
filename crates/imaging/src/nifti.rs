//! NIfTI-1 and NIfTI-2: `.nii`, `.nii.gz`, and `.hdr` with its `.img`, told by content.
//!
//! What becomes of the seven dimensions `(x, y, z, t, u, v, w)`:
//! - z = 1, t = 1: an image, axes as stored (W is x, H is y);
//! - z = 1, t > 1: one video, D is t;
//! - z > 1: one volume a time point, part `t=0`, `t=1`, ..., each reoriented to `SPL`;
//! - u, v, w > 1: further parts, e.g. `t=0,u=2`; refused by name where the intent says that u is
//!   the component of a vector or a matrix, because a component is not an image.
//!
//! RGB24 is C = 3, RGBA32 loses its alpha. Scaling is in f64 and rounded once, as nibabel does it.

mod header;
mod place;
mod write;

pub use write::encode_nifti;

use std::io::ErrorKind;
use std::ops::ControlFlow;

use crate::error::{Error, Result};
use crate::geometry::{Turn, canonicalise};
use crate::inflate::{Wrapper, gunzip_prefix, is_gzip};
use crate::limits::Limits;
use crate::payload::Stored;
use crate::read::{ReadOptions, Siblings, Visit};
use crate::reason::{Code, Reason};
use crate::samples::{Linear, Scalar};
use crate::volume::{Kind, Volume};
use header::{Header, Version};
use place::Place;

const FORMAT: &str = "nifti";

/// Tells NIfTI, plain or gzip, and what passes for ANALYZE 7.5, which `read` refuses by name.
pub(crate) fn is_nifti(head: &[u8]) -> bool {
    header::magic(&plain_head(head)).is_some()
}

/// Returns the leading decompressed bytes.
fn plain_head(bytes: &[u8]) -> Vec<u8> {
    if is_gzip(bytes) {
        gunzip_prefix(bytes, header::HEAD_BYTES as u64)
    } else {
        bytes.get(..header::HEAD_BYTES).unwrap_or(bytes).to_vec()
    }
}

/// Reads every image of a file: see the module's table.
pub(crate) fn read(
    bytes: &[u8],
    siblings: Siblings<'_>,
    options: &ReadOptions,
) -> Result<Vec<Volume>> {
    let mut volumes = Vec::new();
    let mut keep = |volume| {
        volumes.push(volume);
        ControlFlow::Continue(())
    };
    visit_charged(bytes, siblings, options, Held::AllParts, &mut keep)?;
    Ok(volumes)
}

/// Hands over one part of a file after the other, until `visit` breaks: a long series over time
/// takes its stored bytes and one volume, not all volumes.
///
/// # Errors
/// As `read`, with the limit of voxels charged for each part alone. No part was handed over if the
/// file is refused for its header or length.
pub(crate) fn visit(
    bytes: &[u8],
    siblings: Siblings<'_>,
    options: &ReadOptions,
    visit: Visit<'_>,
) -> Result<()> {
    visit_charged(bytes, siblings, options, Held::OnePart, visit)
}

/// What is in memory at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    AllParts,
    OnePart,
}

fn visit_charged(
    bytes: &[u8],
    siblings: Siblings<'_>,
    options: &ReadOptions,
    held: Held,
    visit: Visit<'_>,
) -> Result<()> {
    let head = plain_head(bytes);
    let Some(magic) = header::magic(&head) else {
        return Err(Error::malformed(
            FORMAT,
            "no header",
            "the magic of NIfTI-1 or NIfTI-2",
        ));
    };
    if magic.version == Version::Analyze {
        return Err(Error::unsupported(
            "analyze 7.5",
            "an image without orientation",
            "convert it to NIfTI with a tool that knows its left from its right",
        ));
    }
    let header = Header::read(&head, magic)?;
    let grid = Grid::new(&header, &options.limits)?;
    if held == Held::AllParts {
        options.limits.voxels([1, 1, 1, grid.n_values()? as u64])?;
    }
    let paired;
    let (file, is_compressed) = if magic.single {
        (bytes, is_gzip(bytes))
    } else {
        let named_gz;
        (paired, named_gz) = fetch_img(siblings, is_gzip(bytes))?;
        // Plain voxels may look like gzip by chance, but then there are enough of them.
        let is_short = (paired.len() as u64) < grid.end(&header)?;
        (
            paired.as_slice(),
            is_gzip(&paired) && (named_gz || is_short),
        )
    };
    let stored = Stored {
        format: FORMAT,
        bytes: file,
        wrapper: is_compressed.then_some(Wrapper::Gzip),
        skip: voxel_offset(&header)?,
        layout: (grid.scalar, magic.order),
        map: scaling(&header, &grid)?,
    };
    visit_parts(&stored, &header, &grid, options, visit)
}

/// Decodes every part where it lies in the patient.
fn visit_parts(
    stored: &Stored<'_>,
    header: &Header,
    grid: &Grid,
    options: &ReadOptions,
    visit: Visit<'_>,
) -> Result<()> {
    let limits = &options.limits;
    let mut place = place::place(header, grid)?;
    let [width, height, depth] = grid.sides;
    let n_values = grid.n_values()?;
    if n_values == width * height * depth && stored.inflates_in_place(n_values) {
        let (values, n_behind) = stored.values(n_values, limits)?;
        let mut volume = Volume::new(values, grid.shape(), grid.kind)?;
        describe(&mut volume, header, grid, &place);
        note_behind(&mut volume, grid, n_behind);
        let _ = visit(canonicalise(volume)?);
        return Ok(());
    }
    let raw = stored.raw(n_values, limits)?;
    let turn = (place.affine.filter(|_| grid.kind == Kind::Volume))
        .and_then(|affine| Turn::canonical(&affine, [depth, height, width]));
    let [n_channels, ..] = grid.shape();
    let mut shape = grid.shape();
    if let Some(turn) = turn {
        let [new_depth, new_height, new_width] = turn.sides;
        shape = [n_channels, new_depth, new_height, new_width];
        place.affine = place.affine.map(|affine| turn.affine(&affine));
        place.spacing = turn.spacing(place.spacing);
    }
    let n_bytes = grid.part_len() * grid.scalar.n_bytes();
    for (index, voxels) in raw.voxels().chunks_exact(n_bytes).enumerate() {
        let values = decode(stored, voxels, grid, turn.as_ref())?;
        let mut volume = Volume::new(values, shape, grid.kind)?;
        describe(&mut volume, header, grid, &place);
        note_behind(&mut volume, grid, raw.n_behind);
        volume.part = grid.part(index);
        if visit(volume).is_break() {
            break;
        }
    }
    Ok(())
}

/// Adds what the header says of every part.
fn describe(volume: &mut Volume, header: &Header, grid: &Grid, place: &Place) {
    volume.affine = place.affine;
    volume.spacing = place.spacing;
    volume.full_scale = (grid.n_stored_channels > 1).then_some(255.0);
    volume.reasons = header_reasons(header, grid);
    volume.reasons.extend(place.reasons.iter().cloned());
}

fn note_behind(volume: &mut Volume, grid: &Grid, n_behind: u64) {
    if n_behind >= grid.plane_bytes() {
        let detail = format!("{n_behind} bytes lie behind the declared voxels");
        volume.note(Code::ExtraFrames, detail);
    }
}

/// The names that the voxels of a pair may have, `*` for that of the header, and whether they say that it is compressed.
pub(crate) const VOXEL_FILES: [(&str, bool); 3] =
    [("*.img", false), ("*.img.gz", true), ("*.IMG", false)];

/// Fetches the voxels of a pair, whose file the header does not name, and says whether the name
/// ends in `.gz`.
fn fetch_img(siblings: Siblings<'_>, header_is_compressed: bool) -> Result<(Vec<u8>, bool)> {
    let mut names = VOXEL_FILES;
    if header_is_compressed {
        names.swap(0, 1);
    }
    for (name, is_named_gz) in names {
        match siblings(name) {
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {}
            fetched => return Ok((fetched?, is_named_gz)),
        }
    }
    Err(Error::refused(
        FORMAT,
        Code::NoPixels,
        "the header of a pair alone",
        "a file of the same name that ends in .img or .img.gz beside it",
    ))
}

/// What the header says about the voxels, checked and charged.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Grid {
    /// W, H, D of one part; D is t for a video.
    sides: [usize; 3],
    kind: Kind,
    /// t, u, v, w, with 1 in place of a t that became D.
    repeats: [usize; 4],
    scalar: Scalar,
    /// 1, 3, or 4 with alpha; channels alternate voxel by voxel.
    n_stored_channels: usize,
}

impl Grid {
    fn new(header: &Header, limits: &Limits) -> Result<Self> {
        let (scalar, n_stored_channels) = voxel_type(header.datatype)?;
        let [x, y, z, t, u, v, w] = dimensions(header)?;
        refuse_intent(header.intent_code, [u, v, w])?;
        let (depth, kind, t) = match (z, t) {
            (1, 1) => (1, Kind::Image, 1),
            (1, _) => (t, Kind::Video, 1),
            _ => (z, Kind::Volume, t),
        };
        limits.frames(depth)?;
        let n_parts = [t, u, v, w]
            .iter()
            .try_fold(1_u64, |n, &side| n.checked_mul(side));
        let n_parts = n_parts.unwrap_or(u64::MAX);
        limits.parts(n_parts)?;
        // Each part is charged alone; whoever holds all of them at once charges them together.
        let in_plane = x.saturating_mul(y);
        limits.voxels([n_stored_channels as u64, 1, depth, in_plane])?;
        let side = |side: u64| limits.voxels([1, 1, 1, side]);
        Ok(Self {
            sides: [side(x)?, side(y)?, side(depth)?],
            kind,
            repeats: [side(t)?, side(u)?, side(v)?, side(w)?],
            scalar,
            n_stored_channels,
        })
    }

    fn shape(&self) -> [usize; 4] {
        let [width, height, depth] = self.sides;
        [self.n_stored_channels.min(3), depth, height, width]
    }

    fn n_parts(&self) -> usize {
        self.repeats.iter().product()
    }

    /// Numbers stored for one part.
    fn part_len(&self) -> usize {
        self.sides.iter().product::<usize>() * self.n_stored_channels
    }

    /// Numbers stored for all parts.
    fn n_values(&self) -> Result<usize> {
        let n_values = self.part_len().checked_mul(self.n_parts());
        n_values.ok_or_else(|| {
            let found = "more voxels than there are addresses";
            Error::malformed(FORMAT, found, "voxels inside the file")
        })
    }

    fn plane_bytes(&self) -> u64 {
        let [width, height, _] = self.sides;
        let n_values = (width * height * self.n_stored_channels) as u64;
        n_values.saturating_mul(self.scalar.n_bytes() as u64)
    }

    /// The byte behind the last voxel.
    fn end(&self, header: &Header) -> Result<u64> {
        let n_values = self.n_values()? as u64;
        let n_bytes = n_values.saturating_mul(self.scalar.n_bytes() as u64);
        Ok(voxel_offset(header)?.saturating_add(n_bytes))
    }

    /// Names a part by the axes that are longer than 1.
    fn part(&self, index: usize) -> Option<String> {
        let mut rest = index;
        let mut words = Vec::new();
        for (name, side) in ["t", "u", "v", "w"].iter().zip(self.repeats) {
            if side > 1 {
                words.push(format!("{name}={}", rest % side));
            }
            rest /= side;
        }
        (!words.is_empty()).then(|| words.join(","))
    }
}

/// Returns `x, y, z, t, u, v, w`, 1 for those that are not there.
fn dimensions(header: &Header) -> Result<[u64; 7]> {
    let [rank, sides @ ..] = header.dim;
    let n_dims = usize::try_from(rank).ok().filter(|n| (1..=7).contains(n));
    let Some(n_dims) = n_dims else {
        return Err(Error::malformed(
            FORMAT,
            format!("{rank} dimensions"),
            "1 to 7",
        ));
    };
    let mut checked = [1; 7];
    for (out, side) in checked.iter_mut().zip(sides).take(n_dims) {
        *out = u64::try_from(side)
            .ok()
            .filter(|&side| side > 0)
            .ok_or_else(|| {
                Error::malformed(FORMAT, format!("a side of {side} voxels"), "at least 1")
            })?;
    }
    Ok(checked)
}

fn voxel_type(datatype: i64) -> Result<(Scalar, usize)> {
    let name = match datatype {
        2 => return Ok((Scalar::U8, 1)),
        4 => return Ok((Scalar::I16, 1)),
        8 => return Ok((Scalar::I32, 1)),
        16 => return Ok((Scalar::F32, 1)),
        64 => return Ok((Scalar::F64, 1)),
        128 => return Ok((Scalar::U8, 3)),
        256 => return Ok((Scalar::I8, 1)),
        512 => return Ok((Scalar::U16, 1)),
        768 => return Ok((Scalar::U32, 1)),
        1024 => return Ok((Scalar::I64, 1)),
        1280 => return Ok((Scalar::U64, 1)),
        2304 => return Ok((Scalar::U8, 4)),
        1 => "data type binary (1 bit)",
        32 => "data type complex64",
        1536 => "data type float128",
        1792 => "data type complex128",
        2048 => "data type complex256",
        _ => {
            let found = format!("data type {datatype}");
            return Err(Error::malformed(
                FORMAT,
                found,
                "a data type of the standard",
            ));
        }
    };
    Err(Error::unsupported(
        FORMAT,
        name,
        "save real numbers of at most 64 bits",
    ))
}

/// Refuses files whose values are not images.
fn refuse_intent(intent: i64, further: [u64; 3]) -> Result<()> {
    let is_long = further.iter().any(|&side| side > 1);
    let name = match intent {
        1004 if is_long => "a general matrix at each voxel",
        1005 if is_long => "a symmetric matrix at each voxel",
        1006 if is_long => "a displacement at each voxel",
        1007 if is_long => "a vector at each voxel",
        1008 => "a point set",
        1009 => "a set of triangles",
        1010 if is_long => "a quaternion at each voxel",
        2003 | 2004 if is_long => "colour as a fifth dimension",
        3000..=3099 => "CIFTI",
        _ => return Ok(()),
    };
    Err(Error::unsupported(
        FORMAT,
        name,
        "save one scalar or RGB24 image a file",
    ))
}

/// Returns the byte at which voxels begin, in the file that holds them.
fn voxel_offset(header: &Header) -> Result<u64> {
    let offset = header.vox_offset;
    let least = match (header.magic.single, header.magic.version) {
        (false, _) => 0,
        (true, Version::Two) => 544,
        (true, _) => 352,
    };
    // nibabel and others read 0 in a single file as "right behind the header".
    if offset == 0.0 {
        return Ok(least);
    }
    // 2^53: the largest f64 below which every whole number has its own.
    if !(0.0..9e15).contains(&offset) || offset.fract() != 0.0 {
        return Err(Error::malformed(
            FORMAT,
            "a voxel offset that is no whole number",
            "a byte",
        ));
    }
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked above"
    )]
    let offset = offset as u64;
    if offset < least {
        let found = format!("voxels from byte {offset}, inside the header");
        return Err(Error::malformed(
            FORMAT,
            found,
            format!("byte {least} or later"),
        ));
    }
    Ok(offset)
}

/// Returns the intensity map, as nibabel's `get_slope_inter` and `apply_read_scaling` find it.
fn scaling(header: &Header, grid: &Grid) -> Result<Linear> {
    let (slope, inter) = (header.slope, header.inter);
    // The standard ignores both for colour.
    if slope == 0.0 || !slope.is_finite() || grid.n_stored_channels > 1 {
        return Ok(Linear::IDENTITY);
    }
    if !inter.is_finite() {
        let wanted = "a finite one beside a valid scl_slope";
        return Err(Error::malformed(
            FORMAT,
            "a scl_inter that is not finite",
            wanted,
        ));
    }
    // Adding 0.0 would turn -0.0 into 0.0; adding -0.0 changes no number.
    let intercept = if inter == 0.0 { -0.0 } else { inter };
    Ok(Linear { slope, intercept })
}

/// Decodes one part, turned to the canonical order.
fn decode(
    stored: &Stored<'_>,
    voxels: &[u8],
    grid: &Grid,
    turn: Option<&Turn>,
) -> Result<Vec<f32>> {
    let n = grid.n_stored_channels;
    if n == 1 {
        return stored.turned(voxels, turn);
    }
    // Colour: one channel after the other, without alpha.
    let mut values = Vec::with_capacity(voxels.len());
    for channel in 0..n.min(3) {
        let plane: Vec<u8> = voxels.iter().skip(channel).step_by(n).copied().collect();
        values.extend(stored.turned(&plane, turn)?);
    }
    Ok(values)
}

/// Notes what is unusual about the header apart from geometry.
fn header_reasons(header: &Header, grid: &Grid) -> Vec<Reason> {
    let mut reasons = Vec::new();
    let n_bits = i64::try_from(grid.scalar.n_bytes() * grid.n_stored_channels * 8);
    if n_bits != Ok(header.bitpix) {
        let detail = format!(
            "bitpix {} contradicts the data type, which was used",
            header.bitpix
        );
        reasons.push(Reason::new(Code::HeaderRepaired, detail));
    }
    if !header.magic.size_is_right {
        let detail = "sizeof_hdr is wrong; the magic was believed";
        reasons.push(Reason::new(Code::HeaderRepaired, detail));
    }
    if grid.n_stored_channels == 4 {
        reasons.push(Reason::new(Code::AlphaDropped, "RGBA32"));
    }
    if header.intent_code == 1002 {
        reasons.push(Reason::new(Code::LabelMap, "the intent code says label"));
    }
    reasons
}

#[cfg(test)]
mod tests;
