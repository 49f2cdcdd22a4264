//! Vectors that were made elsewhere, and images that are alike or show nothing, as a person would meet them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::too_many_lines, reason = "stories told from start to end")]

#[path = "person/binary.rs"]
mod binary;
#[path = "person/pictures.rs"]
mod pictures;

use serde_json::Value;

use binary::{json_lines, npy, run};
use pictures::{picture, pictures, put, search, vectors};

#[test]
fn vectors_are_joined_by_name_and_only_with_those_of_their_encoder() {
    let folder = pictures(5);
    let root = folder.path();
    put(
        root,
        "m.csv",
        "path,body_part\n0.npy,a\n1.npy,b\n2.npy,a\n3.npy,b\n4.npy,a\n",
    );
    let (status, _, told) = run(
        root,
        &["embed", "m.csv", "--out", "v.npy", "--model", "pixels"],
    );
    assert_eq!(status, 0, "{told}");
    // The same images the other way round, and one less.
    put(
        root,
        "turned.csv",
        "path,body_part,id\n3.npy,b,i3\n2.npy,a,i2\n1.npy,b,i1\n0.npy,a,i0\n",
    );
    let built = run(
        root,
        &[
            "index",
            "build",
            "g.m3i",
            "turned.csv",
            "--embeddings",
            "v.npy",
            "--encoder",
            "e",
        ],
    );
    assert_eq!(built.0, 0, "{}", built.2);
    let (by_name, _) = search(root, "g.m3i", &["-i", "i3"]);
    let (wanted, _) = search(root, "turned.csv", &["-i", "i3"]);
    let ranked = |hits: &[Value]| -> Vec<String> {
        hits.iter()
            .map(|hit| hit["id"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(ranked(&by_name), ranked(&wanted));
    put(root, "more.csv", "path\n0.npy\n9.npy\n");
    let (status, _, told) = run(
        root,
        &[
            "index",
            "build",
            "h.m3i",
            "more.csv",
            "--embeddings",
            "v.npy",
            "--encoder",
            "e",
        ],
    );
    assert!(
        status == 1 && told.contains("no vector of row 2 of the manifest"),
        "{told}"
    );
    let (_, _, told) = run(
        root,
        &[
            "evaluate",
            "more.csv",
            "--embeddings",
            "v=v.npy",
            "--out",
            "e",
            "--relevance",
            "path",
        ],
    );
    assert!(!told.contains("by position"), "{told}");
    // Without a list, position counts, and that is said.
    std::fs::remove_file(root.join("v.npy.rows.csv")).unwrap();
    let build = ["index", "build", "i.m3i", "m.csv", "--embeddings", "v.npy"];
    let (status, _, told) = run(root, &[&build[..], &["--encoder", "e"]].concat());
    assert!(status == 0 && told.contains("by position"), "{told}");
    // An array never says what made it, so every verb that needs to know asks; vectors are not mixed.
    put(
        root,
        "other.csv",
        "path\n5.npy\n6.npy\n7.npy\n8.npy\n9.npy\n",
    );
    let add = [
        "index",
        "add",
        "i.m3i",
        "other.csv",
        "--embeddings",
        "v.npy",
    ];
    let (status, _, told) = run(root, &add);
    assert!(
        status == 1 && told.contains("--encoder is missing"),
        "{told}"
    );
    let (status, _, told) = run(root, &["search", "-d", "i.m3i", "--embeddings", "v.npy"]);
    assert!(
        status == 1 && told.contains("--encoder is missing"),
        "{told}"
    );
    // A new gallery takes the name of the file, says so, and is added to under that name.
    let build = ["index", "build", "j.m3i", "m.csv", "--embeddings", "v.npy"];
    let (status, _, told) = run(root, &build);
    assert!(status == 0 && told.contains("--encoder v"), "{told}");
    let add_to = |name: &str| {
        let words = [
            "index",
            "add",
            "j.m3i",
            "other.csv",
            "--embeddings",
            "v.npy",
            "--encoder",
            name,
        ];
        run(root, &words).0
    };
    assert_eq!([add_to("w"), add_to("v")], [1, 0]);
    let (status, _, told) = run(root, &[&add[..], &["--encoder", "e"]].concat());
    assert_eq!(status, 0, "what was built under a name is added to: {told}");
    let asked = [
        "search",
        "-d",
        "g.m3i",
        "--embeddings",
        "v.npy",
        "--encoder",
        "f",
    ];
    let (status, _, told) = run(root, &asked);
    assert!(status == 1 && told.contains("made by e"), "{told}");
}

#[test]
fn files_of_embed_say_whose_their_vectors_are_and_what_made_them() {
    let folder = pictures(6);
    let root = folder.path();
    std::fs::create_dir(root.join("deep")).unwrap();
    put(root, "m.csv", "path\n0.npy\n1.npy\n2.npy\n3.npy\n4.npy\n");
    put(
        root,
        "turned.csv",
        "path,id\n3.npy,i3\n1.npy,i1\n4.npy,i4\n",
    );
    let (wanted, _) = search(root, "turned.csv", &["-i", "i3"]);
    for file in ["v.safetensors", "deep/v.parquet"] {
        let words = ["embed", "m.csv", "--out", file, "--model", "pixels"];
        assert_eq!(run(root, &words).0, 0);
        let gallery = format!("{}.m3i", file.replace('/', "-"));
        let words = [
            "index",
            "build",
            &gallery,
            "turned.csv",
            "--embeddings",
            file,
        ];
        let (status, _, told) = run(root, &words);
        assert_eq!(status, 0, "{told}");
        assert!(told.contains("by path"), "{told}");
        let (hits, _) = search(root, &gallery, &["-i", "i3"]);
        let told = |hits: &[Value]| -> Vec<(Value, Value)> {
            let told = hits
                .iter()
                .map(|hit| (hit["id"].clone(), hit["score"].clone()));
            told.collect()
        };
        assert_eq!(told(&hits), told(&wanted), "{file}");
        // The model is known, so that images can be queries, and other vectors are refused.
        let (hits, told) = search(root, &gallery, &["-i", "5.npy"]);
        assert_eq!(hits.len(), 3, "{told}");
        let words = [
            "index",
            "add",
            &gallery,
            "m.csv",
            "--embeddings",
            file,
            "--encoder",
            "other",
        ];
        let (status, _, told) = run(root, &words);
        assert!(
            status == 1 && told.contains("the file says that pixels made"),
            "{told}"
        );
        let (hits, told) = search(root, &gallery, &["--embeddings", file]);
        assert_eq!(hits.len(), 3, "{told}");
        let words = ["embed", "m.csv", "--out", "hog.parquet", "--model", "hog"];
        assert_eq!(run(root, &words).0, 0);
        let words = ["search", "-d", &gallery, "--embeddings", "hog.parquet"];
        let (status, _, told) = run(root, &words);
        assert!(status == 1 && told.contains("hog"), "{told}");
    }
}

#[test]
fn vectors_alone_are_compared_where_the_images_are_elsewhere() {
    let folder = pictures(0);
    let root = folder.path();
    let rows: String = (0..24)
        .map(|i| format!("{i}.png,part{},p{}\n", i % 3, i / 2))
        .collect();
    put(root, "m.csv", format!("path,body_part,patient_id\n{rows}"));
    put(root, "a.npy", vectors(24));
    put(root, "b.npy", vectors(24));
    let words = [
        "evaluate",
        "m.csv",
        "--embeddings",
        "a=a.npy",
        "--embeddings",
        "b=b.npy",
        "--out",
        "e",
    ];
    let (status, out, told) = run(root, &words);
    assert_eq!(status, 0, "{told}");
    assert!(
        out.contains("no image of the manifest is on this machine"),
        "{out}"
    );
    assert!(!root.join("e/pixels").exists());
}

#[test]
fn numbers_that_are_written_otherwise_are_told() {
    let folder = pictures(0);
    let root = folder.path();
    let list = |split: &str, ids: [&str; 3]| -> String {
        let rows = ids
            .iter()
            .enumerate()
            .map(|(i, id)| format!("{split}{i}.png,{id},{split}\n"));
        format!("path,patient_id,split\n{}", rows.collect::<String>())
    };
    put(root, "plain.csv", list("pretrain", ["1", "2", "30"]));
    for (name, ids, n_alike) in [
        ("float.csv", ["1.0", "2.0", "31.0"], Some(2)),
        ("zeros.csv", ["0001", "0044", "x30"], Some(1)),
        ("other.csv", ["1.5", "4", "p1"], None),
    ] {
        put(root, name, list("query", ids));
        let (_, _, told) = run(
            root,
            &["split", "plain.csv", "--check", name, "--no-duplicates"],
        );
        let wanted = n_alike.map(|n| {
            format!(
                "{n} patient{} on both sides if ids",
                if n == 1 { " is" } else { "s are" }
            )
        });
        assert_eq!(
            told.contains("read as numbers"),
            wanted.is_some(),
            "{name}: {told}"
        );
        assert!(
            wanted.is_none_or(|wanted| told.contains(&wanted)),
            "{name}: {told}"
        );
    }
}

#[test]
fn blank_images_are_copies_of_their_equals_alone_and_images_of_no_number_have_no_vector() {
    let folder = pictures(2);
    let root = folder.path();
    std::fs::create_dir(root.join("in")).unwrap();
    for (name, value) in [("black.npy", 0.0), ("again.npy", 0.0), ("white.npy", 9.0)] {
        put(root, &format!("in/{name}"), npy(&[16, 16], &[value; 256]));
    }
    put(root, "in/0.npy", npy(&[16, 16], &picture(0)));
    let (_, out, told) = run(root, &["dedup", "in", "--cache", "cache", "--json"]);
    let lines = json_lines(&out);
    assert_eq!(lines.last().unwrap()["summary"]["n_exact"], 1, "{out}");
    assert_eq!(
        lines[0]["ids"],
        serde_json::json!(["again.npy", "black.npy"])
    );
    assert!(told.contains("3 images without a vector"), "{told}");
    let (_, out, _) = run(
        root,
        &[
            "dedup",
            "in",
            "--cache",
            "cache",
            "--json",
            "--model",
            "m3ret-tiny",
        ],
    );
    let near: Vec<Value> = json_lines(&out)
        .into_iter()
        .filter(|line| line["verdict"] == "near")
        .collect();
    assert!(near.is_empty(), "{near:?}");

    std::fs::create_dir(root.join("nothing")).unwrap();
    put(
        root,
        "nothing/nan.npy",
        npy(&[4, 16, 16], &[f32::NAN; 1024]),
    );
    put(root, "nothing/good.npy", npy(&[16, 16], &picture(1)));
    for model in ["m3ret-tiny", "pixels", "hog"] {
        let (status, out, told) = run(
            root,
            &["embed", "nothing", "--out", "v.npy", "--model", model],
        );
        assert!(
            status == 1 && (out + &told).contains("no_direction"),
            "{model}: {told}"
        );
    }
}

#[test]
fn a_table_of_vectors_is_a_manifest_wherever_it_lies() {
    let folder = pictures(3);
    let root = folder.path();
    std::fs::create_dir_all(root.join("out/deep")).unwrap();
    put(root, "m.csv", "path,finding\n0.npy,a|b\n1.npy,a\n2.npy,c\n");
    for source in ["m.csv", "1.npy"] {
        let words = [
            "embed",
            source,
            "--out",
            "out/v.parquet",
            "--model",
            "pixels",
        ];
        assert_eq!(run(root, &words).0, 0);
        let words = [
            "embed",
            "out/v.parquet",
            "--out",
            "out/deep/w.parquet",
            "--model",
            "hog",
        ];
        let (status, _, told) = run(root, &words);
        assert_eq!(status, 0, "{told}");
        let words = [
            "embed",
            "out/deep/w.parquet",
            "--out",
            "x.npy",
            "--model",
            "pixels",
        ];
        let (status, _, told) = run(root, &words);
        assert_eq!(status, 0, "{told}");
    }
}

#[test]
fn a_file_that_m3ret_did_not_write_is_kept_unless_forced() {
    let folder = pictures(3);
    let root = folder.path();
    put(
        root,
        "m.csv",
        "path,patient_id\n0.npy,a\n1.npy,b\n2.npy,c\n",
    );
    let split = [
        "split",
        "m.csv",
        "--no-duplicates",
        "--query",
        "0.3",
        "--pretrain",
        "0.3",
        "--out",
        "mine.csv",
    ];
    let commands: [(&[&str], &str); 5] = [
        (
            &["embed", "m.csv", "--model", "pixels", "--out", "mine.npy"],
            "mine.npy",
        ),
        (
            &[
                "embed",
                "m.csv",
                "--model",
                "pixels",
                "--out",
                "mine.parquet",
            ],
            "mine.parquet",
        ),
        (&["inspect", "0.npy", "--npy", "mine.npy"], "mine.npy"),
        (&["inspect", "0.npy", "--thumbnail", "mine.png"], "mine.png"),
        (&split, "mine.csv"),
    ];
    for (words, name) in commands {
        put(root, name, "my work");
        let (status, _, told) = run(root, words);
        assert!(
            status == 1 && told.contains(name) && told.contains("--force"),
            "{words:?}: {told}"
        );
        assert_eq!(std::fs::read(root.join(name)).unwrap(), b"my work");
        let (status, _, told) = run(root, &[words, &["--force"]].concat());
        assert_eq!(status, 0, "{words:?}: {told}");
        assert_ne!(std::fs::read(root.join(name)).unwrap(), b"my work");
        // What m3ret embed wrote, it replaces.
        let (status, _, told) = run(root, words);
        assert_eq!(status, i32::from(words[0] != "embed"), "{words:?}: {told}");
        std::fs::remove_file(root.join(name)).unwrap();
        _ = std::fs::remove_file(root.join(format!("{name}.rows.csv")));
    }
}
