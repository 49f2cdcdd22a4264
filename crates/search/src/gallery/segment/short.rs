//! The short codes of a segment, where its vectors have any.

use std::ops::Range;

use super::{Segment, ShortPlaces};
use crate::error::Result;
use crate::kernels::ShortBlocks;
use crate::partition::Directions;
use crate::short::{BASIS, Basis, CODES, SCALES, SUMS, ShortCodes, is_length, n_in_blocks};

/// What queries are compared with by short codes.
#[derive(Debug)]
pub(crate) struct Short {
    pub(crate) basis: Basis,
    /// The centroids of the lists in the directions of the basis.
    pub(crate) directions: Directions,
}

impl Segment {
    /// Finds the arrays of short codes, and checks their lengths.
    pub(super) fn short_places(&self) -> Result<Option<ShortPlaces>> {
        let Some(basis) = self.places.get(BASIS) else {
            return Ok(None);
        };
        let n_short = basis.len() / (4 * self.width);
        if !is_length(n_short) {
            return Err(self.damaged(format!("short codes of {n_short} numbers")));
        }
        let n_rows = n_in_blocks(self.n_vectors);
        self.check_length(BASIS, n_short * self.width, 4)?;
        self.check_length(CODES, n_rows, n_short)?;
        self.check_length(SUMS, n_rows, 4)?;
        self.check_length(SCALES, n_rows, 4)?;
        Ok(Some(ShortPlaces {
            n_short,
            codes: self.place(CODES)?.clone(),
            sums: self.place(SUMS)?.clone(),
            scales: self.place(SCALES)?.clone(),
        }))
    }

    /// Returns the directions of the short codes; `None` if there are none.
    pub(crate) fn short(&self) -> Result<Option<&Short>> {
        let Some(places) = &self.hot.short else {
            return Ok(None);
        };
        if let Some(short) = self.short.get() {
            return Ok(Some(short));
        }
        let n_short = places.n_short;
        let basis = Basis::new(self.numbers(BASIS, 0..n_short * self.width)?, self.width);
        let centroids = basis.project(self.centroids()?);
        let made = Short {
            directions: Directions::new(&centroids, n_short),
            basis,
        };
        Ok(Some(self.short.get_or_init(|| made)))
    }

    /// Returns the short codes of some rows in whole blocks; empty if there are none.
    pub(crate) fn short_blocks(&self, rows: Range<usize>) -> Result<ShortBlocks<'_>> {
        let Some(places) = &self.hot.short else {
            return Ok(ShortBlocks::default());
        };
        let codes = rows.start * places.n_short..rows.end * places.n_short;
        Ok(ShortBlocks {
            codes: self.numbers_at(&places.codes, codes)?,
            sums: self.numbers_at(&places.sums, rows.clone())?,
            scales: self.numbers_at(&places.scales, rows)?,
        })
    }

    /// Says whether the short codes are these.
    pub(crate) fn has_short_codes(&self, codes: &ShortCodes) -> Result<bool> {
        let stored = self.short_blocks(0..n_in_blocks(self.n_vectors))?;
        Ok(stored.codes == codes.codes
            && stored.sums == codes.sums
            && stored.scales == codes.scales)
    }
}
