//! A picture of one slice finds its volume and its level in it, where the gallery has vectors of slices.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::cast_precision_loss, reason = "small numbers")]

#[path = "person/binary.rs"]
mod binary;

use std::path::Path;

use serde_json::Value;

use binary::{json_lines, names_in, npy, run};

const DEPTH: usize = 40;
const SIDE: usize = 24;

/// A volume `[DEPTH, SIDE, SIDE]` in which a spot moves with the level, and how it does tells volumes apart.
fn volume(seed: usize) -> Vec<f32> {
    let spot = |level: usize, y: usize, x: usize| {
        let turn = (level as f32 / DEPTH as f32).mul_add(5.0, seed as f32);
        let [at_y, at_x] = [turn.sin(), 1.7f32.mul_add(turn, 0.9 * seed as f32).cos()]
            .map(|way| 8.0f32.mul_add(way, 12.0));
        let far = (y as f32 - at_y).powi(2) + (x as f32 - at_x).powi(2);
        100.0 * (-far / 20.0).exp()
    };
    let voxels =
        (0..DEPTH * SIDE * SIDE).map(|i| spot(i / (SIDE * SIDE), i / SIDE % SIDE, i % SIDE));
    voxels.collect()
}

fn mha(values: &[f32]) -> Vec<u8> {
    let mut bytes = format!(
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nTransformMatrix = 1 0 0 0 1 0 0 0 1\n\
         Offset = 0 0 0\nElementSpacing = 1 1 1\nDimSize = {SIDE} {SIDE} {DEPTH}\nElementType = MET_FLOAT\n\
         ElementDataFile = LOCAL\n"
    )
    .into_bytes();
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    bytes
}

/// Three volumes of CT and one of MR that is like the first, and pictures of one slice of the second.
fn archive() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let mut list = "path,modality,patient_id\n".to_owned();
    for (name, seed) in [("a", 1), ("b", 2), ("c", 3), ("m", 2)] {
        std::fs::write(root.join(format!("{name}.mha")), mha(&volume(seed))).unwrap();
        let modality = if name == "m" { "MR" } else { "CT" };
        list += &format!("{name}.mha,{modality},p-{name}\n");
    }
    std::fs::write(root.join("list.csv"), list).unwrap();
    let level = 21;
    let slice = &volume(2)[level * SIDE * SIDE..][..SIDE * SIDE];
    std::fs::write(root.join("slice.npy"), npy(&[SIDE, SIDE], slice)).unwrap();
    for (name, modality) in [("ct", "CT"), ("unknown", ""), ("us", "US")] {
        let query = format!("path,modality\nslice.npy,{modality}\n");
        std::fs::write(root.join(format!("{name}.csv")), query).unwrap();
    }
    folder
}

fn build(root: &Path, gallery: &str, views: &str) {
    let words = [
        "index", "build", gallery, "list.csv", "--views", views, "--model", "pixels",
    ];
    let (status, _, told) = run(root, &words);
    assert_eq!(status, 0, "{told}");
}

fn hits(root: &Path, words: &[&str]) -> Vec<Value> {
    let (status, out, told) = run(root, &[&["search", "--json", "-d"], words].concat());
    assert_eq!(status, 0, "{told}");
    json_lines(&out)[0]["hits"].as_array().unwrap().clone()
}

#[test]
fn a_slice_finds_its_level_in_volumes_of_its_modality() {
    let folder = archive();
    let root = folder.path();
    build(root, "slices.m3i", "projections,slices");
    build(root, "whole.m3i", "none");
    let found = hits(root, &["slices.m3i", "-i", "ct.csv"]);
    assert_eq!(found[0]["path"], "b.mha");
    // Slice 21 of 40, from 0: the 18th of 32 equal parts.
    assert_eq!(found[0]["view"], "slice 18/32");
    assert!(found[0]["score"].as_f64().unwrap() > 0.99, "{found:?}");
    // The MR volume is equal, and compared by projections.
    let mr = found.iter().find(|hit| hit["path"] == "m.mha").unwrap();
    assert!(
        !mr["view"].as_str().unwrap_or("").starts_with("slice"),
        "{mr}"
    );
    let whole = hits(root, &["whole.m3i", "-i", "ct.csv"]);
    assert!(whole.iter().all(|hit| hit["view"].is_null()), "{whole:?}");
    // Of unknown modality it may be of any; ultrasound is neither.
    let unknown = hits(root, &["slices.m3i", "-i", "unknown.csv", "-k", "2"]);
    let paths: Vec<&str> = unknown
        .iter()
        .map(|hit| hit["path"].as_str().unwrap())
        .collect();
    assert_eq!(paths, ["b.mha", "m.mha"]);
    assert!(
        unknown.iter().all(|hit| hit["view"] == "slice 18/32"),
        "{unknown:?}"
    );
    let us = hits(root, &["slices.m3i", "-i", "us.csv"]);
    let is_slice = |hit: &Value| hit["view"].as_str().unwrap_or("").starts_with("slice");
    assert!(!us.iter().any(is_slice), "{us:?}");
    // Volumes do not ask by their slices, read from files or from the gallery.
    for query in ["b.mha", "c.mha"] {
        let found = hits(root, &["slices.m3i", "-i", query]);
        assert!(!found.iter().any(is_slice), "{found:?}");
        let asks_by_slice = |hit: &Value| {
            hit["query_view"]
                .as_str()
                .unwrap_or("")
                .starts_with("slice")
        };
        assert!(!found.iter().any(asks_by_slice), "{found:?}");
    }
    let (_, text, _) = run(root, &["search", "-d", "slices.m3i", "-i", "ct.csv"]);
    assert!(text.contains("b.mha at slice 18/32"), "{text}");
    let words = [
        "search",
        "-d",
        "slices.m3i",
        "-i",
        "ct.csv",
        "--whole",
        "--json",
    ];
    let (_, out, _) = run(root, &words);
    assert!(json_lines(&out)[0]["hits"][0]["view"].is_null());
}

#[test]
fn what_is_added_has_slices_as_the_gallery_has() {
    let folder = archive();
    let root = folder.path();
    build(root, "g.m3i", "slices");
    std::fs::write(root.join("d.mha"), mha(&volume(5))).unwrap();
    std::fs::write(root.join("more.csv"), "path,modality\nd.mha,CT\n").unwrap();
    let (status, _, told) = run(
        root,
        &["index", "add", "g.m3i", "more.csv", "--model", "pixels"],
    );
    assert_eq!(status, 0, "{told}");
    let values = volume(5);
    let slice = &values[30 * SIDE * SIDE..][..SIDE * SIDE];
    std::fs::write(root.join("slice.npy"), npy(&[SIDE, SIDE], slice)).unwrap();
    let found = hits(root, &["g.m3i", "-i", "ct.csv"]);
    assert_eq!(
        (&found[0]["path"], &found[0]["view"]),
        (&"d.mha".into(), &"slice 25/32".into())
    );
}

#[test]
fn repair_embeds_lost_slices_again() {
    let folder = archive();
    let root = folder.path();
    build(root, "g.m3i", "projections,slices");
    let before = hits(root, &["g.m3i", "-i", "ct.csv", "--exact"]);
    let read = |name: String| {
        let bytes = std::fs::read(root.join("g.m3i").join(&name)).unwrap();
        (name, bytes)
    };
    let files: Vec<(String, Vec<u8>)> = names_in(&root.join("g.m3i"))
        .into_iter()
        .map(read)
        .collect();
    let is_segment = |file: &&(String, Vec<u8>)| file.0.ends_with(".m3s");
    let (segment, whole) = files.iter().find(is_segment).unwrap();
    let segment = root.join("g.m3i").join(segment);
    let (mut n_completed, mut n_incomplete, mut n_whole) = (0, 0, 0);
    for at in (0..whole.len()).step_by(whole.len() / 60) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x40;
        std::fs::write(&segment, bytes).unwrap();
        let words = ["index", "verify", "g.m3i", "--repair", "--json"];
        let (status, out, told) = run(root, &words);
        let repair = &json_lines(&out)[0]["repair"];
        let has_labels = repair["lost_cells"]
            .as_object()
            .is_none_or(serde_json::Map::is_empty);
        let is_whole = repair["n_lost"] == 0 && has_labels;
        assert_eq!(status == 0, is_whole, "{at}: {told} {out}");
        n_completed += repair["completed_ids"].as_array().map_or(0, Vec::len);
        n_incomplete += repair["incomplete"].as_array().map_or(0, Vec::len);
        // Without its end, nothing of a segment can be read; without its labels, the modality is lost.
        if is_whole {
            let after = hits(root, &["g.m3i", "-i", "ct.csv", "--exact"]);
            assert_eq!(after, before, "{at}");
            n_whole += 1;
        }
        std::fs::remove_dir_all(root.join("g.m3i")).unwrap();
        std::fs::create_dir(root.join("g.m3i")).unwrap();
        for (name, bytes) in &files {
            std::fs::write(root.join("g.m3i").join(name), bytes).unwrap();
        }
    }
    assert!(n_completed > 0 && n_whole > 40, "{n_completed} {n_whole}");
    assert_eq!(n_incomplete, 0);
}

#[test]
fn evaluations_compare_projections_across_modalities() {
    let folder = archive();
    let root = folder.path();
    let mut list = "path,modality,patient_id,pair_id\n".to_owned();
    for (seed, name) in [(1, "a"), (2, "b"), (3, "c"), (4, "d")] {
        let values = volume(seed);
        std::fs::write(root.join(format!("{name}.mha")), mha(&values)).unwrap();
        // The mean from front to back, head up.
        let mean = |i: usize| {
            let (level, x) = (DEPTH - 1 - i / SIDE, i % SIDE);
            let column = (0..SIDE).map(|y| values[(level * SIDE + y) * SIDE + x]);
            column.sum::<f32>() / SIDE as f32
        };
        let front: Vec<f32> = (0..DEPTH * SIDE).map(mean).collect();
        let picture = npy(&[DEPTH, SIDE], &front);
        std::fs::write(root.join(format!("{name}.npy")), picture).unwrap();
        list += &format!("{name}.mha,CT,p-{name},{name}\n{name}.npy,DX,p-{name},{name}\n");
    }
    std::fs::write(root.join("list.csv"), list).unwrap();
    build(root, "whole.m3i", "none");
    build(root, "views.m3i", "projections,slices");
    let evaluate = |out: &str, vectors: &[&str]| {
        let words = [
            &["evaluate", "list.csv", "--exclude", "none", "--out", out],
            vectors,
        ]
        .concat();
        let (status, _, told) = run(root, &words);
        assert_eq!(status, 0, "{told}");
        let text = std::fs::read_to_string(root.join(out).join("results.json")).unwrap();
        serde_json::from_str::<Value>(&text).unwrap()
    };
    let hit_at_1 = |results: &Value, name: &str| {
        let tasks = results["tasks"].as_array().unwrap();
        let task = tasks.iter().find(|task| task["task"] == name);
        let task = task.unwrap_or_else(|| panic!("no task {name}"));
        task["metrics"]["hit_at_1"]["value"].as_f64().unwrap()
    };
    let model = evaluate("model", &["--models", "pixels"]);
    let whole = evaluate("whole", &["--embeddings", "whole=whole.m3i"]);
    let views = evaluate("views", &["--embeddings", "views=views.m3i"]);
    assert_eq!(model["tasks"], whole["tasks"]);
    assert!(hit_at_1(&views, "pair/DX-CT") > hit_at_1(&whole, "pair/DX-CT"));
}
