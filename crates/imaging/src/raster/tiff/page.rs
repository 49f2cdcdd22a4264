//! One page: what its tags say, checked once, and its pixels.

use super::codec::{Codec, Packed};
use super::directory::{Directory, tag};
use super::sample::{Encoding, unpack};
use super::{FORMAT, truncated};
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::raster::picture::{Interleaved, Picture};

/// What the samples of a pixel mean.
#[derive(Debug, Clone, PartialEq)]
enum Color {
    Grey,
    Rgb,
    /// 256 * 3 or fewer reds, then greens, then blues, 0..=255.
    Palette(Vec<f32>),
    /// Inks: 0 is paper.
    Cmyk,
}

/// The rectangles, row by row, in which pixels are stored: strips are tiles as wide as the image.
#[derive(Debug, Clone, PartialEq)]
struct Chunks {
    width: u64,
    height: u64,
    n_across: u64,
    n_down: u64,
    /// Strips end with the image; tiles are always whole.
    padded: bool,
    offsets: Vec<u64>,
    n_bytes: Vec<u64>,
}

/// The checked description of one page.
#[derive(Debug, Clone)]
pub(super) struct Page<'a> {
    bytes: &'a [u8],
    width: u64,
    height: u64,
    n_samples: u64,
    /// 1 where samples of a pixel lie together, `n_samples` where each has its own chunks.
    n_planes: u64,
    encoding: Encoding,
    color: Color,
    /// True if 0 is to be shown white.
    pub(super) white_is_zero: bool,
    orientation: u8,
    codec: Codec<'a>,
    chunks: Chunks,
}

impl<'a> Page<'a> {
    /// Checks the tags of one directory.
    pub(super) fn new(bytes: &'a [u8], directory: &Directory<'a>) -> Result<Self> {
        let side = |name, what: &str| -> Result<u64> {
            directory
                .uint(name)?
                .filter(|&side| side > 0 && u32::try_from(side).is_ok())
                .ok_or_else(|| {
                    Error::malformed(FORMAT, format!("no usable {what}"), "1 to 4294967295")
                })
        };
        let (width, height) = (side(tag::WIDTH, "width")?, side(tag::LENGTH, "height")?);
        let n_samples = directory.uint(tag::SAMPLES_PER_PIXEL)?.unwrap_or(1);
        let n_planes = match directory.uint(tag::PLANAR)?.unwrap_or(1) {
            2 => n_samples,
            _ => 1,
        };
        let encoding = Encoding::new(directory)?;
        let photometric = directory
            .uint(tag::PHOTOMETRIC)?
            .unwrap_or(u64::from(n_samples >= 3) * 2);
        let color = color(directory, photometric, n_samples, encoding)?;
        let codec = Codec::new(directory, photometric)?;
        let chunks = Chunks::new(directory, width, height, n_planes)?;
        let orientation = directory
            .uint(tag::ORIENTATION)?
            .and_then(|o| u8::try_from(o).ok());
        Ok(Self {
            bytes,
            width,
            height,
            n_samples,
            n_planes,
            encoding,
            color,
            white_is_zero: photometric == 0,
            orientation: orientation.unwrap_or(1),
            codec,
            chunks,
        })
    }

    /// Returns this page and those that lie behind it without a directory, `n_pages` in all; `None`
    /// if its own pixels are compressed or lie in more than one piece, or if something else lies
    /// where the others would be.
    ///
    /// # Errors
    /// `Malformed` with `truncated` if the file ends before the last page.
    pub(super) fn followed_by(
        &self,
        n_pages: usize,
        directory: &Directory<'a>,
    ) -> Result<Option<Vec<Self>>> {
        let Some(&first) = self.chunks.offsets.first() else {
            return Ok(None);
        };
        if n_pages < 2 || self.chunks.padded || !self.codec.is_plain() {
            return Ok(None);
        }
        let mut end = Some(first);
        for (index, &offset) in self.chunks.offsets.iter().enumerate() {
            if Some(offset) != end {
                return Ok(None);
            }
            let place = self.chunks.place(index as u64, self.width, self.height);
            end = offset.checked_add(self.packed(&place)?.n_bytes() as u64);
        }
        let page_bytes = end.map_or(u64::MAX, |end| end - first);
        let stack_bytes = page_bytes.saturating_mul(n_pages as u64);
        if directory.overlaps(first, first.saturating_add(stack_bytes)) {
            return Ok(None);
        }
        if stack_bytes > (self.bytes.len() as u64).saturating_sub(first) {
            return Err(truncated("the last page of its stack"));
        }
        // One strip a plane: a page of many strips would take memory for each of them.
        let plane_bytes = page_bytes / self.n_planes.max(1);
        let page = |index: u64| Self {
            chunks: Chunks {
                width: self.width,
                height: self.height,
                n_across: 1,
                n_down: 1,
                padded: false,
                offsets: (0..self.n_planes)
                    .map(|plane| first + page_bytes * index + plane_bytes * plane)
                    .collect(),
                n_bytes: (0..self.n_planes).map(|_| plane_bytes).collect(),
            },
            ..self.clone()
        };
        Ok(Some((0..n_pages as u64).map(page).collect()))
    }

    /// Returns true if the two pages can lie in one stack.
    pub(super) fn has_layout_of(&self, other: &Self) -> bool {
        let layout = |page: &Self| {
            let [.., height, width] = page.shape(1);
            (
                height,
                width,
                page.n_channels(),
                page.encoding,
                page.white_is_zero,
            )
        };
        layout(self) == layout(other)
    }

    /// Returns `[C, n_depth, H, W]`, upright.
    pub(super) fn shape(&self, n_depth: u64) -> [u64; 4] {
        let (height, width) = if matches!(self.orientation, 5..=8) {
            (self.width, self.height)
        } else {
            (self.height, self.width)
        };
        [self.n_channels(), n_depth, height, width]
    }

    /// Returns true if a sample beyond the colours is stored.
    pub(super) fn has_alpha(&self) -> bool {
        self.n_samples > self.n_color_samples()
    }

    /// Returns true if pixels are stored as JPEG.
    pub(super) fn is_jpeg(&self) -> bool {
        self.codec.is_jpeg()
    }

    /// Returns how many bytes all chunks decode to, padding included.
    pub(super) fn n_decoded_bytes(&self) -> u64 {
        let (width, height) = (
            self.chunks.width,
            self.chunks.height.min(self.height.max(1)),
        );
        let height = if self.chunks.padded {
            self.chunks.height
        } else {
            height
        };
        let n_chunks = self.chunks.n_across.saturating_mul(self.chunks.n_down);
        let samples = n_chunks
            .saturating_mul(width)
            .saturating_mul(height)
            .saturating_mul(self.n_samples);
        samples
            .saturating_mul(self.encoding.bits.into())
            .div_ceil(8)
            .saturating_add(
                // Rows are padded to whole bytes.
                n_chunks
                    .saturating_mul(height)
                    .saturating_mul(self.n_planes),
            )
    }

    fn n_channels(&self) -> u64 {
        if self.color == Color::Grey { 1 } else { 3 }
    }

    fn n_color_samples(&self) -> u64 {
        match self.color {
            Color::Grey | Color::Palette(_) => 1,
            Color::Rgb => 3,
            Color::Cmyk => 4,
        }
    }

    /// Decodes the pixels; the caller has charged `n_decoded_bytes` and `shape`.
    pub(super) fn read(&self, limits: &Limits) -> Result<Picture> {
        let stored = self.read_samples(limits)?;
        let layout = Interleaved {
            height: usize_of(self.height)?,
            width: usize_of(self.width)?,
            n_stored: usize_of(self.n_samples)?,
            n_kept: usize_of(self.n_color_samples().min(3))?,
            orientation: self.orientation,
        };
        let mut planes = Vec::new();
        match &self.color {
            // Upright single samples are planes already.
            Color::Grey if self.n_samples == 1 && !matches!(self.orientation, 2..=8) => {
                planes = stored;
            }
            Color::Grey | Color::Rgb => layout.extend_planes(&mut planes, &stored, |v| v)?,
            Color::Palette(map) => {
                let n_colors = map.len() / 3;
                for channel in map.chunks(n_colors.max(1)) {
                    let look_up = |value: f32| channel.get(palette_index(value)).copied();
                    layout.extend_planes(&mut planes, &stored, |v| look_up(v).unwrap_or(0.0))?;
                }
            }
            Color::Cmyk => {
                let rgb = cmyk_into_rgb(&stored, layout.n_stored);
                let layout = Interleaved {
                    n_stored: 3,
                    ..layout
                };
                layout.extend_planes(&mut planes, &rgb, |v| v)?;
            }
        }
        let (height, width) = layout.upright();
        Ok(Picture {
            planes,
            n_channels: usize_of(self.n_channels())?,
            height,
            width,
            full_scale: match self.color {
                Color::Palette(_) | Color::Cmyk => Some(255.0),
                Color::Rgb => self.encoding.full_scale().or(Some(1.0)),
                Color::Grey => self.encoding.full_scale(),
            },
            alpha_dropped: self.has_alpha(),
            lossy: None,
        })
    }

    /// Decodes all chunks into `[H, W, n_samples]`, stored order.
    fn read_samples(&self, limits: &Limits) -> Result<Vec<f32>> {
        let total = self
            .width
            .checked_mul(self.height)
            .and_then(|n| n.checked_mul(self.n_samples));
        let mut samples = vec![0.0; limits.voxels([1, 1, 1, total.unwrap_or(u64::MAX)])?];
        let widen = matches!(self.color, Color::Grey);
        let mut decoded = Vec::new();
        for (index, (&offset, &n_bytes)) in self
            .chunks
            .offsets
            .iter()
            .zip(&self.chunks.n_bytes)
            .enumerate()
        {
            let place = self.chunks.place(index as u64, self.width, self.height);
            let raw = slice(self.bytes, offset, n_bytes)?;
            let packed = self.packed(&place)?;
            let bytes = self.codec.decode(raw, &packed, limits)?;
            decoded.clear();
            unpack(&mut decoded, &bytes, &packed, widen)?;
            self.copy_chunk(&mut samples, &decoded, &place)?;
        }
        Ok(samples)
    }

    /// Returns the shape of a chunk as it leaves the codec.
    fn packed(&self, place: &Place) -> Result<Packed> {
        Ok(Packed {
            width: usize_of(self.chunks.width)?,
            height: usize_of(place.n_stored_rows)?,
            n_samples: usize_of(self.n_samples / self.n_planes)?,
            encoding: self.encoding,
        })
    }

    /// Copies the part of a chunk that lies inside the image to its place.
    fn copy_chunk(&self, samples: &mut [f32], decoded: &[f32], place: &Place) -> Result<()> {
        let n_stored = usize_of(self.n_samples)?;
        let n_together = usize_of(self.n_samples / self.n_planes)?;
        let plane = usize_of(place.plane)?;
        let (width, chunk_width) = (usize_of(self.width)?, usize_of(self.chunks.width)?);
        let (left, n_columns) = (usize_of(place.left)?, usize_of(place.n_columns)?);
        let top = usize_of(place.top)?;
        let rows = decoded
            .chunks(chunk_width * n_together)
            .take(usize_of(place.n_rows)?);
        for (y, row) in rows.enumerate() {
            let start = ((top + y) * width + left) * n_stored;
            let target = samples
                .get_mut(start..start + n_columns * n_stored)
                .ok_or_else(|| truncated("a chunk's rows"))?;
            if n_together == n_stored {
                let row = row
                    .get(..target.len())
                    .ok_or_else(|| truncated("a chunk's rows"))?;
                target.copy_from_slice(row);
            } else {
                for (pixel, &value) in target.chunks_mut(n_stored).zip(row) {
                    if let Some(slot) = pixel.get_mut(plane) {
                        *slot = value;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Where one chunk lies in the image.
struct Place {
    plane: u64,
    left: u64,
    top: u64,
    n_columns: u64,
    n_rows: u64,
    n_stored_rows: u64,
}

impl Chunks {
    /// Checks how an image of `width` x `height` pixels is cut.
    fn new(directory: &Directory<'_>, width: u64, height: u64, n_planes: u64) -> Result<Self> {
        let tile_width = directory.uint(tag::TILE_WIDTH)?;
        let padded = tile_width.is_some();
        let (chunk, offsets, counts) = match tile_width {
            Some(tile_width) => (
                (tile_width, directory.uint(tag::TILE_LENGTH)?.unwrap_or(0)),
                directory
                    .uints(tag::TILE_OFFSETS)?
                    .or(directory.uints(tag::STRIP_OFFSETS)?),
                directory
                    .uints(tag::TILE_BYTE_COUNTS)?
                    .or(directory.uints(tag::STRIP_BYTE_COUNTS)?),
            ),
            None => (
                (
                    width,
                    directory
                        .uint(tag::ROWS_PER_STRIP)?
                        .unwrap_or(height)
                        .min(height),
                ),
                directory.uints(tag::STRIP_OFFSETS)?,
                directory.uints(tag::STRIP_BYTE_COUNTS)?,
            ),
        };
        let legal = |side: u64| side > 0 && u32::try_from(side).is_ok();
        let (Some(mut offsets), true, true) = (offsets, legal(chunk.0), legal(chunk.1)) else {
            return Err(Error::malformed(
                FORMAT,
                "no usable strips or tiles",
                "their sizes",
            ));
        };
        let (n_across, n_down) = (width.div_ceil(chunk.0), height.div_ceil(chunk.1));
        // Each factor is below 2^32 and n_planes below 2^64 / 2^64: saturate, then compare.
        let n_chunks = n_across.saturating_mul(n_down).saturating_mul(n_planes);
        // Uncompressed files of old writers leave the sizes out; any codec stops by itself.
        let mut n_bytes = counts.unwrap_or_else(|| vec![u64::MAX; offsets.len()]);
        if (offsets.len() as u64) < n_chunks || (n_bytes.len() as u64) < n_chunks {
            let found = format!("{} strips or tiles", offsets.len().min(n_bytes.len()));
            return Err(Error::malformed(FORMAT, found, n_chunks.to_string()));
        }
        offsets.truncate(usize_of(n_chunks)?);
        n_bytes.truncate(usize_of(n_chunks)?);
        Ok(Self {
            width: chunk.0,
            height: chunk.1,
            n_across,
            n_down,
            padded,
            offsets,
            n_bytes,
        })
    }

    /// Returns where a chunk lies in an image of `width` x `height` pixels.
    fn place(&self, index: u64, width: u64, height: u64) -> Place {
        let per_plane = self.n_across * self.n_down;
        let (plane, index) = (index / per_plane, index % per_plane);
        let left = index % self.n_across * self.width;
        let top = index / self.n_across * self.height;
        let n_rows = self.height.min(height.saturating_sub(top));
        Place {
            plane,
            left,
            top,
            n_columns: self.width.min(width.saturating_sub(left)),
            n_rows,
            n_stored_rows: if self.padded { self.height } else { n_rows },
        }
    }
}

fn color(
    directory: &Directory<'_>,
    photometric: u64,
    n_samples: u64,
    encoding: Encoding,
) -> Result<Color> {
    let n_extra = directory
        .uints(tag::EXTRA_SAMPLES)?
        .map_or(0, |extra| extra.len() as u64);
    let is_jpeg = directory.uint(tag::COMPRESSION)? == Some(7);
    let unsupported = |what: String| {
        Err(Error::unsupported(
            FORMAT,
            what,
            "convert it to grey or RGB without further channels",
        ))
    };
    match (photometric, n_samples) {
        (0 | 1, 1) => Ok(Color::Grey),
        (0 | 1, 2) if n_extra == 1 => Ok(Color::Grey),
        (2, 3 | 4) => Ok(Color::Rgb),
        (3, 1 | 2) => Ok(Color::Palette(palette(directory, encoding)?)),
        (5, 4 | 5) if encoding.is_u8() && !is_jpeg => Ok(Color::Cmyk),
        // The JPEG decoder turns it into RGB.
        (6, 3) if is_jpeg => Ok(Color::Rgb),
        (0 | 1 | 2 | 3 | 5 | 6, n) => unsupported(format!(
            "photometric interpretation {photometric} of {n} samples"
        )),
        (other, _) => unsupported(format!("photometric interpretation {other}")),
    }
}

/// Reads the colour map: 16 bits a value, of which the upper 8 are used, as other readers do.
fn palette(directory: &Directory<'_>, encoding: Encoding) -> Result<Vec<f32>> {
    let map = directory.uints(tag::COLOR_MAP)?.unwrap_or_default();
    let wanted = 3_usize << encoding.bits.min(16);
    if map.len() != wanted || !encoding.is_unsigned() || encoding.bits > 8 {
        let found = format!(
            "a colour map of {} values, {} bits",
            map.len(),
            encoding.bits
        );
        return Err(Error::malformed(
            FORMAT,
            found,
            "3 * 2^bits values, at most 8 bits",
        ));
    }
    // Some writers stored 8-bit values by mistake; libtiff tells them apart in the same way.
    let shift = if map.iter().any(|&value| value > 255) {
        8
    } else {
        0
    };
    Ok(map
        .iter()
        .map(|&value| f32::from(u8::try_from(value >> shift).unwrap_or(255)))
        .collect())
}

/// Palette indices are small whole numbers that went through f32.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "whole and <= 255"
)]
fn palette_index(value: f32) -> usize {
    value as usize
}

/// Mixes inks 0..=255 (0 is paper) into 0..=255 RGB.
fn cmyk_into_rgb(samples: &[f32], n_stored: usize) -> Vec<f32> {
    let mut rgb = Vec::with_capacity(samples.len() / n_stored.max(1) * 3);
    for pixel in samples.chunks(n_stored.max(1)) {
        if let Some([c, m, y, k]) = pixel.first_chunk::<4>() {
            rgb.extend([c, m, y].map(|ink| ((255.0 - ink) * (255.0 - k) / 255.0).round()));
        }
    }
    rgb
}

fn slice(bytes: &[u8], offset: u64, n_bytes: u64) -> Result<&[u8]> {
    let start = usize::try_from(offset).ok();
    let rest = start
        .and_then(|start| bytes.get(start..))
        .ok_or_else(|| truncated("its pixels"))?;
    if n_bytes == u64::MAX {
        return Ok(rest);
    }
    let n_bytes = usize::try_from(n_bytes).ok();
    n_bytes
        .and_then(|n| rest.get(..n))
        .ok_or_else(|| truncated("its pixels"))
}

fn usize_of(value: u64) -> Result<usize> {
    usize::try_from(value).map_err(|_| Error::LimitExceeded {
        what: "side of an image in pixels",
        allowed: usize::MAX as u64,
        asked: value,
    })
}
