//! Takes what others store (C-STORE) and answers C-ECHO: one thread an association.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use dicom_ul::Pdu;
use dicom_ul::association::server::{AccessControl, ServerAssociation, ServerAssociationOptions};
use dicom_ul::pdu::{
    AssociationRJServiceUserReason, PDataValue, PDataValueType, PresentationContextResultReason,
    UserIdentity,
};

use super::PATIENCE;
use super::command::{self, C_ECHO, C_STORE, Command, Field};
use crate::error::{Error, Result};
use crate::part10::file_head;
use crate::spool::{Incoming, Spool, Stored};
use crate::uid::Uid;

/// Largest PDU that we take: 128 KiB.
const MAX_PDU: u32 = (128 << 10) - 6;

/// Transfer syntaxes that are taken: objects are kept as they come, and what cannot be decoded is refused by name later.
const TRANSFER_SYNTAXES: [&str; 22] = [
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.5",
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.51",
    "1.2.840.10008.1.2.4.57",
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.81",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.91",
    "1.2.840.10008.1.2.4.100",
    "1.2.840.10008.1.2.4.102",
    "1.2.840.10008.1.2.4.103",
    "1.2.840.10008.1.2.4.110",
    "1.2.840.10008.1.2.4.112",
    "1.2.840.10008.1.2.4.201",
    "1.2.840.10008.1.2.4.202",
    "1.2.840.10008.1.2.4.203",
    "1.2.840.10008.1.2.8.1",
];

/// Success.
const DONE: u16 = 0x0000;
/// The object is there with other bytes.
const DUPLICATE: u16 = 0x0111;
/// No such command here.
const UNRECOGNIZED: u16 = 0x0211;
/// Out of resources.
const NO_ROOM: u16 = 0xa700;
/// The data set is of another object than the command.
const ANOTHER: u16 = 0xa900;
/// The data set cannot be understood.
const NOT_UNDERSTOOD: u16 = 0xc000;

/// Who may send: a title, and the address that it sends from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerRule {
    /// Title of the calling application entity.
    pub ae: String,
    /// Its address.
    pub address: IpAddr,
}

impl FromStr for PeerRule {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let wrong = || "AE=ADDRESS is wanted, such as CT1=192.0.2.7".to_owned();
        let (ae, address) = text.split_once('=').ok_or_else(wrong)?;
        Ok(Self {
            ae: checked_title(ae)?,
            address: address.parse().map_err(|_| wrong())?,
        })
    }
}

/// Checks the title of an application entity.
///
/// # Errors
/// A sentence that says what is wanted.
pub(crate) fn checked_title(title: &str) -> std::result::Result<String, String> {
    let is_fine = |byte: u8| (0x20..0x7f).contains(&byte) && byte != b'\\';
    let has_length = (1..=16).contains(&title.len()) && title.trim() == title;
    match has_length && title.bytes().all(is_fine) {
        true => Ok(title.to_owned()),
        false => Err("a title of 1 to 16 characters is wanted, such as M3RET".to_owned()),
    }
}

/// How objects are received.
#[derive(Debug, Clone)]
pub struct ReceiverOptions {
    /// Our title, which callers must name.
    pub ae: String,
    /// Who may send; empty for everyone who reaches the address.
    pub peers: Vec<PeerRule>,
    /// Most associations at a time, half of them from one address if several may send; further ones are cut.
    pub max_associations: usize,
    /// Longest wait for the next bytes.
    pub timeout: Duration,
}

impl ReceiverOptions {
    /// Takes 16 associations at a time from everyone, and waits 30 s.
    ///
    /// # Errors
    /// `Caller` if this is no title of an application entity.
    pub fn new(ae: &str) -> Result<Self> {
        Ok(Self {
            ae: checked_title(ae).map_err(Error::Caller)?,
            peers: Vec::new(),
            max_associations: 16,
            timeout: PATIENCE,
        })
    }
}

/// What a receiver did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReceiverCounts {
    /// Number of objects that were stored.
    pub n_stored: u64,
    /// Number of objects that were there already.
    pub n_same: u64,
    /// Number of objects that were refused.
    pub n_refused: u64,
}

#[derive(Debug, Default)]
struct Counters {
    stored: AtomicU64,
    same: AtomicU64,
    refused: AtomicU64,
}

/// What all threads of a receiver share.
struct Shared {
    options: ReceiverOptions,
    spool: Arc<Spool>,
    is_stopped: AtomicBool,
    counters: Counters,
    /// Connections by number, to end them.
    open: Mutex<HashMap<u64, (IpAddr, TcpStream)>>,
}

/// Receives objects into a spool until it is stopped or dropped.
pub struct Receiver {
    shared: Arc<Shared>,
    address: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for Receiver {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Receiver({})", self.address)
    }
}

impl Receiver {
    /// Starts to receive; `Spool::quiet` returns the series that are complete.
    ///
    /// # Errors
    /// `Io` if no thread can be started.
    pub fn start(
        listener: TcpListener,
        options: ReceiverOptions,
        spool: Arc<Spool>,
    ) -> Result<Self> {
        let io = |source| Error::Io {
            doing: "starting to receive".to_owned(),
            source,
        };
        let address = listener.local_addr().map_err(io)?;
        let shared = Arc::new(Shared {
            options,
            spool,
            is_stopped: AtomicBool::new(false),
            counters: Counters::default(),
            open: Mutex::default(),
        });
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("dimse".to_owned());
        let thread = thread
            .spawn(move || accept(&listener, &of_thread))
            .map_err(io)?;
        Ok(Self {
            shared,
            address,
            thread: Some(thread),
        })
    }

    /// Returns where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns what was received so far.
    #[must_use]
    pub fn counts(&self) -> ReceiverCounts {
        let counters = &self.shared.counters;
        ReceiverCounts {
            n_stored: counters.stored.load(Ordering::Relaxed),
            n_same: counters.same.load(Ordering::Relaxed),
            n_refused: counters.refused.load(Ordering::Relaxed),
        }
    }

    /// Ends all associations; an object that is half received is lost, and its sender knows.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.shared.is_stopped.store(true, Ordering::SeqCst);
        for (_, stream) in self.shared.open().values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        let Some(thread) = self.thread.take() else {
            return;
        };
        // The thread waits for a connection; this is the last one.
        let mut address = self.address;
        if address.ip().is_unspecified() {
            address.set_ip(IpAddr::from([127, 0, 0, 1]));
        }
        if TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok() {
            let _ = thread.join();
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn open(&self) -> std::sync::MutexGuard<'_, HashMap<u64, (IpAddr, TcpStream)>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place for a connection; `false` if all are taken, or all that one address may take.
    fn enter(&self, number: u64, address: IpAddr, stream: TcpStream) -> bool {
        let mut open = self.open();
        let (address, max) = (address.to_canonical(), self.options.max_associations);
        let max_of_one = match self.options.peers.as_slice() {
            [] | [_] => max,
            _ => max.div_ceil(2),
        };
        let n_own = open.values().filter(|(other, _)| *other == address).count();
        let peers = &self.options.peers;
        let is_known = peers.is_empty() || peers.iter().any(|peer| peer.address == address);
        // Whoever may not send takes no place of those who may.
        if !is_known || open.len() >= max || n_own >= max_of_one {
            return false;
        }
        open.insert(number, (address, stream));
        true
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for number in 0_u64.. {
        let taken = listener.accept();
        if shared.is_stopped.load(Ordering::SeqCst) {
            return;
        }
        let Ok((stream, from)) = taken else {
            // Out of descriptors: others end meanwhile.
            std::thread::sleep(Duration::from_millis(100));
            continue;
        };
        let Ok(copy) = stream.try_clone() else {
            continue;
        };
        if !shared.enter(number, from.ip(), copy) {
            continue;
        }
        let of_thread = Arc::clone(shared);
        let thread = std::thread::Builder::new().name("association".to_owned());
        let started = thread.spawn(move || {
            // The sender knows what was stored: each object has an answer.
            let _ = converse(stream, from.ip(), &of_thread);
            of_thread.open().remove(&number);
        });
        if started.is_err() {
            shared.open().remove(&number);
        }
    }
}

/// Decides who may associate.
struct Access<'a> {
    options: &'a ReceiverOptions,
    from: IpAddr,
}

impl AccessControl for Access<'_> {
    fn check_access(
        &self,
        this_ae: &str,
        calling: &str,
        called: &str,
        _: Option<&UserIdentity>,
    ) -> std::result::Result<(), AssociationRJServiceUserReason> {
        if called.trim() != this_ae {
            return Err(AssociationRJServiceUserReason::CalledAETitleNotRecognized);
        }
        let from = self.from.to_canonical();
        let is_it = |peer: &PeerRule| peer.ae == calling.trim() && peer.address == from;
        match self.options.peers.is_empty() || self.options.peers.iter().any(is_it) {
            true => Ok(()),
            false => Err(AssociationRJServiceUserReason::CallingAETitleNotRecognized),
        }
    }
}

/// Why an association ended early; the texts of dicom-ul hold what was sent, and are dropped.
struct Ended;

impl From<dicom_ul::association::Error> for Ended {
    fn from(_: dicom_ul::association::Error) -> Self {
        Self
    }
}

impl From<io::Error> for Ended {
    fn from(_: io::Error) -> Self {
        Self
    }
}

fn converse(stream: TcpStream, from: IpAddr, shared: &Shared) -> std::result::Result<(), Ended> {
    stream.set_nodelay(true)?;
    let options = &shared.options;
    let mut server = ServerAssociationOptions::new()
        .ae_access_control(Access { options, from })
        .ae_title(options.ae.as_str())
        .promiscuous(true)
        .max_pdu_length(MAX_PDU)
        .read_timeout(options.timeout)
        .write_timeout(options.timeout);
    for syntax in TRANSFER_SYNTAXES {
        server = server.with_transfer_syntax(syntax);
    }
    let association = server.establish(stream)?;
    Conversation {
        association,
        shared,
        state: State::Command(Vec::new()),
    }
    .run()
}

/// What comes next on an association.
enum State {
    /// Bytes of a command so far.
    Command(Vec<u8>),
    /// The object of a command.
    Object(Box<Receiving>),
}

/// An object on its way.
struct Receiving {
    command: Command,
    context: u8,
    /// The file, or the status of its refusal: the rest is passed over then.
    incoming: std::result::Result<Incoming, u16>,
}

struct Conversation<'a> {
    association: ServerAssociation<TcpStream>,
    shared: &'a Shared,
    state: State,
}

impl Conversation<'_> {
    fn run(mut self) -> std::result::Result<(), Ended> {
        loop {
            quick_ack(self.association.inner_stream());
            match self.association.receive()? {
                Pdu::PData { data } => {
                    for value in data {
                        if self.take(value)?.is_none() {
                            let _ = self.association.abort();
                            return Ok(());
                        }
                    }
                }
                Pdu::ReleaseRQ => {
                    self.association.send(&Pdu::ReleaseRP)?;
                    return Ok(());
                }
                Pdu::AbortRQ { .. } => return Ok(()),
                _ => {
                    let _ = self.association.abort();
                    return Ok(());
                }
            }
        }
    }

    /// Takes a part of a command or an object; `None` if the other side breaks the protocol.
    fn take(&mut self, value: PDataValue) -> std::result::Result<Option<()>, Ended> {
        match (&mut self.state, value.value_type) {
            (State::Command(bytes), PDataValueType::Command) => {
                if bytes.len() + value.data.len() > command::MAX_BYTES {
                    return Ok(None);
                }
                bytes.extend(value.data);
                if !value.is_last {
                    return Ok(Some(()));
                }
                let bytes = std::mem::take(bytes);
                match Command::parse(&bytes) {
                    Ok(command) => self.begin(command, value.presentation_context_id),
                    Err(_) => Ok(None),
                }
            }
            (State::Object(object), PDataValueType::Data)
                if object.context == value.presentation_context_id =>
            {
                if let Ok(incoming) = &mut object.incoming
                    && let Err(error) = incoming.write(&value.data)
                {
                    object.incoming = Err(status_of(&error));
                }
                match value.is_last {
                    true => self.finish(),
                    false => Ok(Some(())),
                }
            }
            _ => Ok(None),
        }
    }

    /// Acts on a command.
    fn begin(&mut self, command: Command, context: u8) -> std::result::Result<Option<()>, Ended> {
        let has_data_set = command.number(Field::DataSet) != Some(command::NO_DATA_SET);
        match command.number(Field::Command) {
            Some(C_ECHO) if !has_data_set => self.answer(&command.answer(DONE), context),
            Some(C_STORE) if has_data_set => {
                let incoming = self.begin_object(&command, context);
                let Some(incoming) = incoming else {
                    return Ok(None);
                };
                self.state = State::Object(Box::new(Receiving {
                    command,
                    context,
                    incoming,
                }));
                Ok(Some(()))
            }
            Some(_) if !has_data_set => self.answer(&command.answer(UNRECOGNIZED), context),
            Some(_) => {
                self.state = State::Object(Box::new(Receiving {
                    command,
                    context,
                    incoming: Err(UNRECOGNIZED),
                }));
                Ok(Some(()))
            }
            None => Ok(None),
        }
    }

    /// Begins a file with a head of our own; `None` if the presentation context was not accepted.
    fn begin_object(
        &self,
        command: &Command,
        context: u8,
    ) -> Option<std::result::Result<Incoming, u16>> {
        let contexts = self.association.presentation_contexts();
        let is_it = |reason: &PresentationContextResultReason| {
            *reason == PresentationContextResultReason::Acceptance
        };
        let mut accepted = contexts.iter().filter(|accepted| is_it(&accepted.reason));
        let accepted = accepted.find(|accepted| accepted.id == context)?;
        let begun = || -> Result<Incoming> {
            let class = command.uid(Field::AffectedSopClass)?;
            let instance = command.uid(Field::AffectedSopInstance)?;
            let syntax = Uid::new(accepted.transfer_syntax.as_bytes())?;
            let mut incoming = self.shared.spool.begin()?;
            incoming.write(&file_head(&class, &instance, &syntax))?;
            Ok(incoming)
        };
        Some(begun().map_err(|error| status_of(&error)))
    }

    /// Puts a complete object on the disk, and only then answers.
    fn finish(&mut self) -> std::result::Result<Option<()>, Ended> {
        let state = std::mem::replace(&mut self.state, State::Command(Vec::new()));
        let State::Object(object) = state else {
            return Ok(None);
        };
        let counters = &self.shared.counters;
        let status = object.incoming.and_then(|incoming| {
            let taken = self.shared.spool.take(&incoming);
            let (ids, stored) = taken.map_err(|error| status_of(&error))?;
            let named = object.command.uid(Field::AffectedSopInstance);
            match stored {
                _ if named.ok() != Some(ids.sop_instance) => Err(ANOTHER),
                Stored::New => Ok(&counters.stored),
                Stored::Same => Ok(&counters.same),
                Stored::Other => Err(DUPLICATE),
            }
        });
        let (counter, status) = match status {
            Ok(counter) => (counter, DONE),
            Err(status) => (&counters.refused, status),
        };
        counter.fetch_add(1, Ordering::Relaxed);
        self.answer(&object.command.answer(status), object.context)
    }

    fn answer(&mut self, answer: &Command, context: u8) -> std::result::Result<Option<()>, Ended> {
        let value = PDataValue {
            presentation_context_id: context,
            value_type: PDataValueType::Command,
            is_last: true,
            data: answer.write(),
        };
        self.association.send(&Pdu::PData { data: vec![value] })?;
        Ok(Some(()))
    }
}

fn status_of(error: &Error) -> u16 {
    match error {
        Error::Malformed { .. } => NOT_UNDERSTOOD,
        _ => NO_ROOM,
    }
}

/// Acknowledges what comes at once: senders that wait for it before each object would wait 40 ms for every one.
#[cfg(target_os = "linux")]
fn quick_ack(stream: &TcpStream) {
    let _ = socket2::SockRef::from(stream).set_tcp_quickack(true);
}

#[cfg(not(target_os = "linux"))]
fn quick_ack(_: &TcpStream) {}

#[cfg(test)]
mod tests;
