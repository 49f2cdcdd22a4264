mod bombs;

use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use m3ret_imaging::Code;

const TYPES: &[u8] = include_bytes!("../../../testdata/manifest/types.parquet");

fn load(bytes: &[u8]) -> Result<Table> {
    Manifest::from_bytes(bytes.to_vec(), Path::new("folder"), &Limits::default())?.load()
}

fn cells(table: &Table) -> Vec<Vec<&str>> {
    table.rows().map(|row| row.cells().collect()).collect()
}

/// Loads `bytes` and compares the rows; `expected` is the error's text where there is one.
fn check(bytes: &[u8], expected: std::result::Result<&[&[&str]], &str>) {
    match (load(bytes), expected) {
        (Ok(table), Ok(rows)) => assert_eq!(cells(&table), rows),
        (Err(error), Err(text)) => assert_eq!(error.to_string(), text),
        (got, _) => panic!("{:?}: {got:?}", String::from_utf8_lossy(bytes)),
    }
}

#[test]
fn csv_rows_come_out_as_they_went_in() {
    let one: &[&[&str]] = &[&["a.png", "CT"]];
    check(b"path,modality\na.png,CT\n", Ok(one));
    check(b"path,modality\na.png,CT", Ok(one));
    check(b"\xef\xbb\xbfpath,modality\r\na.png,CT\r\n", Ok(one));
    check(b" path , modality\na.png,CT\n", Ok(one));
    check(b"path,modality\n\n\na.png,CT\n\n", Ok(one));
    check(b"\"path\",\"modality\"\n\"a.png\",\"CT\"", Ok(one));
    check(
        b"finding,path\n\"two\nlines, \"\"quoted\"\"\",x\n",
        Ok(&[&["two\nlines, \"quoted\"", "x"]]),
    );
    check(
        b"path\n a \n../b\n/c\n",
        Ok(&[&[" a "], &["../b"], &["/c"]]),
    );
    check(b"path,finding\na,5\" nail\n", Ok(&[&["a", "5\" nail"]]));
    check(b"path,finding\na,\"\"\"\"", Ok(&[&["a", "\""]]));
    check(b"path,modality\n", Ok(&[]));
    check(b"path", Ok(&[]));
}

#[test]
fn cells_may_be_separated_by_semicolons_or_tabs() {
    let rows: &[&[&str]] = &[&["a,b.png", "CT"], &["c.png", "x;y"]];
    check(b"Path;modality\na,b.png;CT\nc.png;\"x;y\"\n", Ok(rows));
    check(b"modality\tpath\nCT\ta b\n", Ok(&[&["CT", "a b"]]));
    check(b"path;x,note\na;b,c\n", Ok(&[&["a", "b,c"]]));
    // A comma counts more, as most manifests have it.
    check(b"path,a;b\nx,y\n", Ok(&[&["x", "y"]]));
    check(
        b"path;finding\na;\"open\nb;x\n",
        Err("manifest: found line 2: a quoted cell that never ends, wanted a closing quote"),
    );
}

#[test]
fn cells_are_trimmed_and_words_for_nothing_are_empty() {
    let table =
        load(b"path,PatientID,Finding,note\na, p1 ,mass , x\nb,nan,NaN,null\nc,UNKNOWN,unknown,\n")
            .unwrap();
    assert_eq!(table.columns(), ["path", "patient_id", "finding", "note"]);
    assert_eq!(
        table.written_columns(),
        ["path", "PatientID", "Finding", "note"]
    );
    assert_eq!(
        cells(&table),
        [
            ["a", "p1", "mass", "x"],
            ["b", "", "", ""],
            ["c", "", "unknown", ""]
        ]
    );
    let notes = table.notes();
    for (at, wanted) in [
        (0, "column PatientID is used as patient_id"),
        (1, "column Finding is used as finding"),
        (2, "column patient_id: 2 cells hold"),
        (3, "column finding: 1 cell holds"),
        (4, "column finding: unknown is a class like any other"),
        (5, "column note: 1 cell holds"),
    ] {
        assert!(notes[at].contains(wanted), "{notes:?}");
    }
    assert_eq!(table.name_of("PatientID"), Some("patient_id"));
    assert_eq!(table.name_of("subject id"), Some("patient_id"));
    assert_eq!(table.name_of("split"), None);
}

#[test]
fn a_manifest_is_told_by_content_or_by_its_name() {
    for (head, name, expected) in [
        (&b"PAR1\x15"[..], "m", true),
        (b"\"path\",modality\na,CT\n", "m", true),
        (b"\xef\xbb\xbfmodality; Path\r\n", "m", true),
        (b"file,modality\n", "m.txt", false),
        (b"file,modality\n", "m.CSV", true),
        (b"file\tmodality\n", "m.tsv", true),
        (b"\x89PNG\r\n\x1a\npath,", "m.csv", false),
        (b"", "m", false),
    ] {
        assert_eq!(is_manifest(head, Path::new(name)), expected, "{name}");
    }
}

#[test]
fn a_column_with_a_meaning_that_cannot_be_read_is_refused() {
    // The fixture's struct column under a name that means something.
    let error = refuse_unreadable(&["note".to_owned(), "PatientID".to_owned()]).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("PatientID of a nested or binary type"),
        "{error}"
    );
    refuse_unreadable(&["note".to_owned()]).unwrap();
}

#[test]
fn space_around_a_path_is_part_of_it_where_a_file_has_it() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(" spaced.png"), "").unwrap();
    let text = b"path\n spaced.png\n other.png\n".to_vec();
    let table = Manifest::from_bytes(text, folder.path(), &Limits::default())
        .unwrap()
        .load()
        .unwrap();
    let files: Vec<PathBuf> = table.rows().map(|row| row.file()).collect();
    assert_eq!(
        files,
        [" spaced.png", "other.png"].map(|name| folder.path().join(name))
    );
}

#[test]
fn broken_csv_is_refused_with_its_line() {
    let check = |bytes: &[u8], text: &str| check(bytes, Err(text));
    check(
        b"",
        "manifest: found an empty file, wanted a first line that names the columns",
    );
    check(
        b"where;modality\na;CT\n",
        "manifest: found 1 column, none of them named path, wanted a first line that names the \
         columns, path among them, separated by commas, semicolons or tabs",
    );
    check(
        b"path,split,x,split\n",
        "manifest: found columns 2 and 4 with the same name (split), wanted every column once",
    );
    check(
        b"path,x,x\n",
        "manifest: found columns 2 and 3 with the same name, wanted every column once",
    );
    check(
        b"path,modality\na,CT\nb\n",
        "manifest: found line 3: 1 cells, wanted 2, as many as columns",
    );
    check(
        b"path,finding\na,\"two\nlines\"\n\nb,c,d\n",
        "manifest: found line 5: 3 cells, wanted 2, as many as columns",
    );
    check(
        b"path,modality\na,CT\n ,CT\n",
        "manifest: found line 3: an empty path, wanted a path in every row",
    );
    check(
        b"path,modality\na,\xff\n",
        "manifest: found line 2: bytes that are not UTF-8, wanted CSV text in UTF-8, or Parquet",
    );
    check(
        b"path,finding\na,x\nb,\"open\nc,y\nd,z\n",
        "manifest: found line 3: a quoted cell that never ends, wanted a closing quote",
    );
    check(
        b"\x1f\x8b\x08\x00",
        "manifest: gzip around the table is not supported; decompress it first",
    );
    check(
        b"PAR1",
        "manifest: found Parquet with a broken footer, wanted a whole, undamaged file",
    );
}

#[test]
fn an_endless_row_is_refused_before_it_fills_the_memory() {
    let mut bytes = b"path\n\"".to_vec();
    bytes.resize(40 << 20, b'x');
    assert_eq!(load(&bytes).unwrap_err().code(), Code::LimitExceeded);
}

#[test]
fn a_table_larger_than_the_limit_is_refused_while_it_grows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("table.parquet");
    let mut writer = Writer::create(&path, Layout::Parquet, &["path"]).unwrap();
    for _ in 0..50_000 {
        writer
            .push(["the same path again and again and again"])
            .unwrap();
    }
    writer.finish().unwrap();
    let limits = Limits {
        max_bytes: 1 << 20,
        ..Limits::default()
    };
    assert!(std::fs::metadata(&path).unwrap().len() < 10_000);
    let refused = Manifest::open(&path, &limits).unwrap().load();
    assert_eq!(refused.unwrap_err().code(), Code::LimitExceeded);
}

#[test]
fn relative_paths_start_at_the_folder_of_the_manifest() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.csv");
    std::fs::write(&path, "path\na/b.png\n/abs/c.png\n").unwrap();
    let table = Manifest::open(&path, &Limits::default())
        .unwrap()
        .load()
        .unwrap();
    let files: Vec<PathBuf> = table.rows().map(|row| row.file()).collect();
    assert_eq!(
        files,
        [folder.path().join("a/b.png"), PathBuf::from("/abs/c.png")]
    );
}

#[test]
fn cells_are_found_by_column_name_and_words_are_numbered_once() {
    let table = load(b"path,body_part\na,head\nb,\nc,head\n").unwrap();
    let column = table.column("body_part").unwrap();
    assert_eq!(column.words().collect::<Vec<_>>(), ["head", ""]);
    assert_eq!(
        [column.id(0), column.id(1), column.id(2), column.id(3)],
        [Some(0), Some(1), Some(0), None]
    );
    assert!(table.column("modality").is_none());
    assert_eq!(table.row(2).unwrap().get("body_part"), Some("head"));
    assert_eq!(table.row(2).unwrap().get("modality"), None);
    assert!(table.row(3).is_none());
}

#[test]
fn word_numbers_widen_without_changing_a_row() {
    let mut text = String::from("path,patient_id\n");
    for row in 0..70_000 {
        text.push_str(&format!("{row},p{}\n", row * 7 % 69_000));
    }
    let table = load(text.as_bytes()).unwrap();
    assert_eq!(table.column("patient_id").unwrap().words().len(), 69_000);
    for (idx, row) in table.rows().enumerate() {
        let expected = format!("p{}", idx * 7 % 69_000);
        assert_eq!(row.cells().collect::<Vec<_>>(), [idx.to_string(), expected]);
    }
}

#[test]
fn batches_together_are_the_table() {
    let folder = tempfile::tempdir().unwrap();
    for layout in [Layout::Csv, Layout::Parquet] {
        let path = folder.path().join("m");
        let mut writer = Writer::create(&path, layout, &["split", "path"]).unwrap();
        for row in 0..3 * BATCH_ROWS + 5 {
            writer
                .push([
                    if row % 3 == 0 { "query" } else { "" },
                    &format!("{row}.png"),
                ])
                .unwrap();
        }
        writer.finish().unwrap();
        let open = || Manifest::open(&path, &Limits::default()).unwrap();
        let whole = open().load().unwrap();
        let batches: Vec<Table> = open().map(Result::unwrap).collect();
        assert_eq!(
            batches.iter().map(Table::len).collect::<Vec<_>>(),
            [8192, 8192, 8192, 5]
        );
        let streamed: Vec<Vec<&str>> = batches.iter().flat_map(cells).collect();
        assert_eq!(streamed, cells(&whole), "{layout:?}");
    }
}

#[test]
fn an_error_ends_the_batches() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.csv");
    std::fs::write(&path, "path\na\nb,c\nd\n").unwrap();
    let mut manifest = Manifest::open(&path, &Limits::default()).unwrap();
    assert!(manifest.next().unwrap().is_err());
    assert!(manifest.next().is_none());
}

#[test]
fn parquet_of_pyarrow_is_rendered_as_text() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("any.name");
    std::fs::write(&path, TYPES).unwrap();
    let manifest = Manifest::open(&path, &Limits::default()).unwrap();
    let table = manifest.load().unwrap();
    assert_eq!(
        table.notes(),
        [
            "column labels has no meaning to m3ret; rename it finding if that is what it holds",
            "columns of a nested or binary type are not read: nested"
        ]
    );
    let expected: [(&str, [&str; 3]); 20] = [
        ("path", ["a.png", "b/c.dcm", "d e.nii.gz"]),
        ("modality", ["CT", "", "CT"]),
        ("small", ["-1", "", "127"]),
        ("unsigned", ["0", "4294967295", ""]),
        ("wide", ["-9223372036854775808", "9223372036854775807", ""]),
        ("unsigned_wide", ["18446744073709551615", "", "1"]),
        ("single", ["0.1", "", ""]),
        ("double", ["12", "0.1", "inf"]),
        ("truth", ["true", "false", ""]),
        ("day", ["2024-02-29", "", "1900-03-01"]),
        (
            "time",
            ["1969-12-31T23:59:59.25", "", "2026-01-02T03:04:05"],
        ),
        ("empty", ["", "", ""]),
        ("list", ["1|2", "", ""]),
        ("amount", ["1.5", "", "-0.05"]),
        (
            "large",
            [
                "10000000000000000000000000000000000000",
                "-10000000000000000000000000000000000000",
                "",
            ],
        ),
        ("labels", ["mass|effusion", "", "mass"]),
        (
            "uuid",
            [
                "00010203-0405-0607-0809-0a0b0c0d0e0f",
                "",
                "ffffffff-ffff-ffff-ffff-ffffffffffff",
            ],
        ),
        ("code", ["ab", "", "abcd"]),
        ("raw", ["00ff", "", "0102"]),
        ("text", ["\u{e4}\u{6587}", "line\nbreak", "\"quoted\", too"]),
    ];
    assert_eq!(table.columns(), expected.map(|(name, _)| name));
    for (name, cells) in expected {
        let column = table.column(name).unwrap();
        assert_eq!(
            [0, 1, 2].map(|row| column.get(row).unwrap()),
            cells,
            "{name}"
        );
    }
}

#[test]
fn a_truncated_or_damaged_file_never_panics() {
    for n_bytes in 0..TYPES.len() {
        assert!(load(&TYPES[..n_bytes]).is_err(), "{n_bytes}");
    }
    let csv = b"\xef\xbb\xbfpath,finding\r\na,\"two\nlines \"\"x\"\"\"\r\n\xc3\xa4,b\r\n";
    for n_bytes in 0..csv.len() {
        let _ = load(&csv[..n_bytes]);
    }
    for (at, change) in (0..TYPES.len()).zip([0x01, 0x80, 0xff].into_iter().cycle()) {
        let mut bytes = TYPES.to_vec();
        bytes[at] ^= change;
        let _ = load(&bytes);
    }
}

#[test]
fn a_writer_refuses_rows_and_columns_that_could_not_be_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.csv");
    assert!(Writer::create(&path, Layout::Csv, &["file"]).is_err());
    assert!(Writer::create(&path, Layout::Csv, &["path", "path"]).is_err());
    let mut writer = Writer::create(&path, Layout::Csv, &["path", "split"]).unwrap();
    assert!(writer.push(["a"]).is_err());
    assert!(writer.push(["", "query"]).is_err());
    drop(writer);
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        0,
        "something was left behind"
    );
}

#[test]
fn cells_are_kept_as_they_stand_beside_what_they_say() {
    let text = "path,id,patient_id,finding\na, x ,Unknown,mass\nb,y,7, n/a\nc,z,,mass\n";
    let table = load(text.as_bytes()).unwrap();
    assert_eq!(
        cells(&table),
        [
            ["a", "x", "", "mass"],
            ["b", "y", "7", ""],
            ["c", "z", "", "mass"]
        ]
    );
    let written: Vec<Vec<&str>> = table
        .rows()
        .map(|row| row.written_cells().collect())
        .collect();
    let expected = [
        ["a", " x ", "Unknown", "mass"],
        ["b", "y", "7", " n/a"],
        ["c", "z", "", "mass"],
    ];
    assert_eq!(written, expected);
    let folder = tempfile::tempdir().unwrap();
    for layout in [Layout::Csv, Layout::Parquet] {
        let path = folder.path().join("again");
        let mut writer = Writer::create(&path, layout, &["path", "id", "patient_id", "finding"]);
        for row in table.rows() {
            writer.as_mut().unwrap().push(row.written_cells()).unwrap();
        }
        writer.unwrap().finish().unwrap();
        let again = Manifest::open(&path, &Limits::default()).unwrap();
        let again = again.load().unwrap();
        let cells: Vec<Vec<&str>> = again
            .rows()
            .map(|row| row.written_cells().collect())
            .collect();
        assert_eq!(cells, expected, "{layout:?}");
    }
}

#[test]
fn a_table_of_some_rows_and_of_paths_alone_keeps_cells_as_they_stand() {
    let text = "id,path,patient_id\n x ,a,Unknown\ny,b,7\nz, c ,8\n";
    let table = load(text.as_bytes()).unwrap();
    let paths = ["d".to_owned(), "e,f".to_owned()];
    let other = table.with_paths(&[2, 0, 9], &paths, 1 << 20).unwrap();
    let expected = [
        ["z", " c ", "8"],
        ["x", "a", ""],
        ["", "d", ""],
        ["", "e,f", ""],
    ];
    assert_eq!(cells(&other), expected);
    let written: Vec<Vec<&str>> = other
        .rows()
        .map(|row| row.written_cells().collect())
        .collect();
    assert_eq!(written[1], [" x ", "a", "Unknown"]);
    assert_eq!(other.row(2).unwrap().file(), Path::new("folder/d"));
    let refused = table.with_paths(&[0], &paths, 10).unwrap_err();
    assert_eq!(refused.code(), Code::LimitExceeded);
}

#[test]
fn an_empty_manifest_survives_both_layouts() {
    let folder = tempfile::tempdir().unwrap();
    for layout in [Layout::Csv, Layout::Parquet] {
        let path = folder.path().join("m");
        Writer::create(&path, layout, &COLUMNS)
            .unwrap()
            .finish()
            .unwrap();
        let table = Manifest::open(&path, &Limits::default())
            .unwrap()
            .load()
            .unwrap();
        assert!(table.is_empty());
        assert_eq!(table.columns(), COLUMNS);
    }
}

/// Text without what is never part of a cell.
fn trimmed(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}' || c == '\0')
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_written_is_read_back(
        rows in proptest::collection::vec(("[^ \t\r\n\u{feff}]\\PC{0,8}", "(?s).{0,4}", "[a-c]?"), 0..40),
        parquet: bool,
    ) {
        let layout = if parquet { Layout::Parquet } else { Layout::Csv };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m");
        let mut writer = Writer::create(&path, layout, &["path", "note", "split"]).unwrap();
        let rows: Vec<_> = rows.iter().filter(|(path, ..)| !path.trim().is_empty()).collect();
        for (path, note, split) in &rows {
            writer.push([path.as_str(), note, split]).unwrap();
        }
        writer.finish().unwrap();
        let table = Manifest::open(&path, &Limits::default()).unwrap().load().unwrap();
        let expected: Vec<Vec<&str>> =
            rows.iter().map(|(path, note, split)| vec![path.as_str(), trimmed(note), split]).collect();
        prop_assert_eq!(cells(&table), expected);
    }
}
