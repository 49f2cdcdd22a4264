use super::*;
use crate::evaluation::columns::Column;

/// Columns in a fixed order; one row a line.
fn table(rows: &[[&str; 6]]) -> Columns {
    let names = [
        "modality",
        "dims",
        "source",
        "split",
        "body_part",
        "pair_id",
    ];
    let mut columns = Columns::new(rows.len());
    for (i, name) in names.iter().enumerate() {
        let column = Column::new(rows.iter().map(|row| row[i]));
        columns.insert(name, column).unwrap();
    }
    columns
}

fn scope(names: &[&str]) -> Scope {
    Scope {
        relevance: names.iter().map(|name| (*name).to_owned()).collect(),
        is_pooled: false,
        is_unseen: |modality| ["MR", "mri", "PT", "PET"].contains(&modality),
    }
}

const ROWS: [[&str; 6]; 9] = [
    ["DX", "2d", "a", "query", "chest", ""],
    ["DX", "2d", "a", "gallery", "chest", ""],
    ["CT", "3d", "b", "query", "chest", "p1"],
    ["CT", "2d", "b", "gallery", "chest", "p2"],
    ["MR", "3d", "c", "query", "head", "m1"],
    ["MR", "3d", "c", "gallery", "head", "m1"],
    ["DX", "2d", "drr-b", "gallery", "chest", "p1"],
    ["DX", "2d", "drr-b", "query", "chest", "p2"],
    ["CT", "3d", "b", "pretrain", "chest", ""],
];

#[test]
fn tasks_follow_from_the_columns() {
    let mut columns = table(&ROWS);
    let tasks = derive(&mut columns, &scope(&["body_part"])).unwrap();
    let names: Vec<&str> = tasks.tasks.iter().map(|task| task.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "within/DX-2d/body_part",
            "within-source/a-2d/body_part",
            "cross/CT-DX/body_part",
            "cross/DX-CT/body_part",
            "cross/CT-MR/body_part",
            "cross/DX-MR/body_part",
            "cross/MR-CT/body_part",
            "cross/MR-DX/body_part",
            "pair/CT-CT",
            "pair/CT-DX",
            "pair/CT-MR",
            "pair/DX-CT",
            "pair/DX-DX",
            "pair/DX-MR",
            "pair/MR-CT",
            "pair/MR-DX",
            "pair/MR-MR",
            "unseen/MR-3d/body_part",
        ]
    );
    let task = |name: &str| tasks.tasks.iter().find(|task| task.name == name).unwrap();
    // Simulated radiographs are in pair tasks only, and there the split counts for nothing.
    assert_eq!(task("within/DX-2d/body_part").gallery, [1]);
    assert_eq!(task("cross/CT-DX/body_part").gallery, [1]);
    assert_eq!(task("cross/DX-CT/body_part").gallery, [3]);
    assert_eq!(
        (
            &task("pair/DX-CT").queries[..],
            &task("pair/DX-CT").gallery[..]
        ),
        (&[6, 7][..], &[2, 3][..])
    );
    assert_eq!(task("pair/MR-MR").queries, [4, 5]);
    assert_eq!(
        task("cross/DX-CT/body_part").query_modality.as_deref(),
        Some("DX")
    );
    assert_eq!((tasks.n_other_split, tasks.is_leave_one_out), (1, false));
    // All modalities together, without the simulated ones.
    assert_eq!(tasks.mixed.len(), 1);
    assert_eq!(
        (
            tasks.mixed[0].name.as_str(),
            &tasks.mixed[0].queries[..],
            &tasks.mixed[0].gallery[..]
        ),
        ("mixed/body_part", &[0, 2, 4][..], &[1, 3, 5][..])
    );
}

#[test]
fn modalities_that_are_said_to_be_unseen_have_groups_of_their_own() {
    let rows = ["MR", "mri", "PT", "PET", "CT", "DX"].map(|word| {
        [
            [word, "3d", "a", "query", "chest", ""],
            [word, "3d", "a", "gallery", "chest", ""],
        ]
    });
    let tasks = derive(&mut table(&rows.concat()), &scope(&["body_part"])).unwrap();
    let groups = |name: &str| -> Vec<&str> {
        let of_name = tasks.tasks.iter().filter(|task| task.name.contains(name));
        of_name.map(Task::group).collect()
    };
    for word in ["MR-3d", "mri-3d", "PT-3d", "PET-3d"] {
        assert_eq!(groups(word), ["unseen"], "{word}");
    }
    for name in ["/CT-DX/", "/DX-CT/"] {
        assert_eq!(groups(name), ["cross"], "{name}");
    }
    for name in ["/CT-PT/", "/MR-DX/", "/PET-MR/", "/DX-mri/"] {
        assert_eq!(groups(name), ["cross-unseen"], "{name}");
    }
    assert_eq!(groups("a-3d"), ["within-source"]);
    let is_seen = |task: &&Task| task.group().starts_with("within");
    for task in tasks.tasks.iter().filter(is_seen) {
        assert!(
            task.gallery.iter().all(|&row| row >= 8),
            "{}: {:?}",
            task.name,
            task.gallery
        );
    }
}

#[test]
fn disturbed_radiographs_have_tasks_of_their_own() {
    let mut columns = table(&ROWS);
    let disturbed = ["", "", "", "", "", "", "7", "", ""];
    columns.insert("disturbed", Column::new(disturbed)).unwrap();
    let tasks = derive(&mut columns, &scope(&["body_part"])).unwrap().tasks;
    let sides = |name: &str| {
        let task = tasks.iter().find(|task| task.name == name).unwrap();
        assert!(task.finds_same_patient());
        (task.queries.clone(), task.gallery.clone())
    };
    assert_eq!(sides("pair/DX-CT"), (vec![7], vec![2, 3]));
    assert_eq!(sides("pair/CT-DX"), (vec![2, 3], vec![7]));
    assert_eq!(sides("pair-disturbed/DX-CT"), (vec![6], vec![2, 3]));
    assert_eq!(sides("pair-disturbed/CT-DX"), (vec![2, 3], vec![6]));
    assert_eq!(sides("pair-disturbed/DX-DX"), (vec![6], vec![6]));
    let names: Vec<&str> = tasks.iter().map(|task| task.name.as_str()).collect();
    assert!(!names.contains(&"pair-disturbed/CT-CT") && !names.contains(&"pair-disturbed/CT-MR"));
}

#[test]
fn without_split_every_row_asks_and_is_found() {
    let rows = ROWS.map(|mut row| {
        row[3] = "";
        row
    });
    let tasks = derive(&mut table(&rows), &scope(&["body_part"])).unwrap();
    assert!(tasks.is_leave_one_out);
    assert_eq!(tasks.tasks[0].name, "within/CT-2d/body_part");
    let task = tasks
        .tasks
        .iter()
        .find(|task| task.name == "within/DX-2d/body_part")
        .unwrap();
    assert_eq!((&task.queries, &task.gallery), (&vec![0, 1], &vec![0, 1]));
}

#[test]
fn a_table_without_modality_is_one_task() {
    let mut columns = Columns::new(3);
    columns
        .insert("label", Column::new(["x", "y", "x"]))
        .unwrap();
    let tasks = derive(&mut columns, &scope(&["label"])).unwrap().tasks;
    assert_eq!(tasks.len(), 1);
    assert_eq!(
        (tasks[0].name.as_str(), tasks[0].queries.len()),
        ("all/label", 3)
    );
    assert_eq!(tasks[0].query_modality, None);
}

#[test]
fn what_cannot_be_asked_is_refused() {
    let error = derive(&mut table(&ROWS), &scope(&["organ"]))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("organ") && error.contains("body_part"),
        "{error}"
    );
    for (value, found) in [
        ("query", "query"),
        ("train", "train"),
        ("gallery", "gallery"),
    ] {
        let rows = ROWS.map(|mut row| {
            row[3] = value;
            row
        });
        let error = derive(&mut table(&rows), &scope(&["body_part"]))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(found) && error.contains("m3ret split"),
            "{error}"
        );
    }
    let empty = derive(&mut table(&[]), &scope(&["body_part"]))
        .unwrap_err()
        .to_string();
    assert!(empty.contains("no rows"), "{empty}");
}
