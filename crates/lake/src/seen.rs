//! Rows that were read lately: one search asks several times for what a hit is.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Rows that are kept.
const MAX_ROWS: usize = 4096;

/// What a row holds, but for attachments.
#[derive(Debug, Default)]
pub(crate) struct SeenRow {
    pub(crate) id: String,
    /// One for each column of the lake, in their order.
    pub(crate) cells: Vec<String>,
    /// The row's own vector, if it was read.
    pub(crate) vector: Option<Vec<f32>>,
}

/// Rows of one version by their addresses.
#[derive(Debug, Default)]
pub(crate) struct Seen(Mutex<HashMap<u64, Arc<SeenRow>>>);

impl Seen {
    pub(crate) fn get(&self, address: u64) -> Option<Arc<SeenRow>> {
        let rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rows.get(&address).cloned()
    }

    /// Keeps a row, in place of what is known of it without its vector.
    pub(crate) fn keep(&self, address: u64, row: &Arc<SeenRow>) {
        let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if rows.len() >= MAX_ROWS {
            rows.clear();
        }
        if row.vector.is_some() || !rows.contains_key(&address) {
            rows.insert(address, Arc::clone(row));
        }
    }
}
