use super::*;

/// Images of all kinds, and one that cannot be read.
fn archive() -> Archive {
    let mut archive = Archive::new("path,modality,source");
    for i in 0..4 {
        let name = format!("picture{i}.npy");
        files::npy(&archive.path(&name), [1, 20 + i, 30], i);
        archive.row(format!("{name},DX,one"));
    }
    files::png(&archive.path("colour.png"), 24);
    archive.row("colour.png,ES,two");
    files::npy(&archive.path("deep.npy"), [12, 20, 20], 9);
    archive.row("deep.npy,CT,three");
    files::nifti(&archive.path("times.nii"), [3, 5, 12, 10]);
    archive.row("times.nii,CT,three");
    std::fs::write(archive.path("broken.png"), b"no picture").unwrap();
    archive.row("broken.png,DX,one");
    archive
}

#[test]
fn batches_come_in_order_with_views_of_the_configured_shapes() {
    let config = archive().config();
    let archive = archive();
    let config = Config {
        manifests: archive.config().manifests,
        ..config
    };
    let items = load(&config);
    let all = batches(&items, &config, 0, 4);
    let steps: Vec<u64> = all.iter().map(|batch| batch.step).collect();
    assert_eq!(steps, [0, 1, 2, 3]);
    let sampler = Sampler::new(&items, &config).unwrap();
    for batch in &all {
        let drawn = sampler.batch(batch.step);
        let kept: Vec<usize> = drawn.iter().copied().filter(|&item| item != 7).collect();
        let got: Vec<usize> = batch.samples.iter().map(|sample| sample.item).collect();
        assert_eq!(got, kept);
        assert_eq!(batch.refused.len(), drawn.len() - kept.len());
        assert!(batch.refused.iter().all(|r| *r == (7, "unknown_format")));
        for sample in &batch.samples {
            let shapes: Vec<[usize; 4]> = sample.views.iter().map(|v| v.shape()).collect();
            let is_deep = [5, 6].contains(&sample.item);
            assert_eq!(shapes.len(), 4);
            for (place, [channels, depth, height, width]) in shapes.into_iter().enumerate() {
                let side = if place < 2 { 16 } else { 8 };
                assert_eq!([channels, height, width], [3, side, side]);
                assert!(if is_deep {
                    [4, 8].contains(&depth)
                } else {
                    depth == 1
                });
            }
            assert_ne!(sample.views[0], sample.views[1]);
        }
    }
}

#[test]
fn neither_readers_nor_memory_nor_the_first_step_change_a_batch() {
    let archive = archive();
    let mut config = archive.config();
    let items = load(&config);
    let expected = batches(&items, &config, 0, 6);
    // 1 MiB: an allowance of 512 KiB / readers, and room for not one more item beside the awaited.
    for (readers, memory_mib, first) in [(1, 64, 0), (8, 1, 0), (3, 1, 4), (16, 512, 2)] {
        config.images.readers = readers;
        config.images.memory_mib = memory_mib;
        let got = batches(&items, &config, first, 6 - first);
        assert_eq!(
            got,
            expected[usize::try_from(first).unwrap()..],
            "{readers} readers"
        );
    }
}

#[test]
fn an_item_that_comes_twice_in_a_batch_has_other_views() {
    let mut archive = Archive::new("path");
    files::npy(&archive.path("a.npy"), [1, 20, 20], 0);
    archive.row("a.npy");
    let config = archive.config();
    let batch = &batches(&load(&config), &config, 0, 1)[0];
    assert_eq!(batch.samples.len(), 4);
    assert_ne!(batch.samples[0], batch.samples[1]);
}

#[test]
fn mae_has_one_large_view() {
    let archive = archive();
    let mut config = archive.config();
    config.method = Method::Mae;
    for batch in batches(&load(&config), &config, 0, 2) {
        assert!(batch.samples.iter().all(|sample| sample.views.len() == 1));
        let [_, _, height, _] = batch.samples[0].views[0].shape();
        assert_eq!(height, 16);
    }
}

#[test]
fn a_batch_with_nothing_readable_is_still_delivered() {
    let mut archive = Archive::new("path");
    archive.row("not_there.png");
    let config = archive.config();
    let all = batches(&load(&config), &config, 0, 300);
    assert_eq!(all.len(), 300);
    assert!(all.iter().all(|batch| batch.samples.is_empty()));
    assert_eq!(all[0].refused, [(0, "io"); 4]);
}

#[test]
fn a_volume_of_a_file_with_several_is_drawn() {
    let mut archive = Archive::new("path");
    files::nifti(&archive.path("times.nii"), [3, 5, 12, 12]);
    archive.row("times.nii");
    let mut config = archive.config();
    config.method = Method::Mae;
    // Nothing random but the volume: as many views as there are times.
    config.views = ViewSettings {
        side: 16,
        depth: 8,
        area: [1.0; 2],
        aspect: [1.0; 2],
        depth_share: [1.0; 2],
        jitter: 0.0,
        blur: [0.0; 3],
        noise: 0.0,
        ..ViewSettings::default()
    };
    let items = load(&config);
    for cache in [
        None,
        Some(archive.path("cache")),
        Some(archive.path("cache")),
    ] {
        config.images.cache = cache;
        let mut seen = Vec::new();
        for batch in batches(&items, &config, 0, 12) {
            for sample in batch.samples {
                let first = sample.views[0].values()[0];
                if !seen.contains(&first.to_bits()) {
                    seen.push(first.to_bits());
                }
            }
        }
        assert_eq!(seen.len(), 3);
    }
}

#[test]
fn what_needs_more_than_the_memory_is_refused_and_the_rest_read() {
    let mut archive = Archive::new("path");
    // 40 x 100 x 100 values are 1.6 MB; half of 1 MiB is not enough for them.
    files::npy(&archive.path("large.npy"), [40, 100, 100], 0);
    files::npy(&archive.path("small.npy"), [1, 20, 20], 0);
    archive.row("large.npy");
    archive.row("small.npy");
    let mut config = archive.config();
    for (readers, memory_mib, n_refused) in [(4, 1, 2), (4, 12, 0), (16, 12, 0)] {
        config.images.readers = readers;
        config.images.memory_mib = memory_mib;
        for batch in batches(&load(&config), &config, 0, 5) {
            assert_eq!(batch.refused.len(), n_refused);
            assert!(batch.refused.iter().all(|r| *r == (0, "limit_exceeded")));
        }
    }
    assert!(advice("limit_exceeded").contains("memory_mib"));
}

#[test]
fn a_loader_that_is_dropped_ends_its_readers() {
    let archive = archive();
    let config = archive.config();
    let items = load(&config);
    for n_taken in 0..4 {
        let mut loader = Loader::start(Arc::clone(&items), &config, 0, u64::MAX).unwrap();
        for _ in 0..n_taken {
            assert!(loader.next().unwrap().is_ok());
        }
        drop(loader);
        assert_eq!(Arc::strong_count(&items), 1);
    }
}

#[test]
fn views_are_the_same_without_and_with_a_cache_new_full_or_damaged() {
    let archive = archive();
    let mut config = archive.config();
    let items = load(&config);
    let expected = batches(&items, &config, 0, 4);
    config.images.cache = Some(archive.path("cache"));
    assert_eq!(batches(&items, &config, 0, 4), expected);
    let kept = cached_files(&archive.path("cache"));
    // Six images of one object, and one of three.
    assert_eq!(kept.len(), 6 + 3);
    assert_eq!(batches(&items, &config, 0, 4), expected);
    for (i, path) in kept.iter().enumerate() {
        let mut bytes = std::fs::read(path).unwrap();
        match i % 4 {
            0 => bytes.truncate(bytes.len() - 1),
            1 => bytes[60] ^= 1,
            2 => bytes = b"something else".to_vec(),
            _ => bytes.clear(),
        }
        std::fs::write(path, bytes).unwrap();
    }
    assert_eq!(batches(&items, &config, 0, 4), expected);
    // Damaged files were written again: the images are not needed any more.
    let whole = cached_files(&archive.path("cache"));
    assert_eq!(whole, kept);
    assert!(
        whole
            .iter()
            .all(|path| std::fs::metadata(path).unwrap().len() > 100)
    );
}

#[test]
fn a_cache_does_not_answer_for_an_image_that_changed() {
    let mut archive = Archive::new("path");
    files::npy(&archive.path("a.npy"), [1, 20, 20], 0);
    archive.row("a.npy");
    let mut config = archive.config();
    config.images.cache = Some(archive.path("cache"));
    let items = load(&config);
    let first = batches(&items, &config, 0, 1);
    files::npy(&archive.path("a.npy"), [1, 20, 22], 5);
    let second = batches(&items, &config, 0, 1);
    assert_ne!(first, second);
    config.images.cache = None;
    assert_eq!(batches(&items, &config, 0, 1), second);
}

#[test]
fn a_cache_folder_that_cannot_be_made_is_an_error_before_the_first_step() {
    let archive = archive();
    let mut config = archive.config();
    std::fs::write(archive.path("file"), b"").unwrap();
    config.images.cache = Some(archive.path("file"));
    assert!(Loader::start(load(&config), &config, 0, 1).is_err());
}

fn cached_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(cached_files(&path));
        } else {
            files.push(path);
        }
    }
    files.sort_unstable();
    files
}

#[test]
fn synthetic_objects_fill_their_places_and_depend_on_nothing_but_the_step() {
    let archive = archive();
    let mut config = archive.config();
    config.images.synthetic = 0.5;
    let items = load(&config);
    let all = batches(&items, &config, 0, 4);
    for batch in &all {
        let synthetic = batch.samples.iter().filter(|s| items.is_synthetic(s.item));
        let synthetic: Vec<&Sample> = synthetic.collect();
        assert_eq!(synthetic.len(), 2, "step {}", batch.step);
        for sample in synthetic {
            assert!(items.name(sample.item).starts_with("synthetic object "));
            let sides = sample.views.iter().map(|view| view.shape()[3]);
            assert_eq!(sides.collect::<Vec<_>>(), [16, 16, 8, 8]);
            assert_ne!(sample.views[0], sample.views[1]);
        }
    }
    config.images.readers = 1;
    assert_eq!(batches(&items, &config, 2, 2), all[2..]);
    // One view, one contrast.
    config.method = Method::Mae;
    let views = batches(&items, &config, 0, 1);
    assert!(
        views[0]
            .samples
            .iter()
            .all(|sample| sample.views.len() == 1)
    );
}
