//! What a user should know of a table that was read.

use super::columns::{self, BODY_PART, EMBEDDING, FINDING, MODALITY};
use super::table::Table;
use super::words::is_doubtful;

/// Returns a sentence for each thing to know. None repeats a cell, and only doubtful labels are named.
pub(super) fn of(table: &Table) -> Vec<String> {
    let shared = table.shared();
    let mut notes = shared.header.notes();
    // Vectors are no cells, and are looked for where vectors are.
    let mut unread = shared.unread.iter().map(String::as_str);
    let unread: Vec<&str> = unread.by_ref().filter(|name| *name != EMBEDDING).collect();
    if !unread.is_empty() {
        notes.push(format!(
            "columns of a nested or binary type are not read: {}",
            unread.join(", ")
        ));
    }
    for (idx, name) in table.columns().iter().enumerate() {
        let Some(column) = table.column_at(idx) else {
            continue;
        };
        if column.n_emptied() > 0 {
            let what = if columns::is_identifier(name) {
                "of nobody"
            } else {
                "of no value"
            };
            let cells = match column.n_emptied() {
                1 => "1 cell holds a word such as nan or unknown and is".to_owned(),
                n => format!("{n} cells hold a word such as nan or unknown and are"),
            };
            notes.push(format!("column {name}: {cells} read as {what}"));
        }
        if [MODALITY, BODY_PART, FINDING].contains(&name.as_str()) {
            let doubtful: Vec<&str> = column.words().filter(|word| is_doubtful(word)).collect();
            if !doubtful.is_empty() {
                notes.push(format!(
                    "column {name}: {} is a class like any other; leave cells empty where nothing is known",
                    doubtful.join(", ")
                ));
            }
        }
    }
    notes
}
