//! What is measured on a gallery's own images, and kept with it.

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::agreement::Agreements;
use crate::collection::Collection;
use crate::error::Result;
use crate::names::BODY_PART;

/// What is known of searches in one gallery.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statistics {
    /// How often first hits agree with their queries, by column: `body_part`.
    #[serde(default)]
    pub agreements: Vec<Agreements>,
    /// Samples of scores that an older m3ret took instead; nothing reads them.
    #[serde(default, skip_serializing)]
    pairs: IgnoredAny,
}

impl Statistics {
    /// Measures the columns that searches ask for without being told.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn measure(collection: &dyn Collection) -> Result<Self> {
        let mut measured = Self::default();
        if collection.columns().contains(&BODY_PART) {
            measured
                .agreements
                .push(Agreements::measure(collection, BODY_PART)?);
        }
        Ok(measured)
    }

    /// Returns what was measured of a column; `None` if nothing was.
    #[must_use]
    pub fn of(&self, column: &str) -> Option<&Agreements> {
        self.agreements
            .iter()
            .find(|agreements| agreements.column == column)
    }
}
