use super::*;

const HEADER: &str = "path,modality,patient_id,source,split,license";

#[test]
fn only_rows_of_the_split_are_items() {
    let mut archive = Archive::new(HEADER);
    archive.row("a.png,DX,1,one,pretrain,CC0");
    archive.row("b.png,DX,2,one,query,CC0");
    archive.row("c.png,,3,two,pretrain,");
    let items = load(&archive.config());
    assert_eq!(items.train().collect::<Vec<_>>(), [0, 1]);
    assert_eq!(items.path(1), archive.path("c.png"));
    assert_eq!(items.name(1), "row 3 of manifest.csv");
    assert_eq!((items.modality(0), items.modality(1)), ("DX", ""));
    assert_eq!(items.cell(1, "source"), "two");
    assert_eq!(items.cell(1, "no_such_column"), "");
    assert_eq!(items.facts().n_unknown_modality, 1);
    let parts = &items.facts().parts;
    assert_eq!(parts.len(), 2);
    assert_eq!((parts[0].source.as_str(), parts[0].n_items), ("one", 1));
    assert_eq!(parts[0].license, "CC0");
}

#[test]
fn without_a_column_split_every_row_is_an_item() {
    let mut archive = Archive::new("path");
    archive.row("a.png");
    archive.row("b.png");
    let items = load(&archive.config());
    assert_eq!(items.n_train(), 2);
    assert_eq!(items.facts().n_unknown_modality, 2);
}

#[test]
fn manifests_are_joined_and_keep_their_folders() {
    let (mut first, mut second) = (Archive::new(HEADER), Archive::new("path,modality"));
    first.row("a.png,DX,1,one,pretrain,CC0");
    second.row("b.png,CT");
    second.row("c.png,MR");
    let mut config = first.config();
    config.manifests.extend(second.config().manifests);
    let items = load(&config);
    assert_eq!(items.n_train(), 2);
    assert_eq!(items.path(1), second.path("b.png"));
    assert_eq!(items.name(1), "row 1 of manifest.csv");
}

#[test]
fn validation_has_its_share_and_no_patient_of_the_training_part() {
    let mut archive = Archive::new(HEADER);
    for i in 0..2000 {
        archive.row(format!("{i}.png,DX,patient{},one,pretrain,CC0", i / 4));
    }
    for i in 0..200 {
        archive.row(format!("single{i}.png,DX,,one,pretrain,CC0"));
    }
    let mut config = archive.config();
    config.images.validation = 0.2;
    let items = load(&config);
    let patients = |part: Vec<usize>| -> std::collections::HashSet<u64> {
        part.into_iter().map(|item| items.patient(item)).collect()
    };
    let train = patients(items.train().collect());
    let validation = patients(items.validation().collect());
    assert!(train.is_disjoint(&validation));
    assert_eq!(train.len() + validation.len(), 500 + 200);
    assert!(
        (100..180).contains(&validation.len()),
        "{}",
        validation.len()
    );
    assert_eq!(items.facts().n_validation, items.validation().len());
    config.seed += 1;
    let other: Vec<usize> = load(&config).validation().collect();
    assert_ne!(other, items.validation().collect::<Vec<_>>());
}

#[test]
fn an_empty_choice_says_what_was_found_and_what_to_do() {
    for (row, mut change, words) in [
        (
            "a.png,DX,1,one,query,CC0",
            Box::new(|_: &mut Config| {}) as Box<dyn FnMut(&mut Config)>,
            "images.split",
        ),
        ("a.png,MR,1,one,pretrain,CC0", Box::new(|_| {}), "allow_mr"),
        (
            "a.png,DX,1,one,pretrain,CC0",
            Box::new(|config| config.images.validation = 0.6),
            "images.validation",
        ),
    ] {
        let mut archive = Archive::new(HEADER);
        archive.row(row);
        let mut config = archive.config();
        change(&mut config);
        let refused = Items::load(&config).unwrap_err().to_string();
        assert!(refused.contains(words), "{refused}");
    }
}
