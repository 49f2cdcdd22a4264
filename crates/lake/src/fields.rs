//! Fields of the table: m3ret's own ones, and one for each column of a gallery.

use std::fmt::Write as _;
use std::sync::Arc;

use lancedb::arrow::arrow_schema::{DataType, Field, Schema};
use m3ret_search::{Numbers, Result};

use crate::place::mismatch;

pub(crate) const ID: &str = "id";
pub(crate) const VECTOR: &str = "vector";
/// The view that the vector is of; empty for an image's own vector.
pub(crate) const VIEW: &str = "m3ret_view";
/// Tells the change that brought the row from every other.
pub(crate) const COMMIT: &str = "m3ret_commit";
/// What the change brought, such as one part of a run: it is brought once.
pub(crate) const ORIGIN: &str = "m3ret_origin";
/// Begins the fields of what is attached to rows.
const ATTACHED: &str = "m3ret_attached_";
/// Begins the names of m3ret's own fields.
const OWN: &str = "m3ret_";
/// The row's address, which the table's library adds when asked.
pub(crate) const ROW: &str = "_rowid";
/// Stands before the two hexadecimal digits of a byte that a name of a field must not have.
const ESCAPE: char = '~';
/// Longest name of a column in bytes.
const MAX_NAME: usize = 512;

/// Returns the field of a column.
pub(crate) fn field_of(column: &str) -> Result<String> {
    encoded("", column)
}

/// Returns the field of what is attached under a name.
pub(crate) fn field_of_attached(name: &str) -> Result<String> {
    encoded(ATTACHED, name)
}

fn encoded(prefix: &str, name: &str) -> Result<String> {
    if name.is_empty() || name.len() > MAX_NAME {
        let wanted = format!("1 to {MAX_NAME} bytes");
        return Err(mismatch(
            "name of a column",
            &wanted,
            &format!("{} bytes", name.len()),
        ));
    }
    let is_own = prefix.is_empty()
        && (name == ID || name == VECTOR || name.starts_with(OWN) || name.starts_with('_'));
    let mut field = prefix.to_owned();
    for (at, character) in name.char_indices() {
        let is_plain = character.is_ascii_alphanumeric() || character == '_' || character == ':';
        if is_plain && !(is_own && at == 0) {
            field.push(character);
            continue;
        }
        for byte in character.encode_utf8(&mut [0; 4]).bytes() {
            // Writing to a string does not fail.
            let _ = write!(field, "{ESCAPE}{byte:02x}");
        }
    }
    Ok(field)
}

/// Returns the column of a field; `None` for m3ret's own.
pub(crate) fn column_of(field: &str) -> Option<String> {
    let is_own = field == ID || field == VECTOR || field.starts_with(OWN) || field.starts_with('_');
    if is_own { None } else { decoded(field) }
}

/// Returns what a field holds attachments of.
pub(crate) fn attached_of(field: &str) -> Option<String> {
    decoded(field.strip_prefix(ATTACHED)?)
}

fn decoded(field: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.bytes();
    while let Some(byte) = rest.next() {
        if byte != ESCAPE as u8 {
            bytes.push(byte);
            continue;
        }
        let digits = [rest.next()?, rest.next()?];
        let digits = std::str::from_utf8(&digits).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
    }
    String::from_utf8(bytes).ok()
}

/// Returns the type of vectors.
fn vectors_of(width: usize, numbers: Numbers) -> Result<DataType> {
    let number = match numbers {
        Numbers::F32 => DataType::Float32,
        Numbers::F16 => DataType::Float16,
    };
    let wide = || mismatch("width of vectors", "less than 2^31", &width.to_string());
    let width = i32::try_from(width).map_err(|_| wide())?;
    let item = Arc::new(Field::new("item", number, true));
    Ok(DataType::FixedSizeList(item, width))
}

/// Returns the fields of a table with some columns and attachments.
pub(crate) fn schema<'a>(
    width: usize,
    numbers: Numbers,
    columns: impl IntoIterator<Item = &'a str>,
    attached: impl IntoIterator<Item = &'a str>,
) -> Result<Schema> {
    let text = |name: &str| Field::new(name, DataType::Utf8, false);
    let mut fields = vec![text(ID), text(VIEW), text(COMMIT), text(ORIGIN)];
    for column in columns {
        fields.push(text(&field_of(column)?));
    }
    for name in attached {
        fields.push(Field::new(
            field_of_attached(name)?,
            DataType::Binary,
            false,
        ));
    }
    fields.push(Field::new(VECTOR, vectors_of(width, numbers)?, false));
    Ok(Schema::new(fields))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_a_field_and_comes_back() {
        for name in [
            "modality",
            "m3ret:root",
            "a.b",
            "`x`",
            "id",
            "vector",
            "_rowid",
            "m3ret_view",
            "~",
            "\u{e4}lter",
            "a b",
            "%",
        ] {
            let field = field_of(name).unwrap();
            assert!(
                field
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"_:~".contains(&byte)),
                "{field}"
            );
            assert!(![ID, VECTOR, VIEW, ROW].contains(&field.as_str()), "{name}");
            assert_eq!(column_of(&field).as_deref(), Some(name));
            let attached = field_of_attached(name).unwrap();
            assert_eq!(
                (column_of(&attached), attached_of(&attached).as_deref()),
                (None, Some(name))
            );
        }
        for own in [ID, VECTOR, VIEW, COMMIT, ORIGIN, ROW] {
            assert_eq!(column_of(own), None);
        }
        assert!(field_of("").is_err());
    }
}
