//! One meaning for every column, whichever verb reads it, as a person would see it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(
    clippy::cast_precision_loss,
    clippy::too_many_lines,
    reason = "small numbers, and stories told from start to end"
)]

#[path = "person/binary.rs"]
mod binary;
#[path = "person/pictures.rs"]
mod pictures;

use std::path::Path;

use serde_json::Value;

use binary::{json_lines, run};
use pictures::{pictures, put, search, texts, vectors};

fn results(folder: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join("results.json")).unwrap()).unwrap()
}

#[test]
fn corrected_cells_are_what_the_next_search_says_without_embedding_again() {
    let folder = pictures(5);
    let root = folder.path();
    let table = |finding: &str, patient: &str| {
        let rows: Vec<String> = (0..5)
            .map(|i| format!("{i}.npy,{finding},{patient}{}\n", i % 3))
            .collect();
        format!("path,finding,patient_id\n{}", rows.concat())
    };
    put(root, "m.csv", table("normal", "p"));
    let (before, _) = search(root, "m.csv", &["-i", "0.npy"]);
    assert_eq!(texts(&before, "finding"), ["normal"; 4]);
    let built = run(
        root,
        &["index", "build", "g.m3i", "m.csv", "--model", "pixels"],
    );
    assert_eq!(built.0, 0, "{}", built.2);
    let scores = |hits: &[Value]| -> Vec<f64> {
        hits.iter()
            .map(|hit| hit["score"].as_f64().unwrap())
            .collect()
    };

    put(
        root,
        "m.csv",
        table("mass", "q").replace("q1", "q0").replace("q2", "q0"),
    );
    let (after, told) = search(root, "m.csv", &["-i", "0.npy"]);
    assert_eq!(texts(&after, "finding"), ["mass"; 4], "{told}");
    assert_eq!(texts(&after, "relation"), ["same_patient"; 4]);
    assert_eq!(
        scores(&after),
        scores(&before),
        "vectors are those that were stored"
    );
    let (status, out, _) = run(root, &["index", "add", "g.m3i", "m.csv", "--json"]);
    let told = &json_lines(&out)[0];
    assert_eq!(
        (status, &told["n_added"], &told["n_relabelled"]),
        (0, &0.into(), &5.into())
    );
    let (of_gallery, _) = search(root, "g.m3i", &["-i", "0.npy"]);
    assert_eq!(texts(&of_gallery, "finding"), ["mass"; 4]);
    assert_eq!(scores(&of_gallery), scores(&before));
    // A cell that is emptied is empty, and a column that goes is gone.
    put(root, "m.csv", "path\n0.npy\n1.npy\n2.npy\n3.npy\n4.npy\n");
    let (plain, _) = search(root, "m.csv", &["-i", "0.npy"]);
    assert_eq!(
        (texts(&plain, "finding").len(), texts(&plain, "relation")),
        (0, vec!["unknown"; 4])
    );
    // Nothing changed: nothing is written.
    let (_, out, _) = run(root, &["index", "add", "g.m3i", "m.csv", "--json"]);
    let (_, again, _) = run(root, &["index", "add", "g.m3i", "m.csv", "--json"]);
    assert_eq!(json_lines(&out)[0]["n_relabelled"], 5);
    assert_eq!(json_lines(&again)[0]["n_relabelled"], 0);
}

#[test]
fn one_image_in_several_rows_keeps_what_each_row_says() {
    let folder = pictures(3);
    let root = folder.path();
    put(
        root,
        "m.csv",
        "path,finding\n0.npy,mass\n0.npy,nodule\n1.npy,normal\n2.npy,normal\n",
    );
    let (hits, told) = search(root, "m.csv", &["-i", "2.npy"]);
    assert_eq!(
        texts(&hits, "finding"),
        ["mass", "nodule", "normal"],
        "{told}"
    );
    assert_eq!(texts(&hits, "id"), ["0.npy", "0.npy#row=2", "1.npy"]);
    put(
        root,
        "n.csv",
        "path,finding,id\n0.npy,mass,a\n0.npy,nodule,b\n1.npy,normal,c\n",
    );
    let (hits, _) = search(root, "n.csv", &["-i", "2.npy"]);
    assert_eq!(texts(&hits, "id"), ["a", "b", "c"]);
    // In an evaluation it never finds itself.
    put(root, "v.npy", vectors(6));
    let rows = "0.npy,x,query\n0.npy,x,gallery\n1.npy,x,query\n1.npy,x,gallery\n2.npy,y,query\n2.npy,y,gallery\n";
    put(root, "e.csv", format!("path,body_part,split\n{rows}"));
    let words = [
        "evaluate",
        "e.csv",
        "--embeddings",
        "v=v.npy",
        "--out",
        "e",
        "-k",
        "5",
    ];
    let (_, _, told) = run(root, &words);
    let found = results(&root.join("e"));
    let task = &found["tasks"][0];
    assert_eq!(
        task["exclude"],
        serde_json::json!(["m3ret:image"]),
        "{told}"
    );
}

#[test]
fn columns_are_known_in_any_spelling_and_cells_without_the_space_around_them() {
    let folder = pictures(0);
    let root = folder.path();
    put(root, "v.npy", vectors(24));
    let rows = |patient: &dyn Fn(usize) -> String, header: &str| {
        let row = |i: usize| {
            let split = if i.is_multiple_of(2) {
                "query"
            } else {
                "gallery"
            };
            format!("{i}.png,DX,part{},{},{split}\n", i / 2 % 3, patient(i))
        };
        format!("{header}\n{}", (0..24).map(row).collect::<String>())
    };
    let usual = "path,modality,body_part,patient_id,split";
    let evaluated = |name: &str, text: String| {
        put(root, &format!("{name}.csv"), text);
        let manifest = format!("{name}.csv");
        let words = [
            "evaluate",
            &manifest,
            "--embeddings",
            "v=v.npy",
            "--out",
            name,
        ];
        let (status, _, told) = run(root, &words);
        assert_eq!(status, 0, "{told}");
        let found = results(&root.join(name));
        (found["tasks"].clone(), found["notes"].to_string())
    };
    let plain = |i: usize| format!("p{}", i / 2);
    let (wanted, _) = evaluated("plain", rows(&plain, usual));
    let (spaced, _) = evaluated(
        "spaced",
        rows(&|i| format!("p{}{}", i / 2, " ".repeat(i % 2)), usual),
    );
    assert_eq!(spaced, wanted);
    let header = "Path,Modality,Body Part,SubjectID,SPLIT";
    let (spelt, notes) = evaluated("spelt", rows(&plain, header));
    assert_eq!(spelt, wanted);
    assert!(
        notes.contains("column SubjectID is used as patient_id"),
        "{notes}"
    );
    let (tabs, _) = evaluated("tabs", rows(&plain, usual).replace(',', "\t"));
    assert_eq!(tabs, wanted);
    // Nobody in particular is no patient, and is told.
    let (unknown, _) = evaluated(
        "empty",
        rows(&|i| if i < 8 { String::new() } else { plain(i) }, usual),
    );
    let (nan, notes) = evaluated(
        "nan",
        rows(&|i| if i < 8 { "nan".to_owned() } else { plain(i) }, usual),
    );
    assert_eq!(nan, unknown);
    assert!(
        notes.contains("column patient_id: 8 cells hold a word"),
        "{notes}"
    );
    // What is asked for in another spelling is the same column.
    let words = [
        "evaluate",
        "spelt.csv",
        "--embeddings",
        "v=v.npy",
        "--out",
        "asked",
        "--relevance",
        "BodyPart",
    ];
    assert_eq!(run(root, &words).0, 0);
    assert_eq!(
        results(&root.join("asked"))["tasks"][0]["relevance"],
        "body_part"
    );
    // Patients on both sides are found, however the column is called.
    let mixed = rows(&plain, header) + "x.png,DX,part0,p3 ,pretrain\n";
    put(root, "mixed.csv", mixed);
    let (status, _, told) = run(
        root,
        &[
            "evaluate",
            "mixed.csv",
            "--embeddings",
            "v=v.npy",
            "--out",
            "no",
        ],
    );
    assert!(
        status == 1 && told.contains("1 patient has rows with split = pretrain"),
        "{told}"
    );
}

#[test]
fn what_cannot_be_read_or_is_not_there_is_an_error_and_never_absent() {
    let folder = pictures(4);
    let root = folder.path();
    put(root, "two.csv", "path,PatientID,Subject_ID\n0.npy,a,b\n");
    let (status, _, told) = run(
        root,
        &[
            "search", "-d", "two.csv", "-i", "0.npy", "--model", "pixels",
        ],
    );
    assert!(
        status == 1 && told.contains("columns 2 and 3 that both mean patient_id"),
        "{told}"
    );
    put(root, "own.csv", "path,m3ret:root\n0.npy,/\n");
    let (_, _, told) = run(
        root,
        &[
            "search", "-d", "own.csv", "-i", "0.npy", "--model", "pixels",
        ],
    );
    assert!(told.contains("a name that begins with m3ret:"), "{told}");
    put(
        root,
        "m.csv",
        "path,modality\n0.npy,DX\n1.npy,DX\n2.npy,DX\n3.npy,PT\n",
    );
    let config = "manifests = ['m.csv']\nout = 'run'\nmethod = 'mae'\n\
                  [model]\nembed_dim = 24\ndepth = 1\nnum_heads = 1\npatch = [1, 8, 8]\nside = 16\nmax_depth = 1\n\
                  [images]\nvalidation = 0\n[views]\nside = 16\n[mae]\ndecoder_dim = 24\ndecoder_depth = 1\ndecoder_heads = 1\n\
                  [train]\nsteps = 1\nbatch = 2\n";
    put(root, "run.toml", config);
    let (status, _, told) = run(
        root,
        &["pretrain", "run.toml", "--set", "images.split=train"],
    );
    assert!(
        status != 0 && told.contains("a column split in m.csv"),
        "{told}"
    );
    let (status, _, told) = run(
        root,
        &[
            "pretrain",
            "run.toml",
            "--set",
            "mae.target=hog",
            "--set",
            "method=sim_dino",
        ],
    );
    assert!(status != 0 && told.contains("mae.target"), "{told}");
    let (status, out, told) = run(root, &["pretrain", "run.toml"]);
    assert_eq!(status, 0, "{told}");
    assert!(
        (out + &told).contains("1 row of modality MR or PET is left out"),
        "{told}"
    );
}

#[test]
fn a_users_columns_are_never_taken_for_those_of_m3ret() {
    let folder = pictures(0);
    let root = folder.path();
    put(root, "v.npy", vectors(6));
    let rows: String = (0..6)
        .map(|i| format!("{i}.png,512x512,/data,k\n"))
        .collect();
    put(root, "m.csv", format!("path,pixels,root,file_key\n{rows}"));
    let built = run(
        root,
        &[
            "index",
            "build",
            "g.m3i",
            "m.csv",
            "--embeddings",
            "v.npy",
            "--encoder",
            "e",
            "--keep",
            "pixels",
            "--keep",
            "root",
        ],
    );
    assert_eq!(built.0, 0, "{}", built.2);
    let (_, out, _) = run(root, &["dedup", "g.m3i", "--json"]);
    assert_eq!(
        json_lines(&out).last().unwrap()["summary"]["n_exact"],
        0,
        "{out}"
    );
    let (hits, _) = search(
        root,
        "g.m3i",
        &[
            "-i",
            "0.png",
            "--filter",
            "pixels=512x512",
            "--filter",
            "root=/data",
        ],
    );
    assert_eq!(texts(&hits, "relation"), ["unknown"; 5]);
}

#[test]
fn filters_and_exclusions_know_labels_and_every_column() {
    let folder = pictures(5);
    let root = folder.path();
    put(
        root,
        "m.csv",
        "path,finding,source,Scanner\n0.npy,Effusion,A,x\n1.npy,Effusion|Mass,A,y\n2.npy,Mass | Effusion,B,x\n3.npy,Mass,B,y\n",
    );
    let (hits, _) = search(
        root,
        "m.csv",
        &["-i", "4.npy", "--filter", "Finding=Effusion"],
    );
    assert_eq!(texts(&hits, "id"), ["0.npy", "1.npy", "2.npy"]);
    let (hits, _) = search(
        root,
        "m.csv",
        &["-i", "4.npy", "--filter", "finding!=Effusion"],
    );
    assert_eq!(texts(&hits, "id"), ["3.npy"]);
    put(root, "q.csv", "path,source,Scanner\n4.npy,A,y\n");
    let (hits, _) = search(root, "m.csv", &["-i", "q.csv", "--exclude", "source"]);
    assert_eq!(texts(&hits, "id"), ["2.npy", "3.npy"]);
    let (hits, _) = search(root, "m.csv", &["-i", "q.csv", "--exclude", "Scanner"]);
    assert_eq!(texts(&hits, "id"), ["0.npy", "2.npy"]);
}

#[test]
fn text_of_a_manifest_does_not_steer_a_terminal() {
    let folder = pictures(3);
    let root = folder.path();
    put(
        root,
        "m.csv",
        "path,finding,body_part\n0.npy,a\u{1b}[2Jb,x\u{7}\n1.npy,c,y\n2.npy,d,\u{9b}31m\n",
    );
    run(
        root,
        &["index", "build", "g.m3i", "m.csv", "--model", "pixels"],
    );
    for words in [
        &[
            "search", "-d", "m.csv", "-i", "1.npy", "--model", "pixels", "--cache", "cache",
        ][..],
        &[
            "search",
            "-d",
            "g.m3i",
            "-i",
            "1.npy",
            "--filter",
            "finding=none",
        ],
        &["index", "stats", "g.m3i"],
    ] {
        let (_, out, told) = run(root, words);
        let all = out + &told;
        let strange = |c: char| c.is_control() && c != '\n';
        assert!(!all.contains(strange), "{words:?}: {all:?}");
    }
}

#[test]
fn one_bad_query_costs_one_answer() {
    let folder = pictures(3);
    let root = folder.path();
    std::fs::create_dir(root.join("in")).unwrap();
    for name in ["0.npy", "1.npy"] {
        std::fs::rename(root.join(name), root.join("in").join(name)).unwrap();
    }
    put(root, "junk.png", "no image");
    put(root, "empty.png", "");
    let words = [
        "search",
        "-d",
        "in",
        "--cache",
        "cache",
        "--json",
        "--model",
        "pixels",
        "-i",
        "2.npy",
        "-i",
        "junk.png",
        "-i",
        "nowhere.png",
        "-i",
        "empty.png",
        "-i",
        "in/1.npy",
    ];
    let (status, out, told) = run(root, &words);
    let answered: Vec<String> = json_lines(&out)
        .iter()
        .map(|answer| answer["query"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        (status, answered),
        (1, vec!["2.npy".to_owned(), "in/1.npy".to_owned()]),
        "{told}"
    );
    for name in ["junk.png", "nowhere.png", "empty.png"] {
        assert!(told.contains(name), "{name}: {told}");
    }
}

#[test]
fn no_verb_writes_over_what_m3ret_did_not_write() {
    let folder = pictures(8);
    let root = folder.path();
    let rows: String = (0..8).map(|i| format!("{i}.npy,part{}\n", i % 2)).collect();
    let text = format!("path,body_part\n{rows}");
    put(root, "m.csv", &text);
    for verb in [
        &["search", "-d", "m.csv", "-i", "0.npy", "--html", "m.csv"][..],
        &["map", "m.csv", "--html", "m.csv"],
        &["map", "m.csv", "--html", "1.npy"],
    ] {
        let words = [verb, &["--model", "pixels", "--cache", "cache"]].concat();
        let (status, _, told) = run(root, &words);
        assert!(
            status == 1 && told.contains("is being read"),
            "{verb:?}: {told}"
        );
    }
    assert_eq!(std::fs::read_to_string(root.join("m.csv")).unwrap(), text);
    // Its own page is written again.
    for _ in 0..2 {
        let words = [
            "search", "-d", "m.csv", "-i", "0.npy", "--html", "r.html", "--model", "pixels",
            "--cache", "cache",
        ];
        assert_eq!(run(root, &words).0, 0);
    }

    put(root, "v.npy", vectors(8));
    std::fs::create_dir_all(root.join("mine/trec")).unwrap();
    put(root, "mine/trec/official.run", "q0 Q0 d1 1 0.5 me");
    let words = [
        "evaluate",
        "m.csv",
        "--embeddings",
        "v=v.npy",
        "--out",
        "mine",
    ];
    let (status, _, told) = run(root, &words);
    assert!(
        status == 1 && told.contains("no evaluation that m3ret wrote"),
        "{told}"
    );
    assert_eq!(run(root, &[&words[..], &["--force"]].concat()).0, 0);
    // What lies beside our own files stays, whenever it came.
    put(root, "mine/trec/later.run", "mine");
    assert_eq!(run(root, &words).0, 0);
    for name in ["official.run", "later.run"] {
        assert!(root.join("mine/trec").join(name).exists(), "{name}");
    }
    assert!(results(&root.join("mine")).get("is_unfinished").is_none());
}
