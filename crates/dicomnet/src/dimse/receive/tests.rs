use std::io::{Read as _, Write as _};
use std::time::Instant;

use dicom_ul::association::client::ClientAssociationOptions;

use super::*;
use crate::Names;
use crate::part10::IMPLICIT;
use crate::part10::tests::data_set;
use crate::spool::SpoolLimits;

const CT: &str = "1.2.840.10008.5.1.4.1.1.2";

struct Service {
    _folder: tempfile::TempDir,
    spool: Arc<Spool>,
    receiver: Receiver,
}

fn start(change: impl FnOnce(&mut ReceiverOptions)) -> Service {
    let folder = tempfile::tempdir().unwrap();
    let limits = SpoolLimits {
        max_object_bytes: 100_000,
        ..SpoolLimits::default()
    };
    let spool = Spool::open(&folder.path().join("spool"), Names::new(b"k"), limits).unwrap();
    let spool = Arc::new(spool);
    let mut options = ReceiverOptions::new("M3RET").unwrap();
    options.timeout = Duration::from_secs(2);
    change(&mut options);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    Service {
        _folder: folder,
        receiver: Receiver::start(listener, options, Arc::clone(&spool)).unwrap(),
        spool,
    }
}

type Client = dicom_ul::association::client::ClientAssociation<TcpStream>;

fn associate(
    service: &Service,
    called: &str,
) -> std::result::Result<Client, dicom_ul::association::Error> {
    ClientAssociationOptions::new()
        .calling_ae_title("CT1")
        .called_ae_title(called.to_owned())
        .with_presentation_context(CT, vec![IMPLICIT])
        .with_presentation_context("1.2.840.10008.1.1", vec![IMPLICIT])
        .establish(service.receiver.address())
}

/// Sends a command and perhaps an object, and returns the status of the answer.
fn ask(client: &mut Client, command: &Command, object: Option<&[u8]>) -> Option<u16> {
    let context = client.presentation_contexts()[0].id;
    let value = |value_type, data| PDataValue {
        presentation_context_id: context,
        value_type,
        is_last: true,
        data,
    };
    let mut data = vec![value(PDataValueType::Command, command.write())];
    data.extend(object.map(|object| value(PDataValueType::Data, object.to_vec())));
    client.send(&Pdu::PData { data }).ok()?;
    match client.receive().ok()? {
        Pdu::PData { data } => {
            let answer = Command::parse(&data[0].data).unwrap();
            assert_eq!(answer.number(Field::RespondsTo), Some(9));
            answer.number(Field::Status)
        }
        _ => None,
    }
}

fn command(number: u16, instance: &str) -> Command {
    Command::default()
        .with_number(Field::Command, number)
        .with_number(Field::Message, 9)
        .with_number(Field::DataSet, if number == C_STORE { 0 } else { 0x0101 })
        .with_uid(Field::AffectedSopClass, CT)
        .with_uid(Field::AffectedSopInstance, instance)
}

#[test]
fn objects_are_stored_once_and_every_one_has_an_answer() {
    let service = start(|_| ());
    let mut client = associate(&service, "M3RET").unwrap();
    assert_eq!(ask(&mut client, &command(C_ECHO, "1.5"), None), Some(DONE));
    let object = data_set("1.1", "1.5", b"pixels");
    let store = command(C_STORE, "1.5");
    assert_eq!(ask(&mut client, &store, Some(&object)), Some(DONE));
    assert_eq!(ask(&mut client, &store, Some(&object)), Some(DONE));
    let other = data_set("1.1", "1.5", b"others");
    assert_eq!(ask(&mut client, &store, Some(&other)), Some(DUPLICATE));
    let status = ask(&mut client, &command(C_STORE, "1.6"), Some(&object));
    assert_eq!(status, Some(ANOTHER));
    assert_eq!(
        ask(&mut client, &store, Some(b"garbage")),
        Some(NOT_UNDERSTOOD)
    );
    let large = data_set("1.1", "1.7", &vec![0; 100_000]);
    let status = ask(&mut client, &command(C_STORE, "1.7"), Some(&large));
    assert_eq!(status, Some(NO_ROOM));
    let status = ask(&mut client, &command(0x0021, "1.5"), None);
    assert_eq!(status, Some(UNRECOGNIZED));
    client.release().unwrap();
    let counts = service.receiver.counts();
    assert_eq!(
        (counts.n_stored, counts.n_same, counts.n_refused),
        (1, 1, 4)
    );
    let series = service.spool.quiet(Duration::ZERO);
    let files: Vec<_> = std::fs::read_dir(&series[0].folder).unwrap().collect();
    let file = std::fs::read(files[0].as_ref().unwrap().path()).unwrap();
    assert!(file.ends_with(&object), "the data set is kept as it came");
    service.receiver.stop();
}

#[test]
fn strangers_are_refused() {
    let service = start(|_| ());
    assert!(matches!(
        associate(&service, "OTHER"),
        Err(dicom_ul::association::Error::Rejected { .. })
    ));
    let service = start(|options| options.peers = vec!["CT2=127.0.0.1".parse().unwrap()]);
    assert!(associate(&service, "M3RET").is_err());
    let service = start(|options| options.peers = vec!["CT1=192.0.2.1".parse().unwrap()]);
    assert!(associate(&service, "M3RET").is_err());
    let service = start(|options| options.peers = vec!["CT1=127.0.0.1".parse().unwrap()]);
    assert!(associate(&service, "M3RET").is_ok());
    for wrong in [
        "CT1",
        "=127.0.0.1",
        "CT1=host",
        "TITLE THAT IS LONG=127.0.0.1",
    ] {
        assert!(wrong.parse::<PeerRule>().is_err(), "{wrong}");
    }
}

#[test]
fn hostile_bytes_end_an_association_and_nothing_else() {
    let service = start(|options| options.timeout = Duration::from_millis(300));
    let address = service.receiver.address();
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[1, 0, 255, 255, 255, 255, 0, 1],
        &[4, 0, 0, 0, 0, 4, 0, 0, 0, 9],
        &[0; 4096],
        b"",
    ] {
        let mut stream = TcpStream::connect(address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        stream.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        // Whatever it answers, it ends.
        let _ = stream.read_to_end(&mut answer);
    }
    let mut client = associate(&service, "M3RET").unwrap();
    let context = client.presentation_contexts()[0].id;
    let value = PDataValue {
        presentation_context_id: context,
        value_type: PDataValueType::Command,
        is_last: false,
        data: vec![0; 30_000],
    };
    let pdu = Pdu::PData { data: vec![value] };
    for _ in 0..4 {
        let _ = client.send(&pdu);
    }
    assert!(
        !matches!(client.receive(), Ok(Pdu::PData { .. })),
        "a command without end"
    );
    for wrong in [&b"junk"[..], &[0; 7], &[8, 0, 0, 1, 0, 0, 0, 0]] {
        let mut client = associate(&service, "M3RET").unwrap();
        let value = PDataValue {
            presentation_context_id: context,
            value_type: PDataValueType::Command,
            is_last: true,
            data: wrong.to_vec(),
        };
        client.send(&Pdu::PData { data: vec![value] }).unwrap();
        assert!(!matches!(client.receive(), Ok(Pdu::PData { .. })));
    }
    let mut client = associate(&service, "M3RET").unwrap();
    assert_eq!(ask(&mut client, &command(C_ECHO, "1.5"), None), Some(DONE));
}

#[test]
fn further_associations_are_cut_and_a_stop_ends_all() {
    let service = start(|options| options.max_associations = 2);
    let first = associate(&service, "M3RET").unwrap();
    let _second = associate(&service, "M3RET").unwrap();
    assert!(associate(&service, "M3RET").is_err());
    drop(first);
    // Its thread sees the end of the connection in a moment.
    let begun = Instant::now();
    while associate(&service, "M3RET").is_err() {
        assert!(begun.elapsed() < Duration::from_secs(5));
        std::thread::sleep(Duration::from_millis(20));
    }
    let address = service.receiver.address();
    service.receiver.stop();
    assert!(TcpStream::connect(address).is_err());
}
