//! One file a verb: arguments to options, a call of the library, and what is printed.

pub(crate) mod audit;
pub(crate) mod check;
pub(crate) mod compare;
pub(crate) mod dedup;
pub(crate) mod embed;
pub(crate) mod erase;
pub(crate) mod evaluate;
pub(crate) mod index;
pub(crate) mod inspect;
#[cfg(feature = "lake")]
pub(crate) mod lake;
pub(crate) mod manual;
pub(crate) mod map;
#[cfg(feature = "training")]
pub(crate) mod pretrain;
pub(crate) mod receive;
pub(crate) mod search;
pub(crate) mod serve;
pub(crate) mod simulate;
pub(crate) mod split;
#[cfg(feature = "training")]
pub(crate) mod study;
pub(crate) mod sync;

use std::io::Write;
use std::path::Path;

use m3ret::words::acts_on_a_terminal;
use m3ret_manifest::{path_of, text_of};
use serde::Serialize;

/// The last line of JSON; its key distinguishes the summary from the objects before it.
#[derive(Debug, Serialize)]
struct LastLine<'a, S> {
    summary: &'a S,
}

/// Writes a value as one line of JSON.
pub(crate) fn write_json_line(out: &mut impl Write, value: &impl Serialize) -> std::io::Result<()> {
    let line = serde_json::to_string(value)?;
    if line.contains(acts_on_a_terminal) {
        out.write_all(visible_json(&line).as_bytes())?;
    } else {
        out.write_all(line.as_bytes())?;
    }
    out.write_all(b"\n")
}

/// Writes characters that act on a terminal as JSON escapes: the value stays the same.
fn visible_json(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    for character in line.chars() {
        if acts_on_a_terminal(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                text += &format!("\\u{unit:04x}");
            }
        } else {
            text.push(character);
        }
    }
    text
}

/// Returns a number of 32 bits as the one of 64 bits that is printed alike: `json!` would print the binary digits of
/// 0.98 as 0.9800000190734863.
pub(crate) fn as_printed(number: f32) -> f64 {
    number.to_string().parse().unwrap_or(f64::NAN)
}

/// Returns a path, as the library writes it, as a person in the current folder would write it.
pub(crate) fn short(path: &str) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    match path_of(path).strip_prefix(&here) {
        Ok(below) if below != Path::new("") => text_of(below),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_shows_no_character_that_acts_on_a_terminal_and_keeps_all() {
        let value = "a\u{202e}b\u{9b}\u{e0041}\u{7f}\u{fc}\n";
        let mut out = Vec::new();
        write_json_line(&mut out, &value).unwrap();
        let line = String::from_utf8(out).unwrap();
        assert!(!line.trim_end().contains(acts_on_a_terminal), "{line:?}");
        assert_eq!(serde_json::from_str::<String>(&line).unwrap(), value);
    }
}
