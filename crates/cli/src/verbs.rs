//! One file a verb: arguments to options, a call of the library, and what is printed.

pub(crate) mod check;
pub(crate) mod compare;
pub(crate) mod dedup;
pub(crate) mod embed;
pub(crate) mod evaluate;
pub(crate) mod index;
pub(crate) mod inspect;
pub(crate) mod map;
pub(crate) mod pretrain;
pub(crate) mod search;
pub(crate) mod simulate;
pub(crate) mod split;
pub(crate) mod study;

use std::io::Write;
use std::path::Path;

use m3ret_manifest::{path_of, text_of};
use serde::Serialize;

/// The last line of JSON; its key distinguishes the summary from the objects before it.
#[derive(Debug, Serialize)]
struct LastLine<'a, S> {
    summary: &'a S,
}

/// Writes a value as one line of JSON.
pub(crate) fn write_json_line(out: &mut impl Write, value: &impl Serialize) -> std::io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
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
