//! Good Parquet files whose pages and description the input patches, with lengths that fit mostly.

#![no_main]

use std::path::Path;
use std::sync::{Arc, OnceLock};

use m3ret_fuzz::input::Input;
use m3ret_fuzz::patch;
use m3ret_manifest::Manifest;
use parquet::basic::{Compression, Encoding};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DoubleType, Int32Type};
use parquet::file::properties::{WriterProperties, WriterVersion};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

static GOOD: OnceLock<Vec<Vec<u8>>> = OnceLock::new();

const SCHEMA: &str = "message m {
    required binary path (STRING);
    optional binary modality (STRING);
    optional int32 age;
    optional double dose;
    optional boolean seen;
    optional group labels (LIST) { repeated group list { optional binary element (STRING); } }
}";

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let good = GOOD.get_or_init(all);
    let mut input = Input(bytes);
    let file = &good[input.below(good.len())];
    // Pages, then the description, its length and the magic.
    let tail = file.len() - 8;
    let n_description = file[tail..].first_chunk().map_or(0, |raw| u32::from_le_bytes(*raw)) as usize;
    let mut pages = file[..tail - n_description].to_vec();
    let mut description = file[tail - n_description..tail].to_vec();
    for _ in 0..input.byte() % 6 {
        match input.byte() % 8 {
            0 | 1 => patch::bytes(&mut description, &mut input),
            2 => patch::length(&mut description, &mut input),
            3 => patch::length(&mut pages, &mut input),
            4 => copy(&mut description, &mut input),
            5 => copy(&mut pages, &mut input),
            _ => patch::bytes(&mut pages, &mut input),
        }
    }
    let n_description = (description.len() as u32).to_le_bytes();
    let bytes = [&pages[..], &description, &n_description, b"PAR1"].concat();
    let limits = m3ret_fuzz::options().limits;
    let Ok(manifest) = Manifest::from_bytes(bytes, Path::new("folder"), &limits) else {
        return;
    };
    if let Ok(table) = manifest.load() {
        for row in table.rows() {
            assert_eq!(row.cells().count(), table.columns().len());
        }
    }
});

/// Copies some bytes to another place.
fn copy(content: &mut [u8], input: &mut Input<'_>) {
    let (from, to) = (input.below(content.len()), input.below(content.len()));
    let n = input.below(24).min(content.len() - from.max(to));
    content.copy_within(from..from + n, to);
}

/// Files of all layouts that the reader knows.
fn all() -> Vec<Vec<u8>> {
    let with = |encoding: Option<Encoding>, version, compression| {
        let mut properties = WriterProperties::builder()
            .set_writer_version(version)
            .set_compression(compression)
            .set_dictionary_enabled(encoding.is_none())
            .set_data_page_row_count_limit(8)
            .set_write_batch_size(4);
        if let Some(encoding) = encoding {
            properties = properties.set_column_encoding("path".into(), encoding);
        }
        file(properties.build()).expect("a Parquet file")
    };
    let (old, new) = (WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0);
    vec![
        with(None, old, Compression::UNCOMPRESSED),
        with(Some(Encoding::PLAIN), old, Compression::UNCOMPRESSED),
        with(None, new, Compression::UNCOMPRESSED),
        with(Some(Encoding::DELTA_BYTE_ARRAY), new, Compression::UNCOMPRESSED),
        with(Some(Encoding::DELTA_LENGTH_BYTE_ARRAY), new, Compression::UNCOMPRESSED),
        with(None, old, Compression::SNAPPY),
        with(None, new, Compression::ZSTD(Default::default())),
        with(None, new, Compression::GZIP(Default::default())),
        include_bytes!("../../testdata/manifest/types.parquet").to_vec(),
    ]
}

fn file(properties: WriterProperties) -> parquet::errors::Result<Vec<u8>> {
    const N: usize = 20;
    let schema = Arc::new(parse_message_type(SCHEMA)?);
    let mut bytes = Vec::new();
    let mut file = SerializedFileWriter::new(&mut bytes, schema, Arc::new(properties))?;
    let mut group = file.next_row_group()?;
    let texts = |n: usize, name: &str| -> Vec<ByteArray> {
        (0..n).map(|i| ByteArray::from(format!("{name}{}", i % 7).as_str())).collect()
    };
    let paths: Vec<ByteArray> = (0..N).map(|i| ByteArray::from(format!("a/{i}.dcm").as_str())).collect();
    // Every fourth cell is empty.
    let levels: Vec<i16> = (0..N).map(|i| i16::from(i % 4 != 3)).collect();
    let n = levels.iter().filter(|level| **level == 1).count();
    let numbers: Vec<i32> = (0..n as i32).map(|i| 3 * i).collect();
    let doses: Vec<f64> = numbers.iter().map(|i| f64::from(*i) / 4.0).collect();
    let seen: Vec<bool> = numbers.iter().map(|i| i % 2 == 0).collect();
    let repeats: Vec<i16> = (0..N).map(|i| (i % 2) as i16).collect();
    let mut idx = 0;
    while let Some(mut column) = group.next_column()? {
        match idx {
            0 => column.typed::<ByteArrayType>().write_batch(&paths, None, None)?,
            1 => column.typed::<ByteArrayType>().write_batch(&texts(n, "CT"), Some(&levels), None)?,
            2 => column.typed::<Int32Type>().write_batch(&numbers, Some(&levels), None)?,
            3 => column.typed::<DoubleType>().write_batch(&doses, Some(&levels), None)?,
            4 => column.typed::<BoolType>().write_batch(&seen, Some(&levels), None)?,
            _ => {
                // 20 rows of two labels each.
                let (levels, repeats) = ([3_i16; 2 * N], [&repeats[..], &repeats].concat());
                column.typed::<ByteArrayType>().write_batch(&texts(2 * N, "l"), Some(&levels), Some(&repeats))?
            }
        };
        column.close()?;
        idx += 1;
    }
    group.close()?;
    file.close()?;
    Ok(bytes)
}
