//! Siemens mosaics: the slices of one volume as tiles of one picture, row by row.
//!
//! The number of tiles and the side on which the next slice lies are known from private elements
//! alone. Nothing is cut where they are missing.
//!
//! # Source
//! nibabel documents the layout of the element (0029,xx10), and that the position is that of a slice
//! as large as the whole mosaic.

mod csa;

use dicom_core::Tag;
use dicom_dictionary_std::tags;

use super::dataset::DataSet;
use crate::error::{Error, Result};
use crate::geometry::{cross, dot, unit};
use crate::memory;
use crate::reason::Code;
use crate::stack::Plane;

const FORMAT: &str = "dicom";

/// How a mosaic is cut.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Mosaic {
    /// Slices.
    pub(crate) n_tiles: usize,
    /// Rows and columns of a tile.
    pub(crate) tile: [usize; 2],
    n_across: usize,
    normal: Option<[f64; 3]>,
}

/// Returns true for a picture that Siemens calls a mosaic. Enhanced objects keep the word and hold
/// one slice a frame.
pub(crate) fn is_mosaic(set: &DataSet<'_>) -> bool {
    let is_named = set
        .text(tags::IMAGE_TYPE)
        .is_some_and(|kinds| kinds.split('\\').any(|kind| kind.trim() == "MOSAIC"));
    let groups = [
        tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE,
        tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE,
    ];
    is_named && !groups.iter().any(|&tag| set.has(tag))
}

impl Mosaic {
    /// Finds the tiles of a picture with `sides` `[rows, columns]`; `None` if it is no mosaic, or
    /// one of a single tile.
    ///
    /// # Errors
    /// `Unsupported` if the number of tiles is not stated, is stated twice and differently, or does
    /// not divide the picture.
    pub(crate) fn of(set: &DataSet<'_>, sides: [usize; 2]) -> Result<Option<Self>> {
        if !is_mosaic(set) {
            return Ok(None);
        }
        let header = private(set, 0x0029, "SIEMENS CSA HEADER", 0x10);
        let header = header.and_then(|tag| set.bytes(tag)).unwrap_or(&[]);
        let by_header = csa::numbers(header, "NumberOfImagesInMosaic")
            .and_then(|numbers| numbers.first().copied())
            .and_then(whole);
        let by_element = private(set, 0x0019, "SIEMENS MR HEADER", 0x0a)
            .and_then(|tag| set.u16(tag))
            .map(usize::from);
        let positive = |n: &usize| *n > 0;
        let (by_header, by_element) = (by_header.filter(positive), by_element.filter(positive));
        let n_tiles = match (by_element, by_header) {
            (Some(a), Some(b)) if a != b => {
                return Err(refused(&format!("that states {a} and {b} tiles")));
            }
            (Some(n), _) | (None, Some(n)) => n,
            (None, None) => return Err(refused("that does not state its number of tiles")),
        };
        if n_tiles == 1 {
            return Ok(None);
        }
        let n_across = n_tiles.isqrt() + usize::from(n_tiles.isqrt().pow(2) < n_tiles);
        let [rows, columns] = sides;
        if !rows.is_multiple_of(n_across) || !columns.is_multiple_of(n_across) {
            let found = format!("of {rows} x {columns} pixels that {n_tiles} tiles do not divide");
            return Err(refused(&found));
        }
        let normal = csa::numbers(header, "SliceNormalVector");
        Ok(Some(Self {
            n_tiles,
            tile: [rows / n_across, columns / n_across],
            n_across,
            normal: normal.and_then(|numbers| numbers.try_into().ok()),
        }))
    }

    /// Cuts pictures into their tiles.
    ///
    /// # Shapes
    /// `[C, 1, rows, columns]` -> `[C, tiles, tile rows, tile columns]`.
    pub(crate) fn cut(&self, pictures: &[f32]) -> Result<Vec<f32>> {
        let [height, width] = self.tile;
        let columns = width * self.n_across;
        let mut values = memory::with_capacity(pictures.len())?;
        for picture in pictures.chunks_exact(columns * height * self.n_across) {
            for tile in 0..self.n_tiles {
                let (down, across) = (tile / self.n_across, tile % self.n_across);
                let first = down * height * columns + across * width;
                for row in 0..height {
                    let start = first + row * columns;
                    values.extend_from_slice(picture.get(start..start + width).unwrap_or_default());
                }
            }
        }
        Ok(values)
    }

    /// Moves the plane of a mosaic to its first slice: the stated position is that of a slice of
    /// the mosaic's size around the same centre.
    pub(crate) fn first_plane(&self, mosaic: Plane) -> Plane {
        let mut plane = mosaic;
        let beside = (self.n_across - 1) as f64 / 2.0;
        let [height, width] = self.tile.map(|side| side as f64 * beside);
        let [spacing_h, spacing_w] = mosaic.spacing_mm;
        let along = mosaic.along_w.iter().zip(mosaic.along_h);
        for (position, (w, h)) in plane.position.iter_mut().zip(along) {
            *position += w * spacing_w * width + h * spacing_h * height;
        }
        plane
    }

    /// Returns true if the header says to which side of a slice the next one lies.
    pub(crate) fn is_directed(&self) -> bool {
        self.normal.is_some()
    }

    /// Returns the step from a slice to the next one in mm, in the direction that the header
    /// states, else along the normal of the plane.
    ///
    /// # Errors
    /// `Malformed` with `bad_geometry` if the stated direction is not that of the normal.
    pub(crate) fn step(&self, plane: &Plane, distance_mm: f64) -> Result<[f64; 3]> {
        let normal = unit(cross(plane.along_w, plane.along_h));
        let cosine = self.normal.map_or(1.0, |stated| dot(unit(stated), normal));
        // Both are written as rounded text.
        if cosine.abs() < 0.99 || !cosine.is_finite() {
            return Err(Error::refused(
                FORMAT,
                Code::BadGeometry,
                "a Siemens mosaic whose SliceNormalVector is not perpendicular to its slices",
                "the same direction in both",
            ));
        }
        Ok(normal.map(|x| x * distance_mm * cosine.signum()))
    }
}

/// Finds a private element by its creator's name; in the usual block where no creator is left.
fn private(set: &DataSet<'_>, group: u16, creator: &str, element: u16) -> Option<Tag> {
    let blocks = 0x10..=0xff;
    let named = |block: &u16| {
        set.text(Tag(group, *block))
            .is_some_and(|name| name == creator)
    };
    let is_unnamed = blocks.clone().all(|block| !set.has(Tag(group, block)));
    let block = blocks.clone().find(named).or(is_unnamed.then_some(0x10))?;
    Some(Tag(group, block << 8 | element))
}

fn whole(number: f64) -> Option<usize> {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to be a small whole number"
    )]
    (number.fract() == 0.0 && (1.0..=65_535.0).contains(&number)).then_some(number as usize)
}

fn refused(found: &str) -> Error {
    let advice = "convert the series with a tool that knows it, e.g. dcm2niix";
    Error::unsupported(FORMAT, format!("a Siemens mosaic {found}"), advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mosaic(n_tiles: usize, n_across: usize, tile: [usize; 2]) -> Mosaic {
        Mosaic {
            n_tiles,
            tile,
            n_across,
            normal: None,
        }
    }

    #[test]
    fn tiles_are_cut_row_by_row() {
        let picture: Vec<f32> = (0_u8..24).map(f32::from).collect();
        // 2 x 2 tiles of 2 x 3; the fourth is empty.
        let cut = mosaic(3, 2, [2, 3]).cut(&picture).unwrap();
        assert_eq!(cut[..6], [0.0, 1.0, 2.0, 6.0, 7.0, 8.0]);
        assert_eq!(cut[6..12], [3.0, 4.0, 5.0, 9.0, 10.0, 11.0]);
        assert_eq!(cut[12..], [12.0, 13.0, 14.0, 18.0, 19.0, 20.0]);
    }

    #[test]
    fn the_first_slice_lies_around_the_centre_of_the_mosaic() {
        let orientation = [0.0, 1.0, 0.0, 0.0, 0.0, -1.0];
        let plane = Plane::new(orientation, [5.0, -10.0, 20.0], [2.0, 0.5]).unwrap();
        let first = mosaic(7, 3, [4, 6]).first_plane(plane);
        // One tile down and across: 6 columns of 0.5 mm along y, 4 rows of 2 mm along -z.
        let off = first.position.iter().zip([5.0, -7.0, 12.0]);
        assert!(off.into_iter().all(|(a, b)| (a - b).abs() < 1e-12));
    }

    #[test]
    fn the_stated_normal_decides_the_side_and_must_be_one() {
        let orientation = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0];
        let plane = Plane::new(orientation, [0.0; 3], [1.0; 2]).unwrap();
        let step = |normal| {
            let mosaic = Mosaic {
                normal,
                ..mosaic(4, 2, [1, 1])
            };
            mosaic.step(&plane, 3.0).ok()
        };
        assert_eq!(step(None), Some([0.0, 0.0, 3.0]));
        assert_eq!(step(Some([0.0, 0.0, -1.0])), Some([0.0, 0.0, -3.0]));
        for normal in [[0.0; 3], [1.0, 0.0, 0.0], [f64::NAN, 0.0, 1.0]] {
            assert_eq!(step(Some(normal)), None);
        }
    }
}
