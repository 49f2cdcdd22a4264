//! Adds images to a served gallery, removes them, and erases patients, as programs and admins do.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "person/binary.rs"]
mod binary;
#[path = "person/dicom.rs"]
mod dicom;
#[path = "person/http.rs"]
mod http;
#[path = "person/served.rs"]
mod served;

use std::path::Path;

use serde_json::{Value, json};

use binary::{npy, run};
use dicom::picture;
use http::{FORM, Reply, Server, form};
use served::{SECRETS, archive, image_of};

/// Waits until the job of an answer ended.
fn ended(server: &Server, accepted: &Reply) -> Value {
    assert_eq!(accepted.status, 202, "{}", accepted.text());
    let place = accepted.header("location").unwrap();
    let job = server.get(&format!("{place}?wait=60"));
    assert_eq!(job.status, 200, "{}", job.text());
    job.value()
}

fn rows(server: &Server) -> u64 {
    server.get("/v1/indexes").value()["indexes"][0]["rows"]
        .as_u64()
        .unwrap()
}

/// Whether a byte string is in a file below a folder.
fn is_below(folder: &Path, bytes: &[u8]) -> bool {
    std::fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => is_below(&path, bytes),
            false => {
                let content = std::fs::read(&path).unwrap();
                content.windows(bytes.len()).any(|part| part == bytes)
            }
        }
    })
}

#[test]
fn what_is_sent_becomes_rows_once_and_can_be_removed() {
    let folder = archive();
    let root = folder.path();
    let server = Server::start(root, &["-d", "g.m3i", "--audit", "audit"]);
    let items = "/v1/indexes/g/items";
    let image = image_of("MRN-NEW", "1.2.9", 77);
    let job = ended(&server, &server.form(items, &form(&[("file", &image)])));
    assert_eq!(
        (job["state"].as_str(), job["done"].as_u64()),
        (Some("done"), Some(1)),
        "{job}"
    );
    assert_eq!(
        (job["result"]["rows"].as_u64(), rows(&server)),
        (Some(1), 5)
    );
    let id = job["result"]["ids"][0].as_str().unwrap().to_owned();
    // It is found by its own image, and shown without its file.
    let found = server
        .form("/v1/indexes/g/search", &form(&[("file", &image)]))
        .value();
    assert_eq!(found["hits"][0]["id"], id.as_str());
    assert!(found["hits"][0]["score"].as_f64().unwrap() > 0.9999);
    let picture_of = server.get(&format!("/v1/objects/{id}/thumbnail.png"));
    assert_eq!(
        (picture_of.status, &picture_of.body[1..4]),
        (200, &b"PNG"[..])
    );
    // The same bytes again change nothing; two pictures are two rows.
    let again = ended(&server, &server.form(items, &form(&[("file", &image)])));
    assert_eq!(
        (again["result"]["replaced"].as_u64(), rows(&server)),
        (Some(1), 5)
    );
    assert_eq!(again["result"]["ids"][0], id.as_str());
    let (one, two) = (npy(&[24, 32], &picture(8)), npy(&[24, 32], &picture(9)));
    let pair = ended(
        &server,
        &server.form(items, &form(&[("file", &one), ("file", &two)])),
    );
    assert_eq!(
        (pair["result"]["rows"].as_u64(), rows(&server)),
        (Some(2), 7),
        "{pair}"
    );
    // What no reader knows is told by its code.
    let broken = ended(
        &server,
        &server.form(items, &form(&[("file", b"no image at all")])),
    );
    assert_eq!(
        (broken["state"].as_str(), rows(&server)),
        (Some("failed"), 7),
        "{broken}"
    );
    assert!(!broken["failures"][0]["reason"].as_str().unwrap().is_empty());
    // A request that is sent again with its key is the same job.
    let auth = format!("Bearer {}", server.token);
    let keyed = |body: &[u8]| {
        let headers = [
            ("Authorization", auth.as_str()),
            ("Content-Type", FORM),
            ("Idempotency-Key", "k-1"),
        ];
        server.send("POST", items, &headers, body)
    };
    let (first, second) = (
        keyed(&form(&[("file", &one)])),
        keyed(&form(&[("file", &one)])),
    );
    assert_eq!(first.value()["job"], second.value()["job"]);
    assert_eq!(keyed(&form(&[("file", &two)])).status, 422);
    ended(&server, &first);
    let before = rows(&server);
    let place = format!("{items}/{id}");
    assert_eq!(
        server
            .send("DELETE", &place, &[("Authorization", &auth)], b"")
            .status,
        204
    );
    assert_eq!(
        server
            .send("DELETE", &place, &[("Authorization", &auth)], b"")
            .status,
        404
    );
    assert_eq!(rows(&server), before - 1);
    let none = server.form(items, &form(&[("options", b"{}")]));
    assert_eq!(none.status, 422);
    let (_, log) = server.end();
    assert!(!log.contains("MRN-NEW"), "{log}");
    for secret in [&b"MRN-NEW"[..], b"1.2.9\0"] {
        assert!(!is_below(&root.join("g.m3i"), secret) && !is_below(&root.join("audit"), secret));
    }
    let (status, _, log) = run(root, &["index", "verify", "g.m3i"]);
    assert_eq!(status, 0, "{log}");
}

#[test]
fn only_who_may_write_writes_and_only_admins_erase() {
    let folder = archive();
    let root = folder.path();
    let mut lines = String::new();
    let mut tokens = Vec::new();
    for role in ["reader", "curator", "auditor"] {
        let (_, out, _) = run(root, &["serve", "--new-token", &format!("{role}:{role}-1")]);
        let mut words = out
            .lines()
            .map(|line| line.split_once(' ').unwrap().1.trim().to_owned());
        tokens.push(words.next().unwrap());
        lines += &(words.next().unwrap() + "\n");
    }
    std::fs::write(root.join("tokens"), lines).unwrap();
    let mut server = Server::start(root, &["-d", "g.m3i", "--token-file", "tokens"]);
    let body = form(&[("file", &npy(&[24, 32], &picture(8)))]);
    let mut jobs = Vec::new();
    for (token, wanted) in tokens.iter().zip([403, 202, 403]) {
        server.token.clone_from(token);
        let reply = server.form("/v1/indexes/g/items", &body);
        assert_eq!(reply.status, wanted, "{}", reply.text());
        jobs.extend(reply.header("location"));
        let auth = format!("Bearer {token}");
        let removed = server.send(
            "DELETE",
            "/v1/indexes/g/items/nobody",
            &[("Authorization", &auth)],
            b"",
        );
        assert_eq!(removed.status, if wanted == 202 { 404 } else { 403 });
        let erased = server.json("POST", "/v1/erasures", &json!({"patient_id": SECRETS[0]}));
        assert_eq!(erased.status, 403, "{}", erased.text());
    }
    // A job is its owner's.
    server.token.clone_from(&tokens[0]);
    assert_eq!(server.get(&jobs[0]).status, 404);
    server.token.clone_from(&tokens[1]);
    assert_eq!(server.get(&(jobs[0].clone() + "?wait=30")).status, 200);
    assert_eq!(server.get(&(jobs[0].clone() + "?wait=61")).status, 422);
}

#[test]
fn a_patient_is_erased_from_every_index_while_searches_run() {
    let folder = archive();
    let root = folder.path();
    let (status, _, log) = run(root, &["index", "build", "h.m3i", "in", "--thumbnails"]);
    assert_eq!(status, 0, "{log}");
    let server = Server::start(
        root,
        &[
            "-d", "g.m3i", "-d", "h.m3i", "--audit", "audit", "--spool", "spool",
        ],
    );
    let upload = server.form(
        "/v1/objects",
        &form(&[("file", &image_of(SECRETS[0], "1.2.3", 6))]),
    );
    let object = upload.value()["object"].as_str().unwrap().to_owned();
    assert_eq!(
        server
            .get(&format!("/v1/objects/{object}/thumbnail.png"))
            .status,
        200
    );
    for wrong in [
        json!({"patient_id": ""}),
        json!({"patient_id": "a\nb"}),
        json!({"patient_id": SECRETS[0], "reason": "a\nb"}),
        json!({"patient_id": SECRETS[0], "more": 1}),
    ] {
        assert_eq!(
            server.json("POST", "/v1/erasures", &wrong).status,
            422,
            "{wrong}"
        );
    }
    let searched = std::thread::scope(|scope| {
        let searching = scope.spawn(|| {
            let ask = || server.json("POST", "/v1/indexes/h/search", &json!({"id": "two/c.dcm"}));
            (0..40).map(|_| ask().status).collect::<Vec<_>>()
        });
        let accepted = server.json(
            "POST",
            "/v1/erasures",
            &json!({"patient_id": SECRETS[0], "reason": "asked"}),
        );
        let job = ended(&server, &accepted);
        assert_eq!(job["state"], "done", "{job}");
        let receipt = &job["result"];
        assert_eq!(receipt["places"].as_array().unwrap().len(), 2, "{receipt}");
        assert!(!receipt.to_string().contains(SECRETS[0]));
        std::fs::write(root.join("receipt.json"), receipt.to_string()).unwrap();
        searching.join().unwrap()
    });
    assert!(searched.iter().all(|status| *status == 200), "{searched:?}");
    let indexes = server.get("/v1/indexes").value();
    assert_eq!(
        (
            indexes["indexes"][0]["rows"].as_u64(),
            indexes["indexes"][1]["rows"].as_u64()
        ),
        (Some(2), Some(2))
    );
    for path in [
        format!("/v1/objects/{object}/thumbnail.png"),
        "/v1/objects/a.dcm/thumbnail.png?index=g".to_owned(),
    ] {
        assert_eq!(
            server.get(&path).status,
            if path.contains("index") { 404 } else { 422 },
            "{path}"
        );
    }
    // The patient does not come back.
    let sent = server.form(
        "/v1/indexes/g/items",
        &form(&[("file", &image_of(SECRETS[0], "1.2.3", 6))]),
    );
    let job = ended(&server, &sent);
    assert_eq!(
        (job["state"].as_str(), job["failures"][0]["reason"].as_str()),
        (Some("failed"), Some("erased")),
        "{job}"
    );
    let again = ended(
        &server,
        &server.json("POST", "/v1/erasures", &json!({"patient_id": "MRN-NOBODY"})),
    );
    assert_eq!(again["state"], "failed", "{again}");
    let (_, log) = server.end();
    assert!(!log.contains(SECRETS[0]), "{log}");
    let (status, out, log) = run(
        root,
        &[
            "erase",
            "--verify",
            "receipt.json",
            "-d",
            "g.m3i",
            "-d",
            "h.m3i",
        ],
    );
    assert_eq!(status, 0, "{out}{log}");
    let (status, out, _) = run(root, &["audit", "export", "audit"]);
    assert_eq!(status, 0);
    assert!(
        out.matches("110105").count() >= 2 && !out.contains(SECRETS[0]),
        "{out}"
    );
}

#[test]
fn the_api_describes_itself() {
    let folder = archive();
    let server = Server::start(folder.path(), &["-d", "g.m3i"]);
    let document = server.get("/v1/openapi.json").value();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let paths = document["paths"].as_object().unwrap();
    for (path, methods) in [
        ("/v1/session", &["post", "delete"][..]),
        ("/v1/indexes", &["get"]),
        ("/v1/indexes/{name}/search", &["post"]),
        ("/v1/indexes/{name}/images", &["post"]),
        ("/v1/indexes/{name}/items", &["post"]),
        ("/v1/indexes/{name}/items/{id}", &["delete"]),
        ("/v1/objects", &["post"]),
        ("/v1/objects/{id}/thumbnail.png", &["get"]),
        ("/v1/objects/{id}/volume.nii.gz", &["get"]),
        ("/v1/objects/{id}/pictures", &["get"]),
        ("/v1/objects/{id}/why", &["get"]),
        ("/v1/erasures", &["post"]),
        ("/v1/jobs/{id}", &["get"]),
        ("/v1/audit", &["get"]),
        ("/metrics", &["get"]),
        ("/livez", &["get"]),
        ("/readyz", &["get"]),
    ] {
        for method in methods {
            let operation = &paths[path][method];
            assert!(operation["responses"].is_object(), "{method} {path}");
        }
    }
    // Every type that is named is there.
    let text = document.to_string();
    for named in text.split("\"$ref\":\"#/components/schemas/").skip(1) {
        let name = named.split('"').next().unwrap();
        assert!(
            document["components"]["schemas"][name].is_object(),
            "{name}"
        );
    }
    let reply = server.send("GET", "/v1/openapi.json", &[], b"");
    assert_eq!(reply.status, 401);
}
