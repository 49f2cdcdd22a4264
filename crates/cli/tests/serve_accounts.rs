//! Accounts that other systems know, and connections that are encrypted.

#![cfg(unix)]
#![allow(clippy::disallowed_methods, reason = "tokens end at a time")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::too_many_lines, reason = "stories told from start to end")]

#[path = "person/binary.rs"]
mod binary;
#[path = "person/dicom.rs"]
mod dicom;
#[path = "person/http.rs"]
mod http;
#[path = "person/served.rs"]
mod served;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};

use binary::run;
use http::Server;
use served::{SECRETS, archive};

/// An OpenID provider with one key of P-256.
struct Provider {
    pair: EcdsaKeyPair,
    random: SystemRandom,
}

fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let mut bits = 0_u32;
        for place in 0..3 {
            bits = bits << 8 | u32::from(three.get(place).copied().unwrap_or(0));
        }
        for digit in 0..=three.len() {
            let place = usize::try_from(bits >> (18 - 6 * digit) & 63).unwrap();
            text.push(char::from(DIGITS[place]));
        }
    }
    text
}

impl Provider {
    fn new() -> Self {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).unwrap();
        Self { pair, random }
    }

    fn key(&self, id: &str) -> Value {
        let point = self.pair.public_key().as_ref();
        json!({"kty": "EC", "crv": "P-256", "kid": id, "use": "sig", "alg": "ES256",
               "x": base64url(&point[1..33]), "y": base64url(&point[33..])})
    }

    fn token(&self, header: &Value, claims: &Value) -> String {
        let parts = [header, claims].map(|part| base64url(part.to_string().as_bytes()));
        let message = parts.join(".");
        let signature = self.pair.sign(&self.random, message.as_bytes()).unwrap();
        format!("{message}.{}", base64url(signature.as_ref()))
    }
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

fn claims(change: impl FnOnce(&mut Value)) -> Value {
    let mut claims = json!({"iss": "https://id.example", "aud": ["other", "m3ret"], "sub": "u-1",
                            "exp": now() + 600, "realm_access": {"roles": ["staff", "m3ret-reader"]}});
    change(&mut claims);
    claims
}

fn status(server: &Server, path: &str, headers: &[(&str, &str)]) -> u16 {
    server.send("GET", path, headers, b"").status
}

#[test]
fn tokens_of_an_openid_provider_are_believed_if_everything_about_them_is_right() {
    let folder = archive();
    let root = folder.path();
    let provider = Provider::new();
    std::fs::write(
        root.join("keys.json"),
        json!({"keys": [provider.key("k1")]}).to_string(),
    )
    .unwrap();
    let (_, out, _) = run(root, &["serve", "--new-token", "auditor:script"]);
    let (token, line) = out.split_once('\n').unwrap();
    let script = token.split_once(' ').unwrap().1.trim();
    std::fs::write(root.join("tokens"), line.split_once(' ').unwrap().1.trim()).unwrap();
    let server = Server::start(
        root,
        &[
            "-d",
            "g.m3i",
            "--auth",
            "oidc",
            "--oidc-issuer",
            "https://id.example",
            "--oidc-jwks",
            "keys.json",
            "--roles-claim",
            "realm_access.roles",
            "--token-file",
            "tokens",
            "--audit",
            "audit",
        ],
    );
    let es256 = json!({"alg": "ES256", "typ": "JWT", "kid": "k1"});
    let ask = |token: &str| {
        status(
            &server,
            "/v1/indexes",
            &[("Authorization", &format!("Bearer {token}"))],
        )
    };
    let with = |change: fn(&mut Value)| ask(&provider.token(&es256, &claims(change)));
    let good = provider.token(&es256, &claims(|_| {}));
    assert_eq!(ask(&good), 200);
    assert_eq!(with(|claims| claims["aud"] = json!("m3ret")), 200);
    assert_eq!(with(|claims| claims["nbf"] = json!(now())), 200);
    assert_eq!(
        ask(&provider.token(&json!({"alg": "ES256"}), &claims(|_| {}))),
        200
    );
    for (what, change) in [
        (
            "expired",
            (|claims| claims["exp"] = json!(now() - 60)) as fn(&mut Value),
        ),
        ("not valid yet", |claims| claims["nbf"] = json!(now() + 600)),
        ("without end", |claims| {
            drop(claims.as_object_mut().unwrap().remove("exp"))
        }),
        ("end as a text", |claims| claims["exp"] = json!("never")),
        ("of another provider", |claims| {
            claims["iss"] = json!("https://id.example.org")
        }),
        ("without provider", |claims| {
            drop(claims.as_object_mut().unwrap().remove("iss"))
        }),
        ("for others", |claims| claims["aud"] = json!("m3ret2")),
        ("for nobody", |claims| {
            drop(claims.as_object_mut().unwrap().remove("aud"))
        }),
        ("without name", |claims| {
            drop(claims.as_object_mut().unwrap().remove("sub"))
        }),
        ("with a name of control characters", |claims| {
            claims["sub"] = json!("a\u{1}b")
        }),
    ] {
        assert_eq!(with(change), 401, "{what}");
    }
    for roles in [json!([]), json!(["owner"]), json!(7), json!("Reader")] {
        let claims = claims(|claims| claims["realm_access"]["roles"] = roles.clone());
        assert_eq!(ask(&provider.token(&es256, &claims)), 403, "{roles}");
    }
    let auditor = claims(|claims| claims["realm_access"]["roles"] = json!("auditor staff"));
    assert_eq!(ask(&provider.token(&es256, &auditor)), 403);
    // Headers that choose how they are checked.
    let (head, rest) = good.split_once('.').unwrap();
    let (payload, signature) = rest.split_once('.').unwrap();
    let other = Provider::new();
    for header in [
        json!({"alg": "none"}),
        json!({"alg": "HS256", "kid": "k1"}),
        json!({"alg": "RS256", "kid": "k1"}),
        json!({"alg": "ES384", "kid": "k1"}),
        json!({"alg": "ES256", "kid": "k2"}),
        json!({"alg": "ES256", "kid": "k1", "crit": ["exp"]}),
    ] {
        let header = base64url(header.to_string().as_bytes());
        assert_eq!(ask(&format!("{header}.{payload}.{signature}")), 401);
        assert_eq!(ask(&format!("{header}.{payload}.")), 401);
    }
    let own_key = json!({"alg": "ES256", "kid": "k1", "jwk": other.key("k1")});
    for wrong in [
        other.token(&es256, &claims(|_| {})),
        other.token(&own_key, &claims(|_| {})),
        format!("{head}.{payload}"),
        format!("{head}.{payload}.{}", base64url(&[0; 64])),
        format!("{good}.{good}"),
        "..".to_owned(),
        "x".repeat(20_000),
    ] {
        assert_eq!(ask(&wrong), 401);
    }
    // A token becomes a session, and tokens of the file go on beside.
    let body = json!({"token": good}).to_string();
    let kind = [("Content-Type", "application/json")];
    let session = server.send("POST", "/v1/session", &kind, body.as_bytes());
    assert_eq!(session.status, 204, "{}", session.text());
    let cookie = session.header("set-cookie").unwrap();
    let cookie = cookie.split(';').next().unwrap();
    assert_eq!(status(&server, "/v1/indexes", &[("Cookie", cookie)]), 200);
    assert_eq!(
        status(
            &server,
            "/v1/audit",
            &[("Authorization", &format!("Bearer {script}"))]
        ),
        200
    );
    // The provider takes a new key.
    std::thread::sleep(std::time::Duration::from_millis(20));
    std::fs::write(
        root.join("keys.json"),
        json!({"keys": [other.key("k3")]}).to_string(),
    )
    .unwrap();
    let renewed = json!({"alg": "ES256", "kid": "k3"});
    assert_eq!(ask(&other.token(&renewed, &claims(|_| {}))), 200);
    assert_eq!(ask(&good), 401);
    let (_, log) = server.end();
    let audit = std::fs::read_dir(root.join("audit")).unwrap();
    let trail: String = audit
        .map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap())
        .collect();
    assert!(trail.contains("\"who\":\"oidc:u-1\""), "{trail}");
    for secret in [SECRETS[0], payload, signature] {
        assert!(!log.contains(secret) && !trail.contains(secret));
    }
}

#[test]
fn a_provider_whose_keys_cannot_be_read_stops_the_start_or_is_said_to_be_away() {
    let folder = archive();
    let root = folder.path();
    let rsa_only = json!({"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "k1"}]}).to_string();
    for (text, told) in [
        ("{}", "JSON Web Key Set"),
        (rsa_only.as_str(), "no key for RS256 or ES256"),
    ] {
        std::fs::write(root.join("keys.json"), text).unwrap();
        let words = [
            "serve",
            "-d",
            "g.m3i",
            "--auth",
            "oidc",
            "--oidc-issuer",
            "i",
            "--oidc-jwks",
            "keys.json",
        ];
        let (status, _, log) = run(root, &words);
        assert!(
            status == 1 && log.contains(told) && !log.contains("c2VjcmV0"),
            "{log}"
        );
    }
    let words = [
        "serve",
        "-d",
        "g.m3i",
        "--auth",
        "oidc",
        "--oidc-issuer",
        "i",
        "--oidc-jwks",
        "http://id.example/keys",
    ];
    let (status, _, log) = run(root, &words);
    assert!(status == 1 && log.contains("without https"), "{log}");
    // Whoever listens there hangs up.
    let hanging_up = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let away = hanging_up.local_addr().unwrap();
    let n_asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&n_asked);
    std::thread::spawn(move || {
        for stream in hanging_up.incoming() {
            counted.fetch_add(1, Ordering::SeqCst);
            drop(stream);
        }
    });
    let url = format!("http://{away}/keys");
    let server = Server::start(
        root,
        &[
            "-d",
            "g.m3i",
            "--auth",
            "oidc",
            "--oidc-issuer",
            "i",
            "--oidc-jwks",
            &url,
        ],
    );
    let token = Provider::new().token(&json!({"alg": "ES256", "kid": "k1"}), &claims(|_| {}));
    let auth = format!("Bearer {token}");
    let ask = || server.send("GET", "/v1/indexes", &[("Authorization", &auth)], b"");
    let told = |reply: &http::Reply| (reply.status, reply.value()["code"].to_string());
    let away = (503, "\"oidc\"".to_owned());
    assert_eq!(told(&ask()), away);
    // It is not asked again at once, however many tokens come.
    let before = n_asked.load(Ordering::SeqCst);
    for _ in 0..5 {
        assert_eq!(told(&ask()), away);
    }
    assert_eq!((before, n_asked.load(Ordering::SeqCst)), (1, 1));
    let reply = server.send(
        "GET",
        "/v1/indexes",
        &[("Authorization", "Bearer none")],
        b"",
    );
    assert_eq!(reply.status, 401);
}

#[test]
fn a_proxy_names_the_account_and_its_role() {
    let folder = archive();
    let root = folder.path();
    let server = Server::start(
        root,
        &[
            "-d",
            "g.m3i",
            "--auth",
            "proxy",
            "--proxy-from",
            "127.0.0.1",
            "--proxy-header",
            "X-User",
        ],
    );
    let user = ("X-User", "ann");
    assert_eq!(status(&server, "/v1/indexes", &[]), 401);
    assert_eq!(status(&server, "/v1/indexes", &[user]), 200);
    assert_eq!(
        status(
            &server,
            "/v1/indexes",
            &[user, ("X-Remote-Role", "auditor")]
        ),
        403
    );
    assert_eq!(status(&server, "/v1/indexes", &[user, user]), 401);
    let search = json!({"id": "a.dcm"}).to_string();
    let post = |headers: &[(&str, &str)]| {
        let headers = [headers, &[("Content-Type", "application/json")]].concat();
        server
            .send("POST", "/v1/indexes/g/search", &headers, search.as_bytes())
            .status
    };
    assert_eq!(post(&[user]), 403);
    assert_eq!(post(&[user, ("X-M3RET", "1")]), 200);
    // Behind a proxy every request comes from this machine.
    assert_eq!(status(&server, "/metrics", &[]), 401);
    assert_eq!(status(&server, "/metrics", &[user]), 403);
    assert_eq!(
        status(&server, "/metrics", &[user, ("X-Remote-Role", "admin")]),
        200
    );
    let server = Server::start(
        root,
        &[
            "-d",
            "g.m3i",
            "--auth",
            "proxy",
            "--proxy-from",
            "192.0.2.1",
        ],
    );
    assert_eq!(
        status(&server, "/v1/indexes", &[("X-Remote-User", "ann")]),
        401
    );
}

#[test]
fn programs_of_this_machine_read_metrics_and_nothing_in_them_names_an_image() {
    let folder = archive();
    let server = Server::start(folder.path(), &["-d", "g.m3i"]);
    assert_eq!(
        server
            .json("POST", "/v1/indexes/g/search", &json!({"id": "a.dcm"}))
            .status,
        200
    );
    assert_eq!(server.get("/v1/objects/a.dcm/thumbnail.png").status, 200);
    assert_eq!(server.get("/v1/nothing/a.dcm").status, 404);
    let reply = server.send("GET", "/metrics", &[], b"");
    let text = reply.text();
    assert_eq!(reply.status, 200);
    for line in [
        "m3ret_http_seconds_count{route=\"/v1/indexes/{name}/search\",status=\"200\"} 1",
        "m3ret_http_seconds_count{route=\"none\",status=\"404\"} 1",
        "m3ret_search_seconds_count 1",
        "m3ret_index_vectors{index=\"g\"} 4",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    assert!(!text.contains("a.dcm"), "{text}");
    for passed_on in [
        ("X-Forwarded-For", "10.0.0.1"),
        ("Forwarded", "for=10.0.0.1"),
        ("Via", "1.1 p"),
    ] {
        assert_eq!(status(&server, "/metrics", &[passed_on]), 401);
    }
}

#[test]
fn an_account_that_sees_many_patients_must_wait() {
    let folder = archive();
    let root = folder.path();
    let server = Server::start(
        root,
        &[
            "-d",
            "g.m3i",
            "--max-patients-per-hour",
            "2",
            "--audit",
            "audit",
        ],
    );
    let ask = |k: usize| {
        server.json(
            "POST",
            "/v1/indexes/g/search",
            &json!({"id": "a.dcm", "k": k}),
        )
    };
    // Of the three others one is of the same patient, one of another, and one of nobody known.
    assert_eq!(ask(1).status, 200);
    let refused = ask(3);
    assert_eq!(
        (refused.status, refused.value()["code"].as_str()),
        (429, Some("too_many_patients"))
    );
    assert!(refused.header("retry-after").is_some() && !refused.text().contains("c.dcm"));
    assert_eq!(ask(1).status, 200);
    let (_, _) = server.end();
    let (status, out, _) = run(root, &["audit", "export", "audit"]);
    assert_eq!((status, out.lines().count()), (0, 2), "{out}");
}

/// Asks by TLS; trusts one certificate.
fn get_by_tls(address: &str, path: &str, trusted: &Path) -> Result<String, std::io::Error> {
    // Another test may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut roots = RootCertStore::empty();
    use rustls::pki_types::pem::PemObject as _;
    roots
        .add(rustls::pki_types::CertificateDer::from_pem_file(trusted).unwrap())
        .unwrap();
    let config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = StreamOwned::new(connection, TcpStream::connect(address)?);
    let (_, port) = address.rsplit_once(':').unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn certificate(folder: &Path, name: &str) -> [String; 2] {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let files = [format!("{name}.crt"), format!("{name}.key")];
    std::fs::write(folder.join(&files[0]), made.cert.pem()).unwrap();
    std::fs::write(folder.join(&files[1]), made.signing_key.serialize_pem()).unwrap();
    files
}

#[test]
fn connections_are_encrypted_where_a_certificate_is_given() {
    let folder = archive();
    let root = folder.path();
    let [cert, key] = certificate(root, "one");
    let [other, other_key] = certificate(root, "two");
    let words = ["-d", "g.m3i", "--tls-cert", &cert, "--tls-key", &key];
    let server = Server::start(root, &words);
    let answer = get_by_tls(&server.address, "/livez", &root.join(&cert)).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200")
            && answer.to_lowercase().contains("strict-transport-security"),
        "{answer}"
    );
    assert!(get_by_tls(&server.address, "/livez", &root.join(&other)).is_err());
    // Plain text, and a client that says nothing, do not stop the server.
    let mut plain = TcpStream::connect(&server.address).unwrap();
    plain
        .write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    let mut nothing = Vec::new();
    let _ = plain.read_to_end(&mut nothing);
    assert!(!nothing.starts_with(b"HTTP"), "{nothing:?}");
    let _silent = TcpStream::connect(&server.address).unwrap();
    assert!(get_by_tls(&server.address, "/livez", &root.join(&cert)).is_ok());
    for (words, told) in [
        (
            ["--tls-cert", &cert, "--tls-key", &other_key],
            "is not the key of",
        ),
        (
            ["--tls-cert", &key, "--tls-key", &key],
            "found no certificate",
        ),
        (
            ["--tls-cert", &cert, "--tls-key", &cert],
            "a private key in PEM is wanted",
        ),
        (["--tls-cert", "none", "--tls-key", &key], "none"),
    ] {
        let all = [&["serve", "-d", "g.m3i"], &words[..]].concat();
        let (status, _, log) = run(root, &all);
        assert!(status == 1 && log.contains(told), "{log}");
    }
}

#[test]
fn an_address_that_others_reach_needs_encryption_and_accounts() {
    let folder = archive();
    let root = folder.path();
    let [cert, key] = certificate(root, "one");
    let tls = ["--tls-cert", &cert, "--tls-key", &key];
    let proxy = ["--auth", "proxy", "--proxy-from", "192.0.2.1"];
    for (words, told) in [
        (&[][..], "is not encrypted"),
        (&["--token-file", "tokens"][..], "is not encrypted"),
        (&tls[..], "no accounts are named"),
        (&proxy[..], "called by a name"),
    ] {
        let all = [&["serve", "-d", "g.m3i", "--listen", "0.0.0.0:0"], words].concat();
        let (status, _, log) = run(root, &all);
        let told = told.replace("called by a name", "which must be known");
        assert!(status == 2 && log.contains(&told), "{status} {log}");
    }
    // Who states how accounts are known, and does not choose it, would have a server without.
    let away = ["--oidc-issuer", "i", "--oidc-jwks", "keys"];
    for (words, told) in [
        (&away[..], "--auth oidc"),
        (&["--proxy-from", "192.0.2.1"], "--auth proxy"),
        (&["--proxy-header", "X-User"], "--proxy-from"),
        (&["--roles-claim", "groups"], "--oidc-issuer"),
        (&["--peer", "CT1=192.0.2.1"], "--scp"),
        (&["--settle", "5s"], "--dicom-into"),
        (&["--max-upload", "1X"], "such as 1048576, 512M or 2G"),
    ] {
        let (status, _, log) = run(root, &[&["serve", "-d", "g.m3i"], words].concat());
        assert!(status == 2 && log.contains(told), "{status} {log}");
    }
    std::fs::write(
        root.join("serve.toml"),
        "listen = \"0.0.0.0:0\"\narchive = [\"g.m3i\"]\nthreads = 1\n",
    )
    .unwrap();
    let (status, _, log) = run(root, &["serve", "--config", "serve.toml"]);
    assert!(status == 2 && log.contains("is not encrypted"), "{log}");
    let (status, _, log) = run(root, &["serve", "--config", "none.toml"]);
    assert!(status == 2 && log.contains("none.toml"), "{log}");
}
