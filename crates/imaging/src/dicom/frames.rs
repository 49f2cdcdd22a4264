//! The encoded frames of a data set: which fragments belong to which frame.
//!
//! # Source
//! DICOM PS3.5 section A.4 and PS3.3 C.7.6.3.1.8 (extended offset table).

use std::borrow::Cow;
use std::collections::HashSet;

use dicom_dictionary_std::tags;

use super::codec::Codec;
use super::dataset::{DataSet, fragments, name_of};
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::reason::Code;

const FORMAT: &str = "dicom";

/// The compressed bytes of each declared frame.
#[derive(Debug)]
pub(crate) struct Encoded<'a> {
    /// As many as were declared.
    pub(crate) frames: Vec<Cow<'a, [u8]>>,
    /// How many are stored.
    pub(crate) n_stored: usize,
}

impl<'a> Encoded<'a> {
    fn new(mut frames: Vec<Cow<'a, [u8]>>, n_declared: usize) -> Self {
        let n_stored = frames.len();
        frames.truncate(n_declared);
        Self { frames, n_stored }
    }
}

/// Returns the compressed bytes of each of `n_frames` frames.
///
/// # Errors
/// `Malformed` if fragments and offsets cannot be told apart into so many frames.
pub(crate) fn encapsulated<'a>(
    set: &DataSet<'a>,
    n_frames: usize,
    limits: &Limits,
) -> Result<Encoded<'a>> {
    let value = set.bytes(tags::PIXEL_DATA).unwrap_or(&[]);
    let (table, pieces) = pieces(value, limits)?;
    let basic = offsets::<4>(table);
    if pieces.is_empty() {
        let found = format!("{} without a fragment", name_of(tags::PIXEL_DATA));
        let wanted = "at least one fragment of compressed pixels";
        return Err(Error::refused(FORMAT, Code::Truncated, found, wanted));
    }
    let extended = offsets::<8>(set.bytes(tags::EXTENDED_OFFSET_TABLE).unwrap_or(&[]));
    for table in [extended, basic] {
        if table.len() >= n_frames
            && let Some(frames) = by_offsets(&pieces, &table)
        {
            return Ok(Encoded::new(frames, n_frames));
        }
    }
    // Tables are optional, and wrong in some files.
    if n_frames == 1 {
        return Ok(Encoded::new(vec![joined(&pieces)], 1));
    }
    let frames = if pieces.len() == n_frames {
        pieces.iter().map(|piece| Cow::Borrowed(*piece)).collect()
    } else {
        by_start_marker(&pieces)
    };
    if frames.len() < n_frames {
        let found = format!(
            "{} fragments that form {} frames",
            pieces.len(),
            frames.len()
        );
        return Err(Error::refused(
            FORMAT,
            Code::Truncated,
            found,
            format!("{n_frames} frames"),
        ));
    }
    Ok(Encoded::new(frames, n_frames))
}

/// Returns all fragments in one piece: a video stream is not divided into frames.
///
/// # Errors
/// `Malformed` if the items are broken.
pub(crate) fn stream<'a>(set: &DataSet<'a>, limits: &Limits) -> Result<Cow<'a, [u8]>> {
    let value = set.bytes(tags::PIXEL_DATA).unwrap_or(&[]);
    Ok(joined(&pieces(value, limits)?.1))
}

/// Divides a value into its offset table and its fragments; the table is left out by some writers,
/// and the items by others.
fn pieces<'a>(value: &'a [u8], limits: &Limits) -> Result<(&'a [u8], Vec<&'a [u8]>)> {
    if Codec::of_stream(value).is_some() {
        return Ok((&[], vec![value]));
    }
    let mut pieces = fragments(value, limits)?;
    let has_table =
        !pieces.is_empty() && pieces.first().is_none_or(|f| Codec::of_stream(f).is_none());
    let table = if has_table { pieces.remove(0) } else { &[] };
    Ok((table, pieces))
}

fn joined<'a>(pieces: &[&'a [u8]]) -> Cow<'a, [u8]> {
    match pieces {
        [only] => Cow::Borrowed(only),
        several => Cow::Owned(several.concat()),
    }
}

fn offsets<const N: usize>(table: &[u8]) -> Vec<u64> {
    let (chunks, _) = table.as_chunks::<N>();
    chunks
        .iter()
        .map(|raw| raw.iter().rev().fold(0, |sum, &b| sum << 8 | u64::from(b)))
        .collect()
}

/// Groups fragments by the offsets of their item headers, counted from the first fragment's.
fn by_offsets<'a>(pieces: &[&'a [u8]], table: &[u64]) -> Option<Vec<Cow<'a, [u8]>>> {
    let starts: HashSet<u64> = table.iter().copied().collect();
    let mut groups: Vec<Vec<&[u8]>> = Vec::new();
    let mut position = 0_u64;
    for piece in pieces {
        if starts.contains(&position) {
            groups.push(Vec::new());
        }
        groups.last_mut()?.push(piece);
        position += 8 + piece.len() as u64;
    }
    (groups.len() == table.len()).then(|| groups.iter().map(|group| joined(group)).collect())
}

/// Groups fragments by the codestream's own start: JPEG and JPEG-LS `FFD8`, JPEG 2000 `FF4F`,
/// JPEG XL `FF0A`.
fn by_start_marker<'a>(pieces: &[&'a [u8]]) -> Vec<Cow<'a, [u8]>> {
    let mut groups: Vec<Vec<&[u8]>> = Vec::new();
    for piece in pieces {
        let starts = matches!(piece.first_chunk::<2>(), Some([0xFF, 0xD8 | 0x4F | 0x0A]));
        match groups.last_mut() {
            Some(group) if !starts => group.push(piece),
            _ => groups.push(vec![piece]),
        }
    }
    groups.iter().map(|group| joined(group)).collect()
}
