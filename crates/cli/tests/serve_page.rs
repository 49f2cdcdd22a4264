//! Asks `m3ret serve` as its page does: volumes, pictures, regions, several images, and what a basket holds.

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

use std::collections::BTreeMap;
use std::path::Path;

use m3ret_imaging::{ReadOptions, read_bytes};
use serde_json::{Value, json};

use binary::{json_lines, names_in, npy, run};
use dicom::picture;
use http::{Server, form};
use served::{SECRETS, archive};

const SEARCH: &str = "/v1/indexes/g/search";

/// A volume of 12 slices, each value its own.
fn scan() -> Vec<f32> {
    (0..12 * 16 * 20)
        .map(|i| (i * 37 % 3840) as f32 - 1000.0)
        .collect()
}

/// The archive of the server's tests with a volume in it, served with an audit trail.
fn begin() -> (tempfile::TempDir, Server) {
    let folder = archive();
    let root = folder.path();
    std::fs::write(root.join("in/scan.npy"), npy(&[12, 16, 20], &scan())).unwrap();
    let (status, _, told) = run(root, &["index", "add", "g.m3i", "in"]);
    assert_eq!(status, 0, "{told}");
    let server = Server::start(root, &["-d", "g.m3i", "--audit", "audit"]);
    (folder, server)
}

fn search(server: &Server, request: &Value) -> Value {
    let reply = server.json("POST", SEARCH, request);
    assert_eq!(reply.status, 200, "{request}: {}", reply.text());
    reply.value()
}

/// Ids and scores of the hits.
fn scores(answer: &Value) -> BTreeMap<String, f64> {
    let hits = answer["hits"].as_array().unwrap().iter();
    hits.map(|hit| {
        (
            hit["id"].as_str().unwrap().to_owned(),
            hit["score"].as_f64().unwrap(),
        )
    })
    .collect()
}

/// The same images have the same scores, up to the rounding of what a gallery stores.
fn assert_close(found: &BTreeMap<String, f64>, wanted: &BTreeMap<String, f64>) {
    assert_eq!(
        found.keys().collect::<Vec<_>>(),
        wanted.keys().collect::<Vec<_>>()
    );
    for (id, score) in found {
        assert!(
            (score - wanted[id]).abs() < 2e-3,
            "{id}: {score} and {}",
            wanted[id]
        );
    }
}

fn send(server: &Server, bytes: &[u8]) -> String {
    let reply = server.form("/v1/objects", &form(&[("file", bytes)]));
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.value()["object"].as_str().unwrap().to_owned()
}

#[test]
fn volumes_and_pictures_are_sent_and_audited() {
    let (folder, server) = begin();
    let root = folder.path();
    let object = send(&server, &npy(&[12, 16, 20], &scan()));
    for address in [
        "/v1/objects/scan.npy/volume.nii.gz".to_owned(),
        "/v1/objects/scan.npy/volume.nii.gz?index=g".to_owned(),
        format!("/v1/objects/{object}/volume.nii.gz"),
    ] {
        let reply = server.get(&address);
        assert_eq!(reply.status, 200, "{address}: {}", reply.text());
        let volume = read_bytes(&reply.body, &ReadOptions::default())
            .unwrap()
            .remove(0);
        assert_eq!(volume.shape(), [1, 12, 16, 20], "{address}");
        assert_eq!(volume.values(), scan(), "{address}");
    }
    for name in ["a.dcm", "d.npy"] {
        let reply = server.get(&format!("/v1/objects/{name}/volume.nii.gz"));
        assert_eq!(
            (reply.status, &reply.value()["code"]),
            (422, &json!("not_a_volume"))
        );
    }
    let pictures = |name: &str| {
        let reply = server.get(&format!("/v1/objects/{name}/pictures"));
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.value()
    };
    let drawn = pictures("scan.npy");
    assert_eq!(drawn["kind"], "volume");
    assert_eq!(drawn["views"][0]["n_all"], 12);
    assert!(
        drawn["views"][0]["src"]
            .as_str()
            .unwrap()
            .starts_with("data:image/")
    );
    assert_eq!(pictures("a.dcm")["kind"], "image");
    assert_eq!(pictures(&object)["kind"], "volume");
    for name in ["none", "tmp-0", "..%2F..%2Fetc%2Fpasswd"] {
        for what in ["volume.nii.gz", "pictures"] {
            let reply = server.get(&format!("/v1/objects/{name}/{what}"));
            assert_eq!(reply.status, 404, "{name}: {}", reply.text());
        }
    }
    // A file that is gone is a refusal without its path.
    std::fs::remove_file(root.join("in/d.npy")).unwrap();
    let reply = server.get("/v1/objects/d.npy/pictures");
    assert_eq!(reply.status, 404);
    assert!(
        !reply.text().contains(root.to_str().unwrap()),
        "{}",
        reply.text()
    );
    let file = names_in(&root.join("audit"))
        .into_iter()
        .find(|name| name != "lock");
    let text = std::fs::read_to_string(root.join("audit").join(file.unwrap())).unwrap();
    let looked = json_lines(&text)
        .into_iter()
        .filter(|line| line["action"].as_str().unwrap().starts_with("110103"));
    assert_eq!(looked.count(), 6, "three volumes and three pictures");
    assert!(!text.contains("scan.npy") && !text.contains(SECRETS[0]));
}

#[test]
fn a_region_is_asked_with_as_the_image_that_it_is() {
    let (_folder, server) = begin();
    // The right half of a picture, and a box of a volume: once as regions, once cut by hand.
    let whole = picture(5);
    let half: Vec<f32> = whole
        .chunks(32)
        .flat_map(|row| row[16..].to_vec())
        .collect();
    let scan = scan();
    let part: Vec<f32> = (3..12)
        .flat_map(|d| (0..8).flat_map(move |h| (10..20).map(move |w| (d * 16 + h) * 20 + w)))
        .map(|at| scan[at])
        .collect();
    let cases = [
        (
            "d.npy",
            json!([0.5, 0.0, 1.0, 1.0]),
            npy(&[24, 16], &half),
            npy(&[24, 32], &whole),
        ),
        (
            "scan.npy",
            json!([0.5, 0.0, 0.25, 1.0, 0.5, 1.0]),
            npy(&[9, 8, 10], &part),
            npy(&[12, 16, 20], &scan),
        ),
    ];
    for (id, region, cut, sent) in cases {
        let mut wanted = scores(&search(&server, &json!({"object": send(&server, &cut)})));
        let object = send(&server, &sent);
        let found = search(&server, &json!({"object": object, "region": region}));
        assert_close(&scores(&found), &wanted);
        assert_eq!(found["query"]["region"], region);
        assert_eq!(found["agreement"], Value::Null);
        assert!(
            found["notes"][0].as_str().unwrap().contains("region"),
            "{found}"
        );
        let options = json!({ "region": region }).to_string();
        let reply = server.form(
            SEARCH,
            &form(&[("file", &sent), ("options", options.as_bytes())]),
        );
        assert_close(&scores(&reply.value()), &wanted);
        // An image of the index is no hit of its own region.
        let found = search(&server, &json!({"id": id, "region": region}));
        wanted.remove(id);
        assert_close(&scores(&found), &wanted);
    }
    // Whose image it is, is known of a region, too.
    let found = search(
        &server,
        &json!({"id": "a.dcm", "region": [0.0, 0.0, 0.5, 1.0], "exclude": ["same_patient"]}),
    );
    assert!(!scores(&found).contains_key("b.dcm"), "{found}");
    for (id, region) in [
        ("d.npy", json!([0.0, 0.0, 0.1, 1.0])),
        ("d.npy", json!([0.5, 0.0, 0.4, 1.0])),
        ("d.npy", json!([0.0, 0.0, 2.0, 1.0])),
        ("d.npy", json!([0.0, 1.0])),
        ("d.npy", json!([0.0, 0.0, 0.0, 1.0, 1.0, 1.0])),
        ("scan.npy", json!([0.0, 0.0, 1.0, 1.0])),
    ] {
        let reply = server.json("POST", SEARCH, &json!({"id": id, "region": region}));
        assert_eq!(
            (reply.status, &reply.value()["code"]),
            (422, &json!("invalid_region")),
            "{region}"
        );
    }
    let body = json!({"id": "none", "region": [0.0, 0.0, 1.0, 1.0]});
    assert_eq!(server.json("POST", SEARCH, &body).status, 404);
}

/// The vectors of the gallery, by id.
fn vectors(root: &Path) -> BTreeMap<String, Vec<f32>> {
    let (status, _, message) = run(root, &["index", "export", "g.m3i", "-o", "v.npy"]);
    assert_eq!(status, 0, "{message}");
    let bytes = std::fs::read(root.join("v.npy")).unwrap();
    let rows = std::fs::read_to_string(root.join("v.npy.rows.csv")).unwrap();
    let mut rows = csv::Reader::from_reader(rows.as_bytes());
    let place = rows
        .headers()
        .unwrap()
        .iter()
        .position(|name| name == "id")
        .unwrap();
    let ids: Vec<String> = rows
        .records()
        .map(|row| row.unwrap()[place].to_owned())
        .collect();
    let begin = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let numbers = bytes[begin..]
        .chunks_exact(4)
        .map(|four| f32::from_le_bytes(four.try_into().unwrap()));
    let numbers: Vec<f32> = numbers.collect();
    let vectors = numbers.chunks(numbers.len() / ids.len()).map(|vector| {
        let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
        vector.iter().map(|x| x / length).collect()
    });
    ids.into_iter().zip(vectors).collect()
}

#[test]
fn several_images_are_one_query_of_their_means() {
    let (folder, server) = begin();
    let root = folder.path();
    let known = vectors(root);
    let mean = |ids: &[&str]| -> Vec<f32> {
        let n = ids.len() as f32;
        (0..known["a.dcm"].len())
            .map(|i| ids.iter().map(|id| known[*id][i]).sum::<f32>() / n)
            .collect()
    };
    let (like, unlike) = (["a.dcm", "d.npy"], ["two/c.dcm"]);
    let found = search(&server, &json!({"like": like, "unlike": unlike}));
    let (good, bad) = (mean(&like), mean(&unlike));
    let sum: Vec<f32> = good.iter().zip(bad).map(|(x, y)| x - 0.5 * y).collect();
    let length = sum.iter().map(|x| x * x).sum::<f32>().sqrt();
    let asked = [&like[..], &unlike[..]].concat();
    let hits = found["hits"].as_array().unwrap();
    assert_eq!(hits.len(), 2, "no example is a hit: {found}");
    for hit in hits {
        let id = hit["id"].as_str().unwrap();
        assert!(!asked.contains(&id), "{id}");
        // Other views of a volume are closer to none here.
        if hit["view"].is_null() {
            let score: f32 = sum
                .iter()
                .zip(&known[id])
                .map(|(x, y)| x * y / length)
                .sum();
            assert!(
                (hit["score"].as_f64().unwrap() - f64::from(score)).abs() < 2e-3,
                "{hit}"
            );
        }
    }
    assert!(
        hits.iter()
            .any(|hit| hit["id"] == "b.dcm" && hit["view"].is_null())
    );
    assert_eq!(found["agreement"], Value::Null);
    assert_eq!(
        (&found["query"]["like"], &found["query"]["unlike"]),
        (&json!(like), &json!(unlike))
    );
    let note = found["notes"][0].as_str().unwrap();
    assert!(
        note.contains("2 images, less 0.5 times that of 1 image"),
        "{note}"
    );

    // An upload counts as the image that it is.
    let bytes = std::fs::read(root.join("in/a.dcm")).unwrap();
    let again = search(
        &server,
        &json!({"like": [send(&server, &bytes), "d.npy"], "unlike": unlike}),
    );
    let mut wanted = scores(&found);
    let own = scores(&again).remove("a.dcm").unwrap();
    assert!(own > 0.5, "an upload is no image of the index: {own}");
    wanted.insert("a.dcm".to_owned(), own);
    assert_close(&scores(&again), &wanted);

    // The patients of all that hits should be like are left out.
    let request = json!({"like": ["two/c.dcm", "a.dcm"], "exclude": ["same_patient"]});
    let found = search(&server, &request);
    assert!(!scores(&found).contains_key("b.dcm"), "{found}");
    let found = search(&server, &json!({"like": ["two/c.dcm", "a.dcm"]}));
    let hit = found["hits"]
        .as_array()
        .unwrap()
        .iter()
        .find(|hit| hit["id"] == "b.dcm");
    assert_eq!(hit.unwrap()["relation"], "same_patient");

    for (request, status) in [
        (json!({"like": []}), 422),
        (json!({"unlike": ["a.dcm"]}), 422),
        (json!({"like": ["a.dcm"], "unlike": ["a.dcm"]}), 422),
        (json!({"like": ["a.dcm"], "id": "a.dcm"}), 422),
        (
            json!({"like": ["a.dcm"], "region": [0.0, 0.0, 1.0, 1.0]}),
            422,
        ),
        (json!({"like": vec!["a.dcm"; 65]}), 422),
        (json!({"like": ["a.dcm", "none"]}), 404),
        (json!({"like": ["a.dcm"], "unlike": ["tmp-0"]}), 404),
    ] {
        let reply = server.json("POST", SEARCH, &request);
        assert_eq!(reply.status, status, "{request}: {}", reply.text());
    }
}

#[test]
fn images_of_a_basket_are_found_by_their_ids() {
    let (_folder, server) = begin();
    let ids = json!(["two/c.dcm", "none", "scan.npy"]);
    let reply = server.json("POST", "/v1/indexes/g/images", &json!({ "ids": ids }));
    assert_eq!(reply.status, 200, "{}", reply.text());
    let told = reply.value();
    let listed = server.get("/v1/indexes").value();
    let index = &listed["indexes"][0];
    assert_eq!(told["images"][0]["id"], "two/c.dcm");
    assert_eq!(told["images"][0]["modality"], "DX");
    assert_eq!(told["images"][1]["dims"], "3d");
    assert_eq!(told["missing"], json!(["none"]));
    assert_eq!(told["generation"], index["generation"]);
    assert_eq!(told["fingerprint"], index["fingerprint"]);
    let picture = server.get(told["images"][0]["thumbnail"].as_str().unwrap());
    assert!(picture.body.starts_with(b"\x89PNG"));
    assert!(!reply.text().contains(SECRETS[1]));
    for (name, body, status) in [
        ("g", json!({"ids": []}), 422),
        ("g", json!({"ids": vec!["a"; 1001]}), 422),
        ("g", json!({}), 422),
        ("other", json!({"ids": ["a.dcm"]}), 404),
    ] {
        let reply = server.json("POST", &format!("/v1/indexes/{name}/images"), &body);
        assert_eq!(reply.status, status, "{body}");
    }
}

/// CRC-32, as zip archives have it.
fn checksum(bytes: &[u8]) -> u32 {
    let step = |crc: u32| match crc & 1 {
        0 => crc >> 1,
        _ => crc >> 1 ^ 0xedb8_8320,
    };
    let all = bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| step(crc))
    });
    !all
}

/// A zip archive of stored members.
fn zip(files: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut members, mut list) = (Vec::new(), Vec::new());
    for (name, bytes) in files {
        let n_bytes = u32::try_from(bytes.len()).unwrap().to_le_bytes();
        let at = u32::try_from(members.len()).unwrap().to_le_bytes();
        let n_name = u16::try_from(name.len()).unwrap().to_le_bytes();
        let shared = [
            &[20, 0, 0, 0, 0, 0, 0, 0, 0, 0][..],
            &checksum(bytes).to_le_bytes(),
            &n_bytes,
            &n_bytes,
            &n_name,
            &[0, 0],
        ]
        .concat();
        list.extend(
            [
                b"PK\x01\x02\x14\x00",
                &shared[..],
                &[0; 10],
                &at,
                name.as_bytes(),
            ]
            .concat(),
        );
        members.extend([b"PK\x03\x04", &shared[..], name.as_bytes(), bytes].concat());
    }
    let n = u16::try_from(files.len()).unwrap().to_le_bytes();
    let n_list = u32::try_from(list.len()).unwrap().to_le_bytes();
    let at = u32::try_from(members.len()).unwrap().to_le_bytes();
    [
        &members[..],
        &list,
        b"PK\x05\x06\0\0\0\0",
        &n,
        &n,
        &n_list,
        &at,
        &[0, 0],
    ]
    .concat()
}

#[test]
fn a_zip_with_one_image_or_series_is_read_and_others_are_refused() {
    let (folder, server) = begin();
    let root = folder.path();
    let one = std::fs::read(root.join("query.dcm")).unwrap();
    let series = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/dicom/series_axial");
    let slices: Vec<(String, Vec<u8>)> = names_in(&series)
        .into_iter()
        .map(|name| {
            (
                format!("study/{name}"),
                std::fs::read(series.join(&name)).unwrap(),
            )
        })
        .collect();
    let parts: Vec<(&str, &[u8])> = slices
        .iter()
        .map(|(_, bytes)| ("file", &bytes[..]))
        .collect();
    let members: Vec<(&str, &[u8])> = slices
        .iter()
        .map(|(name, bytes)| (&name[..], &bytes[..]))
        .collect();
    for (loose, packed) in [
        (form(&[("file", &one)]), zip(&[("a/b.dcm", &one)])),
        (form(&parts), zip(&members)),
    ] {
        let wanted = server.form(SEARCH, &loose).value();
        let reply = server.form(SEARCH, &form(&[("file", &packed)]));
        assert_eq!(reply.status, 200, "{}", reply.text());
        let found = reply.value();
        assert_eq!(found["hits"], wanted["hits"]);
        assert_eq!(found["query"]["dims"], wanted["query"]["dims"]);
    }
    // A region, a volume and an explanation of what lies in a zip.
    let object = send(&server, &zip(&members));
    let region = json!({"object": object, "region": [0.0, 0.0, 0.5, 1.0, 1.0, 1.0]});
    search(&server, &region);
    assert_eq!(
        server
            .get(&format!("/v1/objects/{object}/volume.nii.gz"))
            .status,
        200
    );
    let why = server.get(&format!("/v1/objects/{object}/why?hit=scan.npy"));
    assert_eq!(why.status, 200, "{}", why.text());
    for (bytes, code) in [
        (
            zip(&[("a.dcm", &one), ("b.npy", &npy(&[4, 4], &[1.0; 16]))]),
            "mismatch",
        ),
        (zip(&[("../../../etc/passwd", b"x")]), ""),
        (zip(&[("in.zip", &zip(&[("a.dcm", &one)]))]), ""),
        (zip(&[("a.dcm", &one)])[..60].to_vec(), ""),
    ] {
        let reply = server.form("/v1/objects", &form(&[("file", &bytes)]));
        assert_eq!(reply.status, 422, "{}", reply.text());
        let told = reply.value();
        assert!(code.is_empty() || told["code"] == code, "{told}");
        assert!(
            !reply.text().contains("passwd") && !reply.text().contains(root.to_str().unwrap()),
            "{told}"
        );
    }
    let both = form(&[("file", &one), ("file", &zip(&[("a.dcm", &one)]))]);
    assert_eq!(server.form("/v1/objects", &both).status, 422);
}

#[test]
fn the_viewer_of_volumes_is_served_as_it_was_released() {
    let (_folder, server) = begin();
    let page = server.send("GET", "/app.js", &[], b"").text();
    let place = "/niivue-0.69.0.js";
    assert!(page.contains(place) && !page.contains("http://"));
    let script = server.send("GET", place, &[], b"");
    assert_eq!(script.status, 200);
    assert!(
        script
            .header("content-type")
            .unwrap()
            .starts_with("text/javascript")
    );
    assert_eq!(script.body.len(), 2_284_381);
    let policy = script.header("content-security-policy").unwrap();
    assert!(
        policy.contains("default-src 'none'") && !policy.contains("unsafe"),
        "{policy}"
    );
    let licence = server.send("GET", "/niivue-license.txt", &[], b"").text();
    assert!(licence.contains("BSD 2-Clause License"));
}
