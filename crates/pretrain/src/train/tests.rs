//! Whole runs on a few small images.

mod salt;

use std::path::{Path, PathBuf};
use std::time::Duration;

use m3ret_encoder::{Model, RunOptions};
use m3ret_imaging::{Kind, ReadOptions, Volume, read_path, write_npy};

use super::*;
use crate::config::Method;

/// Notes everything, and asks to stop after some steps.
#[derive(Debug, Default)]
struct Notes {
    losses: Vec<f64>,
    entries: Vec<Entry>,
    notes: Vec<String>,
    stop_after: Option<u64>,
    clock: u64,
}

impl Watcher for Notes {
    fn begun(&mut self, _: &RunFacts) {}

    fn entry(&mut self, entry: &Entry) {
        self.losses.extend(entry.loss);
        self.entries.push(entry.clone());
    }

    fn note(&mut self, sentence: &str) {
        self.notes.push(sentence.to_owned());
    }

    fn stop_asked(&mut self) -> bool {
        let last = self.entries.last().map_or(0, |entry| entry.step + 1);
        self.stop_after.is_some_and(|after| last >= after)
    }

    fn now(&mut self) -> Duration {
        self.clock += 1;
        Duration::from_millis(self.clock)
    }
}

/// Smooth patterns that differ from image to image.
fn waves(path: &Path, shape: [usize; 4], seed: usize) {
    let [channels, depth, height, width] = shape;
    let mut values = Vec::new();
    for c in 0..channels {
        for z in 0..depth {
            for y in 0..height {
                for x in 0..width {
                    #[allow(clippy::cast_precision_loss, reason = "small numbers")]
                    let [c, z, y, x, s] = [c, z, y, x, seed].map(|n| n as f32);
                    let (along, across) = (0.15 + 0.05 * s, 0.35 - 0.04 * s);
                    values.push((along * x + 0.3 * z).sin() + (across * y + s + c).cos());
                }
            }
        }
    }
    let kind = if depth == 1 {
        Kind::Image
    } else {
        Kind::Volume
    };
    let volume = Volume::new(values, shape, kind).unwrap();
    write_npy(&mut std::fs::File::create(path).unwrap(), &volume).unwrap();
}

/// Eight images: five pictures, one of them in colour, two volumes, and a clip.
fn archive(folder: &Path) -> PathBuf {
    let mut rows = "path,modality,body_part,patient_id,source,dims,license\n".to_owned();
    for seed in 0..7 {
        let (shape, dims) = match seed {
            0..4 => ([1, 1, 16, 16], "2d"),
            4 => ([3, 1, 16, 16], "2d"),
            _ => ([1, 8, 16, 16], "3d"),
        };
        waves(&folder.join(format!("{seed}.npy")), shape, seed);
        let modality = if dims == "3d" { "CT" } else { "DX" };
        let part = seed % 2;
        rows += &format!("{seed}.npy,{modality},part{part},p{seed},waves,{dims},CC0\n");
    }
    let film = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/raster/film.gif");
    std::fs::copy(film, folder.join("film.gif")).unwrap();
    rows += "film.gif,ES,part0,p7,film,video,CC0\n";
    let manifest = folder.join("manifest.csv");
    std::fs::write(&manifest, rows).unwrap();
    manifest
}

/// A tiny run over `archive`, with whole images as views.
fn config(folder: &Path, method: &str, changes: &[&str]) -> Config {
    let text = format!(
        "out = 'run'\nmanifests = ['manifest.csv']\nmethod = '{method}'\n\
         [model]\nembed_dim = 48\ndepth = 2\nnum_heads = 3\npatch = [4, 4, 4]\nside = 16\nmax_depth = 8\n\
         [images]\nvalidation = 0\nreaders = 1\nmemory_mib = 64\n\
         [views]\nside = 16\ndepth = 8\nlocal_side = 8\nlocal_depth = 4\nn_local = 2\n\
         [mae]\ndecoder_dim = 32\ndecoder_depth = 1\ndecoder_heads = 2\n\
         [simdino]\nhead_hidden = 32\nhead_out = 16\n\
         [train]\nsteps = 6\nbatch = 4\ncheckpoint_every = 2\n[monitor]\nknn_every = 3\n"
    );
    let changes: Vec<String> = changes.iter().map(|&change| change.to_owned()).collect();
    Config::from_toml(&text, folder, &changes).unwrap()
}

fn run(config: &Config, begin: Begin) -> (Notes, Outcome) {
    let mut notes = Notes::default();
    let outcome = train(config, begin, &mut notes).unwrap();
    (notes, outcome)
}

/// Trains MAE on the eight images of `archive`, and wants the loss to fall tenfold.
fn memorise(changes: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    archive(folder.path());
    let whole = [
        "views.area=[1, 1]",
        "views.aspect=[1, 1]",
        "views.depth_share=[1, 1]",
        "views.jitter=0",
        "views.blur=[0, 0, 0]",
        "views.noise=0",
        "views.colour=0",
        "mae.mask_ratio=0.5",
        "mae.mask_ratio_deep=0.5",
        "train.steps=700",
        "train.batch=8",
        "train.checkpoint_every=700",
        "optimizer.base_lr=0.16",
        "optimizer.weight_decay=[0, 0]",
        "monitor.knn_every=0",
    ];
    let all = [&whole, changes].concat();
    let (notes, _) = run(&config(folder.path(), "mae", &all), Begin::Fresh);
    let first = notes.losses[0];
    let last = notes.losses[690..].iter().sum::<f64>() / 10.0;
    assert!(
        last < first / 10.0,
        "{changes:?}: {first} fell to {last} only"
    );
}

#[test]
fn mae_memorises_eight_mixed_images() {
    memorise(&["mae.target=pixels"]);
}

#[test]
fn mae_memorises_the_gradients_of_eight_mixed_images() {
    memorise(&["mae.target=hog"]);
}

#[test]
fn mae_memorises_pixels_and_gradients_of_eight_mixed_images() {
    memorise(&["mae.target=both"]);
}

#[test]
fn mae_with_a_convolutional_stem_memorises_eight_mixed_images() {
    memorise(&["model.stem=conv"]);
}

#[test]
fn mae_in_bf16_memorises_eight_mixed_images() {
    memorise(&["train.precision=bf16"]);
}

#[test]
fn a_run_on_gradients_begins_with_an_encoder_that_drew_pixels() {
    let folder = tempfile::tempdir().unwrap();
    archive(folder.path());
    let began = config(folder.path(), "mae", &[]);
    let (_, outcome) = run(&began, Begin::Fresh);
    let init = format!("init={}", outcome.model.unwrap().display());
    for target in ["hog", "both"] {
        let target = format!("mae.target={target}");
        let further = Config {
            out: folder.path().join(&target),
            ..config(folder.path(), "mae", &[&init, &target, "train.steps=2"])
        };
        let (notes, _) = run(&further, Begin::Fresh);
        assert_eq!(notes.losses.len(), 2, "{target}");
    }
}

#[test]
fn a_finished_run_can_be_whitened_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = archive(folder.path());
    // As many images as dimensions say nothing of how vectors vary.
    let mut rows = std::fs::read_to_string(&manifest).unwrap();
    for seed in 7..12 {
        waves(
            &folder.path().join(format!("{seed}.npy")),
            [1, 1, 16, 16],
            seed,
        );
        rows += &format!("{seed}.npy,DX,part0,p{seed},waves,2d,CC0\n");
    }
    std::fs::write(&manifest, rows).unwrap();
    let narrow = ["model.embed_dim=10", "model.num_heads=1"];
    let mut config = config(folder.path(), "sim_dino", &narrow);
    let (before, outcome) = run(&config, Begin::Fresh);
    let vectors = |model: &Path| {
        let model = Model::open(model, &RunOptions::default()).unwrap();
        let volumes = (0..7).map(|seed| {
            let path = folder.path().join(format!("{seed}.npy"));
            read_path(&path, &ReadOptions::default()).unwrap().remove(0)
        });
        let inputs: Vec<_> = volumes
            .map(|volume| model.prepare(&volume).unwrap())
            .collect();
        model.embed(&inputs.iter().collect::<Vec<_>>()).unwrap()
    };
    let mean_length = |vectors: &[Vec<f32>]| {
        let mean = (0..10).map(|i| vectors.iter().map(|vector| vector[i]).sum::<f32>() / 7.0);
        mean.map(|x| x * x).sum::<f32>().sqrt()
    };
    let model = outcome.model.unwrap();
    let plain = vectors(&model);
    config.model.whitening = 1.0;
    let (after, _) = run(&config, Begin::Resume);
    assert_eq!((before.losses.len(), after.losses.len()), (6, 0));
    let white = vectors(&model);
    assert!(
        mean_length(&white) < 0.5 * mean_length(&plain),
        "{white:?} and {plain:?}"
    );
}

/// Methods and changes of settings with which a run is stopped and resumed.
const RESUMED: [(&str, &str); 9] = [
    ("mae", "mae.target=pixels"),
    ("mae", "mae.target=hog"),
    ("mae", "model.stem=conv"),
    ("mae", "train.precision=bf16"),
    ("sim_dino", "mae.target=pixels"),
    ("sim_dino", "model.stem=conv"),
    ("sim_dino", "train.precision=bf16"),
    ("salt", "mae.target=pixels"),
    ("salt", "model.stem=conv"),
];

#[test]
fn a_run_that_stops_and_goes_on_has_the_losses_of_one_that_does_not() {
    for (method, change) in RESUMED {
        let folder = tempfile::tempdir().unwrap();
        archive(folder.path());
        let (teachers, changed) = match method {
            "salt" => {
                let teachers = salt::teachers(folder.path(), &["one", "two"]);
                (teachers, "salt.changed=0.5")
            }
            _ => ("salt.teachers=[]".to_owned(), "salt.changed=0"),
        };
        let changes = [
            "images.validation=0.3",
            "train.drop_path=0.2",
            "images.synthetic=0.3",
            changed,
            &teachers,
            change,
        ];
        let whole = config(folder.path(), method, &changes);
        let (wanted, _) = run(&whole, Begin::Fresh);
        assert_eq!(wanted.losses.len(), 6);

        let parts = Config {
            out: folder.path().join("parts"),
            ..whole
        };
        let mut first = Notes {
            stop_after: Some(3),
            ..Notes::default()
        };
        let outcome = train(&parts, Begin::Fresh, &mut first).unwrap();
        assert_eq!((outcome.model, outcome.next_step), (None, 3));
        let (second, outcome) = run(&parts, Begin::Resume);
        let found: Vec<f64> = first.losses.iter().chain(&second.losses).copied().collect();
        assert_eq!(found, wanted.losses, "{method} {change}");
        let knn = |notes: &Notes| -> Vec<_> {
            let looks = notes.entries.iter().filter(|entry| entry.items.is_none());
            looks
                .map(|entry| (entry.step, entry.knn_student, entry.knn_teacher))
                .collect()
        };
        assert_eq!(
            [knn(&first), knn(&second)].concat(),
            knn(&wanted),
            "{method}"
        );
        let weights = |out: &Path| std::fs::read(out.join("model/model.safetensors")).unwrap();
        assert_eq!(
            weights(&outcome.model.unwrap().join("..")),
            weights(&folder.path().join("run"))
        );
    }
}

#[test]
fn a_finished_model_embeds_as_any_other() {
    let folder = tempfile::tempdir().unwrap();
    archive(folder.path());
    let config = config(folder.path(), "sim_dino", &[]);
    let (_, outcome) = run(&config, Begin::Fresh);
    let model = Model::open(&outcome.model.unwrap(), &RunOptions::default()).unwrap();
    let volume = Volume::new(
        (0..400_u16).map(f32::from).collect(),
        [1, 1, 20, 20],
        Kind::Image,
    );
    let prepared = model.prepare(&volume.unwrap()).unwrap();
    assert_eq!(model.embed(&[&prepared]).unwrap()[0].len(), 48);
    for name in ["log.jsonl", "config.toml", "model/README.md"] {
        assert!(
            config.out.join(name).metadata().unwrap().len() > 0,
            "{name}"
        );
    }
    let checkpoints = std::fs::read_dir(config.out.join("checkpoints"))
        .unwrap()
        .count();
    assert_eq!(checkpoints, config.train.keep);
}

#[test]
fn a_loss_that_is_no_number_ends_the_run_with_step_seed_and_rows() {
    let folder = tempfile::tempdir().unwrap();
    archive(folder.path());
    let changes = ["optimizer.base_lr=1e30", "optimizer.warmup=0", "seed=5"];
    let config = config(folder.path(), "mae", &changes);
    let error = train(&config, Begin::Fresh, &mut Notes::default()).unwrap_err();
    let message = error.to_string();
    assert_eq!(error.code(), "diverged");
    for part in ["step 1: the loss is not", "seed 5", "of manifest.csv"] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn a_run_goes_on_only_as_it_began() {
    let folder = tempfile::tempdir().unwrap();
    archive(folder.path());
    let began = config(folder.path(), "mae", &[]);
    let told = |config: &Config, begin| {
        train(config, begin, &mut Notes::default())
            .unwrap_err()
            .to_string()
    };
    assert!(told(&began, Begin::Resume).contains("no run to go on with"));
    run(&began, Begin::Fresh);
    assert!(told(&began, Begin::Fresh).contains("--resume"));
    let other = config(
        folder.path(),
        "mae",
        &["optimizer.base_lr=1", "monitor.log_every=2"],
    );
    let message = told(&other, Begin::Resume);
    assert!(
        message.contains("other settings of optimizer.base_lr;"),
        "{message}"
    );
    let message = told(
        &config(folder.path(), "mae", &["mae.target=hog"]),
        Begin::Resume,
    );
    assert!(
        message.contains("other settings of mae.target;"),
        "{message}"
    );
    let manifest = folder.path().join("manifest.csv");
    let rows = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, rows.replace("0.npy", "1.npy")).unwrap();
    assert!(told(&began, Begin::Resume).contains("other items"));
}

#[test]
fn a_damaged_checkpoint_is_left_out_and_an_earlier_one_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    archive(folder.path());
    let config = config(folder.path(), "mae", &[]);
    let (wanted, _) = run(&config, Begin::Fresh);
    let newest = config
        .out
        .join("checkpoints/step-000000006/state.safetensors");
    let mut bytes = std::fs::read(&newest).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&newest, bytes).unwrap();
    let (again, _) = run(&config, Begin::Resume);
    assert!(
        again.notes.iter().any(|note| note.contains("checksum")),
        "{:?}",
        again.notes
    );
    assert_eq!(again.losses, wanted.losses[4..]);
    // The damaged one does not count as one to keep, and is still there.
    let mut names: Vec<String> = std::fs::read_dir(config.out.join("checkpoints"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(
        names,
        ["damaged-step-000000006", "step-000000004", "step-000000006"]
    );
}

#[test]
fn a_run_that_can_read_nothing_fails() {
    let folder = tempfile::tempdir().unwrap();
    archive(folder.path());
    for seed in 0..7 {
        std::fs::write(folder.path().join(format!("{seed}.npy")), b"no image").unwrap();
    }
    std::fs::write(folder.path().join("film.gif"), b"").unwrap();
    let config = config(folder.path(), "mae", &[]);
    let error = train(&config, Begin::Fresh, &mut Notes::default()).unwrap_err();
    let message = error.to_string();
    assert!(
        message.contains("no image could be read in 6 steps"),
        "{message}"
    );
    assert!(!config.out.join("model").exists());
}

#[test]
fn a_fresh_run_takes_no_folder_with_results_of_another() {
    let folder = tempfile::tempdir().unwrap();
    archive(folder.path());
    let config = config(folder.path(), "mae", &[]);
    run(&config, Begin::Fresh);
    std::fs::remove_file(config.out.join("config.toml")).unwrap();
    let error = train(&config, Begin::Fresh, &mut Notes::default()).unwrap_err();
    assert!(
        error.to_string().contains("is no run that m3ret wrote"),
        "{error}"
    );
}

#[test]
fn mr_is_left_out_unless_it_is_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = archive(folder.path());
    let rows = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, rows.replace(",CT,", ",MR,")).unwrap();
    let (notes, _) = run(&config(folder.path(), "mae", &[]), Begin::Fresh);
    assert!(
        notes
            .notes
            .iter()
            .any(|note| note.starts_with("2 rows of modality MR or PET"))
    );
    let allowed = config(
        folder.path(),
        "mae",
        &["images.allow_mr=true", "out=allowed"],
    );
    let allowed = Config {
        out: folder.path().join("allowed"),
        ..allowed
    };
    run(&allowed, Begin::Fresh);
    let card = std::fs::read_to_string(allowed.out.join("model/README.md")).unwrap();
    assert!(card.contains("MRI and PET were allowed"), "{card}");
}

#[test]
fn unreadable_images_make_batches_smaller_and_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    archive(folder.path());
    for seed in 0..6 {
        std::fs::write(folder.path().join(format!("{seed}.npy")), b"no image").unwrap();
    }
    let (notes, _) = run(
        &config(folder.path(), "sim_dino", &["train.batch=8"]),
        Begin::Fresh,
    );
    assert!(
        notes
            .notes
            .iter()
            .any(|note| note.contains("unknown_format")),
        "{:?}",
        notes.notes
    );
    let items: Vec<_> = notes
        .entries
        .iter()
        .filter_map(|entry| entry.items)
        .collect();
    assert_eq!(items, [2; 6]);
}

#[test]
fn workers_and_tokens_of_a_pass_leave_the_first_loss_alone() {
    let folder = tempfile::tempdir().unwrap();
    archive(folder.path());
    let first_loss = |changes: &[&str]| {
        let out = folder.path().join(format!("run-{}", changes.join("-")));
        let config = Config {
            out,
            ..config(folder.path(), "sim_dino", changes)
        };
        assert_eq!(config.method, Method::SimDino);
        run(&config, Begin::Fresh).0.losses[0]
    };
    let whole = first_loss(&[]);
    for changes in [
        &["train.micro_tokens=1"][..],
        &["train.workers=2"],
        &["train.recompute=true"],
    ] {
        let loss = first_loss(changes);
        // The same numbers in other sums.
        assert!(
            (loss - whole).abs() < 1e-5 * whole.abs(),
            "{changes:?}: {loss}, {whole}"
        );
    }
}
