use std::path::PathBuf;

use m3ret_imaging::Input;

use super::*;
use m3ret_pretrain::RunFacts;
use m3ret_pretrain::dataset::{Facts, Part};
use m3ret_pretrain::report::{Entry, History, Knn};

fn config(method: &str) -> Config {
    toml::from_str(&format!(
        "out = \"/home/someone/runs/<first>\"\nmanifests = [\"/mnt/manifest.csv\"]\nmethod = \"{method}\""
    ))
    .unwrap()
}

fn entry(step: u64, is_simdino: bool) -> Entry {
    let share = as_f64(step) / 1000.0;
    let knn = Knn {
        hit_at_1: share,
        precision_at_5: share,
        n_queries: 50,
        chance_hit_at_1: 0.1,
    };
    let looks = step.is_multiple_of(100).then_some(knn);
    let of_simdino = |value| is_simdino.then_some(value);
    Entry {
        step,
        loss: Some(1.0 - share),
        alignment: of_simdino(share),
        coding_rate: of_simdino(20.0),
        coding_rate_collapsed: of_simdino(1.5),
        coding_rate_bound: of_simdino(50.0),
        effective_rank: of_simdino(30.0),
        lr: Some(1e-4),
        weight_decay: Some(0.05),
        momentum: of_simdino(0.996),
        gradient_norm: Some(2.0),
        items: Some(64),
        items_per_second: Some(100.0),
        waiting: Some(0.02),
        knn_student: looks,
        knn_teacher: looks.filter(|_| is_simdino),
        ..Entry::default()
    }
}

fn history(n_steps: u64, is_simdino: bool) -> History {
    let mut history = History::default();
    for step in 0..n_steps {
        history.push(&entry(step, is_simdino));
    }
    history
}

fn facts() -> RunFacts {
    RunFacts {
        n_steps: 1000,
        first_step: 0,
        n_items: 1234,
        n_validation: 60,
        n_parameters: 7_000_000,
        out: PathBuf::from("/home/someone/runs/<first>"),
    }
}

fn items() -> Facts {
    Facts {
        n_train: 1234,
        n_validation: 60,
        parts: vec![Part {
            source: "<script>".to_owned(),
            modality: "CT".to_owned(),
            license: String::new(),
            n_items: 1234,
        }],
        ..Facts::default()
    }
}

fn check(config: &Config, history: &History, pictures: &[Picture], notes: &[String]) -> String {
    let page = page(&Summary {
        title: "<first>",
        config,
        model: &config.model_config(),
        facts: &facts(),
        items: &items(),
        n_synthetic_seen: 0,
        next_step: history.last().map_or(0, |entry| entry.step + 1),
        history,
        pictures,
        notes,
    })
    .unwrap();
    assert!(!page.contains("NaN") && !page.contains("inf\""));
    assert!(!page.contains("<script") && !page.contains("<first>"));
    assert!(!page.contains("http://") && !page.contains("https://"));
    assert!(!page.contains("someone") && !page.contains("/mnt"));
    for tag in ["section", "figure", "div", "table", "span", "svg", "p"] {
        let open =
            page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
        assert_eq!(open, page.matches(&format!("</{tag}>")).count(), "{tag}");
    }
    page
}

fn titles(page: &str) -> Vec<&str> {
    page.split("<figure class=\"chart\"><h3>")
        .skip(1)
        .filter_map(|rest| rest.split(['<', '\n']).next())
        .collect()
}

#[test]
fn a_page_of_simdino_has_every_curve() {
    let page = check(&config("sim_dino"), &history(500, true), &[], &[]);
    assert_eq!(
        titles(&page),
        [
            "Loss",
            "Alignment",
            "Coding rate",
            "Effective rank",
            "kNN hit@1",
            "kNN precision@5",
            "Learning rate",
            "Gradient norm",
            "Weight decay",
            "Momentum of the teacher",
            "Images a second",
            "Waiting for images",
        ]
    );
    assert!(page.contains("step <b>500</b> of 1,000"));
    assert!(page.contains("falls below 50&nbsp;% of the way"));
    assert!(page.contains("<i class=\"reference\"></i>collapsed <b>1.500</b>"));
    assert!(page.contains("<i>not stated</i>"));
}

#[test]
fn a_page_of_mae_shows_pictures_and_notes() {
    let input = |depth| Input::new(vec![0.5; 3 * depth * 4], [3, depth, 2, 2]).unwrap();
    let picture = |title: &str, depth| Picture {
        title: title.to_owned(),
        rows: ["original", "masked", "reconstruction"]
            .map(|name| (name.to_owned(), input(depth)))
            .to_vec(),
    };
    let pictures = [picture("Image", 1), picture("Volume", 16)];
    let notes = ["3 images refused: <truncated>".to_owned()];
    let page = check(&config("mae"), &history(1000, false), &pictures, &notes);
    assert_eq!(page.matches("<img").count(), 3 + 18);
    assert!(page.contains("6 of 16 slices or frames"));
    assert!(page.contains("3 images refused: &lt;truncated&gt;"));
    assert!(page.contains("100 %, finished"));
    assert!(!titles(&page).contains(&"Coding rate") && !page.contains(", student"));
}

#[test]
fn a_page_of_mae_says_what_is_predicted() {
    let input = Input::new(vec![0.5; 12], [3, 1, 2, 2]).unwrap();
    for (target, rows, lines) in [
        (
            MaeTarget::Pixels,
            3,
            ["In the reconstruction", "mean 0 and variance 1"],
        ),
        (
            MaeTarget::Hog,
            2,
            ["which are not drawn", "gives at most 1/9"],
        ),
        (
            MaeTarget::Both,
            3,
            ["In the reconstruction", "gives 1 and at most 0.11"],
        ),
    ] {
        let mut config = config("mae");
        config.mae.target = target;
        let names = ["original", "masked", "reconstruction"];
        let names = names[..rows].iter();
        let picture = Picture {
            title: "Image".to_owned(),
            rows: names
                .map(|&name| (name.to_owned(), input.clone()))
                .collect(),
        };
        let page = check(&config, &history(10, false), &[picture], &[]);
        for line in lines {
            assert!(page.contains(line), "{target:?}: {line}");
        }
    }
}

#[test]
fn a_page_before_the_first_step_stands() {
    for method in ["mae", "sim_dino"] {
        let page = check(&config(method), &History::default(), &[], &[]);
        assert!(page.contains("No step is done yet."));
        assert!(titles(&page).is_empty());
    }
}

#[test]
fn a_page_of_one_step_stands() {
    let page = check(&config("sim_dino"), &history(1, true), &[], &[]);
    assert_eq!(titles(&page).len(), 12);
}

#[test]
fn a_page_of_a_million_steps_stays_small() {
    let page = check(&config("sim_dino"), &history(1_000_000, true), &[], &[]);
    assert!(page.len() < 1_000_000, "{}", page.len());
}

#[test]
fn a_written_page_is_the_page() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.html");
    let (config, history) = (config("mae"), history(3, false));
    let model = config.model_config();
    let summary = Summary {
        title: "run",
        config: &config,
        model: &model,
        facts: &facts(),
        items: &items(),
        n_synthetic_seen: 0,
        next_step: 3,
        history: &history,
        pictures: &[],
        notes: &[],
    };
    std::fs::write(&path, "old").unwrap();
    write(&path, &summary).unwrap();
    assert_eq!(
        std::fs::read_to_string(&path).unwrap(),
        page(&summary).unwrap()
    );
}
