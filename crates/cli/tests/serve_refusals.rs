//! Asks `m3ret serve` for what it must refuse, as strangers and attackers would.

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

use std::io::Write as _;
use std::net::TcpStream;
use std::path::Path;

use serde_json::json;

use binary::names_in;
use http::{Server, form};
use served::{SECRETS, accounts, archive};

#[test]
fn what_is_not_allowed_or_not_there_is_refused_with_its_status() {
    let folder = archive();
    let root = folder.path();
    let tokens = accounts(root, ["reader", "auditor", "admin"]);
    let mut server = Server::start(
        root,
        &[
            "-d",
            "g.m3i",
            "--token-file",
            "tokens",
            "--audit",
            "audit",
            "--max-upload",
            "100000",
        ],
    );
    server.token.clone_from(&tokens[0]);
    let reader = &tokens[0];
    let status =
        |server: &Server, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]| {
            let reply = server.send(method, path, headers, body);
            if reply.status >= 400 {
                let problem = reply.value();
                assert_eq!(problem["status"], reply.status);
                assert!(problem["detail"].as_str().unwrap().len() > 5);
                assert!(
                    reply.head.contains("application/problem+json"),
                    "{}",
                    reply.head
                );
                assert!(
                    !reply.text().contains(root.to_str().unwrap()),
                    "{}",
                    reply.text()
                );
            }
            reply.status
        };
    let bearer = |token: &str| format!("Bearer {token}");
    let auth = bearer(reader);
    let own = ("Authorization", auth.as_str());
    let kind = ("Content-Type", "application/json");
    let search = "/v1/indexes/g/search";
    let id = br#"{"id": "a.dcm"}"#;
    assert_eq!(status(&server, "POST", search, &[own, kind], id), 200);
    // 401: no token, a wrong one, another scheme, a token as a cookie.
    let (wrong, basic) = (bearer(&"0".repeat(64)), format!("Basic {reader}"));
    let cookie = format!("m3ret_session={reader}");
    for headers in [
        vec![kind],
        vec![kind, ("Authorization", &wrong)],
        vec![kind, ("Authorization", &basic)],
        vec![kind, ("Authorization", "Bearer")],
        vec![kind, ("Cookie", &cookie), ("X-M3RET", "1")],
    ] {
        assert_eq!(
            status(&server, "POST", search, &headers, id),
            401,
            "{headers:?}"
        );
    }
    assert_eq!(status(&server, "GET", "/v1/indexes", &[], b""), 401);
    assert_eq!(
        status(
            &server,
            "POST",
            "/v1/session",
            &[kind],
            br#"{"token": "x"}"#
        ),
        401
    );
    // 403: a role that may not; a cookie without the header.
    let auditor = bearer(&tokens[1]);
    let auditor = ("Authorization", auditor.as_str());
    for (method, path) in [
        ("POST", search),
        ("GET", "/v1/indexes"),
        ("POST", "/v1/objects"),
        ("GET", "/v1/objects/a.dcm/thumbnail.png"),
        ("GET", "/v1/objects/a.dcm/why?hit=b.dcm"),
        ("GET", "/v1/objects/a.dcm/volume.nii.gz"),
        ("GET", "/v1/objects/a.dcm/pictures"),
        ("POST", "/v1/indexes/g/images"),
    ] {
        assert_eq!(
            status(&server, method, path, &[auditor, kind], id),
            403,
            "{path}"
        );
    }
    assert_eq!(status(&server, "GET", "/v1/audit", &[own], b""), 403);
    assert_eq!(status(&server, "GET", "/v1/audit", &[auditor], b""), 200);
    let token = json!({ "token": reader }).to_string();
    let begun = server.send("POST", "/v1/session", &[kind], token.as_bytes());
    assert_eq!(begun.status, 204);
    let cookie = begun.header("set-cookie").unwrap();
    assert!(
        cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"),
        "{cookie}"
    );
    assert!(!cookie.contains("Secure"), "{cookie}");
    let by_proxy = [kind, ("X-Forwarded-Proto", "https")];
    let encrypted = server.send("POST", "/v1/session", &by_proxy, token.as_bytes());
    assert!(
        encrypted
            .header("set-cookie")
            .unwrap()
            .ends_with("; Secure")
    );
    let cookie = cookie.split(';').next().unwrap();
    let session = ("Cookie", cookie);
    assert_eq!(status(&server, "GET", "/v1/indexes", &[session], b""), 200);
    let who = server.send("GET", "/v1/session", &[session], b"").value();
    assert_eq!(who, json!({"account": "reader-1", "role": "reader"}));
    assert_eq!(status(&server, "POST", search, &[session, kind], id), 403);
    assert_eq!(
        status(
            &server,
            "POST",
            search,
            &[session, kind, ("X-M3RET", "1")],
            id
        ),
        200
    );
    assert_eq!(
        status(
            &server,
            "DELETE",
            "/v1/session",
            &[session, ("X-M3RET", "1")],
            b""
        ),
        204
    );
    assert_eq!(status(&server, "GET", "/v1/indexes", &[session], b""), 401);
    // 404, 405.
    for (method, path, wanted) in [
        ("GET", "/v1/none", 404),
        ("POST", "/v1/indexes/none/search", 404),
        ("GET", "/v1/objects/none/thumbnail.png", 404),
        ("GET", "/v1/objects/tmp-0/thumbnail.png", 404),
        ("GET", "/v1/objects/a.dcm/why?hit=none", 404),
        ("GET", "/v1/objects/a.dcm/why", 422),
        (
            "GET",
            "/v1/objects/..%2F..%2Fetc%2Fpasswd/thumbnail.png",
            404,
        ),
        ("GET", search, 405),
        ("DELETE", "/v1/indexes", 405),
    ] {
        assert_eq!(
            status(&server, method, path, &[own, kind], id),
            wanted,
            "{method} {path}"
        );
    }
    // A file of this machine is no id, even beside the server.
    for name in [
        "query.dcm",
        "in/a.dcm",
        "/etc/passwd",
        root.join("in/a.dcm").to_str().unwrap(),
    ] {
        let body = json!({ "id": name }).to_string();
        assert_eq!(
            status(&server, "POST", search, &[own, kind], body.as_bytes()),
            404,
            "{name}"
        );
    }
    // 413: declared, sent, and JSON.
    let many = vec![b' '; (1 << 20) + 1];
    assert_eq!(status(&server, "POST", search, &[own, kind], &many), 413);
    let large = form(&[("file", &vec![0; 200_000])]);
    let form_kind = ("Content-Type", http::FORM);
    assert_eq!(
        status(&server, "POST", "/v1/objects", &[own, form_kind], &large),
        413
    );
    let chunked = server.send_chunked("/v1/objects", &[own, form_kind], &large);
    assert_eq!(chunked.status, 413);
    // 415, 400.
    for kind in ["text/plain", "application/dicom", ""] {
        let kind = ("Content-Type", kind);
        assert_eq!(status(&server, "POST", search, &[own, kind], id), 415);
        assert_eq!(
            status(&server, "POST", "/v1/objects", &[own, kind], id),
            415
        );
    }
    assert_eq!(
        status(&server, "POST", "/v1/objects", &[own, kind], id),
        415
    );
    assert_eq!(
        status(&server, "POST", search, &[own, kind], b"{\"id\": \"a"),
        400
    );
    // 422.
    for body in [
        json!({}),
        json!({"id": "a.dcm", "vector": [1.0]}),
        json!({"id": "a.dcm", "k": 0}),
        json!({"id": "a.dcm", "k": 101}),
        json!({"id": "a.dcm", "unknown": 1}),
        json!({"id": 1}),
        json!({"id": "a.dcm", "filter": {"no_column": ["x"]}}),
        json!({"id": "a.dcm", "filter": {"modality": ["MRN-0815-SECRET"]}}),
        json!({"id": "a.dcm", "group_by": "no_column"}),
        json!({"vector": [1.0, 2.0]}),
        json!({"vector": vec![0.0; 192]}),
        json!({"vector": vec![1.0; 192], "exclude": ["same_patient"]}),
    ] {
        let reply = server.json("POST", search, &body);
        assert_eq!(reply.status, 422, "{body}: {}", reply.text());
        assert!(!reply.text().contains(SECRETS[0]), "{}", reply.text());
    }
    for bytes in [
        &b""[..],
        b"no image",
        b"path,id\n/etc/passwd,1\n",
        &[0x50, 0x4b, 3, 4],
    ] {
        let reply = server.form("/v1/objects", &form(&[("file", bytes)]));
        assert_eq!(reply.status, 422, "{}", reply.text());
    }
    let purpose = ("X-Purpose", "a purpose; of more");
    assert_eq!(
        status(&server, "GET", "/v1/indexes", &[own, purpose], b""),
        422
    );
    // 421: a name that is not the server's, as a page of another site would send it.
    for host in ["evil.example", "127.0.0.1", "localhost", ""] {
        let reply = server.send_as(host, "GET", "/v1/indexes", &[own]);
        assert_eq!(reply.status, 421, "{host}");
    }
    let local = format!("localhost:{}", server.address.rsplit(':').next().unwrap());
    assert_eq!(
        server.send_as(&local, "GET", "/v1/indexes", &[own]).status,
        200
    );
    let two = [own, ("Host", "evil.example")];
    assert_eq!(
        server.send_as(&local, "GET", "/v1/indexes", &two).status,
        400
    );
    let absolute = "http://evil.example/v1/indexes";
    assert_eq!(server.send_as(&local, "GET", absolute, &[own]).status, 400);
    // Nobody asks who is there by guessing numbers.
    for (column, value) in [
        ("patient_id", SECRETS[0]),
        ("patient_id!", SECRETS[0]),
        ("study_uid", "1.2.3"),
        ("series_id", "1"),
        ("uid_sealed", "x"),
        ("m3ret:origin", "x"),
    ] {
        let filter = json!({"id": "a.dcm", "filter": {column: [value]}});
        assert_eq!(server.json("POST", search, &filter).status, 403, "{column}");
    }
    let grouped = |by: &str| json!({"id": "a.dcm", "group_by": by});
    assert_eq!(
        server.json("POST", search, &grouped("uid_sealed")).status,
        403
    );
    assert_eq!(
        server.json("POST", search, &grouped("patient_id")).status,
        200
    );
    // Every answer says what browsers may do with it.
    let page = server.get("/");
    assert!(
        page.head.contains("default-src 'none'; script-src 'self'")
            && page.head.contains("nosniff")
    );
    assert!(!page.text().contains("<script>") && !page.text().contains("style="));
    assert!(!page.text().contains("http://") && !page.text().contains("https://"));
    for path in ["/livez", "/readyz", "/app.js", "/app.css"] {
        assert_eq!(server.send("GET", path, &[], b"").status, 200, "{path}");
    }
    let upload = server.form(
        "/v1/objects",
        &form(&[("file", &std::fs::read(root.join("query.dcm")).unwrap())]),
    );
    let object = upload.value()["object"].as_str().unwrap().to_owned();
    server.token.clone_from(&tokens[2]);
    assert_eq!(
        server
            .json("POST", search, &json!({ "object": object }))
            .status,
        404,
        "another account's"
    );
}

#[test]
fn who_takes_all_connections_is_told_that_the_server_is_busy_and_probes_are_answered() {
    let folder = archive();
    let server = Server::start(folder.path(), &["-d", "g.m3i"]);
    let idle = || TcpStream::connect(&server.address).unwrap();
    // As many as are served at a time; none sends anything.
    let held: Vec<TcpStream> = (0..256).map(|_| idle()).collect();
    // The server may still be taking them.
    let busy = (0..100).find_map(|_| {
        let reply = server.get("/v1/indexes");
        (reply.status == 503).then_some(reply)
    });
    let busy = busy.unwrap();
    assert!(busy.header("retry-after").is_some(), "{}", busy.head);
    assert_eq!(server.send("GET", "/livez", &[], b"").status, 200);
    drop(held);
    let free = (0..1000).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        server.get("/v1/indexes").status == 200
    });
    assert!(free, "the places are not free again");
}

#[test]
fn hostile_forms_and_cut_bodies_reach_neither_the_disk_nor_other_requests() {
    let folder = archive();
    let root = folder.path();
    let server = Server::start(root, &["-d", "g.m3i", "--spool", "spool"]);
    let auth = format!("Bearer {}", server.token);
    let own = ("Authorization", auth.as_str());
    let whole = form(&[("file", &std::fs::read(root.join("query.dcm")).unwrap())]);
    for kind in [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=other",
    ] {
        let reply = server.send(
            "POST",
            "/v1/objects",
            &[own, ("Content-Type", kind)],
            &whole,
        );
        assert_eq!(reply.status, 400, "{kind}");
    }
    let kind = ("Content-Type", http::FORM);
    for n_bytes in (0..whole.len() - 4).step_by(97) {
        let reply = server.send("POST", "/v1/objects", &[own, kind], &whole[..n_bytes]);
        assert_eq!(reply.status, 400, "{n_bytes}");
        // A body that ends before its declared end, and a client that goes away.
        let mut stream = TcpStream::connect(&server.address).unwrap();
        let head = server.head("POST", "/v1/objects", &[own, kind], Some(whole.len()));
        stream
            .write_all(&[head.as_bytes(), &whole[..n_bytes]].concat())
            .unwrap();
    }
    let part: (&str, &[u8]) = ("file", b"x");
    assert_eq!(
        server
            .form("/v1/objects", &form(&vec![part; 10_000]))
            .status,
        413
    );
    assert_eq!(
        server.form("/v1/objects", &form(&[("other", b"x")])).status,
        422
    );
    assert_eq!(
        server
            .form("/v1/objects", &form(&[("options", b"{}")]))
            .status,
        422
    );
    assert_eq!(server.form("/v1/objects", &form(&[])).status, 422);
    let long = "a".repeat(9000);
    assert_eq!(
        server
            .form("/v1/objects", &http::form_named(&long, b"x"))
            .status,
        413
    );
    let bytes = std::fs::read(root.join("query.dcm")).unwrap();
    for name in [
        "../../../evil",
        "/tmp/evil",
        "a\0b",
        "..",
        "x\" ; name=\"options",
        "\u{202e}",
    ] {
        let reply = server.form("/v1/objects", &http::form_named(name, &bytes));
        assert!(
            [200, 400, 422].contains(&reply.status),
            "{name}: {}",
            reply.text()
        );
    }
    let names = names_in(&root.join("spool"));
    assert!(
        names
            .iter()
            .all(|name| name == "lock" || name.starts_with("tmp-")),
        "{names:?}"
    );
    for name in names.iter().filter(|name| *name != "lock") {
        // The upload of a client that went away may go now.
        let entries = std::fs::read_dir(root.join("spool").join(name));
        for entry in entries.into_iter().flatten().flatten() {
            assert_eq!(entry.file_name(), "0");
        }
    }
    assert!(!root.join("evil").exists() && !Path::new("/tmp/evil").exists());
    assert_eq!(names_in(root), ["g.m3i", "in", "query.dcm", "spool"]);
    assert_eq!(server.get("/v1/indexes").status, 200);
}
