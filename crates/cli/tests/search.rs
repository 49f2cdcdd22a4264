//! Runs `m3ret search`, `index`, `dedup` and `map` as a person would.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::too_many_lines, reason = "stories told from start to end")]

#[path = "person/binary.rs"]
mod binary;
#[path = "person/dicom.rs"]
mod dicom;

use std::path::Path;

use serde_json::Value;

use binary::{json_lines, names_in, npy, run};
use dicom::{image_of, picture};

fn write(folder: &Path, name: &str, bytes: &[u8]) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// Three patients: two images of one, a copy, and pictures without a patient.
fn archive() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    write(
        root,
        "in/one/a.dcm",
        &image_of("MRN-0815-SECRET", "1.2.3", "DX", 1),
    );
    write(
        root,
        "in/one/b.dcm",
        &image_of("MRN-0815-SECRET", "1.2.4", "DX", 2),
    );
    write(
        root,
        "in/two/c.dcm",
        &image_of("MRN-4711-SECRET", "1.2.5", "DX", 3),
    );
    write(
        root,
        "in/two/copy.dcm",
        &image_of("MRN-4711-SECRET", "1.2.5", "DX", 3),
    );
    write(
        root,
        "in/three/d.dcm",
        &image_of("MRN-0042-SECRET", "1.2.6", "CT", 4),
    );
    write(root, "in/e.npy", &npy(&[24, 32], &picture(5)));
    let whole = image_of("MRN-0042-SECRET", "1.2.6", "CT", 4);
    write(root, "in/broken.dcm", &whole[..whole.len() - 300]);
    folder
}

fn search(root: &Path, words: &[&str]) -> (i32, Vec<Value>, String) {
    let all = [&["search", "-d", "in", "--cache", "cache", "--json"], words].concat();
    let (status, out, told) = run(root, &all);
    (status, json_lines(&out), told)
}

fn hits(answer: &Value) -> Vec<(&str, &str)> {
    let hits = answer["hits"].as_array().unwrap().iter();
    hits.map(|hit| {
        (
            hit["id"].as_str().unwrap(),
            hit["relation"].as_str().unwrap(),
        )
    })
    .collect()
}

#[test]
fn a_folder_is_searched_with_one_command_and_says_how_images_belong_together() {
    let folder = archive();
    let root = folder.path();
    let (status, answers, told) = search(root, &["-i", "in/two/c.dcm", "-k", "9"]);
    assert_eq!(status, 0, "{told}");
    assert!(
        told.contains("using m3ret-tiny") && told.contains("1 image of the archive"),
        "{told}"
    );
    let found = hits(&answers[0]);
    assert_eq!(found.len(), 5, "the query itself is no hit: {found:?}");
    assert_eq!(found[0], ("two/copy.dcm", "same_image"));
    let relation = |id: &str| found.iter().find(|hit| hit.0 == id).unwrap().1;
    assert_eq!(relation("one/a.dcm"), "other_patient");
    assert_eq!(relation("e.npy"), "unknown");
    let first = &answers[0]["hits"][0];
    assert_eq!(
        (&first["rank"], &first["modality"]),
        (&1.into(), &"DX".into())
    );
    assert!((first["score"].as_f64().unwrap() - 1.0).abs() < 1e-5);
    assert_eq!(first["file"], "in/two/copy.dcm");

    let (_, answers, _) = search(root, &["-i", "in/one/a.dcm"]);
    let found = hits(&answers[0]);
    assert!(found.contains(&("one/b.dcm", "same_patient")), "{found:?}");
    let (_, answers, _) = search(root, &["-i", "in/one/a.dcm", "--exclude", "same_patient"]);
    assert!(!hits(&answers[0]).iter().any(|hit| hit.0 == "one/b.dcm"));
    // An id is a query, too, and several are answered in their order.
    let (_, answers, _) = search(
        root,
        &[
            "-i",
            "one/a.dcm",
            "-i",
            "in/e.npy",
            "--filter",
            "modality=CT",
        ],
    );
    assert_eq!(answers.len(), 2);
    assert_eq!(hits(&answers[0]), [("three/d.dcm", "other_patient")]);
    assert_eq!(answers[1]["query"], "in/e.npy");
    // A query from outside the archive, of a patient that it knows.
    write(
        root,
        "new.dcm",
        &image_of("MRN-0815-SECRET", "1.2.9", "DX", 9),
    );
    let (_, answers, _) = search(root, &["-i", "new.dcm", "--group-by", "patient_id"]);
    let found = hits(&answers[0]);
    assert_eq!(
        found.iter().filter(|hit| hit.1 == "same_patient").count(),
        1,
        "{found:?}"
    );
}

#[test]
fn only_what_is_new_or_changed_is_embedded_again() {
    let folder = archive();
    let root = folder.path();
    let ids = |answers: &[Value]| {
        let mut ids: Vec<String> = hits(&answers[0])
            .iter()
            .map(|hit| hit.0.to_owned())
            .collect();
        ids.sort();
        ids
    };
    let (_, answers, _) = search(root, &["-i", "in/e.npy", "-k", "20"]);
    assert_eq!(
        ids(&answers),
        [
            "one/a.dcm",
            "one/b.dcm",
            "three/d.dcm",
            "two/c.dcm",
            "two/copy.dcm"
        ]
    );
    let gallery = root.join("cache").join(&names_in(&root.join("cache"))[0]);
    let before = names_in(&gallery);
    search(root, &["-i", "in/e.npy"]);
    assert_eq!(
        names_in(&gallery),
        before,
        "nothing changed, so nothing is written"
    );
    std::fs::remove_file(root.join("in/two/copy.dcm")).unwrap();
    write(
        root,
        "in/one/a.dcm",
        &[image_of("MRN-0815-SECRET", "1.2.3", "DX", 8), vec![0; 2]].concat(),
    );
    write(root, "in/f.npy", &npy(&[24, 32], &picture(6)));
    let (_, answers, _) = search(root, &["-i", "in/e.npy", "-k", "20"]);
    assert_eq!(
        ids(&answers),
        [
            "f.npy",
            "one/a.dcm",
            "one/b.dcm",
            "three/d.dcm",
            "two/c.dcm"
        ]
    );
    // The archive may be named in any way.
    let here = root.join("in");
    let (status, out, _) = run(
        &here,
        &[
            "search", "-d", ".", "--cache", "../cache", "--json", "-i", "e.npy", "-k", "20",
        ],
    );
    assert_eq!((status, ids(&json_lines(&out))), (0, ids(&answers)));
    assert_eq!(names_in(&root.join("cache")).len(), 1);
}

#[test]
fn no_identifier_is_in_any_file_or_message() {
    let folder = archive();
    let root = folder.path();
    let build = ["index", "build", "g.m3i", "in", "--thumbnails"];
    let (status, out, told) = run(root, &build);
    assert_eq!(status, 1, "one file is broken: {told}");
    assert!(out.contains("refused: broken.dcm"), "{out}");
    let mut said = out + &told;
    for words in [
        &[
            "search",
            "-d",
            "g.m3i",
            "-i",
            "in/one/a.dcm",
            "--html",
            "r.html",
        ][..],
        &["index", "stats", "g.m3i", "--json"],
        &["index", "verify", "g.m3i"],
        &["dedup", "g.m3i", "--json"],
        &["map", "g.m3i", "--html", "m.html", "--color", "patient_id"],
    ] {
        let (status, out, told) = run(root, words);
        assert_eq!(status, 0, "{words:?}: {told}");
        said += &(out + &told);
    }
    let mut bytes = said.into_bytes();
    for file in names_in(&root.join("g.m3i")) {
        bytes.extend(std::fs::read(root.join("g.m3i").join(file)).unwrap());
    }
    bytes.extend(std::fs::read(root.join("r.html")).unwrap());
    bytes.extend(std::fs::read(root.join("m.html")).unwrap());
    for secret in ["SECRET", "Secret", "Doe", "1.2.3", "1.2.5"] {
        let is_there = bytes
            .windows(secret.len())
            .any(|window| window == secret.as_bytes());
        assert!(!is_there, "{secret}");
    }
    // The thumbnails are in the gallery, the report holds everything it needs.
    let is_png = |window: &[u8]| window == b"\x89PNG";
    assert!(bytes.windows(4).any(is_png));
    let page = std::fs::read_to_string(root.join("r.html")).unwrap();
    assert!(page.contains("data:image/jpeg;base64") && page.contains("one/b.dcm"));
}

/// Vectors of 8 numbers: unit vectors along an axis, a little turned.
fn vectors(n: usize, turn: f32) -> Vec<f32> {
    let mut values = vec![0.0; 8 * n];
    for (i, vector) in values.chunks_mut(8).enumerate() {
        vector[i % 8] = (1.0 - turn * turn * i as f32 * i as f32).sqrt();
        vector[(i + 1) % 8] = turn * i as f32;
    }
    values
}

fn with_vectors(root: &Path) {
    let mut manifest = String::from("path,modality,patient_id,PatientName,id\n");
    for i in 0..12 {
        let modality = ["CT", "MR"][i % 2];
        manifest += &format!("img/{i}.png,{modality},p{},Doe,row{i}\n", i / 3);
    }
    write(root, "m.csv", manifest.as_bytes());
    write(root, "f.npy", &npy(&[12, 8], &vectors(12, 0.01)));
    write(root, "q.npy", &npy(&[2, 8], &vectors(2, 0.01)));
}

#[test]
fn people_bring_their_own_vectors() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    with_vectors(root);
    let (status, out, told) = run(
        root,
        &[
            "index",
            "build",
            "g.m3i",
            "m.csv",
            "--embeddings",
            "f.npy",
            "--encoder",
            "external",
        ],
    );
    assert_eq!(
        (status, out.contains("12 images, 12 new")),
        (0, true),
        "{out}{told}"
    );
    assert!(
        told.contains("columns that name people are not stored: PatientName"),
        "{told}"
    );
    let ask = |words: &[&str]| {
        let all = [
            &["search", "-d", "g.m3i", "--embeddings", "q.npy", "--json"][..],
            &["--encoder", "external"],
            words,
        ]
        .concat();
        let (status, out, told) = run(root, &all);
        (status, json_lines(&out), told)
    };
    let (status, answers, _) = ask(&["-k", "3"]);
    assert_eq!((status, answers.len()), (0, 2));
    assert_eq!(
        (&answers[0]["query_row"], &answers[1]["query_row"]),
        (&0.into(), &1.into())
    );
    let first = &answers[0]["hits"][0];
    assert_eq!(
        (&first["id"], &first["path"]),
        (&"row0".into(), &"img/0.png".into())
    );
    assert_eq!(first["score"], 1.0);
    let found: Vec<&str> = hits(&answers[0]).iter().map(|hit| hit.0).collect();
    assert_eq!(found, ["row0", "row8", "row7"]);
    let (_, answers, _) = ask(&["-k", "3", "--filter", "modality=MR"]);
    assert_eq!(hits(&answers[0])[0].0, "row7");
    // Patients are filtered by name, though only hashes are stored.
    let (_, answers, _) = ask(&["-k", "5", "--filter", "patient_id=p2"]);
    let mut found: Vec<&str> = hits(&answers[0]).iter().map(|hit| hit.0).collect();
    found.sort_unstable();
    assert_eq!(found, ["row6", "row7", "row8"]);

    for (words, wanted) in [
        (&["--filter", "modality=ct"][..], "CT, MR"),
        (&["--filter", "sex=f"], "modality"),
        (&["--exclude", "same_patient"], "vectors do not say so"),
    ] {
        let (status, _, told) = ask(words);
        assert_eq!((status, told.contains(wanted)), (1, true), "{told}");
    }
    let (status, _, told) = run(root, &["search", "-d", "g.m3i", "-i", "m.csv"]);
    assert_eq!((status, told.contains("--embeddings")), (1, true), "{told}");
    let (status, out, _) = run(
        root,
        &["search", "-d", "g.m3i", "-i", "row3", "--json", "-k", "1"],
    );
    assert_eq!(status, 0);
    assert_eq!(hits(&json_lines(&out)[0]), [("row11", "other_patient")]);
}

#[test]
fn vectors_that_do_not_fit_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    with_vectors(root);
    let mut with_nan = vectors(12, 0.01);
    with_nan[16..24].fill(f32::NAN);
    write(root, "nan.npy", &npy(&[12, 8], &with_nan));
    write(root, "few.npy", &npy(&[11, 8], &vectors(11, 0.01)));
    write(
        root,
        "long.npy",
        &npy(&[12, 8], &vectors(12, 0.01).map_all(|x| 2.0 * x)),
    );
    let build = |file: &str, words: &[&str]| {
        run(
            root,
            &[
                &["index", "build", "g.m3i", "m.csv", "--embeddings", file][..],
                &["--encoder", "external"],
                words,
            ]
            .concat(),
        )
    };
    for (file, wanted) in [
        ("nan.npy", "row 2"),
        ("few.npy", "found 11 vectors, and the manifest has 12 rows"),
        ("long.npy", "length 2"),
        ("m.csv", "no numpy array"),
    ] {
        let (status, _, told) = build(file, &[]);
        assert_eq!((status, told.contains(wanted)), (1, true), "{told}");
    }
    let (status, out, told) = build("nan.npy", &["--skip-nan"]);
    assert_eq!(
        (status, out.contains("11 images")),
        (0, true),
        "{out}{told}"
    );
    let (status, _, told) = build("long.npy", &["--normalize"]);
    assert_eq!(
        (status, told.contains("there already")),
        (1, true),
        "{told}"
    );
    let add = |words: &[&str]| run(root, &[&["index", "add", "g.m3i", "m.csv"], words].concat());
    let (status, _, told) = add(&["--embeddings", "f.npy"]);
    assert_eq!(
        (status, told.contains("--encoder is missing")),
        (1, true),
        "{told}"
    );
    let (status, _, told) = add(&["--embeddings", "f.npy", "--encoder", "external"]);
    assert_eq!(
        (status, told.contains("in the gallery already")),
        (1, true),
        "{told}"
    );
    let (status, _, told) = add(&["--embeddings", "f.npy", "--encoder", "other"]);
    assert_eq!(
        (status, told.contains("encoder: expected external")),
        (1, true),
        "{told}"
    );
}

trait MapAll {
    fn map_all(self, map: fn(f32) -> f32) -> Self;
}

impl MapAll for Vec<f32> {
    fn map_all(mut self, map: fn(f32) -> f32) -> Self {
        self.iter_mut().for_each(|x| *x = map(*x));
        self
    }
}

#[test]
fn a_gallery_is_kept_verified_and_repaired() {
    let folder = archive();
    let root = folder.path();
    std::fs::remove_file(root.join("in/broken.dcm")).unwrap();
    let m3ret = |words: &[&str]| run(root, words);
    assert_eq!(m3ret(&["index", "build", "g.m3i", "in"]).0, 0);
    write(root, "in/f.npy", &npy(&[24, 32], &picture(6)));
    let (status, out, _) = m3ret(&["index", "add", "g.m3i", "in"]);
    assert_eq!(
        (status, out.contains("7 images, 1 new")),
        (0, true),
        "{out}"
    );
    let (status, _, told) = m3ret(&[
        "search",
        "-d",
        "g.m3i",
        "-i",
        "in/e.npy",
        "-m",
        "random:tiny",
    ]);
    assert_eq!(
        (status, told.contains("which made the gallery")),
        (1, true),
        "{told}"
    );
    let (status, _, told) = m3ret(&["index", "remove", "g.m3i", "f.npy", "nothing"]);
    assert_eq!(
        (status, told.contains("nothing was removed")),
        (1, true),
        "{told}"
    );
    let (status, out, _) = m3ret(&["index", "remove", "g.m3i", "f.npy"]);
    assert_eq!((status, out.contains("6 left")), (0, true), "{out}");
    assert_eq!(m3ret(&["index", "compact", "g.m3i"]).0, 0);
    let (status, out, _) = m3ret(&["index", "verify", "g.m3i"]);
    assert_eq!(
        (status, out.starts_with("good: 6 images")),
        (0, true),
        "{out}"
    );
    let (_, out, _) = m3ret(&["index", "stats", "g.m3i", "--json"]);
    let stats = &json_lines(&out)[0];
    assert_eq!(
        (&stats["n_items"], &stats["counts"]["modality"][0][1]),
        (&6.into(), &4.into())
    );

    let segment = names_in(&root.join("g.m3i"))
        .into_iter()
        .find(|name| name.ends_with(".m3s"));
    let segment = root.join("g.m3i").join(segment.unwrap());
    let mut bytes = std::fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let (status, out, _) = m3ret(&["index", "verify", "g.m3i"]);
    assert_eq!(
        (status, out.contains("damaged: segment-")),
        (1, true),
        "{out}"
    );
    let (_, out, told) = m3ret(&["index", "verify", "g.m3i", "--repair"]);
    assert!(out.contains("moved to quarantine: segment-"), "{out}{told}");
    assert_eq!(m3ret(&["index", "verify", "g.m3i"]).0, 0);
    for words in [
        &["index", "verify", "in"][..],
        &["index", "add", "nothing.m3i", "in"],
        &["search", "-d", "in", "-i", "nothing", "--cache", "cache"],
        &["search", "-d", "nothing", "-i", "in/e.npy"],
    ] {
        let (status, _, told) = m3ret(words);
        assert!(
            status == 1 && told.starts_with("m3ret: "),
            "{words:?} {told}"
        );
    }
    assert_eq!(m3ret(&["search", "-d", "in"]).0, 2);
}

#[test]
fn duplicates_are_pairs_with_a_verdict_each() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let shifted = |by: usize| {
        let values = picture(4);
        let at = |i: usize| values[i / 32 * 32 + (i % 32 + by).min(31)];
        (0..768).map(at).collect::<Vec<f32>>()
    };
    write(root, "in/a.npy", &npy(&[24, 32], &picture(4)));
    write(root, "in/b.npy", &npy(&[24, 32], &picture(4)));
    write(
        root,
        "in/scaled.npy",
        &npy(&[24, 32], &picture(4).map_all(|x| 3.0 * x + 5.0)),
    );
    write(root, "in/shifted.npy", &npy(&[24, 32], &shifted(1)));
    write(root, "in/other.npy", &npy(&[24, 32], &picture(11)));
    let words = [
        "dedup", "in", "--cache", "cache", "--json", "--near", "0.95",
    ];
    let (status, out, told) = run(root, &words);
    assert_eq!(status, 0, "{told}");
    let mut lines = json_lines(&out);
    let summary = lines.pop().unwrap();
    let verdict = |a: &str, b: &str| {
        let ids = [a, b].map(|name| Value::from(format!("{name}.npy")));
        let pair = lines.iter().find(|pair| {
            let found = pair["ids"].as_array().unwrap();
            found.contains(&ids[0]) && found.contains(&ids[1])
        });
        pair.map(|pair| pair["verdict"].as_str().unwrap())
    };
    assert_eq!(verdict("a", "b"), Some("exact"));
    assert_eq!(verdict("a", "scaled"), Some("reencoded"));
    assert_eq!(verdict("a", "shifted"), Some("near"));
    assert_eq!(verdict("a", "other"), None);
    assert_eq!(
        (
            &summary["summary"]["n_items"],
            &summary["summary"]["n_exact"]
        ),
        (&5.into(), &1.into())
    );
}

#[test]
fn a_map_holds_every_image_and_comes_out_the_same() {
    let folder = archive();
    let root = folder.path();
    for out in ["m.html", "again.html"] {
        let words = ["map", "in", "--cache", "cache", "--html", out];
        let (status, said, told) = run(root, &words);
        assert_eq!(status, 1, "one file is broken: {told}");
        assert!(said.contains("6 images on"), "{said}");
    }
    let page = std::fs::read_to_string(root.join("m.html")).unwrap();
    assert_eq!(
        page,
        std::fs::read_to_string(root.join("again.html")).unwrap()
    );
    assert!(page.contains("in/two/copy.dcm"));
    let words = [
        "map", "in", "--cache", "cache", "--html", "n.html", "--color", "weather",
    ];
    let (status, _, told) = run(root, &words);
    assert_eq!(
        (status, told.contains("no such column")),
        (1, true),
        "{told}"
    );
}

#[test]
fn identifiers_of_headers_and_of_manifests_are_not_compared() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for (name, patient, seed) in [
        ("a.dcm", "MRN-1", 1),
        ("b.dcm", "MRN-2", 2),
        ("q.dcm", "MRN-1", 3),
    ] {
        write(
            root,
            name,
            &image_of(patient, &format!("1.2.{seed}"), "DX", seed),
        );
    }
    write(root, "m.csv", b"path,patient_id\na.dcm,S-1\nb.dcm,S-2\n");
    let ask = |words: &[&str]| {
        let usual = [
            "search", "-d", "m.csv", "--cache", "cache", "--json", "--model", "pixels",
        ];
        let (status, out, told) = run(root, &[&usual[..], words].concat());
        assert_eq!(status, 0, "{told}");
        let relations: Vec<(String, String)> = hits(&json_lines(&out)[0])
            .into_iter()
            .map(|(id, relation)| (id.to_owned(), relation.to_owned()))
            .collect();
        (relations, told)
    };
    let has = |found: &[(String, String)], id: &str, relation: &str| {
        found.contains(&(id.to_owned(), relation.to_owned()))
    };
    // Equal headers say yes; different ones say nothing where a manifest has other names.
    let (found, _) = ask(&["-i", "q.dcm"]);
    assert!(
        has(&found, "a.dcm", "same_patient") && has(&found, "b.dcm", "unknown"),
        "{found:?}"
    );
    let (found, told) = ask(&["-i", "q.dcm", "--exclude", "same_patient"]);
    assert_eq!(found, [("b.dcm".to_owned(), "unknown".to_owned())]);
    assert!(
        told.contains("could not be applied to 1 of 1 hit of q.dcm"),
        "{told}"
    );
    // A query whose manifest uses the archive's names is compared by them.
    write(root, "q.csv", b"path,PatientID\nq.dcm,S-2\n");
    let (found, _) = ask(&["-i", "q.csv"]);
    assert!(has(&found, "b.dcm", "same_patient"), "{found:?}");
}
