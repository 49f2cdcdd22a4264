//! Command sets (PS3.7, section 6.3): Implicit VR Little Endian, group 0000 alone, 64 KiB at most.

use crate::error::{Error, Result};
use crate::uid::Uid;

/// Longest command set.
pub(crate) const MAX_BYTES: usize = 64 << 10;

/// An element of group 0000 by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u16)]
pub enum Field {
    /// `AffectedSOPClassUID`
    AffectedSopClass = 0x0002,
    /// `CommandField`: which command.
    Command = 0x0100,
    /// `MessageID`
    Message = 0x0110,
    /// `MessageIDBeingRespondedTo`
    RespondsTo = 0x0120,
    /// `MoveDestination`
    MoveDestination = 0x0600,
    /// `Priority`
    Priority = 0x0700,
    /// `CommandDataSetType`: 0101 if no data set follows.
    DataSet = 0x0800,
    /// `Status`
    Status = 0x0900,
    /// `AffectedSOPInstanceUID`
    AffectedSopInstance = 0x1000,
}

pub(crate) const C_STORE: u16 = 0x0001;
pub(crate) const C_FIND: u16 = 0x0020;
pub(crate) const C_MOVE: u16 = 0x0021;
pub(crate) const C_ECHO: u16 = 0x0030;
/// Set in the answer to a command.
pub(crate) const ANSWER: u16 = 0x8000;
/// No data set follows.
pub(crate) const NO_DATA_SET: u16 = 0x0101;

/// A command set: elements in ascending order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Command {
    elements: Vec<(u16, Vec<u8>)>,
}

impl Command {
    /// Reads a command set.
    ///
    /// # Errors
    /// `LimitExceeded`; `Malformed` if an element is cut, of another group, or not behind the one before it.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > MAX_BYTES {
            return Err(too_long());
        }
        let wrong = |found: &str| Error::malformed("command set", found, "elements of group 0000");
        let (mut elements, mut rest) = (Vec::<(u16, Vec<u8>)>::new(), bytes);
        while !rest.is_empty() {
            let (head, behind) = rest
                .split_first_chunk::<8>()
                .ok_or_else(|| wrong("a cut element"))?;
            let [group_low, group_high, low, high, length @ ..] = *head;
            if [group_low, group_high] != [0, 0] {
                return Err(wrong("another group"));
            }
            let number = u16::from_le_bytes([low, high]);
            if elements.last().is_some_and(|(last, _)| *last >= number) {
                return Err(wrong("elements out of order"));
            }
            let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
            let (value, behind) = behind
                .split_at_checked(length)
                .ok_or_else(|| wrong("a cut value"))?;
            // The length of the group is made anew when the command is written.
            if number != 0 {
                elements.push((number, value.to_vec()));
            }
            rest = behind;
        }
        Ok(Self { elements })
    }

    /// Writes the command set with the length of its group.
    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        let mut group = Vec::new();
        for (number, value) in &self.elements {
            put(&mut group, *number, value);
        }
        let mut bytes = Vec::with_capacity(group.len() + 12);
        let length = u32::try_from(group.len()).unwrap_or(u32::MAX);
        put(&mut bytes, 0, &length.to_le_bytes());
        bytes.extend(group);
        bytes
    }

    /// Returns a number of 16 bits.
    #[must_use]
    pub fn number(&self, field: Field) -> Option<u16> {
        let value = self.value(field)?;
        Some(u16::from_le_bytes(value.try_into().ok()?))
    }

    /// Returns a UID.
    ///
    /// # Errors
    /// `Malformed` if it is missing or none.
    pub fn uid(&self, field: Field) -> Result<Uid> {
        Uid::new(self.value(field).unwrap_or_default())
    }

    fn value(&self, field: Field) -> Option<&[u8]> {
        let mut elements = self.elements.iter();
        let (_, value) = elements.find(|(number, _)| *number == field as u16)?;
        Some(value)
    }

    /// Sets a number of 16 bits.
    #[must_use]
    pub fn with_number(self, field: Field, number: u16) -> Self {
        self.with(field, number.to_le_bytes().to_vec())
    }

    /// Sets a UID.
    #[must_use]
    pub fn with_uid(self, field: Field, uid: &str) -> Self {
        let mut value = uid.as_bytes().to_vec();
        value.extend((value.len() % 2 == 1).then_some(0));
        self.with(field, value)
    }

    /// Sets the title of an application entity.
    #[must_use]
    pub fn with_title(self, field: Field, title: &str) -> Self {
        let mut value = title.as_bytes().to_vec();
        value.extend((value.len() % 2 == 1).then_some(b' '));
        self.with(field, value)
    }

    fn with(mut self, field: Field, value: Vec<u8>) -> Self {
        let number = field as u16;
        let place = self.elements.partition_point(|(other, _)| *other < number);
        match self.elements.get_mut(place) {
            Some((other, old)) if *other == number => *old = value,
            _ => self.elements.insert(place, (number, value)),
        }
        self
    }

    /// Makes the answer to a command.
    #[must_use]
    pub fn answer(&self, status: u16) -> Self {
        let number = |field| self.number(field).unwrap_or_default();
        let mut answer = Self::default()
            .with_number(Field::Command, number(Field::Command) | ANSWER)
            .with_number(Field::RespondsTo, number(Field::Message))
            .with_number(Field::DataSet, NO_DATA_SET)
            .with_number(Field::Status, status);
        for field in [Field::AffectedSopClass, Field::AffectedSopInstance] {
            if let Ok(uid) = self.uid(field) {
                answer = answer.with_uid(field, uid.expose());
            }
        }
        answer
    }
}

fn put(bytes: &mut Vec<u8>, number: u16, value: &[u8]) {
    bytes.extend([0, 0]);
    bytes.extend(number.to_le_bytes());
    let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
    bytes.extend(length.to_le_bytes());
    bytes.extend(value);
}

pub(crate) fn too_long() -> Error {
    Error::LimitExceeded {
        what: "bytes of a command set",
        allowed: u64::try_from(MAX_BYTES).unwrap_or(u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn store() -> Command {
        Command::default()
            .with_number(Field::Command, C_STORE)
            .with_number(Field::Message, 7)
            .with_uid(Field::AffectedSopClass, "1.2.3")
            .with_uid(Field::AffectedSopInstance, "1.2.3.4")
    }

    #[test]
    fn a_command_comes_back_and_its_answer_names_it() {
        let command = store();
        assert_eq!(Command::parse(&command.write()).unwrap(), command);
        let answer = Command::parse(&command.answer(0).write()).unwrap();
        assert_eq!(answer.number(Field::Command), Some(0x8001));
        assert_eq!(answer.number(Field::RespondsTo), Some(7));
        assert_eq!(answer.number(Field::Status), Some(0));
        let instance = answer.uid(Field::AffectedSopInstance).unwrap();
        assert_eq!(instance.expose(), "1.2.3.4");
    }

    #[test]
    fn cut_foreign_and_long_commands_are_refused() {
        let bytes = store().write();
        let mut n_whole = 0;
        for n_bytes in 0..bytes.len() {
            n_whole += usize::from(Command::parse(&bytes[..n_bytes]).is_ok());
        }
        // Between its elements a command may end.
        assert_eq!(n_whole, 5);
        let twice = [bytes.as_slice(), &bytes].concat();
        assert!(Command::parse(&twice).is_err());
        let mut foreign = bytes.clone();
        foreign[0] = 8;
        assert!(Command::parse(&foreign).is_err());
        let mut long = bytes;
        long[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(Command::parse(&long).is_err());
        assert!(Command::parse(&vec![0; MAX_BYTES + 1]).is_err());
    }

    proptest! {
        #[test]
        fn what_is_accepted_survives_writing(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(command) = Command::parse(&bytes) {
                prop_assert_eq!(Command::parse(&command.write()).unwrap(), command);
            }
        }
    }
}
