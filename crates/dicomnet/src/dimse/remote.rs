//! Asks a PACS without DICOMweb: C-FIND lists series by day, C-MOVE lets the PACS send one to our receiver.

use std::collections::VecDeque;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dicom_ul::Pdu;
use dicom_ul::association::client::{ClientAssociation, ClientAssociationOptions};
use dicom_ul::pdu::{PDataValue, PDataValueType};

use super::command::{C_FIND, C_MOVE, Command, Field, MAX_BYTES, NO_DATA_SET, too_long};
use super::receive::{Receiver, ReceiverOptions};
use super::{PATIENCE, VERIFICATION};
use crate::cursor::Cursor;
use crate::day::Day;
use crate::error::{Error, Result};
use crate::names::Names;
use crate::part10::IMPLICIT;
use crate::qido::SeriesRef;
use crate::source::{Page, Position, Selection, Source, first_day};
use crate::spool::{Spool, SpoolLimits, SpooledSeries};
use crate::uid::Uid;
use crate::wado::check_count;

/// Study Root Query/Retrieve, FIND and MOVE.
const FIND: &str = "1.2.840.10008.5.1.4.1.2.2.1";
const MOVE: &str = "1.2.840.10008.5.1.4.1.2.2.2";
/// Longest wait for the next answer to C-MOVE: the PACS may load a tape.
const MOVE_PATIENCE: Duration = Duration::from_secs(600);
/// Most answers to one question.
const MAX_ANSWERS: usize = 100_000;
const PENDING: [u16; 2] = [0xff00, 0xff01];

const QUERY_LEVEL: (u16, u16) = (0x0008, 0x0052);
const STUDY_DATE: (u16, u16) = (0x0008, 0x0020);
const MODALITY: (u16, u16) = (0x0008, 0x0060);
const STUDY: (u16, u16) = (0x0020, 0x000d);
const SERIES: (u16, u16) = (0x0020, 0x000e);
const N_INSTANCES: (u16, u16) = (0x0020, 0x1209);

/// A PACS that speaks DIMSE, and where it sends to us.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its title.
    pub ae: String,
    /// Its address and port.
    pub address: String,
    /// Our title, which the PACS must know together with our address.
    pub our_ae: String,
    /// Where we listen for what it sends.
    pub listen: SocketAddr,
    /// Folder for what it sends.
    pub incoming: PathBuf,
    /// How files are named.
    pub names: Names,
}

impl Peer {
    /// Reads `AE@HOST:PORT`.
    ///
    /// # Errors
    /// A sentence that says what is wanted.
    pub fn parse(text: &str) -> std::result::Result<(String, String), String> {
        let wrong = || "AE@HOST:PORT is wanted, such as PACS@192.0.2.7:104".to_owned();
        let (ae, address) = text.split_once('@').ok_or_else(wrong)?;
        let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
        let is_fine = !host.is_empty() && port.parse::<u16>().is_ok();
        is_fine.then_some(()).ok_or_else(wrong)?;
        Ok((super::receive::checked_title(ae)?, address.to_owned()))
    }
}

/// A PACS that is asked by C-FIND and C-MOVE.
pub(crate) struct Remote {
    peer: Peer,
    incoming: Arc<Spool>,
    _receiver: Receiver,
    days: VecDeque<Day>,
}

impl Remote {
    pub(crate) fn new(peer: Peer) -> Result<Self> {
        let listener = TcpListener::bind(peer.listen).map_err(|source| Error::Io {
            doing: format!("listening on {}", peer.listen),
            source,
        })?;
        let limits = SpoolLimits::default();
        let incoming = Arc::new(Spool::open(&peer.incoming, peer.names.clone(), limits)?);
        let options = ReceiverOptions::new(&peer.our_ae)?;
        let receiver = Receiver::start(listener, options, Arc::clone(&incoming))?;
        Ok(Self {
            peer,
            incoming,
            _receiver: receiver,
            days: VecDeque::new(),
        })
    }

    fn associate(&self, patience: Duration) -> Result<ClientAssociation<TcpStream>> {
        let mut options = ClientAssociationOptions::new()
            .calling_ae_title(self.peer.our_ae.as_str())
            .called_ae_title(self.peer.ae.as_str())
            .read_timeout(patience)
            .write_timeout(PATIENCE)
            .connection_timeout(PATIENCE);
        for class in [FIND, MOVE, VERIFICATION] {
            options = options.with_presentation_context(class, vec![IMPLICIT]);
        }
        let association = options.establish(self.peer.address.as_str());
        association.map_err(|error| match error {
            dicom_ul::association::Error::Rejected { .. } => Error::Refused {
                what: "asking the PACS",
                found: "a rejected association".to_owned(),
                wanted: "one that is accepted; the PACS must know our title and address, and we its title",
            },
            _ => away("no association"),
        })
    }

    /// Asks for a level; returns the answers.
    fn find(&self, keys: &Keys) -> Result<Vec<Vec<u8>>> {
        let mut association = self.associate(PATIENCE)?;
        let answers = exchange(&mut association, FIND, &request(C_FIND, FIND), keys)?;
        // What was asked is answered.
        let _ = association.release();
        match answers.status {
            0 => Ok(answers.data_sets),
            status => Err(of_status("listing series", status)),
        }
    }

    fn studies(&self, day: Day) -> Result<Vec<Uid>> {
        let mut keys = Keys::default();
        keys.put(STUDY_DATE, &day.to_dicom());
        keys.put(QUERY_LEVEL, "STUDY");
        keys.put(STUDY, "");
        let answers = self.find(&keys)?.into_iter();
        Ok(answers
            .filter_map(|answer| uid_of(&answer, STUDY))
            .collect())
    }

    fn series(&self, study: &Uid, series: Option<&Uid>) -> Result<Vec<(SeriesRef, String)>> {
        let mut keys = Keys::default();
        keys.put(QUERY_LEVEL, "SERIES");
        keys.put(MODALITY, "");
        keys.put(STUDY, study.expose());
        keys.put(SERIES, series.map_or("", Uid::expose));
        keys.put(N_INSTANCES, "");
        let answers = self.find(&keys)?.into_iter();
        let described = answers.filter_map(|answer| {
            let n_instances = text_of(&answer, N_INSTANCES).and_then(|n| n.parse().ok());
            let series = SeriesRef {
                study: study.clone(),
                series: uid_of(&answer, SERIES)?,
                n_instances,
                day: None,
                is_stable: false,
            };
            Some((series, text_of(&answer, MODALITY).unwrap_or_default()))
        });
        Ok(described.collect())
    }
}

/// Days that are listed at first where none is named.
const FIRST_DAYS: i64 = 7;

impl Source for Remote {
    fn begin(&mut self, cursor: &Cursor, selection: &Selection) {
        let today = Day::today();
        // Without a day there is nothing to ask: PACS refuse to list everything.
        let mut day = first_day(cursor, selection).unwrap_or(today.plus(-FIRST_DAYS));
        self.days.clear();
        while day <= today.plus(1) {
            self.days.push_back(day);
            day = day.plus(1);
        }
    }

    fn page(&mut self, selection: &Selection) -> Result<Option<Page>> {
        let Some(day) = self.days.front().copied() else {
            return Ok(None);
        };
        let mut page = Page {
            series: Vec::new(),
            then: Some(Position::Day(day.min(Day::today()))),
        };
        for study in self.studies(day)? {
            for (series, modality) in self.series(&study, None)? {
                if selection.has_modality(&modality) {
                    page.series.push(SeriesRef {
                        day: Some(day),
                        ..series
                    });
                }
            }
        }
        self.days.pop_front();
        Ok(Some(page))
    }

    fn again(&mut self, series: &SeriesRef) -> Result<Option<SeriesRef>> {
        let found = self.series(&series.study, Some(&series.series))?;
        let mut found = found.into_iter().map(|(series, _)| series);
        Ok(found.find(|found| found.series == series.series))
    }

    fn fetch(&mut self, series: &SeriesRef, spool: &Spool) -> Result<Option<SpooledSeries>> {
        let mut keys = Keys::default();
        keys.put(QUERY_LEVEL, "SERIES");
        keys.put(STUDY, series.study.expose());
        keys.put(SERIES, series.series.expose());
        let mut association = self.associate(MOVE_PATIENCE)?;
        let asked = request(C_MOVE, MOVE).with_title(Field::MoveDestination, &self.peer.our_ae);
        let answers = exchange(&mut association, MOVE, &asked, &keys)?;
        let _ = association.release();
        // B000: some objects were not sent; the count says how many came.
        if ![0, 0xb000].contains(&answers.status) {
            return Err(of_status("moving a series to us", answers.status));
        }
        let wanted = self.incoming.names().series(&series.series);
        let arrived = self.incoming.quiet(Duration::ZERO);
        let arrived = arrived.into_iter().find(|arrived| arrived.name == wanted);
        let Some(arrived) = arrived else {
            // A status of success says nothing: objects count.
            return Err(away("no object"));
        };
        let outcome = check_count(series, arrived.n_objects).and_then(|()| {
            let mut fetching = spool.begin_series(&arrived.study, &arrived.series)?;
            fetching.adopt(&self.incoming, &arrived)?;
            fetching.finish().map(Some)
        });
        self.incoming.erase_series(&arrived)?;
        outcome
    }

    /// Without a day, the last ones are taken, and not everything.
    fn understood(&self, selection: &Selection) -> Selection {
        let first = Day::today().plus(-FIRST_DAYS);
        Selection {
            since: selection.since.or(Some(first)),
            ..selection.clone()
        }
    }

    fn all(&mut self, _: &mut dyn FnMut(Uid)) -> Result<()> {
        Err(Error::Caller(
            "--reconcile needs a list of all series, which DIMSE has not; use dicomweb or orthanc, or leave it out"
                .to_owned(),
        ))
    }
}

fn away(found: &str) -> Error {
    Error::Unreachable {
        what: "asking the PACS",
        found: found.to_owned(),
    }
}

fn of_status(what: &'static str, status: u16) -> Error {
    let found = format!("status {status:04X}");
    match status {
        // Out of resources.
        0xa700..=0xa7ff => Error::Unreachable { what, found },
        0xa801 => Error::Refused {
            what,
            found,
            wanted: "0000; the PACS must know our title and address as a destination",
        },
        _ => Error::Refused {
            what,
            found,
            wanted: "0000",
        },
    }
}

fn request(command: u16, class: &str) -> Command {
    Command::default()
        .with_uid(Field::AffectedSopClass, class)
        .with_number(Field::Command, command)
        .with_number(Field::Message, 1)
        .with_number(Field::Priority, 0)
        // Any number but 0101 says that a data set follows.
        .with_number(Field::DataSet, 1)
}

/// What came as an answer.
#[derive(Default)]
struct Answers {
    /// Status of the newest answer.
    status: u16,
    data_sets: Vec<Vec<u8>>,
    /// Whether the last answer is complete.
    is_over: bool,
    /// Whether the answer that is read comes with a data set.
    has_data_set: bool,
    command: Vec<u8>,
    data_set: Vec<u8>,
}

impl Answers {
    /// Takes a part of an answer.
    fn take(&mut self, value: PDataValue) -> Result<()> {
        let place = match value.value_type {
            PDataValueType::Command => &mut self.command,
            PDataValueType::Data => &mut self.data_set,
        };
        if place.len() + value.data.len() > MAX_BYTES {
            return Err(too_long());
        }
        place.extend(value.data);
        if !value.is_last {
            return Ok(());
        }
        match value.value_type {
            PDataValueType::Command => {
                let answer = Command::parse(&std::mem::take(&mut self.command))?;
                let status = answer.number(Field::Status);
                self.status = status.ok_or_else(|| away("an answer without a status"))?;
                self.has_data_set = answer.number(Field::DataSet) != Some(NO_DATA_SET);
            }
            PDataValueType::Data => {
                // What comes with the last answer says why it failed, and is not read.
                self.has_data_set = false;
                let data_set = std::mem::take(&mut self.data_set);
                if PENDING.contains(&self.status) {
                    self.data_sets.push(data_set);
                }
                if self.data_sets.len() > MAX_ANSWERS {
                    return Err(Error::LimitExceeded {
                        what: "answers of the PACS",
                        allowed: u64::try_from(MAX_ANSWERS).unwrap_or(u64::MAX),
                    });
                }
            }
        }
        self.is_over = !self.has_data_set && !PENDING.contains(&self.status);
        Ok(())
    }
}

/// Sends a command with its keys, and takes answers until the last one.
fn exchange(
    association: &mut ClientAssociation<TcpStream>,
    class: &str,
    command: &Command,
    keys: &Keys,
) -> Result<Answers> {
    let contexts = association.presentation_contexts();
    let context = contexts
        .iter()
        .find(|context| context.abstract_syntax == class);
    let context = context.map(|context| context.id).ok_or(Error::Refused {
        what: "asking the PACS",
        found: "no such service".to_owned(),
        wanted: "query and retrieve with the study as root",
    })?;
    for (value_type, data) in [
        (PDataValueType::Command, command.write()),
        (PDataValueType::Data, keys.write()),
    ] {
        let value = PDataValue {
            presentation_context_id: context,
            value_type,
            is_last: true,
            data,
        };
        let sent = association.send(&Pdu::PData { data: vec![value] });
        sent.map_err(|_| away("a connection that ended"))?;
    }
    let mut answers = Answers::default();
    loop {
        let pdu = association.receive();
        let Pdu::PData { data } = pdu.map_err(|_| away("a connection that ended"))? else {
            return Err(away("another message than an answer"));
        };
        for value in data {
            answers.take(value)?;
        }
        if answers.is_over {
            return Ok(answers);
        }
    }
}

/// Keys of a question: elements of Implicit VR Little Endian in ascending order.
#[derive(Default)]
struct Keys(std::collections::BTreeMap<(u16, u16), Vec<u8>>);

impl Keys {
    fn put(&mut self, tag: (u16, u16), value: &str) {
        let mut bytes = value.as_bytes().to_vec();
        let padding = if [STUDY, SERIES].contains(&tag) {
            0
        } else {
            b' '
        };
        bytes.extend((bytes.len() % 2 == 1).then_some(padding));
        self.0.insert(tag, bytes);
    }

    fn write(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for ((group, element), value) in &self.0 {
            bytes.extend(group.to_le_bytes());
            bytes.extend(element.to_le_bytes());
            let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
            bytes.extend(length.to_le_bytes());
            bytes.extend(value);
        }
        bytes
    }
}

/// Returns the value of an element of a flat data set.
fn value_of(data_set: &[u8], tag: (u16, u16)) -> Option<&[u8]> {
    let mut rest = data_set;
    loop {
        let (head, behind) = rest.split_first_chunk::<8>()?;
        let [group_low, group_high, low, high, length @ ..] = *head;
        let length = usize::try_from(u32::from_le_bytes(length)).ok()?;
        let (value, behind) = behind.split_at_checked(length)?;
        let found = (
            u16::from_le_bytes([group_low, group_high]),
            u16::from_le_bytes([low, high]),
        );
        if found == tag {
            return Some(value);
        }
        rest = behind;
    }
}

fn uid_of(data_set: &[u8], tag: (u16, u16)) -> Option<Uid> {
    Uid::new(value_of(data_set, tag)?).ok()
}

fn text_of(data_set: &[u8], tag: (u16, u16)) -> Option<String> {
    let value = String::from_utf8_lossy(value_of(data_set, tag)?);
    Some(value.trim_matches(['\0', ' ']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_written_in_order_and_read_again() {
        let mut keys = Keys::default();
        keys.put(SERIES, "1.2");
        keys.put(QUERY_LEVEL, "SERIES");
        let bytes = keys.write();
        assert_eq!(uid_of(&bytes, SERIES).unwrap().expose(), "1.2");
        assert_eq!(text_of(&bytes, QUERY_LEVEL).unwrap(), "SERIES");
        assert!(value_of(&bytes, STUDY).is_none());
        for n_bytes in 0..bytes.len() {
            assert!(value_of(&bytes[..n_bytes], SERIES).is_none(), "{n_bytes}");
        }
    }

    #[test]
    fn a_peer_is_a_title_and_a_place() {
        let (ae, address) = Peer::parse("PACS@192.0.2.7:104").unwrap();
        assert_eq!((ae.as_str(), address.as_str()), ("PACS", "192.0.2.7:104"));
        for wrong in [
            "PACS",
            "@a:1",
            "PACS@a",
            "PACS@a:x",
            "PACS@:1",
            "TITLE IS TOO LONG@a:1",
        ] {
            assert!(Peer::parse(wrong).is_err(), "{wrong}");
        }
    }
}
