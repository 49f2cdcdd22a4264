//! STOW-RS (PS3.18, section 10.5): takes objects that are posted, and says of each what became of it.

use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::multipart::{Event, Fault, Splitter, part_kind};
use crate::part10::ObjectIds;
use crate::spool::{Incoming, Spool, Stored};
use crate::uid::Uid;

/// The object is there with other bytes.
const DUPLICATE: u16 = 0x0111;
/// Out of resources.
const NO_ROOM: u16 = 0xa700;
/// The object is of another study than the address says.
const ANOTHER: u16 = 0xa900;
/// The object cannot be understood.
const NOT_UNDERSTOOD: u16 = 0xc000;

/// Most parts of one request.
const MAX_PARTS: usize = 20_000;

/// What is wrong with a request as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StowFault {
    /// It is no body of the kind `multipart/related` (400).
    Form(Fault),
    /// It has more parts than allowed (413).
    TooMany,
    /// It has no part (400).
    Empty,
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq)]
pub struct StowAnswer {
    /// 200 if all objects are stored, 202 if some are, 409 if none is.
    pub status: u16,
    /// `application/dicom+json`
    pub body: Value,
    /// Number of objects that are stored now or were there already.
    pub n_stored: usize,
    /// Number of objects that are refused.
    pub n_failed: usize,
}

/// A request while it arrives.
#[derive(Debug)]
pub struct Stow<'a> {
    spool: &'a Spool,
    splitter: Splitter,
    /// The study that the address names.
    study: Option<Uid>,
    /// The object that arrives, or why it is refused.
    open: Option<std::result::Result<Incoming, u16>>,
    stored: Vec<Value>,
    failed: Vec<Value>,
}

impl<'a> Stow<'a> {
    /// Begins with the header `Content-Type` of the request, and the study if the address names one.
    ///
    /// # Errors
    /// `Form`.
    pub fn new(
        spool: &'a Spool,
        content_type: &[u8],
        study: Option<Uid>,
    ) -> std::result::Result<Self, StowFault> {
        Ok(Self {
            spool,
            splitter: Splitter::new(content_type).map_err(StowFault::Form)?,
            study,
            open: None,
            stored: Vec::new(),
            failed: Vec::new(),
        })
    }

    /// Takes more bytes. Waits for the disk.
    ///
    /// # Errors
    /// `Form`; `TooMany`.
    pub fn push(&mut self, bytes: &[u8]) -> std::result::Result<(), StowFault> {
        for event in self.splitter.push(bytes).map_err(StowFault::Form)? {
            match event {
                Event::Begin(headers) => {
                    if self.stored.len() + self.failed.len() >= MAX_PARTS {
                        return Err(StowFault::TooMany);
                    }
                    self.open = Some(self.begin(&headers));
                }
                Event::Bytes(bytes) => {
                    if let Some(Ok(incoming)) = &mut self.open
                        && let Err(error) = incoming.write(&bytes)
                    {
                        self.open = Some(Err(reason_of(&error)));
                    }
                }
                Event::End => self.end(),
            }
        }
        Ok(())
    }

    /// Ends the request; what is stored survives a power cut.
    ///
    /// # Errors
    /// `Form` if the body ended too early: what is stored stays, and may be sent again. `Empty`.
    pub fn finish(self) -> std::result::Result<StowAnswer, StowFault> {
        self.splitter.finish().map_err(StowFault::Form)?;
        let (n_stored, n_failed) = (self.stored.len(), self.failed.len());
        let status = match (n_stored, n_failed) {
            (0, 0) => return Err(StowFault::Empty),
            (_, 0) => 200,
            (0, _) => 409,
            _ => 202,
        };
        let mut body = json!({});
        for (tag, items) in [("00081198", self.failed), ("00081199", self.stored)] {
            body[tag] = match items.is_empty() {
                true => json!({"vr": "SQ"}),
                false => json!({"vr": "SQ", "Value": items}),
            };
        }
        Ok(StowAnswer {
            status,
            body,
            n_stored,
            n_failed,
        })
    }

    fn begin(&self, headers: &[u8]) -> std::result::Result<Incoming, u16> {
        // A part without a kind is taken for what is wanted, and told by its bytes.
        let is_dicom = part_kind(headers).is_none_or(|kind| kind == b"application/dicom");
        match is_dicom {
            true => self.spool.begin().map_err(|error| reason_of(&error)),
            false => Err(NOT_UNDERSTOOD),
        }
    }

    fn end(&mut self) {
        let Some(open) = self.open.take() else {
            return;
        };
        let mut ids = None;
        let outcome = open.and_then(|incoming| {
            let study = self.study.as_ref();
            take(self.spool, &incoming, study, &mut ids)
        });
        let mut item = ids.map_or_else(|| json!({}), |ids| item_of(&ids));
        match outcome {
            Ok(()) => self.stored.push(item),
            Err(reason) => {
                item["00081197"] = json!({"vr": "US", "Value": [reason]});
                self.failed.push(item);
            }
        }
    }
}

/// Puts an object into the spool; `ids` are set if it says which it is.
fn take(
    spool: &Spool,
    incoming: &Incoming,
    study: Option<&Uid>,
    ids: &mut Option<ObjectIds>,
) -> std::result::Result<(), u16> {
    let of = |outcome: Result<ObjectIds>| outcome.map_err(|error| reason_of(&error));
    let found = ids.insert(of(incoming.ids())?);
    if study.is_some_and(|study| *study != found.study) {
        return Err(ANOTHER);
    }
    match spool.take(incoming) {
        Ok((_, Stored::New | Stored::Same)) => Ok(()),
        Ok((_, Stored::Other)) => Err(DUPLICATE),
        Err(error) => Err(reason_of(&error)),
    }
}

/// Names an object to its sender.
fn item_of(ids: &ObjectIds) -> Value {
    json!({
        "00081150": {"vr": "UI", "Value": [ids.sop_class.expose()]},
        "00081155": {"vr": "UI", "Value": [ids.sop_instance.expose()]},
    })
}

fn reason_of(error: &Error) -> u16 {
    match error {
        Error::Malformed { .. } => NOT_UNDERSTOOD,
        _ => NO_ROOM,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Names;
    use crate::part10::tests::object;
    use crate::spool::SpoolLimits;

    const KIND: &[u8] = b"multipart/related; type=\"application/dicom\"; boundary=xyz";

    fn body(parts: &[&[u8]]) -> Vec<u8> {
        let mut body = Vec::new();
        for part in parts {
            body.extend(b"--xyz\r\nContent-Type: application/dicom\r\n\r\n");
            body.extend(*part);
            body.extend(b"\r\n");
        }
        body.extend(b"--xyz--\r\n");
        body
    }

    fn post(spool: &Spool, parts: &[&[u8]], study: Option<&str>) -> StowAnswer {
        let study = study.map(|study| Uid::new(study.as_bytes()).unwrap());
        let mut stow = Stow::new(spool, KIND, study).unwrap();
        for piece in body(parts).chunks(11) {
            stow.push(piece).unwrap();
        }
        stow.finish().unwrap()
    }

    fn reasons(answer: &StowAnswer) -> Vec<u64> {
        let items = answer.body["00081198"]["Value"].as_array();
        let items = items.into_iter().flatten();
        items
            .map(|item| item["00081197"]["Value"][0].as_u64().unwrap())
            .collect()
    }

    #[test]
    fn every_object_is_told_with_its_reason() {
        let folder = tempfile::tempdir().unwrap();
        let limits = SpoolLimits {
            max_object_bytes: 2000,
            ..SpoolLimits::default()
        };
        let spool = Spool::open(folder.path(), Names::new(b"k"), limits).unwrap();
        let (a, b) = (
            object("1.1", "1.5", b"a\r\n--xyy"),
            object("1.1", "1.6", b"b"),
        );
        let answer = post(&spool, &[&a, &b], None);
        assert_eq!((answer.status, answer.n_stored), (200, 2));
        assert_eq!(answer.body["00081198"], json!({"vr": "SQ"}));
        let first = &answer.body["00081199"]["Value"][0];
        assert_eq!(first["00081155"]["Value"][0], "1.5");
        let answer = post(&spool, &[&a, b"garbage", &b], Some("1.9"));
        assert_eq!((answer.status, reasons(&answer)), (202, vec![0xc000]));
        assert_eq!(answer.n_stored, 2, "what was there already is stored");
        let other = object("1.1", "1.5", b"z");
        let large = object("1.1", "1.7", &[0; 3000]);
        let answer = post(&spool, &[&other, &large], None);
        assert_eq!(
            (answer.status, reasons(&answer)),
            (409, vec![0x0111, 0xa700])
        );
        let answer = post(&spool, &[&a], Some("1.8"));
        assert_eq!((answer.status, reasons(&answer)), (409, vec![0xa900]));
    }

    #[test]
    fn bodies_that_are_none_are_refused_and_cut_ones_may_be_repeated() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::open(folder.path(), Names::new(b"k"), SpoolLimits::default()).unwrap();
        let wrong = Stow::new(&spool, b"application/dicom", None);
        assert!(matches!(wrong, Err(StowFault::Form(Fault::NoBoundary))));
        let finish = |body: &[u8]| {
            let mut stow = Stow::new(&spool, KIND, None).unwrap();
            stow.push(body).and_then(|()| stow.finish())
        };
        assert_eq!(finish(b"--xyz--"), Err(StowFault::Empty));
        let whole = body(&[&object("1.1", "1.5", b"a")]);
        for n_bytes in 0..whole.len() - 4 {
            let cut = finish(&whole[..n_bytes]);
            assert_eq!(cut, Err(StowFault::Form(Fault::Cut)), "{n_bytes}");
        }
        assert_eq!(finish(&whole).unwrap().status, 200);
        let n_left = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(n_left, 2, "the lock and the series");
    }

    #[test]
    fn parts_of_another_kind_are_refused_one_by_one() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::open(folder.path(), Names::new(b"k"), SpoolLimits::default()).unwrap();
        let mut body = body(&[&object("1.1", "1.5", b"a")]);
        body.splice(..0, *b"--xyz\r\nContent-Type: text/plain\r\n\r\nabc\r\n");
        let mut stow = Stow::new(&spool, KIND, None).unwrap();
        stow.push(&body).unwrap();
        let answer = stow.finish().unwrap();
        assert_eq!((answer.status, reasons(&answer)), (202, vec![0xc000]));
    }
}
