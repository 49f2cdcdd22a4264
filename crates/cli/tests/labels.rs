//! What is used of a folder: its files, and labels of a manifest that lies in it or of the names of its folders; and guesses
//! of the modality, which are no labels.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "person/binary.rs"]
mod binary;
#[path = "person/dicom.rs"]
mod dicom;
#[path = "person/pictures.rs"]
mod pictures;

use std::path::Path;

use serde_json::Value;

use binary::{json_lines, npy, run};
use dicom::{Word, dicom};
use pictures::{picture, put, search, texts};

/// A folder `in` with pictures of these names, and a query beside it.
fn archive(names: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (seed, name) in names.iter().enumerate() {
        let path = folder.path().join("in").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, npy(&[16, 16], &picture(seed))).unwrap();
    }
    put(folder.path(), "q.npy", npy(&[16, 16], &picture(77)));
    folder
}

/// Runs `m3ret` with `--json`, and returns its last line and what was told.
fn told(root: &Path, words: &[&str]) -> (Value, String) {
    let (_, out, told) = run(root, &[words, &["--json"]].concat());
    (json_lines(&out).pop().expect(&told), told)
}

/// The path of each image of an archive, and its value in a column.
fn labelled(root: &Path, archive: &str, column: &str, words: &[&str]) -> Vec<String> {
    let (hits, _) = search(root, archive, &[&["-i", "q.npy"][..], words].concat());
    let text = |hit: &Value, key: &str| hit[key].as_str().unwrap_or("").to_owned();
    let mut found: Vec<String> = hits
        .iter()
        .map(|hit| format!("{} {}", text(hit, "path"), text(hit, column)))
        .collect();
    found.sort();
    found
}

#[test]
fn a_manifest_that_lies_in_a_folder_labels_its_images_and_leaves_none_out() {
    let folder = archive(&["a.npy", "b/c.npy", "d.npy"]);
    let root = folder.path();
    put(
        root,
        "in/manifest.csv",
        "path,finding,Site\nb/c.npy,mass,x\na.npy,cyst,y\n",
    );
    let (hits, told) = search(root, "in", &["-i", "q.npy"]);
    assert_eq!(texts(&hits, "path"), ["a.npy", "b/c.npy", "d.npy"]);
    assert!(
        told.contains(
            "manifest.csv of the folder is used for labels: 2 rows, and 1 object that no row names; --labels none leaves \
             it out"
        ),
        "{told}"
    );
    let wanted = ["a.npy cyst", "b/c.npy mass", "d.npy "];
    assert_eq!(labelled(root, "in", "finding", &[]), wanted);
    let cysts = labelled(root, "in", "finding", &["--filter", "finding=cyst"]);
    assert_eq!(cysts, ["a.npy cyst"]);
    // The same archive, asked otherwise.
    let plain = ["a.npy ", "b/c.npy ", "d.npy "];
    assert_eq!(
        labelled(root, "in", "finding", &["--labels", "none"]),
        plain
    );
    let (_, told) = search(root, "in", &["-i", "q.npy", "--labels", "none"]);
    assert!(!told.contains("manifest.csv"), "{told}");
    assert_eq!(labelled(root, "in", "finding", &[]), wanted);
    // A manifest that is named itself is used in any case, and lists what it lists.
    let named = labelled(root, "in/manifest.csv", "finding", &["--labels", "none"]);
    assert_eq!(named, ["a.npy cyst", "b/c.npy mass"]);
}

#[test]
fn a_table_that_is_no_manifest_is_told_and_changes_nothing() {
    let folder = archive(&["a.npy", "b.npy"]);
    let root = folder.path();
    for (table, why) in [
        ("name,finding\na.npy,cyst\n", "none of them named path"),
        ("path,finding\na.npy\n", "1 cells"),
        (
            "path,finding\nx.npy,cyst\n",
            "none of its 1 row names a file that is there",
        ),
        ("path\n", "none of its 0 rows name a file that is there"),
        ("", "is not used for labels"),
    ] {
        put(root, "in/manifest.csv", table);
        let (hits, told) = search(root, "in", &["-i", "q.npy"]);
        assert_eq!(texts(&hits, "path"), ["a.npy", "b.npy"], "{table}");
        let note = "manifest.csv of the folder is not used for labels: ";
        assert!(told.contains(note) && told.contains(why), "{why}: {told}");
        assert!(!told.contains("cyst"), "{told}");
    }
}

#[test]
fn rows_of_files_outside_the_folder_are_told_and_not_read() {
    let folder = archive(&["a.npy", "b.npy"]);
    let root = folder.path();
    put(root, "secret.npy", npy(&[16, 16], &picture(9)));
    let absolute = root.join("secret.npy");
    put(
        root,
        "in/manifest.csv",
        format!(
            "path,finding\n../secret.npy,mass\n{},mass\n./a.npy,cyst\n../in/b.npy,scar\n",
            absolute.display()
        ),
    );
    let (hits, told) = search(root, "in", &["-i", "q.npy"]);
    assert_eq!(hits.len(), 2, "{told}");
    assert_eq!(texts(&hits, "finding"), ["cyst", "scar"]);
    let wanted = "2 rows name files or folders outside the folder and are not used";
    assert!(told.contains(wanted), "{told}");
}

#[test]
fn rows_of_files_outside_the_current_folder_are_not_read_either() {
    let folder = archive(&["a.npy"]);
    let root = folder.path();
    put(root, "secret.npy", npy(&[16, 16], &picture(9)));
    put(root, "in/manifest.csv", "path\n../secret.npy\n./a.npy\n");
    let words = ["embed", ".", "-o", "../v.npy", "--model", "pixels"];
    let (status, _, told) = run(&root.join("in"), &words);
    assert_eq!(status, 0, "{told}");
    let rows = std::fs::read_to_string(root.join("v.npy.rows.csv")).unwrap();
    assert!(!rows.contains("secret") && rows.contains("a.npy"), "{rows}");
}

/// A slice of a series as DICOM.
fn slice(number: usize) -> Vec<u8> {
    let instance = format!("1.2.3.{number}");
    let position = format!("0\\0\\{}", 2 * number);
    let words: [Word<'_>; 8] = [
        (8, 0x16, "UI", "1.2.840.10008.5.1.4.1.1.2"),
        (8, 0x18, "UI", &instance),
        (8, 0x60, "CS", "CT"),
        (0x20, 0xd, "UI", "1.2.3.90"),
        (0x20, 0xe, "UI", "1.2.3.91"),
        (0x20, 0x32, "DS", &position),
        (0x20, 0x37, "DS", "1\\0\\0\\0\\1\\0"),
        (0x28, 0x30, "DS", "1\\1"),
    ];
    let values: Vec<f32> = (0..24 * 32)
        .map(|i| ((i * (number + 3)) % 251) as f32)
        .collect();
    dicom(&words, &values)
}

#[test]
fn an_image_that_a_row_names_by_its_folder_or_through_a_link_is_listed_once() {
    let folder = archive(&["a.npy", "b.npy"]);
    let root = folder.path();
    std::fs::create_dir(root.join("in/series")).unwrap();
    for number in 0..3 {
        put(root, &format!("in/series/{number}.dcm"), slice(number));
    }
    let mut rows = "path,finding\nseries,stone\n./a.npy,cyst\n".to_owned();
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("b.npy", root.join("in/link.npy")).unwrap();
        rows += "link.npy,scar\n";
    }
    #[cfg(not(unix))]
    {
        rows += "b.npy,scar\n";
    }
    put(root, "in/manifest.csv", &rows);
    let (hits, told) = search(root, "in", &["-i", "q.npy"]);
    assert_eq!(texts(&hits, "finding"), ["cyst", "scar", "stone"]);
    assert_eq!(hits.len(), 3, "{told}");
    assert!(
        told.contains("3 rows, and 0 objects that no row names"),
        "{told}"
    );
}

#[test]
fn a_row_of_a_folder_with_several_objects_is_told_and_takes_none_away() {
    let folder = archive(&["p1/a.npy", "p1/b.npy", "p2/c.npy"]);
    let root = folder.path();
    put(root, "in/manifest.csv", "path,finding\np1,cyst\np2/,mass\n");
    let (_, told) = search(root, "in", &["-i", "q.npy"]);
    let note = "1 row names a file or folder with several objects, of which a column part names one, and is not used";
    assert!(told.contains(note), "{told}");
    let found = labelled(root, "in", "finding", &[]);
    assert_eq!(found, ["p1/a.npy ", "p1/b.npy ", "p2 mass"]);
    // Without any other row, the folder is listed plainly.
    put(root, "in/manifest.csv", "path,finding\np1,cyst\n");
    let found = labelled(root, "in", "finding", &[]);
    assert_eq!(found, ["p1/a.npy ", "p1/b.npy ", "p2/c.npy "]);
}

#[test]
fn names_of_folders_are_labels_when_asked_for() {
    let folder = archive(&["a.npy", "cat/b.npy", "dog/black/c.npy"]);
    let root = folder.path();
    let (hits, told) = search(root, "in", &["-i", "q.npy", "--labels", "folders"]);
    assert_eq!(texts(&hits, "label"), ["black", "cat"]);
    assert!(
        told.contains("labels are names of folders, 2 names in all"),
        "{told}"
    );
    let with = |words: &[&str]| {
        labelled(
            root,
            "in",
            "label",
            &[&["--labels", "folders"], words].concat(),
        )
    };
    assert_eq!(
        with(&[]),
        ["a.npy ", "cat/b.npy cat", "dog/black/c.npy black"]
    );
    assert_eq!(
        with(&["--filter", "folder=dog/black"]),
        ["dog/black/c.npy black"]
    );
    assert_eq!(
        with(&["--filter", "label!=cat"]),
        ["a.npy ", "dog/black/c.npy black"]
    );
    // A person sees them, too.
    let words = [
        "search", "-d", "in", "-i", "q.npy", "--cache", "cache", "--model", "pixels", "--labels",
        "folders",
    ];
    let (_, out, _) = run(root, &words);
    assert!(out.contains("  black"), "{out}");
    // Nobody asked: no name of a folder is a label.
    let (hits, told) = search(root, "in", &["-i", "q.npy"]);
    assert!(
        texts(&hits, "label").is_empty() && !told.contains("folders"),
        "{told}"
    );
}

#[test]
fn a_gallery_takes_labels_of_folders_without_embedding_and_keeps_others() {
    let folder = archive(&["cat/a.npy", "dog/b.npy"]);
    let root = folder.path();
    put(
        root,
        "list.csv",
        "path,finding\nin/cat/a.npy,cyst\nin/dog/b.npy,mass\n",
    );
    told(
        root,
        &["index", "build", "g.m3i", "list.csv", "-m", "pixels"],
    );
    let (added, _) = told(
        root,
        &["index", "add", "g.m3i", "in", "--labels", "folders"],
    );
    assert_eq!(
        (&added["n_added"], &added["n_reused"]),
        (&0.into(), &2.into()),
        "{added}"
    );
    let both = |column: &str| labelled(root, "g.m3i", column, &[]);
    assert_eq!(both("label"), ["cat/a.npy cat", "dog/b.npy dog"]);
    assert_eq!(both("finding"), ["cat/a.npy cyst", "dog/b.npy mass"]);
}

#[test]
fn a_gallery_without_labels_is_relabelled_by_folders_and_then_by_a_manifest() {
    let folder = archive(&["cat/a.npy", "dog/b.npy"]);
    let root = folder.path();
    told(root, &["index", "build", "h.m3i", "in", "-m", "pixels"]);
    assert_eq!(
        labelled(root, "h.m3i", "label", &[]),
        ["cat/a.npy ", "dog/b.npy "]
    );
    let (added, _) = told(
        root,
        &["index", "add", "h.m3i", "in", "--labels", "folders"],
    );
    assert_eq!(
        (&added["n_added"], &added["n_relabelled"]),
        (&0.into(), &2.into()),
        "{added}"
    );
    assert_eq!(
        labelled(root, "h.m3i", "label", &[]),
        ["cat/a.npy cat", "dog/b.npy dog"]
    );
    let (added, _) = told(
        root,
        &["index", "add", "h.m3i", "in", "--labels", "folders"],
    );
    assert_eq!(
        (&added["n_kept"], &added["n_relabelled"]),
        (&2.into(), &0.into()),
        "{added}"
    );
    // A folder takes no label away, and a manifest in it states all of them.
    told(root, &["index", "add", "h.m3i", "in"]);
    assert_eq!(
        labelled(root, "h.m3i", "label", &[]),
        ["cat/a.npy cat", "dog/b.npy dog"]
    );
    put(root, "in/manifest.csv", "path,finding\ncat/a.npy,scar\n");
    let (added, _) = told(root, &["index", "add", "h.m3i", "in"]);
    assert_eq!(
        (&added["n_added"], &added["n_items"]),
        (&0.into(), &2.into()),
        "{added}"
    );
    assert_eq!(
        labelled(root, "h.m3i", "label", &[]),
        ["cat/a.npy ", "dog/b.npy dog"]
    );
    assert_eq!(
        labelled(root, "h.m3i", "finding", &[]),
        ["cat/a.npy scar", "dog/b.npy "]
    );
}

#[test]
fn embed_writes_the_rows_of_a_manifest_in_a_folder_first_and_then_the_other_images() {
    let folder = archive(&["a.npy", "b.npy", "c.npy"]);
    let root = folder.path();
    put(
        root,
        "in/manifest.csv",
        "path,finding\nc.npy,mass\ngone.npy,cyst\n",
    );
    let words = ["embed", "in", "-o", "v.npy", "--model", "pixels", "--json"];
    let (status, out, told) = run(root, &words);
    assert_eq!(status, 1, "{told}");
    let rows = std::fs::read_to_string(root.join("v.npy.rows.csv")).unwrap();
    let rows: Vec<&str> = rows.lines().skip(1).collect();
    let of = |line: &str| {
        line.split(',')
            .take(2)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let paths: Vec<Vec<String>> = rows.iter().map(|line| of(line)).collect();
    let wanted = ["0,in/c.npy", "1,in/gone.npy", "2,in/a.npy", "3,in/b.npy"];
    assert_eq!(paths, wanted.map(of), "{out}");
    let numbers: Vec<Value> = json_lines(&out)
        .iter()
        .map(|line| line["row"].clone())
        .collect();
    assert_eq!(numbers[..4], [0, 1, 2, 3].map(Value::from));
    // A table can be searched as a manifest, from another folder, too.
    std::fs::create_dir(root.join("out")).unwrap();
    run(
        root,
        &["embed", "in", "-o", "out/v.parquet", "--model", "pixels"],
    );
    let found = labelled(root, "out/v.parquet", "finding", &[]);
    assert_eq!(found, ["../in/a.npy ", "../in/b.npy ", "../in/c.npy mass"]);
    run(
        root,
        &[
            "embed",
            "in",
            "-o",
            "out/w.parquet",
            "--model",
            "pixels",
            "--labels",
            "folders",
        ],
    );
    let found = labelled(root, "out/w.parquet", "label", &[]);
    assert_eq!(found, ["../in/a.npy ", "../in/b.npy ", "../in/c.npy "]);
}

/// Values of a body in air, 24 x 32 x 4.
fn hounsfield() -> Vec<f32> {
    let value = |i: usize| {
        let (place, noise) = ((i * 7) % 100, ((i * 37) % 41) as f32 - 20.0);
        match place {
            0..45 => -980.0 + noise / 2.0,
            45..50 => -900.0 + 150.0 * (place - 45) as f32,
            50..65 => -100.0 + noise,
            65..95 => 50.0 + noise,
            _ => 700.0 + noise,
        }
    };
    (0..24 * 32 * 4).map(value).collect()
}

#[test]
fn a_guess_of_the_modality_stands_beside_it_and_never_in_its_place() {
    let folder = archive(&["a.npy"]);
    let root = folder.path();
    put(root, "in/body.npy", npy(&[4, 24, 32], &hounsfield()));
    put(root, "in/slice.dcm", slice(1));
    let (status, out, told) = run(root, &["inspect", "in", "--json"]);
    assert_eq!(status, 0, "{told}");
    let reports = json_lines(&out);
    let of = |name: &str| {
        let is_it = |report: &&Value| report["path"].as_str().unwrap().ends_with(name);
        reports.iter().find(is_it).unwrap()
    };
    assert_eq!(of("body.npy")["modality_guess"], "CT");
    assert_eq!(of("body.npy")["modality"], Value::Null);
    assert_eq!(of("slice.dcm")["modality"], "CT");
    for name in ["a.npy", "slice.dcm"] {
        assert_eq!(of(name).get("modality_guess"), None, "{name}");
    }
    let (_, out, _) = run(root, &["inspect", "in/body.npy"]);
    assert!(out.contains("npy volume, CT-like"), "{out}");
    // A gallery keeps them apart.
    let found = |filter: &str| labelled(root, "in", "modality", &["--filter", filter]);
    assert_eq!(found("modality_guess=CT"), ["body.npy "]);
    assert_eq!(found("modality=CT"), ["slice.dcm CT"]);
    // What a manifest says is no guess, and changes none.
    put(root, "in/manifest.csv", "path,modality\nbody.npy,MR\n");
    assert_eq!(found("modality_guess=CT"), ["body.npy MR"]);
    assert_eq!(found("modality=CT"), ["slice.dcm CT"]);
    told_relabelled(root);
}

/// A guess stays with its row when a manifest relabels it.
fn told_relabelled(root: &Path) {
    told(
        root,
        &[
            "index", "build", "g.m3i", "in", "-m", "pixels", "--labels", "none",
        ],
    );
    put(root, "list.csv", "path,finding\nin/body.npy,stone\n");
    let (relabelled, _) = told(root, &["index", "relabel", "g.m3i", "list.csv"]);
    assert_eq!(relabelled["n_changed"], 1, "{relabelled}");
    let found = labelled(root, "g.m3i", "finding", &["--filter", "modality_guess=CT"]);
    assert_eq!(found, ["body.npy stone"]);
}

#[test]
fn masks_are_left_out_of_a_folder_and_patterns_choose_its_files() {
    let folder = archive(&["a.npy", "a_seg.npy", "masks/b.npy", "c/d.npy"]);
    let root = folder.path();
    let found = |words: &[&str]| {
        let (hits, told) = search(root, "in", &[&["-i", "q.npy"][..], words].concat());
        let paths = texts(&hits, "path").into_iter();
        (paths.map(str::to_owned).collect::<Vec<_>>(), told)
    };
    let (paths, told) = found(&[]);
    assert_eq!(paths, ["a.npy", "c/d.npy"]);
    let note = "left out 1 file *[-_.]seg.*, 1 file masks; masks are read where --include-files or a row of a manifest names them";
    assert!(told.contains(note), "{told}");
    // The same cache, asked for other files.
    let (paths, told) = found(&["--include-files", "*_seg.npy", "--include-files", "c"]);
    assert_eq!(paths, ["a_seg.npy", "c/d.npy"]);
    assert!(
        told.contains("2 files that --include-files does not name"),
        "{told}"
    );
    assert_eq!(found(&["--include-files", "*"]).0.len(), 4);
    assert_eq!(found(&["--exclude-files", "c/*"]).0, ["a.npy"]);
    assert_eq!(found(&["-q"]).1, "");
    // Another choice leaves the vectors of this one where they are.
    let none = [
        "search",
        "-i",
        "q.npy",
        "-d",
        "in",
        "--cache",
        "cache",
        "--model",
        "pixels",
        "--include-files",
        "*.png",
    ];
    let (status, _, told) = run(root, &none);
    assert_eq!(status, 1, "{told}");
    assert!(
        told.contains("--include-files and --exclude-files leave"),
        "{told}"
    );
    let again = found(&["-v"]);
    assert_eq!(again.0, ["a.npy", "c/d.npy"]);
    assert!(!again.1.contains("objects to do"), "{}", again.1);
    // Every image of a folder that is a query is one.
    let (status, out, told) = run(
        root,
        &[
            "search", "-i", "in", "-d", "in", "--cache", "cache", "--json", "--model", "pixels",
        ],
    );
    assert!(status == 0 && json_lines(&out).len() == 4, "{told}");

    // A row of a manifest names its file, whatever it is called.
    put(
        root,
        "in/manifest.csv",
        "path,finding\na_seg.npy,mass\nc/d.npy,cyst\n",
    );
    assert_eq!(found(&[]).0, ["a.npy", "a_seg.npy", "c/d.npy"]);
    assert_eq!(
        found(&["--exclude-files", "*_seg.*"]).0,
        ["a.npy", "c/d.npy"]
    );

    for (archive, words) in [
        ("in/a.npy", "is no folder"),
        ("in/manifest.csv", "is no folder"),
    ] {
        let asked = [
            "search",
            "-i",
            "q.npy",
            "-d",
            archive,
            "--include-files",
            "*",
        ];
        let (status, _, told) = run(root, &asked);
        assert!(status == 1 && told.contains(words), "{told}");
    }
}

#[test]
fn verbose_tells_the_steps_and_quiet_only_errors() {
    let folder = archive(&["a.npy", "b.npy"]);
    let root = folder.path();
    put(root, "in/manifest.csv", "path,finding\na.npy,mass\n");
    put(root, "in/broken.dcm", "DICM".repeat(50));
    let embed = |words: &[&str]| {
        let base = ["embed", "in", "--out", "v.npy", "--model", "pixels"];
        run(root, &[&base[..], words].concat())
    };
    let (status, out, told) = embed(&["--verbose"]);
    assert_eq!(status, 1, "one is refused: {out}{told}");
    for wanted in [
        "s: looking for images",
        "objects to do",
        "s: writing",
        "used for labels",
    ] {
        assert!(told.contains(wanted), "{wanted}: {told}");
    }
    assert_eq!(embed(&["-q"]).2, "");
    let (status, _, told) = run(root, &["-q", "embed", "nowhere", "--out", "w.npy"]);
    assert!(status == 1 && told.contains("nowhere"), "{told}");
}

#[cfg(unix)]
#[test]
fn patterns_fit_names_that_are_not_utf_8() {
    use std::os::unix::ffi::OsStrExt as _;
    let folder = archive(&["b.npy"]);
    let root = folder.path();
    for name in [&b"caf\xe9_seg.npy"[..], b"d\xe9.npy"] {
        let path = root.join("in").join(std::ffi::OsStr::from_bytes(name));
        std::fs::write(path, npy(&[16, 16], &picture(name.len()))).unwrap();
    }
    let n = |words: &[&str]| {
        search(root, "in", &[&["-i", "q.npy"][..], words].concat())
            .0
            .len()
    };
    assert_eq!(n(&[]), 2);
    assert_eq!(n(&["--include-files", "*.npy"]), 3);
    assert_eq!(n(&["--exclude-files", "d*"]), 1);
}
