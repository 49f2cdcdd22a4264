//! Several vectors a row on disk.

use super::formats::{array, bytes, forge, numbers};
use super::*;
use crate::gallery::segment::Segment;

/// Adds rows with views in which 16,384 numbers of four bytes, and 4,096 rows of a block, matter.
fn many_rows(path: &Path) -> Contents {
    let mut writer = gallery(path, WIDTH, Numbers::F32, &[]);
    let rows = rows(0, 6000);
    writer.add(rows.batch()).unwrap();
    expected(&rows)
}

#[test]
fn batches_with_bad_views_are_refused_and_nothing_changes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("g.m3i");
    let mut writer = gallery(&path, WIDTH, Numbers::F32, &[vectors(0, 5, WIDTH, 0)]);
    let before = contents(writer.gallery()).unwrap();
    let with = |change: fn(&mut TestViews)| {
        let mut rows = rows(10, 30);
        change(&mut rows.views);
        rows
    };
    for (bad, wanted) in [
        (with(|views| views.names[1].clear()), "names of views"),
        (
            with(|views| views.names[1] = "side".to_owned()),
            "names of views",
        ),
        (with(|views| views.names[1] = "x".repeat(256)), "255 bytes"),
        (
            with(|views| views.names = (0..4097).map(|i| i.to_string()).collect()),
            "views of one batch",
        ),
        (with(|views| views.names.truncate(3)), "further vector"),
        (with(|views| views.of[2].row = 30), "further vector 2"),
        (with(|views| views.of[2] = views.of[1]), "further vector 2"),
        (
            with(|views| views.vectors[3] = f32::NAN),
            "further vector 0",
        ),
        (
            with(|views| views.vectors[WIDTH..2 * WIDTH].fill(0.0)),
            "zeros",
        ),
        (
            with(|views| views.vectors.truncate(4 * WIDTH + 1)),
            "numbers of all further vectors",
        ),
    ] {
        let error = writer.add(bad.batch()).unwrap_err().to_string();
        assert!(error.contains(wanted), "{wanted}: {error}");
    }
    assert_eq!(contents(writer.gallery()).unwrap(), before);
    writer.add(rows(10, 30).batch()).unwrap();
    assert!(verify(&path).unwrap().is_good());
}

#[test]
fn views_have_a_version_of_their_own_which_goes_with_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("g.m3i");
    let mut writer = gallery(&path, WIDTH, Numbers::F32, &[]);
    let versions = |writer: &Writer| {
        let gallery = writer.gallery();
        let segments = gallery.segments().iter();
        let segments = segments.map(|segment| segment.footer().version);
        (gallery.catalog.version, segments.collect::<Vec<_>>())
    };
    writer.add(rows(1, 40).batch()).unwrap();
    assert_eq!(versions(&writer), (2, vec![2]));
    assert!(writer.gallery().views().is_empty());
    let later = rows(100, 9);
    writer.add(later.batch()).unwrap();
    assert_eq!(versions(&writer), (4, vec![2, 3]));
    let names = ["front", "front mirrored", "side", "slice 3/8"];
    assert_eq!(writer.gallery().views(), names);
    let n_vectors = 49 + later.views.of.len();
    assert_eq!(writer.gallery().n_vectors().unwrap(), n_vectors);
    let path_of_last = segment::path_of(&path, 2);
    assert_eq!(
        std::fs::read(path_of_last).unwrap()[8..12],
        3_u32.to_le_bytes()
    );

    let last = later.views.of.last().unwrap().row as usize;
    let n_last = later
        .views
        .of
        .iter()
        .filter(|view| view.row as usize == last)
        .count();
    writer.remove(&ids([100 + last])).unwrap();
    let n_vectors = n_vectors - 1 - n_last;
    assert_eq!(writer.gallery().n_vectors().unwrap(), n_vectors);
    writer.compact().unwrap();
    assert_eq!(versions(&writer), (4, vec![3]));
    assert_eq!(writer.gallery().n_vectors().unwrap(), n_vectors);
    // Without the rows that have views, the segments are those that older programs read; agreements need version 4.
    let left: Vec<String> = ids(100..109);
    let left: Vec<String> = left
        .into_iter()
        .filter(|id| writer.gallery().find(id).unwrap().is_some())
        .collect();
    writer.remove(&left).unwrap();
    writer.compact().unwrap();
    assert_eq!(versions(&writer), (4, vec![2]));
    let footer = writer.gallery().segments()[0].footer().clone();
    assert!(footer.views.is_empty() && footer.n_vectors == Some(40));
    assert!(
        footer
            .sections
            .iter()
            .all(|section| !section.name.starts_with("vector/"))
    );
    assert_eq!(contents(writer.gallery()).unwrap(), expected(&rows(1, 40)));
    assert!(verify(&path).unwrap().is_good());
}

#[test]
fn views_that_do_not_agree_are_found_and_repaired() {
    type Change = fn(&mut footer::Footer, &mut Vec<(String, Vec<u8>)>);
    fn change(arrays: &mut Vec<(String, Vec<u8>)>, name: &str, by: impl Fn(&mut Vec<u32>)) {
        let array = array(arrays, name);
        let mut all = numbers(array);
        by(&mut all);
        *array = bytes(&all);
    }
    let cases: [(&str, Change); 7] = [
        ("one own vector, and one of each other view", |_, arrays| {
            change(arrays, "vector/views", |views| views.fill(0));
        }),
        ("one own vector, and one of each other view", |_, arrays| {
            change(arrays, "vector/views", |views| views.fill(1));
        }),
        ("one own vector, and one of each other view", |_, arrays| {
            change(arrays, "vector/rows", |rows| rows.fill(0));
        }),
        ("a row or view that is not there", |_, arrays| {
            change(arrays, "vector/rows", |rows| rows[3] = 60);
        }),
        ("a row or view that is not there", |_, arrays| {
            change(arrays, "vector/views", |views| views[3] = 5);
        }),
        ("not in the order of their rows", |_, arrays| {
            change(arrays, "vector/order", |order| order.reverse());
        }),
        ("not in the order of their rows", |_, arrays| {
            change(arrays, "vector/starts", |starts| starts.fill(0));
        }),
    ];
    for (idx, (wanted, change)) in cases.into_iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("g.m3i");
        let mut writer = gallery(&path, WIDTH, Numbers::F32, &[]);
        let rows = rows(0, 60);
        writer.add(rows.batch()).unwrap();
        drop(writer);
        forge(&path, 0, change);
        let report = verify(&path).unwrap();
        assert!(
            report.findings[0].what.contains(wanted),
            "{idx}: {report:?}"
        );
        // The answer is wrong or refused; there is one, and no panic.
        match read_all(&path) {
            Ok(_) | Err(Error::Damaged { .. } | Error::Mismatch { .. }) => {}
            Err(error) => panic!("{idx}: {error}"),
        }
        let repair = repair(&path).unwrap();
        assert!(verify(&path).unwrap().is_good());
        if idx >= 3 {
            // Either of the two ways to find vectors is enough for most rows.
            assert!(repair.n_lost <= 1, "{idx}: {repair:?}");
            let left = contents(&Gallery::open(&path).unwrap()).unwrap();
            let whole = expected(&rows);
            assert!(left.iter().all(|(id, row)| row.0 == whole[id].0));
        }
    }
}

#[test]
fn descriptions_of_views_that_do_not_fit_are_damage() {
    type Change = fn(&mut footer::Footer);
    let cases: [(&str, Change); 6] = [
        ("for 60 rows", |footer| footer.views.swap(0, 1)),
        ("for 60 rows", |footer| {
            footer.views[2] = footer.views[1].clone()
        }),
        ("for 60 rows", |footer| footer.views.clear()),
        ("60 vectors of", |footer| footer.n_vectors = Some(60)),
        ("bytes of vectors", |footer| footer.n_vectors = Some(61)),
        ("does not fit its version", |footer| footer.n_vectors = None),
    ];
    for (wanted, change) in cases {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("g.m3i");
        let mut writer = gallery(&path, WIDTH, Numbers::F32, &[]);
        writer.add(rows(0, 60).batch()).unwrap();
        drop(writer);
        forge(&path, 0, |footer, _| change(footer));
        let error = Gallery::open(&path).unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }));
        assert!(error.to_string().contains(wanted), "{wanted}: {error}");
    }
}

/// Damages one byte of an array of a segment with many rows, repairs it, and compares what is left.
#[test]
fn a_damaged_further_vector_costs_that_vector_alone() {
    let folder = tempfile::tempdir().unwrap();
    let whole_path = folder.path().join("whole.m3i");
    let whole = many_rows(&whole_path);
    let place = |name: &str| {
        let segment = Segment::open(&segment::path_of(&whole_path, 1)).unwrap();
        segment.place(name).unwrap().clone()
    };
    // Of the vectors, a block has 2,048; of the other arrays, 16,384 numbers.
    for (name, loses_rows, loses_views) in [
        ("vectors", Some(true), Some(true)),
        ("vector/rows", Some(false), Some(true)),
        ("vector/views", Some(false), Some(true)),
        // Its block has a part of the views, too.
        ("vector/order", Some(false), None),
        // Its block has ids, too, without which rows are lost.
        ("vector/starts", None, None),
        ("codes", Some(false), Some(false)),
    ] {
        let path = folder
            .path()
            .join(format!("{}.m3i", name.replace('/', "-")));
        std::fs::create_dir(&path).unwrap();
        for file in files(&whole_path) {
            std::fs::copy(&file, path.join(file.file_name().unwrap())).unwrap();
        }
        let file = segment::path_of(&path, 1);
        let mut bytes = std::fs::read(&file).unwrap();
        let range = place(name);
        bytes[range.start + range.len() / 2] ^= 4;
        std::fs::write(&file, bytes).unwrap();
        assert!(!verify(&path).unwrap().is_good());
        let repair = repair(&path).unwrap();
        assert!(verify(&path).unwrap().is_good());
        let left = contents(&Gallery::open(&path).unwrap()).unwrap();
        assert_eq!(left.len() + repair.n_lost, whole.len(), "{name}");
        assert!(
            loses_rows.is_none_or(|loses| loses == (repair.n_lost > 0)),
            "{name}: {}",
            repair.n_lost
        );
        assert!(repair.n_lost < whole.len() / 2, "{name}: {}", repair.n_lost);
        let mut n_less = 0;
        for (id, (vector, cells, _, views)) in &left {
            assert_eq!((vector, cells), (&whole[id].0, &whole[id].1), "{name}");
            assert!(
                views
                    .iter()
                    .all(|(name, view)| whole[id].3.get(name) == Some(view))
            );
            n_less += whole[id].3.len() - views.len();
        }
        assert!(
            loses_views.is_none_or(|loses| loses == (n_less > 0)),
            "{name}: {n_less}"
        );
        let told = format!("{n_less} further vectors");
        let is_told = repair.notes.iter().any(|note| note.starts_with(&told));
        assert_eq!(is_told, n_less > 0, "{name}: {:?}", repair.notes);
    }
}

#[test]
fn a_lost_catalog_of_a_gallery_with_views_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("g.m3i");
    let mut writer = gallery(&path, WIDTH, Numbers::F16, &[vectors(9, 50, WIDTH, 0)]);
    writer.add(rows(100, 20).batch()).unwrap();
    let whole = contents(writer.gallery()).unwrap();
    let newest = catalog::path_of(&path, writer.gallery().generation());
    drop(writer);
    std::fs::write(newest, "nothing").unwrap();
    assert!(is_gallery(&path) == Gallery::open(&path).is_ok());
    repair(&path).unwrap();
    let gallery = Gallery::open(&path).unwrap();
    assert_eq!(gallery.catalog.version, 4);
    assert_eq!(contents(&gallery).unwrap(), whole);
}
