//! As much of Thrift's compact protocol as tells what a Parquet file is about to cost, before its library reserves
//! memory for it.

/// Deepest nesting of structures that are passed over.
const MAX_DEPTH: u8 = 16;

/// A reader of a structure's fields; `None` from any of its functions means that the bytes are none.
pub(super) struct Thrift<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// A field of a structure, before its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) id: i16,
    kind: u8,
}

const STOP: u8 = 0;
const TRUE: u8 = 1;
const FALSE: u8 = 2;
const BYTE: u8 = 3;
const I16: u8 = 4;
const I64: u8 = 6;
const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const SET: u8 = 10;
const MAP: u8 = 11;
const STRUCT: u8 = 12;

impl<'a> Thrift<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Returns how many bytes have been read.
    pub(super) fn n_read(&self) -> usize {
        self.at
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    /// Reads an unsigned number, seven bits a byte.
    pub(super) fn number(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    /// Reads a signed number.
    pub(super) fn integer(&mut self) -> Option<i64> {
        let number = self.number()?;
        Some((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
    }

    /// Passes over bytes.
    pub(super) fn pass(&mut self, n_bytes: u64) -> Option<()> {
        let end = self.at.checked_add(usize::try_from(n_bytes).ok()?)?;
        self.at = (end <= self.bytes.len()).then_some(end)?;
        Some(())
    }

    /// Reads the head of the next field of a structure; `last` is the id before, from 0. The inner `None` ends the
    /// structure.
    pub(super) fn field(&mut self, last: &mut i16) -> Option<Option<Field>> {
        let head = self.byte()?;
        if head == STOP {
            return Some(None);
        }
        *last = match i16::from(head >> 4) {
            0 => i16::try_from(self.integer()?).ok()?,
            more => last.checked_add(more)?,
        };
        Some(Some(Field {
            id: *last,
            kind: head & 0xf,
        }))
    }

    /// Reads the value of a field that is a whole number.
    pub(super) fn whole(&mut self, field: Field) -> Option<i64> {
        (I16..=I64).contains(&field.kind).then_some(())?;
        self.integer()
    }

    /// Begins the value of a field that is a structure.
    pub(super) fn structure(field: Field) -> Option<()> {
        (field.kind == STRUCT).then_some(())
    }

    /// Begins the value of a field that is a list of structures, and returns their number.
    pub(super) fn structures(&mut self, field: Field) -> Option<u64> {
        let (kind, n_items) = (field.kind == LIST).then(|| self.list())??;
        (kind == STRUCT).then_some(n_items)
    }

    fn list(&mut self) -> Option<(u8, u64)> {
        let head = self.byte()?;
        let n_items = match head >> 4 {
            15 => self.number()?,
            few => u64::from(few),
        };
        Some((head & 0xf, n_items))
    }

    /// Passes over the value of a field.
    pub(super) fn skip(&mut self, field: Field) -> Option<()> {
        match field.kind {
            // A truth value lies in the head of its field.
            TRUE | FALSE => Some(()),
            kind => self.skip_value(kind, MAX_DEPTH),
        }
    }

    fn skip_value(&mut self, kind: u8, depth: u8) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        match kind {
            TRUE | FALSE | BYTE => self.pass(1),
            I16..=I64 => self.number().map(|_| ()),
            DOUBLE => self.pass(8),
            BINARY => {
                let n_bytes = self.number()?;
                self.pass(n_bytes)
            }
            LIST | SET => {
                let (kind, n_items) = self.list()?;
                (0..n_items).try_for_each(|_| self.skip_value(kind, depth))
            }
            MAP => {
                let n_items = self.number()?;
                let kinds = if n_items > 0 { self.byte()? } else { 0 };
                (0..n_items).try_for_each(|_| {
                    self.skip_value(kinds >> 4, depth)?;
                    self.skip_value(kinds & 0xf, depth)
                })
            }
            STRUCT => {
                let mut last = 0;
                while let Some(field) = self.field(&mut last)? {
                    match field.kind {
                        TRUE | FALSE => {}
                        kind => self.skip_value(kind, depth)?,
                    }
                }
                Some(())
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_and_passed_over() {
        // 1: i32 = -3, 2: binary "ab", 4: true, 5: list of two i32, 6: struct of 1: double, 30: i64 = 300.
        let mut bytes = vec![
            0x15, 5, 0x18, 2, b'a', b'b', 0x21, 0x19, 0x25, 2, 4, 0x1c, 0x17,
        ];
        bytes.extend([0; 8]);
        bytes.extend([STOP, 0x06, 60, 0xd8, 0x04, STOP, 99]);
        let mut thrift = Thrift::new(&bytes);
        let (mut last, mut ids, mut wholes) = (0, Vec::new(), Vec::new());
        while let Some(field) = thrift.field(&mut last).unwrap() {
            ids.push(field.id);
            if [1, 30].contains(&field.id) {
                wholes.push(thrift.whole(field).unwrap());
            } else {
                thrift.skip(field).unwrap();
            }
        }
        assert_eq!(ids, [1, 2, 4, 5, 6, 30]);
        assert_eq!(wholes, [-3, 300]);
        assert_eq!(thrift.n_read(), bytes.len() - 1);
    }

    #[test]
    fn bytes_that_are_no_structure_are_refused() {
        let skip = |bytes: &[u8]| {
            let mut thrift = Thrift::new(bytes);
            let mut last = 0;
            let field = thrift.field(&mut last)??;
            thrift.skip(field)
        };
        for bytes in [
            &[0x18, 0xff, 0xff, 0x7f][..],
            &[0x19, 0xf8, 0xff, 0xff, 0xff, 0xff, 0x0f],
            &[0x1d, 0],
            &[0x15, 0x80],
            &[0x1c; 40],
        ] {
            assert_eq!(skip(bytes), None, "{bytes:?}");
        }
    }
}
