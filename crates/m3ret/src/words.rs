//! Plain text without colours, for messages, tables and files.

use std::ops::Range;

use m3ret_imaging::Format;

/// Returns a count with its noun: `1 group`, `2 groups`.
pub fn counted(n: u64, one: &str, several: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { several })
}

/// Returns the name of a format as its makers write it.
pub fn format_name(format: Format) -> &'static str {
    match format {
        Format::Dicom => "DICOM",
        Format::Nifti => "NIfTI",
        Format::Nrrd => "NRRD",
        Format::MetaImage => "MetaImage",
        Format::Npy => "npy",
        Format::Raster => "raster",
        Format::Video => "video",
    }
}

/// Aligns the cells of a table, and returns one line for each row.
///
/// The columns `right` (from 0) are aligned to the right, all others to the left.
pub fn aligned(rows: &[Vec<String>], right: Range<usize>) -> Vec<String> {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..rows.first().map_or(0, Vec::len)).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate();
        let cells = cells.map(|(column, (cell, &width))| {
            if right.contains(&column) {
                format!("{cell:>width$}")
            } else {
                format!("{cell:<width$}")
            }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// Escapes control characters, which could move the cursor of a terminal: paths and headers are untrusted.
pub fn printable(text: &str) -> String {
    text.chars().fold(
        String::with_capacity(text.len()),
        |mut printable, character| {
            if character.is_control() {
                printable.extend(character.escape_default());
            } else {
                printable.push(character);
            }
            printable
        },
    )
}

/// Escapes control characters as `printable` does, but keeps line breaks: for our sentences that quote untrusted
/// words.
pub fn printable_lines(text: &str) -> String {
    text.split('\n')
        .map(printable)
        .collect::<Vec<_>>()
        .join("\n")
}
