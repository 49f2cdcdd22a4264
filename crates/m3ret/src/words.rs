//! Words, numbers and columns of plain text, without colours: for messages, tables and files.

use std::ops::Range;

use m3ret_imaging::Format;

/// A number and its word: `1 group`, `2 groups`.
pub fn counted(n: u64, one: &str, several: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { several })
}

/// The name of a format as its makers write it.
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

/// Lays the cells of rows below each other, those of the columns `right` to the right.
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
/// Escapes what could move the cursor: paths and headers are not ours.
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

/// As `printable`, but keeps line breaks: for sentences of ours that hold words of others.
pub fn printable_lines(text: &str) -> String {
    text.split('\n')
        .map(printable)
        .collect::<Vec<_>>()
        .join("\n")
}
