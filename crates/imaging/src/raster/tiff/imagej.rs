//! The description that `ImageJ` and `tifffile` write: which axes the pages run along.
//!
//! # Source
//! `ImageJ`'s public file format: `key=value` lines after `ImageJ=`; pages in the order channel,
//! slice, frame. Only numbers and the unit are read; labels and notes are never looked at.

use super::FORMAT;
use super::directory::{Directory, tag};
use crate::error::{Error, Result};
use crate::reason::Code;
use crate::volume::{Kind, Volume};

/// Page numbers of one `Volume` and the name of its part.
pub(super) type Group = (Option<String>, Vec<usize>);

/// Axes and distances of a stack.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Stack {
    /// All pages of the file, also those without a directory.
    pub(super) n_pages: usize,
    n_channels: usize,
    n_slices: usize,
    n_frames: usize,
    /// Distance of slices, rows and columns in mm.
    spacing_mm: [Option<f64>; 3],
    frame_interval_s: Option<f64>,
}

impl Stack {
    /// Reads the description of the first page; `None` if another program wrote the file.
    ///
    /// # Errors
    /// `Unsupported` if the description speaks of more images than one file of pages can hold.
    pub(super) fn of(directory: &Directory<'_>) -> Result<Option<Self>> {
        let description = directory.bytes(tag::DESCRIPTION).unwrap_or_default();
        if !description.starts_with(b"ImageJ=") {
            return Ok(None);
        }
        // A few hundred bytes in practice; Latin-1 or UTF-8, ASCII in all we read.
        let text = String::from_utf8_lossy(description.get(..65_536).unwrap_or(description));
        let text = text.trim_end_matches('\0');
        let field = |name: &str| {
            text.lines()
                .filter_map(|line| line.split_once('='))
                .find(|(key, _)| *key == name)
        };
        let count = |name| field(name).and_then(|(_, value)| value.trim().parse::<usize>().ok());
        let number = |name| {
            let value = field(name).and_then(|(_, value)| value.trim().parse::<f64>().ok());
            value.filter(|value| value.is_finite() && *value > 0.0)
        };
        let unit_mm = field("unit").and_then(|(_, unit)| unit_in_mm(unit.trim()));
        let pixel = |name| {
            let per_unit = directory.rational(name).filter(|&per_unit| per_unit > 0.0);
            Some(unit_mm? / per_unit?)
        };
        let n_pages = count("images").unwrap_or(1);
        let (n_channels, n_frames) = (count("channels").unwrap_or(1), count("frames").unwrap_or(1));
        Ok(Some(Self {
            n_pages,
            n_channels,
            n_slices: count("slices").unwrap_or(if n_channels * n_frames == 1 {
                n_pages
            } else {
                1
            }),
            n_frames,
            spacing_mm: [
                unit_mm
                    .zip(number("spacing"))
                    .map(|(unit, spacing)| unit * spacing),
                pixel(tag::Y_RESOLUTION),
                pixel(tag::X_RESOLUTION),
            ],
            frame_interval_s: number("finterval"),
        }))
    }

    /// Splits pages into one `Volume` a channel, and one a frame where there are slices as well.
    ///
    /// # Errors
    /// `Malformed` if the axes do not multiply to the number of pages.
    pub(super) fn group(&self, n_pages: usize) -> Result<Vec<Group>> {
        let product = self
            .n_channels
            .checked_mul(self.n_slices)
            .and_then(|product| product.checked_mul(self.n_frames));
        if product != Some(n_pages) || self.n_pages != n_pages {
            let found = format!("{n_pages} pages");
            let wanted = "as many as ImageJ's channels x slices x frames";
            return Err(Error::malformed(FORMAT, found, wanted));
        }
        // Frames alone are a film; frames of slices are several volumes.
        let film = self.n_slices == 1;
        let n_times = if film { 1 } else { self.n_frames };
        let mut groups = Vec::new();
        for time in 0..n_times {
            for channel in 0..self.n_channels {
                let depth = if film { self.n_frames } else { self.n_slices };
                let first = channel + time * self.n_slices * self.n_channels;
                let members = (0..depth).map(|d| first + d * self.n_channels).collect();
                let mut part = Vec::new();
                if self.n_channels > 1 {
                    part.push(format!("channel={channel}"));
                }
                if n_times > 1 {
                    part.push(format!("t={time}"));
                }
                groups.push(((!part.is_empty()).then(|| part.join(",")), members));
            }
        }
        Ok(groups)
    }

    /// Writes kind and spacing, and notes what is not known.
    pub(super) fn describe(&self, volume: &mut Volume) {
        let [slice, row, column] = self.spacing_mm;
        let [_, n_depth, _, _] = volume.shape();
        volume.spacing = [slice, row, column];
        if n_depth == 1 {
            volume.kind = Kind::Image;
            volume.spacing = [None, row, column];
        } else if self.n_slices == 1 {
            volume.kind = Kind::Video;
            volume.spacing = [self.frame_interval_s, row, column];
        } else if slice.is_none() {
            volume.note(Code::StackAxisUnknown, "slices without a distance");
        }
    }
}

/// Returns one unit in mm, for the spellings that `ImageJ` uses.
fn unit_in_mm(unit: &str) -> Option<f64> {
    match unit {
        "mm" | "millimeter" => Some(1.0),
        "cm" => Some(10.0),
        "m" => Some(1000.0),
        "um" | "\u{b5}m" | "\u{3bc}m" | "\\u00B5m" | "micron" | "microns" | "micrometer" => {
            Some(1e-3)
        }
        "nm" => Some(1e-6),
        "inch" => Some(25.4),
        _ => None,
    }
}
