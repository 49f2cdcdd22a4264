//! Format 2, and that format 1 is read as it was.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use proptest::prelude::*;

use super::super::blocks::BlockWriter;
use super::super::catalog;
use super::super::footer::{Footer, Section, write_end};
use super::super::segment::{self, Segment};
use super::super::writer::put_catalog;
use super::super::*;
use crate::disk::RealDisk;
use crate::scan::{LeftOut, Queries, SearchOptions};
use crate::testing::{TestRows, gallery, maker, vectors};

const WIDTH: usize = 4;

/// The arrays of a segment, by name, in their order.
pub(super) type Arrays = Vec<(String, Vec<u8>)>;

/// Writes a segment again with other contents, so that all checksums are good.
pub(super) fn forge(folder: &Path, idx: usize, change: impl FnOnce(&mut Footer, &mut Arrays)) {
    let newest = catalog::generations(folder).unwrap()[0];
    let (mut catalog, _) = catalog::read(folder, newest).unwrap();
    let path = segment::path_of(folder, catalog.segments[idx].id);
    let segment = Segment::open(&path).unwrap();
    let mut footer = segment.footer().clone();
    let names = footer.sections.iter().map(|section| section.name.clone());
    let array = |name: String| {
        let place = segment.place(&name).unwrap().clone();
        let bytes = segment.blocks().bytes(place).unwrap().to_vec();
        (name, bytes)
    };
    let mut arrays: Arrays = names.map(array).collect();
    change(&mut footer, &mut arrays);

    // Whoever has the old file open keeps it.
    let temporary = path.with_extension("forged");
    let mut out = BlockWriter::new(std::fs::File::create(&temporary).unwrap());
    out.write(b"M3RETSEG").unwrap();
    out.write(&footer.version.to_le_bytes()).unwrap();
    footer.sections.clear();
    for (name, bytes) in arrays {
        out.align(4096).unwrap();
        footer.sections.push(Section {
            name,
            offset: out.n_bytes(),
            length: bytes.len() as u64,
        });
        out.write(&bytes).unwrap();
    }
    let n_payload = out.n_bytes();
    let (mut file, sums) = out.finish().unwrap();
    let digest = write_end(&mut file, n_payload, &sums, &footer).unwrap();
    std::fs::rename(&temporary, &path).unwrap();
    catalog.segments[idx].digest = format!("{digest:032x}");
    catalog.version = version::of_gallery(footer.version);
    put_catalog(&RealDisk, folder, &catalog).unwrap();
}

pub(super) fn array<'a>(arrays: &'a mut Arrays, name: &str) -> &'a mut Vec<u8> {
    let mut found = arrays.iter_mut().filter(|(other, _)| other == name);
    &mut found.next().unwrap().1
}

pub(super) fn numbers(bytes: &[u8]) -> Vec<u32> {
    let (numbers, _) = bytes.as_chunks();
    numbers.iter().map(|&x| u32::from_le_bytes(x)).collect()
}

pub(super) fn bytes(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// Splits texts at their ends.
fn texts(text: &[u8], ends: &[u8]) -> Vec<Vec<u8>> {
    let (ends, _) = ends.as_chunks();
    let ends = ends.iter().map(|&end| u64::from_le_bytes(end) as usize);
    let mut start = 0;
    let texts = ends.map(|end| text[std::mem::replace(&mut start, end)..end].to_vec());
    texts.collect()
}

fn put_texts(arrays: &mut Arrays, name: &str, texts: &[Vec<u8>]) {
    let ends = texts.iter().scan(0, |end, text| {
        *end += text.len() as u64;
        Some(*end)
    });
    *array(arrays, &format!("{name}/ends")) = ends.flat_map(u64::to_le_bytes).collect();
    *array(arrays, &format!("{name}/text")) = texts.concat();
}

/// Makes a segment one of format 1: values in the order of first use, and no order of rows.
fn as_format_1(footer: &mut Footer, arrays: &mut Arrays) {
    footer.version = 1;
    footer.n_vectors = None;
    for column in 0..footer.columns.len() {
        let name = format!("column/{column}");
        arrays.retain(|(other, _)| *other != format!("{name}/order"));
        let text = array(arrays, &format!("{name}/text")).clone();
        let values = texts(&text, array(arrays, &format!("{name}/ends")));
        let codes = array(arrays, &format!("{name}/codes"));
        let mut by_use: Vec<u32> = Vec::new();
        let mut renumbered = numbers(codes);
        for code in &mut renumbered {
            let place = by_use.iter().position(|other| other == code);
            let place = place.unwrap_or_else(|| {
                by_use.push(*code);
                by_use.len() - 1
            });
            *code = place as u32;
        }
        *codes = bytes(&renumbered);
        let values: Vec<Vec<u8>> = by_use
            .iter()
            .map(|&code| values[code as usize].clone())
            .collect();
        put_texts(arrays, &name, &values);
    }
}

/// Compares lookups in every column with a scan of all rows.
fn check_lookups(gallery: &Gallery) {
    for column in ["few", "many", "more", "nothing"] {
        let cell = |row: &RowId| gallery.value(*row, column).unwrap();
        let rows: Vec<RowId> = gallery.rows().collect();
        let expected: BTreeSet<&str> = rows.iter().map(cell).collect();
        let values = gallery.values(column).unwrap();
        assert_eq!(
            values,
            expected.into_iter().collect::<Vec<_>>(),
            "values of {column}"
        );
        for value in values.into_iter().chain(["", "v", "v1|", "z"]) {
            let of_value = rows.iter().copied().filter(|row| cell(row) == value);
            let expected: Vec<RowId> = of_value.collect();
            let found = gallery.find_rows(column, value).unwrap();
            assert_eq!(found, expected, "{column} = {value:?}");
        }
    }
}

/// Adds rows whose cells follow from numbers; 0 is an empty cell.
fn add(writer: &mut Writer, name: &str, cells: &[(u8, u8)], columns: [&str; 2]) {
    let text = |x: u8| match x {
        0 => String::new(),
        1 => "v1|v2".to_owned(),
        x => format!("v{x}"),
    };
    let few = cells.iter().map(|cell| text(cell.0)).collect();
    let many = cells.iter().map(|cell| text(cell.1)).collect();
    let columns = [(columns[0].to_owned(), few), (columns[1].to_owned(), many)];
    let ids: Vec<String> = (0..cells.len()).map(|row| format!("{name}{row}")).collect();
    let vectors = vectors(cells.len() as u64, cells.len(), WIDTH, 0);
    let batch = Batch {
        vectors: &vectors,
        ids: &ids,
        columns: &columns,
        ..Batch::default()
    };
    writer.add(batch).unwrap();
}

fn new_gallery(path: &Path) -> Writer {
    gallery(path, WIDTH, Numbers::F32, &[])
}

fn cells(n_rows: usize) -> impl Strategy<Value = Vec<(u8, u8)>> {
    prop::collection::vec((0_u8..4, 0_u8..50), 1..n_rows)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn rows_are_found_by_value_as_by_a_scan(
        first in cells(70),
        more in cells(90),
        removed in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        is_format_1: bool,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("g.m3i");
        let mut writer = new_gallery(&path);
        add(&mut writer, "a", &first, ["few", "many"]);
        let (first_version, second_version) = if is_format_1 { (1, 2) } else { (2, 2) };
        if is_format_1 {
            drop(writer);
            forge(&path, 0, as_format_1);
            writer = Writer::open(&path).unwrap();
        }
        check_lookups(writer.gallery());
        let removed: BTreeSet<usize> = removed.iter().map(|at| at.index(first.len())).collect();
        let removed: Vec<String> = removed.into_iter().map(|row| format!("a{row}")).collect();
        writer.remove(&removed).unwrap();
        check_lookups(writer.gallery());
        assert_eq!(writer.gallery().catalog.version, first_version);
        assert!(verify(&path).unwrap().is_good());
        add(&mut writer, "b", &more, ["many", "more"]);
        check_lookups(writer.gallery());
        assert_eq!(writer.gallery().catalog.version, second_version);
        assert!(verify(&path).unwrap().is_good());
        writer.compact().unwrap();
        check_lookups(writer.gallery());
        assert!(verify(&path).unwrap().is_good());
        let segments = writer.gallery().segments();
        assert!(segments.iter().all(|segment| segment.has_sorted_values()));
    }
}

#[test]
fn a_lookup_reads_few_blocks() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("g.m3i");
    let n_rows = 20_000;
    let value = |row: usize| format!("{:0300}", row * 7919 % n_rows);
    let ids: Vec<String> = (0..n_rows).map(value).collect();
    let vectors = vectors(1, n_rows, WIDTH, 0);
    let batch = Batch {
        vectors: &vectors,
        ids: &ids,
        columns: &[("study".to_owned(), ids.clone())],
        ..Batch::default()
    };
    new_gallery(&path).add(batch).unwrap();
    let n_checked = |look: &dyn Fn(&Gallery) -> usize| {
        let gallery = Gallery::open(&path).unwrap();
        assert_eq!(look(&gallery), 1);
        let blocks = gallery.segments()[0].blocks();
        (blocks.n_checked() as usize, blocks.n_blocks())
    };
    // The text of a column alone has 92 blocks.
    for (n_checked, n_blocks) in [
        n_checked(&|gallery| gallery.find_rows("study", &value(77)).unwrap().len()),
        n_checked(&|gallery| usize::from(gallery.find(&value(77)).unwrap().is_some())),
    ] {
        assert!(
            n_checked < 25 && n_blocks > 180,
            "{n_checked} of {n_blocks}"
        );
    }
}

/// Makes a gallery whose columns `patient_id` and `bucket` have an order, and `modality` has none.
fn two_kinds_of_columns(path: &Path) {
    drop(gallery(
        path,
        WIDTH,
        Numbers::F32,
        &[vectors(5, 60, WIDTH, 0)],
    ));
    let gallery = Gallery::open(path).unwrap();
    let segment = &gallery.segments()[0];
    let has_order = [0, 1, 2].map(|column| segment.value_order(column).is_some());
    assert_eq!(has_order, [false, true, true]);
}

#[test]
fn every_flipped_bit_of_the_new_arrays_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("g.m3i");
    two_kinds_of_columns(&path);
    let segment = segment::path_of(&path, 1);
    let whole = std::fs::read(&segment).unwrap();
    let place = |name: &str| {
        let segment = Segment::open(&segment).unwrap();
        segment.place(name).unwrap().clone()
    };
    for name in ["column/1/order", "column/1/codes", "column/0/text"] {
        for at in place(name) {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << (at % 8);
            std::fs::write(&segment, &flipped).unwrap();
            let gallery = Gallery::open(&path).unwrap();
            let found = gallery.find_rows("patient_id", "p3");
            assert!(matches!(found, Err(Error::Damaged { .. })), "{name} {at}");
            assert!(!verify(&path).unwrap().is_good(), "{name} {at}");
        }
    }
}

#[test]
fn arrays_that_do_not_agree_are_found_and_repaired() {
    type Change = fn(&mut Footer, &mut Arrays);
    let cases: [(&str, Change); 5] = [
        ("its rows are not in the order", |_, arrays| {
            let order = array(arrays, "column/1/order");
            let mut rows = numbers(order);
            rows.swap(8, 40);
            *order = bytes(&rows);
        }),
        ("its rows are not in the order", |_, arrays| {
            array(arrays, "column/1/order")[..4].fill(255);
        }),
        ("its rows are not in the order", |_, arrays| {
            array(arrays, "column/1/order").fill(255);
        }),
        ("its values are not in ascending", |_, arrays| {
            let values: Vec<Vec<u8>> = (0..15_u8).rev().map(|x| vec![b'a' + x]).collect();
            put_texts(arrays, "column/1", &values);
        }),
        ("its values are not in ascending", |_, arrays| {
            put_texts(arrays, "column/1", &vec![b"p".to_vec(); 15]);
        }),
    ];
    for (wanted, change) in cases {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("g.m3i");
        two_kinds_of_columns(&path);
        forge(&path, 0, change);
        let report = verify(&path).unwrap();
        assert!(report.findings[0].what.contains(wanted), "{report:?}");
        // The answer is wrong or refused; there is one, and no panic.
        let gallery = Gallery::open(&path).unwrap();
        for value in ["", "p", "p3", "p14", "z"] {
            match gallery.find_rows("patient_id", value) {
                Ok(_) | Err(Error::Damaged { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        let repair = repair(&path).unwrap();
        assert_eq!(repair.n_lost, 0);
        assert!(verify(&path).unwrap().is_good());
        let gallery = Gallery::open(&path).unwrap();
        let found = gallery.values("patient_id").unwrap().into_iter();
        let found = found.map(|value| gallery.find_rows("patient_id", value).unwrap().len());
        assert_eq!(found.sum::<usize>(), 60);
    }
}

#[test]
fn arrays_of_a_wrong_size_are_refused_on_opening() {
    type Change = fn(&mut Footer, &mut Arrays);
    let cases: [(&str, Change); 6] = [
        ("236 bytes of column/1/order", |_, arrays| {
            array(arrays, "column/1/order").truncate(236);
        }),
        ("0 bytes of column/1/order", |_, arrays| {
            array(arrays, "column/1/order").clear();
        }),
        ("13 bytes of column/1/ends", |_, arrays| {
            array(arrays, "column/1/ends").truncate(13);
        }),
        ("800 bytes of column/1/ends", |_, arrays| {
            array(arrays, "column/1/ends").resize(800, 0);
        }),
        ("does not fit its version", |footer, _| {
            footer.n_vectors = None;
        }),
        ("does not fit its version", |footer, _| footer.version = 1),
    ];
    for (wanted, change) in cases {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("g.m3i");
        two_kinds_of_columns(&path);
        forge(&path, 0, change);
        let error = Gallery::open(&path).unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }));
        assert!(error.to_string().contains(wanted), "{error}");
        assert!(!verify(&path).unwrap().is_good());
    }
}

#[test]
fn what_a_newer_m3ret_wrote_is_refused_and_not_repaired() {
    type Change = fn(&mut Footer, &mut Arrays);
    let cases: [(&str, Change); 3] = [
        ("77 vectors for 60 rows", |footer, arrays| {
            footer.n_vectors = Some(77);
            arrays.push(("vector/rows".to_owned(), vec![0; 4 * 77]));
        }),
        ("59 vectors for 60 rows", |footer, _| {
            footer.n_vectors = Some(59);
        }),
        ("version 4 of the format of segments", |footer, _| {
            footer.version = 4;
        }),
    ];
    for (wanted, change) in cases {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("g.m3i");
        two_kinds_of_columns(&path);
        forge(&path, 0, change);
        let newest = catalog::generations(&path).unwrap()[0];
        let lost_catalog = |path: &Path| {
            std::fs::write(catalog::path_of(path, newest), "nothing").unwrap();
            repair(path).map(drop)
        };
        for refused in [
            Gallery::open(&path).map(drop),
            Writer::open(&path).map(drop),
            verify(&path).map(drop),
            repair(&path).map(drop),
            lost_catalog(&path),
        ] {
            let error = refused.unwrap_err();
            assert!(matches!(error, Error::Unsupported { .. }), "{error}");
            let error = error.to_string();
            assert!(
                error.contains(wanted) && error.contains("use a newer m3ret"),
                "{error}"
            );
        }
        assert!(segment::path_of(&path, 1).exists() && !path.join("quarantine").exists());
    }
}

#[test]
fn a_catalog_of_a_later_version_is_refused_by_its_version() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("g.m3i");
    two_kinds_of_columns(&path);
    let newest = catalog::generations(&path).unwrap()[0];
    let later = serde_json::json!({"version": 7, "generation": newest, "unheard of": true});
    let catalog = catalog::path_of(&path, newest);
    std::fs::write(catalog, catalog::to_copies(&later).unwrap()).unwrap();
    for refused in [Gallery::open(&path).map(drop), repair(&path).map(drop)] {
        let error = refused.unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
        assert!(
            error
                .to_string()
                .contains("version 7 of the format of galleries")
        );
    }
    assert!(is_gallery(&path));
}

/// Everything that a gallery says of its rows, by id.
type Kept = BTreeMap<String, (Vec<f32>, Vec<String>, Vec<u8>)>;

fn kept(gallery: &Gallery) -> Kept {
    let columns = ["body_part", "subject", "finding"];
    let rows = gallery.rows().map(|row| {
        let cells = columns.map(|column| gallery.value(row, column).unwrap().to_owned());
        let thumbnail = gallery.attachment(row, "thumbnail").unwrap().to_vec();
        let contents = (gallery.vector(row).unwrap(), cells.to_vec(), thumbnail);
        (gallery.id(row).unwrap().to_owned(), contents)
    });
    rows.collect()
}

/// A gallery that the last m3ret of format 1 wrote.
fn format_1() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/galleries/format1.m3i")
}

fn copy_of_format_1(folder: &Path) -> PathBuf {
    let path = folder.join("copy.m3i");
    std::fs::create_dir(&path).unwrap();
    for entry in std::fs::read_dir(format_1()).unwrap() {
        let from = entry.unwrap().path();
        std::fs::copy(&from, path.join(from.file_name().unwrap())).unwrap();
    }
    path
}

/// Searches for a row without the rows of its subject.
fn search(gallery: &Gallery, id: &str, filter: Option<(&str, &[&str])>) -> Vec<(String, f32)> {
    let row = gallery.find(id).unwrap().unwrap();
    let vector = gallery.vector(row).unwrap();
    let left_out = [LeftOut {
        column: "subject".to_owned(),
        values: vec![gallery.value(row, "subject").unwrap().to_owned()],
    }];
    let queries = Queries {
        vectors: &vector,
        own: &[vec![row]],
        left_out: &left_out,
        ..Queries::default()
    };
    let filters = filter.map(|(column, values)| Filter {
        column: column.to_owned(),
        values: values.iter().map(|&value| value.to_owned()).collect(),
        is_negated: false,
    });
    let options = SearchOptions {
        k: 4,
        filters: filters.into_iter().collect(),
        ..SearchOptions::default()
    };
    let hits = gallery.search(queries, &options).unwrap();
    let hits = hits[0].iter();
    hits.map(|hit| (gallery.id(hit.row).unwrap().to_owned(), hit.score))
        .collect()
}

/// Compares answers with those that the last m3ret of format 1 gave.
fn check_answers(gallery: &Gallery) {
    let effusion: &[&str] = &["effusion"];
    let parts: &[&str] = &["head", "knee"];
    for (id, filter, expected) in [
        (
            "scan/00",
            None,
            [
                ("scan/05", 0.891_361_2),
                ("scan/20", 0.872_729_1),
                ("scan/35", 0.868_152_4),
                ("scan/25", 0.859_197_4),
            ],
        ),
        (
            "scan/00",
            Some(("body_part", parts)),
            [
                ("scan/05", 0.891_361_2),
                ("scan/35", 0.868_152_4),
                ("scan/25", 0.859_197_4),
                ("scan/03", 0.617_213_5),
            ],
        ),
        (
            "scan/00",
            Some(("finding", effusion)),
            [
                ("scan/20", 0.872_729_1),
                ("scan/35", 0.868_152_4),
                ("scan/25", 0.859_197_4),
                ("scan/10", 0.851_314_3),
            ],
        ),
        (
            "scan/07",
            Some(("finding", effusion)),
            [
                ("scan/17", 0.900_561_3),
                ("scan/32", 0.885_771_75),
                ("scan/02", 0.842_809_4),
                ("scan/06", 0.364_945_7),
            ],
        ),
    ] {
        let found = search(gallery, id, filter);
        let ids = |hits: &[(&str, f32)]| hits.iter().map(|hit| hit.0.to_owned()).collect();
        let expected_ids: Vec<String> = ids(&expected);
        let found_ids: Vec<String> = found.iter().map(|hit| hit.0.clone()).collect();
        assert_eq!(found_ids, expected_ids, "{id} {filter:?}");
        for (found, expected) in found.iter().zip(expected) {
            // Kernels add in different orders on different processors.
            assert!((found.1 - expected.1).abs() < 1e-6, "{id}: {}", found.1);
        }
    }
}

#[test]
fn a_gallery_of_format_1_is_read_as_it_was() {
    let gallery = Gallery::open(&format_1()).unwrap();
    assert_eq!((gallery.len(), gallery.catalog.version), (39, 1));
    assert!(!gallery.segments()[0].has_sorted_values());
    assert!(gallery.find("scan/21").unwrap().is_none());
    check_answers(&gallery);
    let parts = gallery.values("body_part").unwrap();
    assert_eq!(parts, ["", "head", "knee", "thorax"]);
    let found = gallery.find_rows("subject", "s08").unwrap();
    let ids: BTreeSet<&str> = found.iter().map(|&row| gallery.id(row).unwrap()).collect();
    // The other row of s08, scan/21, is the one that was removed.
    assert_eq!(ids, BTreeSet::from(["scan/36"]));
    assert_eq!(
        gallery.attachment(found[0], "thumbnail").unwrap(),
        [28, 28, 28]
    );
    assert_eq!(gallery.statistics().unwrap(), Some(&Statistics::default()));
    let report = verify(&format_1()).unwrap();
    assert!(
        report.is_good() && report.leftovers.is_empty(),
        "{report:?}"
    );
}

#[test]
fn a_gallery_of_format_1_is_written_to_and_becomes_one_of_format_2() {
    let folder = tempfile::tempdir().unwrap();
    let path = copy_of_format_1(folder.path());
    let mut expected = kept(&Gallery::open(&path).unwrap());
    let mut writer = Writer::open(&path).unwrap();
    // Nothing of format 2 is written for a removal, so an older m3ret still reads it.
    writer.remove(&["scan/01".to_owned()]).unwrap();
    expected.remove("scan/01");
    assert_eq!(writer.gallery().catalog.version, 1);

    let vectors = vectors(1, 3, 16, 0);
    let ids = ["new/0", "new/1", "new/2"].map(str::to_owned);
    let subjects = ["s08", "s91", "s92"].map(str::to_owned).to_vec();
    let batch = Batch {
        vectors: &vectors,
        ids: &ids,
        columns: &[("subject".to_owned(), subjects)],
        ..Batch::default()
    };
    writer.add(batch).unwrap();
    let gallery = writer.gallery();
    assert_eq!((gallery.n_segments(), gallery.catalog.version), (2, 2));
    assert_eq!(gallery.find_rows("subject", "s08").unwrap().len(), 2);
    assert_eq!(gallery.find_rows("body_part", "").unwrap().len(), 13);
    let is_old = |(id, _): &(String, _)| !id.starts_with("new/");
    let old: Kept = kept(gallery).into_iter().filter(is_old).collect();
    assert_eq!(old, expected);
    assert!(verify(&path).unwrap().is_good());

    writer.remove(&ids).unwrap();
    writer.compact().unwrap();
    let gallery = writer.gallery();
    // What it has measured needs version 4.
    assert_eq!((gallery.n_segments(), gallery.catalog.version), (1, 4));
    assert!(gallery.segments()[0].has_sorted_values());
    assert_eq!(kept(gallery), expected);
    let report = verify(&path).unwrap();
    assert!(
        report.is_good() && report.leftovers.is_empty(),
        "{report:?}"
    );
}

#[test]
fn a_gallery_of_format_1_is_repaired_into_format_2() {
    let folder = tempfile::tempdir().unwrap();
    let path = copy_of_format_1(folder.path());
    let expected = kept(&Gallery::open(&path).unwrap());
    let segment = segment::path_of(&path, 1);
    let mut bytes = std::fs::read(&segment).unwrap();
    let last_tail = bytes.len() - 30;
    bytes[last_tail] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let repair = repair(&path).unwrap();
    assert_eq!(repair.n_lost, 0);
    let gallery = Gallery::open(&path).unwrap();
    assert_eq!(gallery.catalog.version, 2);
    assert_eq!(kept(&gallery), expected);
    check_answers(&gallery);
    assert!(verify(&path).unwrap().is_good());

    // A catalog that is made of segments of format 1 is of version 4 once the gallery is measured again.
    let path = folder.path().join("second");
    std::fs::create_dir(&path).unwrap();
    let path = copy_of_format_1(&path);
    let newest = catalog::generations(&path).unwrap()[0];
    std::fs::write(catalog::path_of(&path, newest), "nothing").unwrap();
    super::repair(&path).unwrap();
    let gallery = Gallery::open(&path).unwrap();
    assert_eq!((gallery.len(), gallery.catalog.version), (39, 4));
}

#[test]
fn a_new_gallery_is_one_of_format_2() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("g.m3i");
    let mut writer = new_gallery(&path);
    assert_eq!(writer.gallery().catalog.version, 2);
    let rows = TestRows::new(0, vectors(1, 9, WIDTH, 0), WIDTH);
    writer.add(rows.batch()).unwrap();
    let footer = writer.gallery().segments()[0].footer();
    assert_eq!((footer.version, footer.n_vectors), (2, Some(9)));
    assert_eq!(writer.gallery().maker(), &maker());
    let bytes = std::fs::read(segment::path_of(&path, 1)).unwrap();
    assert_eq!(bytes[8..12], 2_u32.to_le_bytes());
}
