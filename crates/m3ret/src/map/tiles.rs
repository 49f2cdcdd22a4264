//! Small pictures of the images on a map, many on one sheet.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use m3ret_imaging::{
    Cut, HU_LEVELS, Kind, ReadOptions, Strip, Volume, encode_jpeg, read_bytes, resample, strip,
};
use m3ret_manifest::columns::MODALITY;
use m3ret_search::RowId;
use serde::Serialize;

use crate::galleries::{Archive, RowCells, THUMBNAIL};
use crate::panics;
use crate::report::shell::jpeg_url;
use crate::report::viewer;

/// Most pictures of a map; further images are dots.
const MAX_TILES: usize = 10_000;
/// Most images that are read again where the gallery holds no pictures.
const MAX_READ: usize = 2_000;
/// What all sheets may take, in characters.
const MAX_CHARS: usize = 8 << 20;
/// Pictures up to so many have these sides in pixels: whole blocks of JPEG.
const SIDES: [(usize, usize); 3] = [(1_200, 96), (3_000, 64), (MAX_TILES, 40)];
/// Pictures in a row of a sheet, and rows.
const N_SIDE: usize = 16;
/// The quality of JPEG.
const QUALITY: u8 = 72;
/// Images that are read at once: each is in memory as a whole.
const MAX_READERS: usize = 4;
/// The grey of lines between the panels of stored pictures, at which the first panel ends.
const LINE: f32 = 96.0;

/// An image whose picture is wanted.
pub(super) struct Source<'a> {
    pub(super) row: RowId,
    pub(super) cells: &'a RowCells<'a>,
}

/// The small pictures of a map.
#[derive(Debug, Default, Serialize)]
pub(super) struct Atlas {
    /// Side of a picture, in pixels.
    side: usize,
    /// Pictures in a row of a sheet, and on a sheet.
    columns: usize,
    n_sheet: usize,
    /// Data URLs.
    sheets: Vec<String>,
    /// The place of each image's picture; -1 for none.
    of: Vec<i64>,
}

impl Atlas {
    /// Draws the pictures of evenly spaced images: those that the gallery holds, and some read again.
    pub(super) fn draw(archive: &Archive, sources: &[Source<'_>]) -> anyhow::Result<Self> {
        let gallery = archive.gallery.as_ref();
        let n_tiles = sources.len().min(MAX_TILES);
        let side = SIDES
            .iter()
            .find(|(n, _)| n_tiles <= *n)
            .map_or(40, |(_, side)| *side);
        let chosen = super::some_of(&(0..sources.len()).collect::<Vec<_>>(), n_tiles);
        let mut stored = Vec::with_capacity(chosen.len());
        for &idx in &chosen {
            let source = sources.get(idx);
            stored.push(match source {
                Some(source) => gallery.attachment(source.row, THUMBNAIL)?.into_owned(),
                None => Vec::new(),
            });
        }
        let without: Vec<usize> = (0..stored.len())
            .filter(|&place| stored.get(place).is_some_and(Vec::is_empty))
            .collect();
        let mut is_read = vec![false; stored.len()];
        for place in super::some_of(&without, MAX_READ) {
            if let Some(is_read) = is_read.get_mut(place) {
                *is_read = true;
            }
        }
        let tile = |place: usize| {
            let source = sources.get(*chosen.get(place)?)?;
            let png = stored.get(place)?;
            if png.is_empty() {
                is_read.get(place).filter(|is_read| **is_read)?;
                of_file(archive, source, side)
            } else {
                of_stored(png, side)
            }
        };
        let mut atlas = Self {
            side,
            columns: N_SIDE,
            n_sheet: N_SIDE * N_SIDE,
            sheets: Vec::new(),
            of: vec![-1; sources.len()],
        };
        let n_readers = archive.reading.n_readers.min(MAX_READERS);
        atlas.fill(&chosen, each(chosen.len(), n_readers, &tile))?;
        Ok(atlas)
    }

    /// Lays pictures on sheets, until the sheets take too much.
    fn fill(&mut self, chosen: &[usize], tiles: Vec<Option<Vec<u8>>>) -> anyhow::Result<()> {
        let there = chosen.iter().zip(tiles);
        let there: Vec<(usize, Vec<u8>)> = there
            .filter_map(|(&idx, tile)| Some((idx, tile?)))
            .collect();
        let mut n_chars = 0;
        for tiles in there.chunks(self.n_sheet) {
            let n_rows = tiles.len().div_ceil(self.columns);
            let (height, width) = (n_rows * self.side, self.columns * self.side);
            let mut pixels = vec![0; height * width * 3];
            for (place, (_, tile)) in tiles.iter().enumerate() {
                let corner = [
                    place / self.columns * self.side,
                    place % self.columns * self.side,
                ];
                paste(tile, self.side, corner, (&mut pixels, width));
            }
            let sheet = jpeg_url(&encode_jpeg(&pixels, [height, width, 3], QUALITY)?);
            n_chars += sheet.len();
            if n_chars > MAX_CHARS {
                break;
            }
            let first = self.sheets.len() * self.n_sheet;
            for (place, (idx, _)) in (first..).zip(tiles) {
                if let (Some(slot), Ok(place)) = (self.of.get_mut(*idx), i64::try_from(place)) {
                    *slot = place;
                }
            }
            self.sheets.push(sheet);
        }
        Ok(())
    }
}

/// Draws `n` pictures on a few threads, in order.
fn each(
    n: usize,
    n_threads: usize,
    tile: &(dyn Fn(usize) -> Option<Vec<u8>> + Sync),
) -> Vec<Option<Vec<u8>>> {
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<Option<Vec<u8>>>> = Mutex::new(vec![None; n]);
    std::thread::scope(|scope| {
        for _ in 0..n_threads.min(n) {
            scope.spawn(|| {
                loop {
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    if place >= n {
                        return;
                    }
                    let drawn = tile(place);
                    let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Some(slot) = done.get_mut(place) {
                        *slot = drawn;
                    }
                }
            });
        }
    });
    done.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn of_file(archive: &Archive, source: &Source<'_>, side: usize) -> Option<Vec<u8>> {
    let options = &archive.reading.options;
    let file = source.cells.file();
    let mut volume = viewer::read(&file, source.cells.part(), options).ok()?;
    viewer::assume_hu(&mut volume, Some(source.cells.get(MODALITY)));
    square(&volume, side)
}

/// Draws the first panel of a picture that a gallery holds.
fn of_stored(png: &[u8], side: usize) -> Option<Vec<u8>> {
    let volume = read_bytes(png, &ReadOptions::default()).ok()?.pop()?;
    square(&first_panel(volume), side)
}

/// Cuts a picture at the first line between panels, along both sides.
fn first_panel(picture: Volume) -> Volume {
    let [n_channels, _, height, width] = picture.shape();
    let values = picture.values();
    let is_line = |x: f32| (x - LINE).abs() < 0.5;
    let at = |y: usize, x: usize| values.get(y * width + x).copied().unwrap_or_default();
    // Panels are at least this large; a line is two pixels wide.
    let first = (1..width).find(|&x| (0..height).all(|y| is_line(at(y, x))));
    let top = (1..height).find(|&y| (0..width).all(|x| is_line(at(y, x))));
    let (new_height, new_width) = (top.unwrap_or(height), first.unwrap_or(width));
    if (new_height, new_width) == (height, width) {
        return picture;
    }
    let mut cut = Vec::with_capacity(n_channels * new_height * new_width);
    for channel in values.chunks_exact(height * width) {
        for row in channel.chunks_exact(width).take(new_height) {
            cut.extend_from_slice(row.get(..new_width).unwrap_or(row));
        }
    }
    match Volume::new(cut, [n_channels, 1, new_height, new_width], Kind::Image) {
        Ok(mut panel) => {
            panel.full_scale = picture.full_scale;
            panel
        }
        Err(_) => picture,
    }
}

/// Draws the middle plane of an object as RGB in a square, centred on black.
fn square(volume: &Volume, side: usize) -> Option<Vec<u8>> {
    let drawn = panics::guard(|| strip(volume, Cut::Depth, 1, side)).ok()?;
    let is_hu = volume.unit == Some("HU");
    let Strip {
        size,
        n_channels,
        frames,
        ..
    } = drawn;
    let frame = frames.first()?;
    let longest = size.into_iter().max()?;
    // Images smaller than a tile are enlarged to fill it.
    let [height, width] = size.map(|length| (length * side / longest.max(1)).max(1));
    let (top, left) = ((side - height) / 2, (side - width) / 2);
    let mut tile = vec![0; side * side * 3];
    for channel in 0..3 {
        let bytes = frame
            .iter()
            .skip(channel.min(n_channels - 1))
            .step_by(n_channels);
        let shares: Vec<f32> = bytes.map(|&byte| share(byte, is_hu)).collect();
        let scaled = resample(&shares, [1, size[0], size[1]], [1, height, width]).ok()?;
        let rows = tile.chunks_exact_mut(side * 3).skip(top);
        for (row, shares) in rows.zip(scaled.chunks_exact(width)) {
            let pixels = row.chunks_exact_mut(3).skip(left);
            for (byte, share) in pixels.filter_map(|rgb| rgb.get_mut(channel)).zip(shares) {
                *byte = level(*share);
            }
        }
    }
    Some(tile)
}

/// Returns a level as a share of white; of CT in the soft-tissue window.
fn share(byte: u8, is_hu: bool) -> f32 {
    if !is_hu {
        return f32::from(byte) / 255.0;
    }
    let [_, (_, low), (_, high), _] = HU_LEVELS;
    f32::from(byte.clamp(low, high) - low) / f32::from(high - low)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to a byte"
)]
fn level(share: f32) -> u8 {
    (share.clamp(0.0, 1.0) * 255.0).round() as u8
}

/// Copies a square into a sheet of `width` pixels.
fn paste(tile: &[u8], side: usize, [top, left]: [usize; 2], (sheet, width): (&mut [u8], usize)) {
    let rows = sheet.chunks_exact_mut(width * 3).skip(top);
    for (out, row) in rows.zip(tile.chunks_exact(side * 3)) {
        if let Some(place) = out.get_mut(left * 3..(left + side) * 3) {
            place.copy_from_slice(row);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sheets_hold_pictures_in_order_and_skip_what_has_none() {
        let mut atlas = Atlas {
            side: 8,
            columns: 2,
            n_sheet: 4,
            of: vec![-1; 6],
            ..Atlas::default()
        };
        let tile = |grey: u8| Some(vec![grey; 8 * 8 * 3]);
        let tiles = vec![tile(10), None, tile(30), tile(40), tile(50), tile(60)];
        atlas.fill(&[0, 1, 2, 3, 4, 5], tiles).unwrap();
        assert_eq!(atlas.of, [0, -1, 1, 2, 3, 4]);
        assert_eq!(atlas.sheets.len(), 2);
        assert!(atlas.sheets[0].starts_with("data:image/jpeg;base64,"));
    }

    #[test]
    fn a_stored_picture_of_a_volume_gives_its_first_panel() {
        let values: Vec<f32> = (0..60_u16).map(f32::from).collect();
        let volume = Volume::new(values, [1, 3, 4, 5], Kind::Volume).unwrap();
        let picture = m3ret_imaging::thumbnail(&volume, 64);
        let read = read_bytes(&picture.png().unwrap(), &ReadOptions::default());
        let panel = first_panel(read.unwrap().pop().unwrap());
        let [_, _, height, width] = panel.shape();
        assert!(width < picture.width / 2 && height <= picture.height);
        assert_eq!(of_stored(&picture.png().unwrap(), 16).unwrap().len(), 768);
        assert!(of_stored(b"nothing", 16).is_none());
    }

    #[test]
    fn small_pictures_fill_their_tile_and_are_centred() {
        let mut image = Volume::new(vec![1.0, 1.0, 0.5, 0.5], [1, 1, 1, 4], Kind::Image).unwrap();
        image.full_scale = Some(1.0);
        let tile = square(&image, 8).unwrap();
        let row = |y: usize| &tile[y * 24..][..24];
        assert!(row(0).iter().all(|&byte| byte == 0));
        assert!(row(3)[0] > 200, "{:?}", row(3));
    }
}
