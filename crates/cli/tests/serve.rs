//! Runs `m3ret serve` on a port of this machine, and asks it as browsers and programs would.

#![cfg(unix)]
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

use serde_json::{Value, json};

use binary::{json_lines, names_in, run};
use http::{Reply, Server, form};
use served::{SECRETS, archive, image_of};

/// Returns ids, scores, relations and agreement of an answer.
fn told(answer: &Value) -> Value {
    let hits = answer["hits"].as_array().unwrap().iter();
    let fields = ["rank", "id", "score", "relation", "modality", "view"];
    let hits: Vec<Vec<&Value>> = hits
        .map(|hit| fields.iter().map(|field| &hit[*field]).collect())
        .collect();
    json!({ "hits": hits, "agreement": answer["agreement"] })
}

fn by_command_line(root: &Path, words: &[&str]) -> Value {
    let all = [&["search", "-d", "g.m3i", "--json"], words].concat();
    let (status, out, message) = run(root, &all);
    assert_eq!(status, 0, "{message}");
    told(&json_lines(&out)[0])
}

/// Tries to serve what is no reason to start a server: exit status and messages.
fn serve(root: &Path, words: &[&str]) -> (i32, String, String) {
    run(
        root,
        &[&["serve", "--listen", "127.0.0.1:0"], words].concat(),
    )
}

#[test]
fn answers_are_those_of_the_command_line() {
    let folder = archive();
    let root = folder.path();
    let server = Server::start(root, &["-d", "g.m3i"]);
    let search = |request: Value| {
        let reply = server.json("POST", "/v1/indexes/g/search", &request);
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.value()
    };
    let found = search(json!({"id": "two/c.dcm", "exact": true}));
    let wanted = by_command_line(root, &["-i", "two/c.dcm", "--exact"]);
    assert_eq!(told(&found), wanted);
    assert_eq!(found["hits"].as_array().unwrap().len(), 3);
    let found = search(
        json!({"id": "a.dcm", "exclude": ["same_patient"], "filter": {"modality": ["DX"]}, "k": 1}),
    );
    let words = [
        "-i",
        "a.dcm",
        "--exclude",
        "same_patient",
        "--filter",
        "modality=DX",
        "-k",
        "1",
    ];
    assert_eq!(told(&found), by_command_line(root, &words));
    let found = search(json!({"id": "a.dcm", "filter": {"modality!": ["DX"]}}));
    assert_eq!(
        told(&found),
        by_command_line(root, &["-i", "a.dcm", "--filter", "modality!=DX"])
    );

    let bytes = std::fs::read(root.join("query.dcm")).unwrap();
    let wanted = by_command_line(root, &["-i", "query.dcm"]);
    let options = br#"{"k": 10}"#;
    for parts in [
        vec![("file", &bytes[..])],
        vec![("options", &options[..]), ("file", &bytes[..])],
        vec![("file", &bytes[..]), ("options", &options[..])],
    ] {
        let reply = server.form("/v1/indexes/g/search", &form(&parts));
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(told(&reply.value()), wanted);
    }
    let sent = server
        .form("/v1/objects", &form(&[("file", &bytes)]))
        .value();
    assert_eq!(sent["volumes"][0]["shape"], json!([1, 1, 24, 32]));
    let object = sent["object"].as_str().unwrap().to_owned();
    let found = search(json!({"object": object}));
    assert_eq!(told(&found), wanted);
    assert_eq!(found["query"]["modality"], "DX");

    // A vector: that of an image of the gallery finds it.
    let (status, _, message) = run(root, &["index", "export", "g.m3i", "-o", "v.npy"]);
    assert_eq!(status, 0, "{message}");
    let (vector, id) = first_vector(root);
    let found = search(json!({"vector": vector}));
    assert_eq!(found["hits"][0]["id"], id);
    assert_eq!(
        told(&found)["hits"],
        json_lines(
            &run(
                root,
                &[
                    "search",
                    "-d",
                    "g.m3i",
                    "--json",
                    "--embeddings",
                    "v.npy",
                    "--encoder",
                    "m3ret-tiny",
                    "--normalize"
                ]
            )
            .1
        )
        .first()
        .map(told)
        .unwrap()["hits"]
    );

    // Pictures, and why two images match.
    for address in [
        found["hits"][0]["thumbnail"].as_str().unwrap().to_owned(),
        "/v1/objects/two%2Fc.dcm/thumbnail.png".to_owned(),
        format!("/v1/objects/{object}/thumbnail.png"),
    ] {
        let reply = server.get(&address);
        assert_eq!(reply.status, 200, "{address}");
        assert!(reply.body.starts_with(b"\x89PNG"), "{address}");
    }
    for query in [object.as_str(), "a.dcm"] {
        let reply = server.get(&format!("/v1/objects/{query}/why?hit=two%2Fc.dcm"));
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert!(
            reply.value()["why"]["score"].is_number(),
            "{}",
            reply.text()
        );
    }
    let listed = server.get("/v1/indexes").value();
    assert_eq!(listed["indexes"][0]["name"], "g");
    assert_eq!(listed["indexes"][0]["rows"], 4);
}

/// Returns the first vector of `v.npy` and its id.
fn first_vector(root: &Path) -> (Vec<f32>, String) {
    let bytes = std::fs::read(root.join("v.npy")).unwrap();
    let rows = std::fs::read_to_string(root.join("v.npy.rows.csv")).unwrap();
    let mut rows = csv::Reader::from_reader(rows.as_bytes());
    let place = rows
        .headers()
        .unwrap()
        .iter()
        .position(|name| name == "id")
        .unwrap();
    let all: Vec<csv::StringRecord> = rows.records().map(Result::unwrap).collect();
    let begin = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let n_bytes = (bytes.len() - begin) / all.len();
    let numbers = bytes[begin..begin + n_bytes].chunks_exact(4);
    let vector = numbers.map(|four| f32::from_le_bytes(four.try_into().unwrap()));
    (vector.collect(), all[0][place].to_owned())
}

#[test]
fn slow_clients_hold_up_nobody_and_a_signal_ends_the_server_without_a_trace() {
    let folder = archive();
    let root = folder.path();
    let server = Server::start(root, &["-d", "g.m3i", "--spool", "spool"]);
    let auth = format!("Bearer {}", server.token);
    let own = ("Authorization", auth.as_str());
    let slow: Vec<TcpStream> = (0..40)
        .map(|i| {
            let mut stream = TcpStream::connect(&server.address).unwrap();
            let head = server.head(
                "POST",
                "/v1/objects",
                &[own, ("Content-Type", http::FORM)],
                Some(1000),
            );
            let n_bytes = if i % 2 == 0 {
                head.len()
            } else {
                head.len() / 2
            };
            stream.write_all(&head.as_bytes()[..n_bytes]).unwrap();
            stream
        })
        .collect();
    let wanted = told(
        &server
            .json("POST", "/v1/indexes/g/search", &json!({"id": "a.dcm"}))
            .value(),
    );
    let bytes = std::fs::read(root.join("query.dcm")).unwrap();
    std::thread::scope(|scope| {
        for i in 0..8 {
            let (server, wanted, bytes) = (&server, &wanted, &bytes);
            scope.spawn(move || {
                for _ in 0..6 {
                    let reply = match i % 4 {
                        0 => server.form("/v1/indexes/g/search", &form(&[("file", bytes)])),
                        _ => server.json("POST", "/v1/indexes/g/search", &json!({"id": "a.dcm"})),
                    };
                    assert_eq!(reply.status, 200, "{}", reply.text());
                    assert!(i % 4 == 0 || told(&reply.value()) == *wanted);
                }
            });
        }
    });
    assert!(names_in(&root.join("spool")).len() > 1);
    let (status, log) = server.end();
    assert_eq!(status, 0, "{log}");
    assert_eq!(names_in(&root.join("spool")), ["lock"]);
    drop(slow);
    // What a killed server left is erased at the start.
    std::fs::create_dir(root.join("spool/tmp-left")).unwrap();
    std::fs::write(root.join("spool/tmp-left/0"), "left").unwrap();
    let server = Server::start(root, &["-d", "g.m3i", "--spool", "spool"]);
    assert_eq!(names_in(&root.join("spool")), ["lock"]);
    let second = serve(root, &["-d", "g.m3i", "--spool", "spool"]);
    assert_eq!(second.0, 1, "two servers, one spool");
    drop(server);
}

#[test]
fn the_audit_trail_is_whole_names_nobody_and_nothing_is_answered_without_it() {
    let folder = archive();
    let root = folder.path();
    let server = Server::start(root, &["-d", "g.m3i", "--audit", "audit"]);
    let auth = format!("Bearer {}", server.token);
    let bytes = std::fs::read(root.join("query.dcm")).unwrap();
    let mut replies: Vec<Reply> = Vec::new();
    let headers = [
        ("Authorization", auth.as_str()),
        ("Content-Type", "application/json"),
        ("X-Purpose", "TREAT"),
    ];
    replies.push(server.send(
        "POST",
        "/v1/indexes/g/search",
        &headers,
        br#"{"id": "two/c.dcm"}"#,
    ));
    replies.push(server.form("/v1/indexes/g/search", &form(&[("file", &bytes)])));
    replies.push(server.get("/v1/objects/a.dcm/thumbnail.png"));
    replies.push(server.get("/v1/objects/a.dcm/why?hit=b.dcm"));
    replies.push(server.form(
        "/v1/objects",
        &form(&[("file", &bytes[..bytes.len() - 300])]),
    ));
    replies.push(server.json("POST", "/v1/indexes/g/search", &json!({"id": SECRETS[0]})));
    let statuses: Vec<u16> = replies.iter().map(|reply| reply.status).collect();
    assert_eq!(statuses, [200, 200, 200, 200, 422, 404]);
    let head = server.get("/v1/audit").value();
    assert_eq!(head["n_lines"], 5, "two queries, an import, two accesses");

    let file = names_in(&root.join("audit"))
        .into_iter()
        .find(|name| name != "lock")
        .unwrap();
    let file = root.join("audit").join(file);
    let text = std::fs::read_to_string(&file).unwrap();
    let lines = json_lines(&text);
    assert_eq!(lines[0]["purpose"], "TREAT");
    assert_eq!(
        (&lines[0]["who"], &lines[0]["role"]),
        (&json!("local"), &json!("admin"))
    );
    assert_eq!(lines[0]["hits"].as_array().unwrap().len(), 3);
    assert!(lines[1]["action"].as_str().unwrap().starts_with("110107"));

    // The folder goes away: nothing is answered, and the server says that it is not ready.
    let away = root.join("away");
    std::fs::rename(root.join("audit"), &away).unwrap();
    std::fs::write(root.join("audit"), "in the way").unwrap();
    let refused = server.json("POST", "/v1/indexes/g/search", &json!({"id": "a.dcm"}));
    assert_eq!(refused.status, 503);
    assert_eq!(refused.value()["code"], "audit");
    assert!(refused.header("retry-after").is_some());
    assert_eq!(server.get("/v1/objects/a.dcm/thumbnail.png").status, 503);
    assert_eq!(server.send("GET", "/readyz", &[], b"").status, 503);
    std::fs::remove_file(root.join("audit")).unwrap();
    std::fs::rename(&away, root.join("audit")).unwrap();
    assert_eq!(
        server
            .json("POST", "/v1/indexes/g/search", &json!({"id": "a.dcm"}))
            .status,
        200
    );
    assert_eq!(server.send("GET", "/readyz", &[], b"").status, 200);
    let (status, log) = server.end();
    assert_eq!(status, 0, "{log}");

    let text = std::fs::read_to_string(&file).unwrap();
    let answers: String = replies.iter().map(Reply::text).collect();
    for secret in SECRETS {
        assert!(
            !text.contains(secret) && !answers.contains(secret) && !log.contains(secret),
            "{secret}"
        );
    }
    assert!(!text.contains("a.dcm") && !text.contains("1.2.3"), "{text}");
    let verify = |words: &[&str]| run(root, &[&["audit", "verify", "audit"], words].concat());
    let (status, out, message) = verify(&["--json"]);
    assert_eq!(status, 0, "{message}");
    let head = json_lines(&out).remove(0);
    assert_eq!(head["n_lines"], 6);
    let digest = head["digest"].as_str().unwrap();
    assert!(
        log.contains(digest),
        "the server tells where the trail ends: {log}"
    );
    assert_eq!(verify(&["--head", digest]).0, 0);
    let (status, out, _) = run(
        root,
        &[
            "audit",
            "export",
            "audit",
            "--who",
            "local",
            "--since",
            "2020-01-01",
        ],
    );
    assert_eq!((status, out.lines().count()), (0, 6));
    assert_eq!(
        run(root, &["audit", "export", "audit", "--who", "nobody"]).1,
        ""
    );
    let lines: Vec<&str> = text.lines().collect();
    let changed = text.replacen("TREAT", "OTHER", 1);
    let removed = [&lines[..2], &lines[3..]].concat().join("\n") + "\n";
    let mut swapped = lines.clone();
    swapped.swap(1, 2);
    for wrong in [changed, removed, swapped.join("\n") + "\n"] {
        std::fs::write(&file, &wrong).unwrap();
        let (status, _, message) = verify(&[]);
        assert_eq!(status, 1);
        assert!(message.contains("line"), "{message}");
        let again = serve(root, &["-d", "g.m3i", "--audit", "audit"]);
        assert_eq!(again.0, 1, "a broken trail is not gone on with");
    }
    // Removed at the end: found with the digest that is kept elsewhere.
    std::fs::write(&file, lines[..5].join("\n") + "\n").unwrap();
    assert_eq!(verify(&[]).0, 0);
    assert_eq!(verify(&["--head", digest]).0, 1);
}

#[test]
fn a_gallery_that_grows_is_seen_and_models_do_not_mix() {
    let folder = archive();
    let root = folder.path();
    let server = Server::start(root, &["-d", "g.m3i"]);
    let ids = || {
        let found = server
            .json("POST", "/v1/indexes/g/search", &json!({"id": "a.dcm"}))
            .value();
        let hits = found["hits"].as_array().unwrap().iter();
        hits.map(|hit| hit["id"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert!(!ids().contains(&"new.dcm".to_owned()));
    std::fs::write(
        root.join("in/new.dcm"),
        image_of("MRN-1-SECRET", "1.2.9", 8),
    )
    .unwrap();
    let (status, _, told) = run(root, &["index", "add", "g.m3i", "in"]);
    assert_eq!(status, 0, "{told}");
    assert!(ids().contains(&"new.dcm".to_owned()));
    assert_eq!(server.get("/v1/indexes").value()["indexes"][0]["rows"], 5);

    let (status, _, told) = run(root, &["index", "build", "p.m3i", "in", "-m", "pixels"]);
    assert_eq!(status, 0, "{told}");
    let (status, _, told) = serve(root, &["-d", "g.m3i", "-d", "p.m3i"]);
    assert_eq!(status, 1, "{told}");
    assert!(told.contains("one model"), "{told}");
    let (status, _, told) = serve(root, &["-d", "in"]);
    assert_eq!(status, 1, "{told}");
    assert!(told.contains("m3ret index build"), "{told}");
    assert_eq!(serve(root, &["-d", "g.m3i", "-d", "g.m3i"]).0, 1);
    for address in ["0.0.0.0:0", "192.168.1.1:80", "[::]:0", "localhost:1"] {
        let (status, _, told) = run(root, &["serve", "-d", "g.m3i", "--listen", address]);
        assert_eq!(status, 2, "{address}: {told}");
    }
    let mut stream = TcpStream::connect(&server.address).unwrap();
    stream.write_all(b"no HTTP\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 400"));
}
