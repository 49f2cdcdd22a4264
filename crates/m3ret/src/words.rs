//! Plain text without colours, for messages, tables and files.

use std::ops::Range;
use std::path::Path;

use m3ret_imaging::Format;
use m3ret_manifest::text_of;

/// Returns a count with its noun: `1 group`, `2 groups`.
pub fn counted(n: u64, one: &str, several: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { several })
}

/// Returns the name of a format as its makers write it.
pub fn format_name(format: Format) -> &'static str {
    match format {
        Format::Dicom => "DICOM",
        Format::Nifti => "NIfTI",
        Format::Mgh => "MGH",
        Format::Nrrd => "NRRD",
        Format::MetaImage => "MetaImage",
        Format::Npy => "npy",
        Format::Raster => "raster",
        Format::Video => "video",
        Format::Zip => "zip",
    }
}

/// Aligns the cells of a table for a terminal, and returns one line for each row.
///
/// The columns `right` (from 0) are aligned to the right, all others to the left.
pub fn aligned(rows: &[Vec<String>], right: Range<usize>) -> Vec<String> {
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| row.iter().map(|cell| printable(cell)).collect())
        .collect();
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

/// Escapes characters that act on a terminal instead of being seen: paths and headers are untrusted.
///
/// Control characters could move the cursor; marks of direction and characters without width could make one name look
/// like another.
pub fn printable(text: &str) -> String {
    text.chars().fold(
        String::with_capacity(text.len()),
        |mut printable, character| {
            if acts_on_a_terminal(character) {
                printable.extend(character.escape_default());
            } else {
                printable.push(character);
            }
            printable
        },
    )
}

/// Returns whether a character acts on a terminal instead of being seen: control characters, marks of direction, and
/// characters without width.
pub fn acts_on_a_terminal(character: char) -> bool {
    character.is_control() || is_invisible(character)
}

/// Returns whether a character has no shape of its own: format characters (category Cf of Unicode, but for the signs
/// of Arabic and Syriac that are seen), separators of lines and paragraphs, fillers, and selectors of variants.
fn is_invisible(character: char) -> bool {
    matches!(
        character,
        '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

/// Returns a path as text for a terminal.
pub fn printable_path(path: &Path) -> String {
    printable(&text_of(path))
}

/// Escapes characters as `printable` does, but keeps line breaks: for our sentences that quote untrusted
/// words.
pub fn printable_lines(text: &str) -> String {
    text.split('\n')
        .map(printable)
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_on_a_terminal_or_cannot_be_seen_is_escaped() {
        for (text, shown) in [
            ("a\x1b[2Jb\n", "a\\u{1b}[2Jb\\n"),
            ("scan\u{202e}gnp.exe", "scan\\u{202e}gnp.exe"),
            ("\u{2066}x\u{2069}", "\\u{2066}x\\u{2069}"),
            ("no\u{200b}dule", "no\\u{200b}dule"),
            ("\u{feff}path", "\\u{feff}path"),
            ("a\u{2028}b", "a\\u{2028}b"),
            ("tag\u{e0041}", "tag\\u{e0041}"),
        ] {
            assert_eq!(printable(text), shown);
        }
        // Letters of any script, and accents that join them, are seen.
        for text in [
            "L\u{fc}cke",
            "e\u{301}",
            "\u{5d0}\u{5d1}",
            "\u{627}\u{644}",
            "\u{65e5}\u{672c}",
            "\u{1f600}",
        ] {
            assert_eq!(printable(text), text);
        }
        assert_eq!(printable_lines("a\u{202d}\nb"), "a\\u{202d}\nb");
        assert_eq!(printable_path(Path::new("a\u{202e}")), "a\\u{202e}");
    }
}
