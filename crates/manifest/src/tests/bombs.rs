//! Tables that cost more than they weigh.

use std::sync::Arc;

use parquet::basic::{
    Compression, ConvertedType, Encoding, Repetition, Type as Physical, ZstdLevel,
};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::Type;

use super::*;

fn is_over_a_limit(bytes: &[u8], what: &str) {
    let error = load(bytes).unwrap_err();
    assert_eq!(error.code(), Code::LimitExceeded, "{error}");
    assert!(error.to_string().contains(what), "{error}");
}

/// A Parquet file of one row group: cells and levels of each leaf of the schema.
fn file(schema: Type, encoding: Encoding, columns: &[(&[&str], &[i16], &[i16])]) -> Vec<u8> {
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_dictionary_enabled(encoding == Encoding::PLAIN)
        .set_encoding(encoding)
        .build();
    let mut bytes = Vec::new();
    let mut file =
        SerializedFileWriter::new(&mut bytes, Arc::new(schema), Arc::new(properties)).unwrap();
    let mut group = file.next_row_group().unwrap();
    for (cells, levels, repeats) in columns {
        let cells: Vec<ByteArray> = cells.iter().map(|&cell| ByteArray::from(cell)).collect();
        let mut column = group.next_column().unwrap().unwrap();
        let writer = column.typed::<ByteArrayType>();
        let (levels, repeats) = (self::levels(levels), self::levels(repeats));
        writer
            .write_batch(&cells, levels.as_deref(), repeats.as_deref())
            .unwrap();
        column.close().unwrap();
    }
    group.close().unwrap();
    file.close().unwrap();
    bytes
}

fn levels(levels: &[i16]) -> Option<Vec<i16>> {
    (!levels.is_empty()).then(|| levels.to_vec())
}

fn paths() -> Type {
    parse_message_type("message m { required binary path (STRING); }").unwrap()
}

#[test]
fn a_long_path_in_many_rows_is_refused_while_the_table_grows() {
    let path = "p".repeat(10_000);
    for n_rows in [20_000, 200_000] {
        let bytes = file(
            paths(),
            Encoding::PLAIN,
            &[(&vec![path.as_str(); n_rows], &[], &[])],
        );
        assert!(bytes.len() < 20_000, "{}", bytes.len());
        is_over_a_limit(&bytes, "bytes of the manifest in memory");
    }
}

#[test]
fn more_rows_or_cells_than_a_file_holds_are_refused_before_they_are_read() {
    let bytes = file(
        paths(),
        Encoding::PLAIN,
        &[(&vec!["a"; 1_100_000], &[], &[])],
    );
    let refused = Manifest::from_bytes(bytes, Path::new(""), &Limits::default()).unwrap_err();
    assert!(
        refused.to_string().starts_with("rows of a manifest"),
        "{refused}"
    );
    // As many rows whose paths are in the file.
    let mut text = String::from("path\n");
    for row in 0..1_100_000 {
        text += &format!("{row}\n");
    }
    assert_eq!(load(text.as_bytes()).unwrap().len(), 1_100_000);
}

#[test]
fn columns_are_bounded_and_compared_by_their_hashes() {
    let text = |n_columns: usize| {
        let names: Vec<String> = (1..n_columns).map(|idx| format!("c{idx}")).collect();
        format!(
            "path,{}\na{}\n",
            names.join(","),
            ",v".repeat(n_columns - 1)
        )
    };
    let table = load(text(16_384).as_bytes()).unwrap();
    assert_eq!(table.columns().len(), 16_384);
    assert!(table.notes().is_empty());
    is_over_a_limit(text(16_385).as_bytes(), "columns of one manifest");
    is_over_a_limit(text(300_000).as_bytes(), "columns of one manifest");
    let leaf = |name: String| Type::primitive_type_builder(&name, Physical::BYTE_ARRAY).build();
    let leaves = (0..16_385).map(|idx| Arc::new(leaf(format!("c{idx}")).unwrap()));
    let schema = Type::group_type_builder("m").with_fields(leaves.collect());
    let nothing: (&[&str], &[i16], &[i16]) = (&[], &[], &[]);
    let columns = vec![nothing; 16_385];
    let bytes = file(schema.build().unwrap(), Encoding::PLAIN, &columns);
    is_over_a_limit(&bytes, "columns of one manifest");
}

#[test]
fn a_schema_that_nests_deeply_is_refused_before_it_is_followed() {
    let nested = |depth: usize| {
        let leaf = Type::primitive_type_builder("leaf", Physical::BYTE_ARRAY);
        let mut inner = Arc::new(leaf.build().unwrap());
        for _ in 0..depth {
            let group = Type::group_type_builder("g").with_repetition(Repetition::REQUIRED);
            inner = Arc::new(group.with_fields(vec![inner]).build().unwrap());
        }
        let path = Type::primitive_type_builder("path", Physical::BYTE_ARRAY)
            .with_repetition(Repetition::REQUIRED)
            .with_converted_type(ConvertedType::UTF8);
        let fields = vec![Arc::new(path.build().unwrap()), inner];
        let schema = Type::group_type_builder("m").with_fields(fields).build();
        file(
            schema.unwrap(),
            Encoding::PLAIN,
            &[(&["a"], &[], &[]), (&["x"], &[1], &[])],
        )
    };
    assert_eq!(load(&nested(20)).unwrap().len(), 1);
    is_over_a_limit(&nested(200), "depth of a Parquet schema");
}

#[test]
fn a_cell_of_many_labels_is_bounded() {
    let schema = "message m {
        required binary path (STRING);
        optional group labels (LIST) { repeated group list { required binary element (STRING); } }
    }";
    let label = "x".repeat(1 << 16);
    let lists = |n_labels: usize| {
        let mut repeats = vec![1; n_labels];
        repeats[0] = 0;
        let labels = vec![label.as_str(); n_labels];
        let columns: [(&[&str], &[i16], &[i16]); 2] =
            [(&["a"], &[], &[]), (&labels, &vec![2; n_labels], &repeats)];
        file(
            parse_message_type(schema).unwrap(),
            Encoding::PLAIN,
            &columns,
        )
    };
    let table = load(&lists(3)).unwrap();
    assert_eq!(
        table.row(0).unwrap().get("labels").unwrap().len(),
        3 * ((1 << 16) + 1) - 1
    );
    is_over_a_limit(&lists(1000), "bytes of one manifest cell");
}

#[test]
fn differences_of_text_are_read_and_damage_to_them_is_an_error() {
    let schema = "message m { required binary path (STRING); optional binary note (STRING); }";
    let names: Vec<String> = (0..700).map(|row| format!("folder/{row:04}.dcm")).collect();
    let paths: Vec<&str> = names.iter().map(String::as_str).collect();
    let levels: Vec<i16> = (0..700).map(|row| i16::from(row % 3 > 0)).collect();
    let notes = vec!["n"; levels.iter().filter(|&&level| level > 0).count()];
    for encoding in [
        Encoding::DELTA_BYTE_ARRAY,
        Encoding::DELTA_LENGTH_BYTE_ARRAY,
    ] {
        let columns: [(&[&str], &[i16], &[i16]); 2] = [(&paths, &[], &[]), (&notes, &levels, &[])];
        let bytes = file(parse_message_type(schema).unwrap(), encoding, &columns);
        let table = load(&bytes).unwrap();
        let read: Vec<&str> = table.rows().map(|row| row.path()).collect();
        assert_eq!(read, paths, "{encoding}");
        assert_eq!(table.row(1).unwrap().get("note"), Some("n"));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x84;
            let _ = load(&damaged);
        }
    }
}
