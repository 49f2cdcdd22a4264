//! Pages of searches, maps and evaluations: they stand alone, hold what they should, and no name gets out of its place.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "person/binary.rs"]
mod binary;
#[path = "person/pictures.rs"]
mod pictures;

use std::path::Path;

use serde_json::{Value, json};

use binary::{names_in, npy, run};
use pictures::{picture, put};

/// The JSON that a page draws itself from.
fn page(root: &Path, name: &str) -> Value {
    let text = std::fs::read_to_string(root.join(name)).unwrap();
    assert!(text.is_ascii() || !text.contains('\u{1b}'), "{name}");
    for outside in ["http://", "https://", "src=\"//", "@import", " onclick="] {
        assert!(!text.contains(outside), "{name} has {outside}");
    }
    assert!(!text.contains('\u{1b}'), "{name} has an escape sequence");
    assert_eq!(text.matches("</script>").count(), 2, "{name}");
    let (_, data) = text.split_once("id=\"data\">").unwrap();
    let (data, _) = data.split_once("</script>").unwrap();
    serde_json::from_str(data).unwrap()
}

/// A manifest of six pictures, two volumes and a film, with a column of the user's own and names that want out.
fn archive() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let mut manifest = "path,modality,body_part,finding,age,patient_id\n".to_owned();
    for seed in 0..6 {
        let name = format!("{seed}.npy");
        put(root, &name, npy(&[16, 16], &picture(seed)));
        manifest += &format!(
            "{name},DX,chest,</script><b>\u{1b}[31m {seed},{},p{seed}\n",
            30 + seed
        );
    }
    for seed in 6..8 {
        let name = format!("{seed}.npy");
        let slices = (0..40).flat_map(|slice| picture(seed + slice));
        let values: Vec<f32> = slices.map(|value| value * 20.0 - 1000.0).collect();
        put(root, &name, npy(&[40, 16, 16], &values));
        manifest += &format!("{name},CT,chest,,60,p{seed}\n");
    }
    put(root, "m.csv", manifest);
    folder
}

fn done(root: &Path, words: &[&str]) {
    let (status, out, told) = run(root, words);
    assert_eq!(status, 0, "{words:?}: {out}{told}");
}

#[test]
fn a_search_page_shows_slices_columns_and_what_is_left_of_gone_files() {
    let folder = archive();
    let root = folder.path();
    let build = [
        "index",
        "build",
        "g.m3i",
        "m.csv",
        "--thumbnails",
        "--keep",
        "age",
    ];
    done(root, &build);
    std::fs::remove_file(root.join("7.npy")).unwrap();
    let search = [
        "search", "-d", "g.m3i", "-i", "6.npy", "-i", "0.npy", "--html", "r.html",
    ];
    done(root, &search);
    let report = page(root, "r.html");
    let pictures = report["pictures"].as_array().unwrap();
    // Each image is on the page once, whatever found it.
    assert_eq!(pictures.len(), 8);
    let query = &report["queries"][0];
    let own = &pictures[usize::try_from(query["picture"].as_u64().unwrap()).unwrap()];
    assert_eq!(
        (&own["kind"], &own["is_hu"]),
        (&json!("volume"), &json!(true))
    );
    let views = own["views"].as_array().unwrap();
    assert_eq!(views.len(), 3);
    assert_eq!(views[0]["planes"].as_array().unwrap().len(), 32);
    assert_eq!(views[0]["n_all"], 40);
    for view in views {
        assert!(
            view["src"]
                .as_str()
                .unwrap()
                .starts_with("data:image/jpeg;base64,")
        );
    }
    let hits = query["hits"].as_array().unwrap();
    assert_eq!(hits.len(), 7);
    for hit in hits {
        let columns = hit["columns"].as_array().unwrap();
        let names: Vec<&str> = columns
            .iter()
            .map(|cell| cell[0].as_str().unwrap())
            .collect();
        assert!(
            names.contains(&"age") && names.contains(&"body_part"),
            "{names:?}"
        );
        assert!(
            names.iter().all(|name| !name.starts_with("m3ret:")),
            "{names:?}"
        );
    }
    let gone = hits.iter().find(|hit| hit["path"] == "7.npy").unwrap();
    let gone = &pictures[usize::try_from(gone["picture"].as_u64().unwrap()).unwrap()];
    assert_eq!(gone["kind"], "stored");
    assert!(gone["missing"].as_str().is_some());
}

#[test]
fn a_page_of_volumes_stays_small() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    std::fs::create_dir(root.join("in")).unwrap();
    for seed in 0..11_usize {
        // Noise on a gradient: harder to compress than any image.
        let value = |i: usize| {
            let mixed = (i * (seed + 3)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 52;
            mixed as f32 + (i % 160) as f32
        };
        let values: Vec<f32> = (0..24 * 160 * 160).map(value).collect();
        put(
            root,
            &format!("in/{seed}.npy"),
            npy(&[24, 160, 160], &values),
        );
    }
    let search = [
        "search", "-d", "in", "-i", "in/0.npy", "--cache", "cache", "--html", "r.html",
    ];
    done(root, &search);
    let n_bytes = std::fs::metadata(root.join("r.html")).unwrap().len();
    assert!(n_bytes < 5_000_000, "{n_bytes}");
    assert_eq!(
        page(root, "r.html")["pictures"].as_array().unwrap().len(),
        11
    );
}

#[test]
fn a_map_has_pictures_columns_and_the_nearest_of_each_image() {
    let folder = archive();
    let root = folder.path();
    done(root, &["index", "build", "g.m3i", "m.csv", "--keep", "age"]);
    done(root, &["map", "g.m3i", "--html", "map.html"]);
    let map = page(root, "map.html");
    assert_eq!(map["n_all"], 8);
    assert_eq!(map["places"].as_array().unwrap().len(), 16);
    let near = map["near"].as_array().unwrap();
    for (idx, near) in near.iter().enumerate() {
        let near = near.as_array().unwrap();
        assert!(!near.is_empty() && near.len() <= 7 && !near.contains(&json!(idx)));
    }
    let columns = map["columns"].as_array().unwrap();
    let names: Vec<&str> = columns
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert!(
        names.contains(&"modality") && names.contains(&"age"),
        "{names:?}"
    );
    // A gallery without small pictures reads the files again.
    let tiles = map["tiles"]["of"].as_array().unwrap();
    assert!(
        tiles.iter().all(|place| place.as_i64().unwrap() >= 0),
        "{tiles:?}"
    );
    assert_eq!(map["tiles"]["sheets"].as_array().unwrap().len(), 1);
}

#[test]
fn evaluations_open_with_a_sentence_and_several_models_share_a_page() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let mut manifest = "path,modality,body_part,patient_id,split\n".to_owned();
    for seed in 0..24 {
        put(root, &format!("{seed}.npy"), npy(&[16, 16], &picture(seed)));
        let split = if seed % 2 == 0 { "query" } else { "gallery" };
        let part = ["chest", "hand"][seed / 2 % 2];
        manifest += &format!("{seed}.npy,DX,{part},p{seed},{split}\n");
    }
    put(root, "m.csv", manifest);
    done(root, &["evaluate", "m.csv", "-o", "e", "--model", "hog"]);
    let report = page(root, "e/report.html");
    let headline = report["headline"].as_str().unwrap();
    assert!(
        headline.starts_with("hog is better than chance in "),
        "{headline}"
    );
    done(
        root,
        &["evaluate", "m.csv", "-o", "two", "--models", "pixels,hog"],
    );
    assert!(names_in(&root.join("two")).contains(&"comparison.html".to_owned()));
    let together = page(root, "two/comparison.html");
    let models = together["models"].as_array().unwrap();
    assert_eq!(models.len(), 2);
    assert_eq!(models[1]["report"], "hog/report.html");
    let headline = models[1]["headline"].as_str().unwrap();
    assert!(headline.contains("better than pixels in "), "{headline}");
    let lines = together["lines"].as_array().unwrap();
    assert!(
        lines
            .iter()
            .all(|line| line["models"].as_array().unwrap().len() == 2)
    );
    // The same folder may be written again.
    done(
        root,
        &["evaluate", "m.csv", "-o", "two", "--models", "pixels,hog"],
    );
}
