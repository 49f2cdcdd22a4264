//! Syncs a folder, as a person tries it first: a dry run, a key of the wrong gallery.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "person/binary.rs"]
mod binary;
#[path = "person/dicom.rs"]
mod dicom;

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use binary::{names_in, run};

/// A folder `in` with two series.
fn archive() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    std::fs::create_dir(root.join("in")).unwrap();
    for (name, study, seed) in [("a", "1.2.840.1", 1), ("b", "1.2.840.2", 2)] {
        let series = format!("{study}.2");
        let sop = format!("{study}.3");
        let words = [
            (0x08, 0x16, "UI", "1.2.840.10008.5.1.4.1.1.1.1"),
            (0x08, 0x18, "UI", sop.as_str()),
            (0x08, 0x60, "CS", "DX"),
            (0x10, 0x20, "LO", "MRN-SECRET"),
            (0x20, 0x0d, "UI", study),
            (0x20, 0x0e, "UI", series.as_str()),
        ];
        let bytes = dicom::dicom(&words, &dicom::picture(seed));
        std::fs::write(root.join(format!("in/{name}.dcm")), bytes).unwrap();
    }
    folder
}

fn sync(root: &Path, into: &str, more: &[&str]) -> (i32, String, String) {
    let words = ["sync", "--from", "folder", "in", "--into", into];
    run(root, &[&words[..], &["--settle", "0s"], more].concat())
}

#[test]
fn a_dry_run_leaves_nothing_behind() {
    let folder = archive();
    let root = folder.path();
    let dry = ["--dry-run", "--key-file", "key"];
    let (status, out, log) = sync(root, "g.m3i", &dry);
    assert!(status == 0 && out.contains("2 to fetch"), "{out}{log}");
    assert_eq!(names_in(root), ["in"]);
    let (status, out, log) = sync(root, "g.m3i", &[]);
    assert!(status == 0 && out.contains("2 rows added"), "{out}{log}");
    let before = names_in(root);
    let (status, out, log) = sync(root, "g.m3i", &dry);
    assert!(status == 0 && out.contains("0 to fetch"), "{out}{log}");
    assert_eq!(names_in(root), before);
}

#[test]
fn another_key_than_the_gallerys_is_refused_and_none_is_made() {
    let folder = archive();
    let root = folder.path();
    let (status, _, log) = sync(root, "g.m3i", &["--key-file", "key"]);
    assert_eq!(status, 0, "{log}");
    let (status, _, log) = sync(root, "g.m3i", &["--key-file", "kye"]);
    assert!(status == 1 && log.contains("found no such file"), "{log}");
    let serve = ["serve", "-d", "g.m3i", "--key-file", "kye"];
    let (status, _, log) = run(root, &serve);
    assert!(status == 1 && log.contains("found no such file"), "{log}");
    // A gallery without sealed rows before it makes no difference.
    let (status, _, log) = sync(root, "plain.m3i", &[]);
    assert_eq!(status, 0, "{log}");
    let serve = [
        "serve",
        "-d",
        "plain.m3i",
        "-d",
        "g.m3i",
        "--key-file",
        "kye",
    ];
    let (status, _, log) = run(root, &serve);
    assert!(status == 1 && log.contains("found no such file"), "{log}");
    assert!(!root.join("kye").exists(), "a key was made");
    let (status, _, log) = sync(root, "other.m3i", &["--key-file", "another"]);
    assert_eq!(status, 0, "{log}");
    let (status, _, log) = sync(root, "g.m3i", &["--key-file", "another"]);
    assert!(
        status == 1 && log.contains("sealed with another key"),
        "{log}"
    );
    let (status, out, log) = sync(root, "g.m3i", &["--key-file", "key"]);
    assert!(status == 0 && out.contains("2 known"), "{out}{log}");
    assert!(!log.contains("SECRET") && !log.contains("1.2.840"), "{log}");
}

#[test]
fn folders_of_others_and_places_in_the_gallery_are_refused() {
    let folder = archive();
    let root = folder.path();
    let (status, _, log) = sync(root, "g.m3i", &[]);
    assert_eq!(status, 0, "{log}");
    std::fs::create_dir_all(root.join("mine/thesis.tmp")).unwrap();
    let spool_in = "--spool g.m3i/spool".split(' ').collect::<Vec<_>>();
    for (more, told) in [
        (&["--spool", "mine"][..], "found files of others"),
        (&spool_in, "lies in the gallery"),
        (&["--spool", "g.m3i"], "lies in the gallery"),
        (&["--key-file", "g.m3i/uids.key"], "lies in the gallery"),
        (&["--since", "2026-01-01"], "not looked up in a folder"),
    ] {
        let (status, _, log) = sync(root, "g.m3i", more);
        assert!(status == 1 && log.contains(told), "{more:?}: {log}");
    }
    for (more, told) in [
        (&["--spool", "mine"][..], "found files of others"),
        (&["--audit", "g.m3i/audit"], "lies in the gallery"),
        (&["--key-file", "g.m3i/uids.key"], "lies in the gallery"),
    ] {
        let (status, _, log) = run(root, &[&["serve", "-d", "g.m3i"], more].concat());
        assert!(status == 1 && log.contains(told), "{more:?}: {log}");
    }
    assert!(root.join("mine/thesis.tmp").exists() && !root.join("g.m3i/uids.key").exists());
    // A password goes to no other machine in clear.
    put_secret(root);
    let words = [
        "sync",
        "--from",
        "dicomweb",
        "http://192.0.2.1:9",
        "--into",
        "g.m3i",
    ];
    let login = ["--user", "u", "--password-file", "secret"];
    let (status, _, log) = run(root, &[&words[..], &login].concat());
    assert!(status == 1 && log.contains("sent in clear"), "{log}");
}

fn put_secret(root: &Path) {
    std::fs::write(root.join("secret"), "word\n").unwrap();
}

/// Certificates of a PACS and of a client, each self-signed.
fn certificate(root: &Path, name: &str) -> (Vec<u8>, PrivatePkcs8KeyDer<'static>) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = made.signing_key.serialize_pem();
    std::fs::write(root.join(format!("{name}.key")), &key).unwrap();
    std::fs::write(root.join(format!("{name}.crt")), made.cert.pem()).unwrap();
    std::fs::write(root.join(format!("{name}.pem")), made.cert.pem() + &key).unwrap();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    (made.cert.der().to_vec(), key)
}

/// A PACS that has nothing, and answers only clients whose certificate it knows; returns where it is.
fn empty_pacs(root: &Path) -> String {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (own, key) = certificate(root, "pacs");
    let (client, _) = certificate(root, "client");
    certificate(root, "stranger");
    let mut known = RootCertStore::empty();
    known.add(client.into()).unwrap();
    let verifier = WebPkiClientVerifier::builder(Arc::new(known)).build();
    let config = ServerConfig::builder()
        .with_client_cert_verifier(verifier.unwrap())
        .with_single_cert(vec![own.into()], key.into())
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = StreamOwned::new(connection, stream.unwrap());
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
                head.push(byte[0]);
            }
            let answer = "HTTP/1.1 200 OK\r\nContent-Type: application/dicom+json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n[]";
            // A client that is refused has gone.
            let _ = stream.write_all(answer.as_bytes());
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    });
    format!("https://localhost:{port}")
}

#[test]
fn a_pacs_is_asked_with_the_certificates_that_are_given_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let url = empty_pacs(root);
    let ask = |more: &[&str]| {
        let words = ["sync", "--from", "dicomweb", &url, "--into", "g.m3i"];
        run(root, &[&words[..], more].concat())
    };
    let (status, out, log) = ask(&["--ca", "pacs.crt", "--client-cert", "client.pem"]);
    assert!(
        status == 0 && out.starts_with("0 series listed"),
        "{out}{log}"
    );
    let ca = "an authority of --ca";
    for (wrong, told) in [
        (&["--client-cert", "client.pem"][..], ca),
        (&["--ca", "stranger.crt", "--client-cert", "client.pem"], ca),
        (&["--ca", "pacs.crt"], "refusal of our certificate"),
        (
            &["--ca", "pacs.crt", "--client-cert", "stranger.pem"],
            "refusal of our certificate",
        ),
        (&["--ca", "none"], "reading none"),
        (&["--ca", "client.key"], "certificates in PEM are wanted"),
        (
            &["--ca", "pacs.crt", "--client-cert", "client.crt"],
            "a certificate and its key in PEM",
        ),
    ] {
        let (status, out, log) = ask(wrong);
        assert!(status == 1 && out.is_empty(), "{wrong:?}: {out}{log}");
        assert!(log.contains(told), "{wrong:?}: {log}");
    }
}
