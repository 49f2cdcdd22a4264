//! TIFF and `BigTIFF`: every page, strips and tiles, with our own container reader.
//!
//! The `tiff` crate inverts `WhiteIsZero`, refuses palettes, 12-bit samples and planar files with
//! alpha, and holds no bound on the size of JPEG streams inside; what we need of it would have been
//! the directory parser alone.
//!
//! Pages of equal layout form one stack along D; unequal pages become one `Volume` each. Pages
//! marked as reduced copies or masks of another page are passed over.
//!
//! # Source
//! TIFF revision 6.0 (Adobe, 1992); TIFF Technical Note 2 for JPEG, Technical Note 3 for the
//! floating-point predictor.

use std::collections::HashSet;

use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::read::ReadOptions;
use crate::reason::Code;
use crate::volume::{Kind, Volume};

mod codec;
mod directory;
mod imagej;
mod page;
mod sample;

use super::note_common;
use super::picture::Picture;
use directory::{Directory, Header, tag};
use imagej::Stack;
use page::Page;

const FORMAT: &str = "TIFF";

/// Returns true if `head` starts a TIFF or `BigTIFF` file of either byte order.
pub(super) fn is_tiff(head: &[u8]) -> bool {
    [b"II\x2a\0", b"II\x2b\0", b"MM\0\x2a", b"MM\0\x2b"]
        .iter()
        .any(|magic| head.starts_with(*magic))
}

/// Reads all pages.
///
/// # Errors
/// `Malformed`, `Unsupported`, `LimitExceeded`.
pub(super) fn read(bytes: &[u8], options: &ReadOptions) -> Result<Vec<Volume>> {
    let limits = &options.limits;
    let directories = read_directories(bytes, limits)?;
    let stack = directories.first().map(Stack::of).transpose()?.flatten();
    let mut pages = pages_of(bytes, &directories)?;
    if let ([page], [directory], Some(stack)) = (pages.as_slice(), directories.as_slice(), &stack) {
        // Above 4 GB `ImageJ` writes one directory; the other pages lie behind the first.
        let n_pages = limits.frames(stack.n_pages as u64)?;
        if let Some(several) = page.followed_by(n_pages, directory)? {
            pages = several;
        }
    }
    charge(bytes, &pages, limits)?;
    let equal = pages.array_windows().all(|[a, b]| a.has_layout_of(b));
    if equal && (pages.len() > 1 || stack.is_some()) {
        let groups = match &stack {
            Some(stack) => stack.group(pages.len())?,
            None => vec![(None, (0..pages.len()).collect())],
        };
        return groups
            .into_iter()
            .map(|(part, members)| read_stack(&pages, &members, part, stack.as_ref(), limits))
            .collect();
    }
    limits.parts(pages.len() as u64)?;
    let several = pages.len() > 1;
    let single = |(number, page): (usize, &Page<'_>)| -> Result<Volume> {
        let mut volume = page.read(limits)?.into_volume()?;
        volume.inverted = page.white_is_zero;
        volume.part = several.then(|| format!("page={number}"));
        note_page(&mut volume, page);
        Ok(volume)
    };
    pages.iter().enumerate().map(single).collect()
}

/// Follows the chain of directories.
fn read_directories<'a>(bytes: &'a [u8], limits: &Limits) -> Result<Vec<Directory<'a>>> {
    let header = Header::read(bytes)?;
    let mut directories = Vec::new();
    let mut seen = HashSet::new();
    let mut next = Some(header.first);
    while let Some(offset) = next {
        if !seen.insert(offset) {
            return Err(Error::malformed(
                FORMAT,
                "page directories in a loop",
                "a chain",
            ));
        }
        limits.frames(directories.len() as u64 + 1)?;
        let (directory, following) = header.directory(bytes, offset)?;
        directories.push(directory);
        next = following;
    }
    Ok(directories)
}

fn pages_of<'a>(bytes: &'a [u8], directories: &[Directory<'a>]) -> Result<Vec<Page<'a>>> {
    let mut pages = Vec::new();
    for directory in directories {
        // Bit 0: a smaller copy; bit 2: a mask.
        let kind = directory.uint(tag::NEW_SUBFILE_TYPE)?.unwrap_or(0);
        if kind & 0b101 == 0 || directories.len() == 1 {
            pages.push(Page::new(bytes, directory)?);
        }
    }
    if pages.is_empty() {
        return Err(Error::refused(
            FORMAT,
            Code::NoPixels,
            "no page",
            "at least one page",
        ));
    }
    Ok(pages)
}

/// Charges the work of decoding every chunk of every page, padding included, and each page.
fn charge(bytes: &[u8], pages: &[Page<'_>], limits: &Limits) -> Result<()> {
    let (mut total, mut n_voxels) = (0_u64, 0_u64);
    for page in pages {
        total = total.saturating_add(page.n_decoded_bytes());
        let page_voxels = page
            .shape(1)
            .iter()
            .fold(1_u64, |n, &side| n.saturating_mul(side));
        n_voxels = n_voxels.saturating_add(page_voxels);
    }
    // All pages are held at once, whether in one `Volume` or in several.
    limits.voxels([n_voxels, 1, 1, 1])?;
    limits.decompressed(bytes.len() as u64, total).map(|_| ())
}

/// Reads pages of equal layout into one `Volume`, in the order of `members`.
fn read_stack(
    pages: &[Page<'_>],
    members: &[usize],
    part: Option<String>,
    stack: Option<&Stack>,
    limits: &Limits,
) -> Result<Volume> {
    let members: Vec<&Page<'_>> = members
        .iter()
        .filter_map(|&index| pages.get(index))
        .collect();
    let Some(first) = members.first() else {
        return Err(Error::refused(
            FORMAT,
            Code::NoPixels,
            "no page",
            "at least one page",
        ));
    };
    let mut values = vec![0.0; limits.voxels(first.shape(members.len() as u64))?];
    let mut shape = [0, members.len(), 0, 0];
    let mut full_scale = None;
    for (depth, page) in members.iter().enumerate() {
        let picture = page.read(limits)?;
        shape = [
            picture.n_channels,
            members.len(),
            picture.height,
            picture.width,
        ];
        full_scale = picture.full_scale;
        place(&mut values, &picture, depth, members.len());
    }
    let kind = if members.len() == 1 {
        Kind::Image
    } else {
        Kind::Volume
    };
    let mut volume = Volume::new(values, shape, kind)?;
    volume.full_scale = full_scale;
    volume.inverted = first.white_is_zero;
    volume.part = part;
    match stack {
        Some(stack) => stack.describe(&mut volume),
        None => volume.note(
            Code::StackAxisUnknown,
            "pages of equal size, no word on their axis",
        ),
    }
    if volume.spacing == [None; 3] {
        note_common(&mut volume);
    }
    if first.has_alpha() {
        volume.note(
            Code::AlphaDropped,
            "the alpha channel was dropped, not composited",
        );
    }
    note_page(&mut volume, first);
    Ok(volume)
}

fn note_page(volume: &mut Volume, page: &Page<'_>) {
    let noted = volume
        .reasons
        .iter()
        .any(|reason| reason.code == Code::LossyCompression);
    if page.is_jpeg() && !noted {
        volume.note(Code::LossyCompression, "JPEG in TIFF");
    }
}

/// Copies one page's planes to slice `depth` of the `n_depth` slices of `[C, D, H, W]`.
fn place(values: &mut [f32], picture: &Picture, depth: usize, n_depth: usize) {
    let n_pixels = picture.height * picture.width;
    for (channel, plane) in picture.planes.chunks(n_pixels.max(1)).enumerate() {
        let start = (channel * n_depth + depth) * n_pixels;
        if let Some(slot) = values.get_mut(start..start + n_pixels) {
            slot.copy_from_slice(plane);
        }
    }
}

/// Says that the file ends before something it declares.
fn truncated(what: &str) -> Error {
    Error::refused(
        FORMAT,
        Code::Truncated,
        format!("an end before {what}"),
        "a whole file",
    )
}
