//! Claims about runs with frozen teachers.

use super::*;

/// Trains small teachers for one step, and returns the setting that names their folders.
pub(super) fn teachers(folder: &Path, names: &[&str]) -> String {
    let folders = names.iter().zip(1..).map(|(name, seed)| {
        let out = folder.join(name);
        let [seed, width] = [
            format!("seed={seed}"),
            format!("model.embed_dim={}", 30 + 6 * seed),
        ];
        // A smaller input than the student's, and other widths.
        let smaller = [
            "train.steps=1",
            "model.side=8",
            "views.side=8",
            "monitor.knn_every=0",
            &seed,
            &width,
        ];
        let config = Config {
            out: out.clone(),
            ..config(folder, "mae", &smaller)
        };
        run(&config, Begin::Fresh);
        format!("'{}'", out.join("model").display())
    });
    let folders: Vec<String> = folders.collect();
    format!("salt.teachers=[{}]", folders.join(", "))
}

#[test]
fn salt_memorises_eight_mixed_images() {
    let folder = tempfile::tempdir().unwrap();
    archive(folder.path());
    let teachers = teachers(folder.path(), &["one", "two"]);
    let whole = [
        &*teachers,
        "views.area=[1, 1]",
        "views.aspect=[1, 1]",
        "views.depth_share=[1, 1]",
        "salt.mask_ratio=0.5",
        "salt.mask_ratio_deep=0.5",
        "train.steps=500",
        "train.batch=8",
        "train.checkpoint_every=500",
        "optimizer.base_lr=0.16",
        "optimizer.weight_decay=[0, 0]",
        "monitor.knn_every=0",
    ];
    let (notes, _) = run(&config(folder.path(), "salt", &whole), Begin::Fresh);
    let first = notes.losses[0];
    let last = notes.losses[490..].iter().sum::<f64>() / 10.0;
    assert!(last < first / 10.0, "{first} fell to {last} only");
}

#[test]
fn a_run_goes_on_with_its_teachers_wherever_they_lie_and_with_no_others() {
    let folder = tempfile::tempdir().unwrap();
    archive(folder.path());
    let names = teachers(folder.path(), &["one", "two"]);
    let began = config(folder.path(), "salt", &[&names]);
    run(&began, Begin::Fresh);
    let card = std::fs::read_to_string(began.out.join("model/README.md")).unwrap();
    for name in ["one", "two"] {
        let named = format!("| frozen teacher | {name}, fingerprint ");
        assert_eq!(card.matches(&named).count(), 1, "{card}");
    }
    assert!(
        card.contains("may have seen other images, MRI and PET too"),
        "{card}"
    );
    assert!(!card.contains(&*folder.path().to_string_lossy()), "{card}");

    let mut other = began.clone();
    other.salt.teachers.reverse();
    let error = train(&other, Begin::Resume, &mut Notes::default()).unwrap_err();
    let message = error.to_string();
    assert!(
        message.contains("found teachers of fingerprints"),
        "{message}"
    );

    let elsewhere = folder.path().join("elsewhere");
    std::fs::rename(folder.path().join("one"), &elsewhere).unwrap();
    let mut moved = began.clone();
    moved.salt.teachers[0] = elsewhere.join("model");
    let (notes, _) = run(&moved, Begin::Resume);
    assert!(notes.losses.is_empty());
}

#[test]
fn a_folder_that_is_no_model_of_ours_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    archive(folder.path());
    let none = format!("salt.teachers=['{}']", folder.path().display());
    let config = config(folder.path(), "salt", &[&none]);
    let error = train(&config, Begin::Fresh, &mut Notes::default()).unwrap_err();
    assert!(!config.out.exists(), "{error}");
    assert!(error.to_string().contains("salt.teachers"), "{error}");
}

#[test]
fn workers_and_tokens_of_a_pass_leave_the_first_loss_of_salt_alone() {
    let folder = tempfile::tempdir().unwrap();
    archive(folder.path());
    let teachers = teachers(folder.path(), &["one"]);
    let first_loss = |change: &str| {
        let changes = [&*teachers, "salt.changed=1", "train.steps=1", change];
        let config = Config {
            out: folder.path().join(change),
            ..config(folder.path(), "salt", &changes)
        };
        run(&config, Begin::Fresh).0.losses[0]
    };
    let whole = first_loss("train.workers=1");
    for change in [
        "train.micro_tokens=1",
        "train.workers=2",
        "train.recompute=true",
    ] {
        let loss = first_loss(change);
        // The same numbers in other sums.
        assert!(
            (loss - whole).abs() < 1e-5 * whole,
            "{change}: {loss}, {whole}"
        );
    }
}
