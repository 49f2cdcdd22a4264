use std::path::PathBuf;

use std::collections::BTreeMap;

use super::*;
use crate::report::Entry;

fn config(method: Method) -> Config {
    Config {
        out: PathBuf::from("/home/someone/runs/first"),
        manifests: vec![PathBuf::from("/mnt/archive/ward-7/manifest.csv")],
        method,
        seed: 7,
        init: None,
        model: crate::config::ModelSettings::default(),
        images: crate::config::ImageSettings::default(),
        views: crate::config::ViewSettings::default(),
        mae: crate::config::MaeSettings::default(),
        simdino: crate::config::SimDinoSettings::default(),
        salt: crate::config::SaltSettings::default(),
        optimizer: crate::config::OptimizerSettings::default(),
        train: crate::config::TrainSettings::default(),
        monitor: crate::config::MonitorSettings::default(),
    }
}

fn part(source: &str, license: &str, n_items: usize) -> Part {
    Part {
        source: source.to_owned(),
        modality: "CT".to_owned(),
        license: license.to_owned(),
        n_items,
    }
}

fn facts() -> Facts {
    Facts {
        n_train: 12_300,
        n_validation: 640,
        n_mr_left_out: 2,
        parts: vec![part("lungs", "CC BY 4.0", 12_000), part("a|b*", " ", 300)],
        ..Facts::default()
    }
}

fn looks(hits: &[f64]) -> History {
    let mut history = History::default();
    for (look, &hit_at_1) in (1..).zip(hits) {
        history.push(&Entry {
            step: 500 * look,
            knn_student: Some(Knn {
                hit_at_1,
                precision_at_5: hit_at_1 / 2.0,
                n_queries: 620,
                chance_hit_at_1: 0.125,
            }),
            ..Entry::default()
        });
    }
    history
}

fn card(config: &Config, items: &Facts, history: &History) -> String {
    let model = config.model_config();
    text(&Card {
        name: "first",
        config,
        model: &model,
        n_parameters: 5_910_336,
        items,
        n_steps: 20_000,
        n_items_seen: 1_279_998,
        n_synthetic_seen: 128_000,
        history,
        init_notes: &[],
        teachers: &[],
        refused: &BTreeMap::new(),
    })
    .unwrap()
}

/// The card without its settings, which change with every new one.
fn before_settings(text: &str) -> &str {
    &text[..text.find("## Settings").unwrap()]
}

#[test]
fn a_card_reads_so() {
    let text = card(&config(Method::Mae), &facts(), &looks(&[0.25, 0.75, 0.5]));
    let wanted = include_str!("expected.md");
    assert_eq!(before_settings(&text), wanted);
}

#[test]
fn a_card_names_no_folder_of_the_machine() {
    let mut config = config(Method::SimDino);
    config.init = Some(PathBuf::from("/mnt/models/dinov2-small"));
    config.images.cache = Some(PathBuf::from("/scratch/someone/cache"));
    let text = card(&config, &facts(), &History::default());
    for word in ["/home", "someone", "/mnt", "ward-7", "scratch"] {
        assert!(!text.contains(word), "{word}: {text}");
    }
    assert!(text.contains("| start | the weights of dinov2-small |"));
    assert!(text.contains("(dinov2-small) may have seen MRI or PET."));
    assert!(text.contains("Retrieval was not measured during training."));
}

#[test]
fn settings_on_the_card_are_those_of_the_run() {
    let mut config = config(Method::SimDino);
    let text = card(&config, &facts(), &History::default());
    let shown = text.split("```").nth(1).unwrap();
    let shown: Config = toml::from_str(shown.trim_start_matches("toml")).unwrap();
    config.out = PathBuf::from("first");
    config.manifests = vec![PathBuf::from("manifest.csv")];
    assert_eq!(shown, config);
}

#[test]
fn the_fence_is_longer_than_any_in_the_settings() {
    let mut config = config(Method::Mae);
    config.monitor.knn_relevance = "a````b".to_owned();
    let text = card(&config, &facts(), &looks(&[0.5]));
    assert!(text.contains("\n`````toml\n"), "{text}");
}

#[test]
fn unknown_modalities_leave_the_exclusion_unverified() {
    let items = Facts {
        n_unknown_modality: 41,
        ..facts()
    };
    let text = card(&config(Method::Mae), &items, &History::default());
    assert!(text.contains("Exclusion of MRI and PET unverified: 41 rows name no known modality."));
    assert!(!text.contains("No MRI or PET was trained on"));
}

#[test]
fn synthetic_objects_are_counted_where_they_were_asked_for() {
    let mut config = config(Method::Mae);
    let text = card(&config, &facts(), &History::default());
    assert!(!text.contains("synthetic objects"), "{text}");
    config.images.synthetic = 0.125;
    let text = card(&config, &facts(), &History::default());
    let wanted =
        "Beside these images, 128,000 synthetic objects were trained on (12.50 % of the batches)";
    assert!(text.contains(wanted), "{text}");
}
