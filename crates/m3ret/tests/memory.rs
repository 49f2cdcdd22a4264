//! Images in memory are embedded and searched with as their files are.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use m3ret::embed::embed_sources;
use m3ret::galleries::{Archive, OpenOptions};
use m3ret::images::{ImageSource, MemoryContent, MemoryImage};
use m3ret::options::{FolderChoice, ModelChoice, Reading};
use m3ret::search::{Answer, Ask, Queries};
use m3ret::watch::Quiet;
use m3ret_encoder::{Model, RunOptions};
use m3ret_imaging::{Pixels, ReadOptions, encode_png, read_path};

/// Writes six pictures, and returns their files.
fn pictures(folder: &Path) -> Vec<PathBuf> {
    std::fs::create_dir_all(folder).unwrap();
    let write = |seed: usize| {
        let values = (0..64 * 64_usize).map(|at| u8::try_from(at * (seed + 1) / 16 % 251).unwrap());
        let values: Vec<u8> = values.collect();
        let file = folder.join(format!("{seed}.png"));
        std::fs::write(&file, encode_png(Pixels::Grey8(&values), 64, 64).unwrap()).unwrap();
        file
    };
    (0..6).map(write).collect()
}

fn bytes_of(file: &Path) -> ImageSource {
    ImageSource::Memory(Arc::new(MemoryImage {
        name: "bytes".to_owned(),
        file: None,
        content: MemoryContent::Files(vec![std::fs::read(file).unwrap()]),
    }))
}

fn volumes_of(file: &Path, place: Option<&Path>) -> ImageSource {
    let volumes = read_path(file, &ReadOptions::default()).unwrap();
    ImageSource::Memory(Arc::new(MemoryImage {
        name: "volume".to_owned(),
        file: place.map(Path::to_owned),
        content: MemoryContent::Volumes(volumes.into_iter().map(Arc::new).collect()),
    }))
}

#[test]
fn images_in_memory_embed_as_their_files_for_any_number_of_readers() {
    let folder = tempfile::tempdir().unwrap();
    let files = pictures(folder.path());
    let model = Model::random("tiny", 0, &RunOptions::default()).unwrap();
    let embed = |sources: &[ImageSource], n_readers| {
        let reading = Reading {
            n_readers,
            ..Reading::default()
        };
        let images = embed_sources(sources, &model, &reading, &FolderChoice::default(), &Quiet);
        let images = images.unwrap().into_iter();
        images
            .map(|image| (image.source_idx, image.outcome))
            .collect::<Vec<_>>()
    };
    let by_path: Vec<ImageSource> = files.iter().cloned().map(ImageSource::Path).collect();
    let expected = embed(&by_path, 2);
    assert!(expected.iter().all(|(_, outcome)| outcome.is_ok()));
    for n_readers in [0, 1, 3] {
        let by_bytes: Vec<ImageSource> = files.iter().map(|file| bytes_of(file)).collect();
        assert_eq!(embed(&by_bytes, n_readers), expected);
        let by_volume: Vec<ImageSource> = files.iter().map(|file| volumes_of(file, None)).collect();
        assert_eq!(embed(&by_volume, n_readers), expected);
    }
    let missing = ImageSource::Path(folder.path().join("nothing.png"));
    let found = embed(&[missing, by_path[0].clone()], 2);
    assert!(found[0].1.is_err() && found[1].1 == expected[0].1);
}

#[test]
fn queries_in_memory_have_the_answers_of_their_files() {
    let folder = tempfile::tempdir().unwrap();
    let files = pictures(&folder.path().join("archive"));
    let outside = folder.path().join("outside.png");
    std::fs::copy(&files[2], &outside).unwrap();
    let options = OpenOptions {
        cache: Some(folder.path().join("cache")),
        model: ModelChoice::named("random:tiny"),
        ..OpenOptions::default()
    };
    let place = folder.path().join("archive");
    let archive = Archive::open(&place, &options, &Quiet).unwrap();
    let ask = |source: ImageSource| -> Answer {
        let queries = Queries::Sources(vec![source]);
        let found = archive.ask(&queries, &Ask::default(), &Quiet).unwrap();
        let why = archive.explain(&found.answers[0], 0).unwrap();
        assert!(why.is_some(), "a query in memory is explained");
        found.answers[0].clone()
    };
    let told = |answer: &Answer| serde_json::to_value(&answer.hits).unwrap();
    let by_path = ask(ImageSource::Path(outside.clone()));
    assert_eq!(by_path.hits.len(), 6);
    assert_eq!(told(&ask(bytes_of(&outside))), told(&by_path));
    assert_eq!(told(&ask(volumes_of(&outside, None))), told(&by_path));
    // An image of the archive is not among its own hits, if it is known which one it is.
    let own = ask(ImageSource::Path(files[2].clone()));
    assert_eq!(own.hits.len(), 5);
    assert_eq!(
        told(&ask(volumes_of(&files[2], Some(&files[2])))),
        told(&own)
    );
}
