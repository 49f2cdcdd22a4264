//! The CSA header: Siemens' own list of named values inside one private element.
//!
//! Names, counts and lengths come from the file: every read is bounded by its bytes, and every
//! entry and value takes some of them, so that a walk ends.

/// Bytes of an entry in front of its values: name, multiplicity, VR, type, number of values, mark.
const NAME_BYTES: usize = 64;

/// Where the length of a value stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Length {
    /// In the first number in front of it, raised by the number of values of the first entry.
    Raised,
    /// In the second number.
    Plain,
}

/// Returns the numbers of the entry `name`; `None` if it is absent, empty or not numeric.
pub(super) fn numbers(header: &[u8], name: &str) -> Option<Vec<f64>> {
    match header.strip_prefix(b"SV10") {
        Some(rest) => numbers_at(rest.get(4..)?, name, Length::Plain),
        // Readers of the first version, which has no signature, differ in what they take. A wrong
        // length leads to bytes that are no entry of this name.
        None => numbers_at(header, name, Length::Raised)
            .or_else(|| numbers_at(header, name, Length::Plain)),
    }
}

fn numbers_at(entries: &[u8], name: &str, length: Length) -> Option<Vec<f64>> {
    let mut rest = Cursor(entries);
    let n_entries = rest.u32()?;
    rest.take(4)?;
    let mut n_first_values = None;
    for _ in 0..n_entries {
        let entry_name = text(rest.take(NAME_BYTES)?);
        let multiplicity = rest.u32()?;
        rest.take(8)?;
        let n_values = rest.u32()?;
        rest.take(4)?;
        let raised_by = *n_first_values.get_or_insert(n_values);
        let mut values = Vec::new();
        for _ in 0..n_values {
            let (first, second) = (rest.u32()?, rest.u32()?);
            rest.take(8)?;
            let n_bytes = match length {
                Length::Plain => second,
                // What cannot be a length ends the values of this entry.
                Length::Raised => match first.checked_sub(raised_by) {
                    Some(n_bytes) => n_bytes,
                    None => break,
                },
            };
            let n_bytes = usize::try_from(n_bytes).ok()?;
            values.push(text(rest.take(n_bytes)?));
            // The last value of all may lack its padding.
            let n_padding = n_bytes.checked_next_multiple_of(4)? - n_bytes;
            rest.take(n_padding.min(rest.0.len()));
        }
        if entry_name == name {
            let n_stated = match usize::try_from(multiplicity).ok()? {
                0 => values.len(),
                n => n,
            };
            let values = values.iter().take(n_stated).filter(|text| !text.is_empty());
            let numbers: Option<Vec<f64>> = values.map(|text| text.parse().ok()).collect();
            return numbers.filter(|numbers| !numbers.is_empty());
        }
    }
    None
}

/// Text up to the first NUL, without the spaces around it; empty if it is no ASCII.
fn text(bytes: &[u8]) -> &str {
    let end = bytes.iter().position(|&byte| byte == 0);
    let bytes = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or(&[]);
    std::str::from_utf8(bytes).map_or("", str::trim)
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    fn u32(&mut self) -> Option<u32> {
        let raw = self.take(4)?.first_chunk::<4>()?;
        Some(u32::from_le_bytes(*raw))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes entries of name, multiplicity and values.
    fn header(entries: &[(&str, u32, &[&str])], is_second_version: bool) -> Vec<u8> {
        let mut bytes = Vec::new();
        if is_second_version {
            bytes.extend(b"SV10\x04\x03\x02\x01");
        }
        let push = |numbers: &[u32], bytes: &mut Vec<u8>| {
            bytes.extend(numbers.iter().flat_map(|n| n.to_le_bytes()));
        };
        let count = |n: usize| u32::try_from(n).unwrap();
        push(&[count(entries.len()), 77], &mut bytes);
        let raised_by = entries
            .first()
            .map_or(0, |(_, _, values)| count(values.len()));
        for (name, multiplicity, values) in entries {
            let start = bytes.len();
            bytes.extend(name.bytes());
            bytes.resize(start + NAME_BYTES, 0);
            push(&[*multiplicity, 0, 0, count(values.len()), 77], &mut bytes);
            for value in *values {
                let length = count(value.len());
                let first = if is_second_version {
                    0
                } else {
                    length + raised_by
                };
                push(&[first, length, 77, 0], &mut bytes);
                bytes.extend(value.bytes());
                bytes.resize(bytes.len().next_multiple_of(4), 0);
            }
        }
        bytes
    }

    const ENTRIES: [(&str, u32, &[&str]); 4] = [
        ("EchoLinePosition", 1, &["64", "", "", "", "", ""]),
        ("NumberOfImagesInMosaic", 1, &["  36\0", "", ""]),
        ("ImaCoilString", 1, &["C:HEA"]),
        ("SliceNormalVector", 3, &["0.1", "-0.2", "0.97", ""]),
    ];

    #[test]
    fn both_versions_give_the_numbers_of_an_entry() {
        for is_second_version in [false, true] {
            let mut header = header(&ENTRIES, is_second_version);
            if is_second_version {
                // Entries of the second version start behind eight bytes of signature.
                header.extend([0; 4]);
            }
            let numbers = |name| numbers(&header, name);
            assert_eq!(numbers("NumberOfImagesInMosaic"), Some(vec![36.0]));
            assert_eq!(numbers("SliceNormalVector"), Some(vec![0.1, -0.2, 0.97]));
            assert_eq!(numbers("ImaCoilString"), None);
            assert_eq!(numbers("Nothing"), None);
        }
    }

    #[test]
    fn a_header_cut_or_changed_anywhere_is_read_or_refused() {
        for is_second_version in [false, true] {
            let whole = header(&ENTRIES, is_second_version);
            for end in 0..whole.len() {
                let _ = numbers(&whole[..end], "SliceNormalVector");
                let mut changed = whole.clone();
                changed[end] = 0xff;
                let _ = numbers(&changed, "SliceNormalVector");
            }
        }
    }
}
