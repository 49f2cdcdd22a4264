//! Adds images to a served gallery, removes them, and erases patients, as programs and admins do.

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

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use binary::{npy, run};
use dicom::picture;
use http::{FORM, Reply, Server, form};
use served::{SECRETS, accounts, archive, image_of};

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
    let tokens = accounts(root, ["reader", "curator", "auditor"]);
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
    assert_eq!(
        (
            again["state"].as_str(),
            again["failures"][0]["reason"].as_str()
        ),
        (Some("failed"), Some("nothing_to_erase")),
        "{again}"
    );
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

/// A body of STOW-RS.
fn related(objects: &[Vec<u8>]) -> Vec<u8> {
    let mut body = Vec::new();
    for object in objects {
        body.extend(b"--edge\r\nContent-Type: application/dicom\r\n\r\n");
        body.extend(object);
        body.extend(b"\r\n");
    }
    body.extend(b"--edge--\r\n");
    body
}

/// An object with the four UIDs by which a PACS knows it.
fn object_of(patient: &str, uid: &str, seed: usize) -> Vec<u8> {
    let instance = format!("{uid}.3");
    let series = format!("{uid}.2");
    let words = [
        (2, 2, "UI", "1.2.840.10008.5.1.4.1.1.1.1"),
        (2, 3, "UI", instance.as_str()),
        (8, 0x16, "UI", "1.2.840.10008.5.1.4.1.1.1.1"),
        (8, 0x18, "UI", instance.as_str()),
        (8, 0x60, "CS", "DX"),
        (0x10, 0x20, "LO", patient),
        (0x20, 0x0d, "UI", uid),
        (0x20, 0x0e, "UI", series.as_str()),
    ];
    dicom::dicom(&words, &picture(seed))
}

#[test]
fn what_came_by_dicom_is_found_under_its_uids_and_is_erased_with_its_files() {
    let folder = archive();
    let root = folder.path();
    let words = [
        "-d",
        "g.m3i",
        "--dicom-into",
        "g",
        "--settle",
        "1h",
        "--key-file",
        "key",
        "--audit",
        "audit",
    ];
    let server = Server::start(root, &words);
    let auth = format!("Bearer {}", server.token);
    let kind = "multipart/related; type=\"application/dicom\"; boundary=edge";
    let headers = [("Authorization", auth.as_str()), ("Content-Type", kind)];
    let store = |body: &[u8]| server.send("POST", "/dicom-web/studies", &headers, body);
    let objects = [
        object_of("MRN-ONE", "1.2.840.1", 31),
        object_of("MRN-TWO", "1.2.840.2", 32),
    ];
    let stored = store(&related(&objects));
    assert_eq!(stored.status, 200, "{}", stored.text());
    assert_eq!(store(&related(&[b"no object".to_vec()])).status, 409);
    assert_eq!(store(b"--edge").status, 400);
    // Both wait for an hour; the erasure waits for nothing, and leaves no file of anyone who became a row.
    let job = ended(
        &server,
        &server.json("POST", "/v1/erasures", &json!({"patient_id": "MRN-ONE"})),
    );
    assert_eq!(job["state"], "done", "{job}");
    assert_eq!(rows(&server), 5);
    for secret in [&b"MRN-ONE"[..], b"1.2.840.1.3", b"MRN-TWO"] {
        assert!(!is_below(root.join("g.received").as_path(), secret));
        assert!(!is_below(root.join("g.m3i").as_path(), secret));
    }
    // Sent again, the patient stays away, and the other one's neighbours are told under their UIDs.
    assert_eq!(store(&related(&objects[..1])).status, 200);
    let third = object_of("MRN-THREE", "1.2.840.5", 33);
    assert_eq!(store(&related(&[third])).status, 200);
    let job = ended(
        &server,
        &server.json("POST", "/v1/erasures", &json!({"patient_id": "MRN-ONE"})),
    );
    assert_eq!(
        (
            rows(&server),
            is_below(root.join("g.received").as_path(), b"MRN-ONE")
        ),
        (6, false),
        "{job}"
    );
    let similar = server.get("/dicom-web/studies/1.2.840.2/series/1.2.840.2.2/similar?Modality=DX");
    assert_eq!(similar.status, 200, "{}", similar.text());
    let first = &similar.value()[0];
    assert_eq!(first["0020000D"]["Value"][0], "1.2.840.5");
    assert_eq!(first["0020000E"]["Value"][0], "1.2.840.5.2");
    assert!(first["00091001"]["Value"][0].as_f64().unwrap() < 1.0);
    assert!(
        similar
            .header("warning")
            .is_some_and(|told| told.contains("3 hits have no UID")),
        "{}",
        similar.head
    );
    let studies = server.get("/dicom-web/similar/1.2.840.2.2/studies?includefield=all");
    assert_eq!(
        studies.value()[0]["0020000D"]["Value"][0],
        "1.2.840.5",
        "{}",
        studies.text()
    );
    let of_one = server.get("/dicom-web/similar/1.2.840.2.2/studies/1.2.840.5/series");
    assert_eq!(of_one.value()[0]["0020000E"]["Value"][0], "1.2.840.5.2");
    let searched = server
        .json(
            "POST",
            "/v1/indexes/g/search",
            &json!({"id": "a.dcm", "k": 5}),
        )
        .value();
    let hits = searched["hits"].as_array().unwrap();
    let id = hits
        .iter()
        .find_map(|hit| hit["id"].as_str().filter(|id| id.len() > 20))
        .unwrap();
    let bundle = server.get(&format!("/fhir/ImagingStudy/{id}/$similar?_count=5"));
    let value = bundle.value();
    assert_eq!(
        (bundle.status, value["resourceType"].as_str()),
        (200, Some("Bundle")),
        "{}",
        bundle.text()
    );
    assert_eq!(value["entry"].as_array().unwrap().len(), 1);
    assert!(value["entry"][0]["resource"]["subject"]["extension"].is_array());
    let (status, log) = server.end();
    assert_eq!(status, 0);
    assert!(!log.contains("MRN-") && !log.contains("1.2.840"), "{log}");
    assert!(!is_below(root.join("audit").as_path(), b"1.2.840"));
    // Each batch has its line, with the series by keyed hashes.
    let (_, trail, _) = run(root, &["audit", "export", "audit", "--who", "dicom"]);
    let lines = trail
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let n_series = lines.map(|line| line["hits"].as_array().unwrap().len());
    assert_eq!(n_series.collect::<Vec<_>>(), [2, 2], "{trail}");
}

#[test]
fn twenty_of_a_hundred_patients_are_erased_while_searches_run() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    std::fs::create_dir(root.join("in")).unwrap();
    let number = |patient: usize| format!("MRN-{patient:03}-SECRET");
    for image in 0..200 {
        let bytes = image_of(&number(image / 2), &format!("1.2.{image}"), image);
        std::fs::write(root.join(format!("in/{image}.dcm")), bytes).unwrap();
    }
    let (status, _, log) = run(root, &["index", "build", "g.m3i", "in", "--thumbnails"]);
    assert_eq!(status, 0, "{log}");
    let server = Server::start(root, &["-d", "g.m3i", "--audit", "audit"]);
    let erased: Vec<usize> = (0..20).map(|n| n * 5).collect();
    let is_over = AtomicBool::new(false);
    let (searched, receipts) = std::thread::scope(|scope| {
        // The query is of a patient who stays; whoever is erased may be a hit before.
        let searching = scope.spawn(|| {
            let query = json!({"id": "3.dcm", "k": 100});
            let mut statuses = Vec::new();
            while !is_over.load(Ordering::SeqCst) {
                statuses.push(server.json("POST", "/v1/indexes/g/search", &query).status);
            }
            statuses
        });
        let receipts = erased.iter().map(|patient| {
            let request = json!({"patient_id": number(*patient), "reason": "asked"});
            let job = ended(&server, &server.json("POST", "/v1/erasures", &request));
            assert_eq!(job["state"], "done", "{job}");
            job["result"].clone()
        });
        let receipts: Vec<Value> = receipts.collect();
        is_over.store(true, Ordering::SeqCst);
        (searching.join().unwrap(), receipts)
    });
    assert!(searched.len() > 20 && searched.iter().all(|status| *status == 200));
    assert_eq!(rows(&server), 160);
    let query = json!({"id": "3.dcm", "k": 100});
    let answer = server.json("POST", "/v1/indexes/g/search", &query).value();
    for hit in answer["hits"].as_array().unwrap() {
        let id = hit["id"].as_str().unwrap();
        let image: usize = id.trim_end_matches(".dcm").parse().unwrap();
        assert!(!erased.contains(&(image / 2)), "{id} was erased");
    }
    let (_, log) = server.end();
    assert!(!log.contains("SECRET"), "{log}");
    for (n, receipt) in receipts.iter().enumerate() {
        let place = &receipt["places"][0];
        assert_eq!(
            (
                place["counts"]["n_rows"].as_u64(),
                place["scan"]["n_found"].as_u64()
            ),
            (Some(2), Some(0))
        );
        std::fs::write(root.join("receipt.json"), receipt.to_string()).unwrap();
        let verify = ["erase", "--verify", "receipt.json", "-d", "g.m3i"];
        let (status, out, log) = run(root, &verify);
        assert_eq!(status, 0, "receipt {n}: {out}{log}");
    }
    for patient in &erased {
        assert!(!is_below(&root.join("g.m3i"), number(*patient).as_bytes()));
        assert!(!is_below(&root.join("audit"), number(*patient).as_bytes()));
    }
}
