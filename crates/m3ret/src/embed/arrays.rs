//! Writes vectors as one array: numpy's `.npy` and safetensors.

use std::io::Write;

use anyhow::Context as _;
use serde_json::{Map, Value, json};

use super::EmbedResult;
use crate::vectors::npy_header;

/// Longest header that readers of safetensors accept.
const MAX_HEADER_BYTES: usize = 100_000_000;

/// Writes f32 [n, width]; a row without a vector is NaN.
pub(super) fn write_npy(
    out: &mut impl Write,
    result: &EmbedResult<'_>,
    vectors: impl Iterator<Item = anyhow::Result<Option<Vec<f32>>>>,
) -> anyhow::Result<()> {
    let (n_rows, width) = (result.rows.len(), result.width);
    out.write_all(&npy_header(n_rows, width)?)?;
    write_vectors(out, width, vectors)
}

/// Writes the tensor `embeddings`, f32 [n, width], with metadata.
///
/// Metadata: `model`, `fingerprint`, `precision`, and `rows`, a JSON list of `{"path", "part"}` and,
/// where there is no vector, `"refused"`; `rows` is left out if the header would be too long for
/// readers.
pub(super) fn write_safetensors(
    out: &mut impl Write,
    result: &EmbedResult<'_>,
    vectors: impl Iterator<Item = anyhow::Result<Option<Vec<f32>>>>,
) -> anyhow::Result<()> {
    let mut metadata: Map<String, Value> = result
        .metadata()
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect();
    let rows: Vec<Value> = result.rows.iter().map(|row| json_row(row)).collect();
    let rows = serde_json::to_string(&rows)?;
    // Quotes inside of quotes are escaped: at most twice as long.
    if rows.len() < MAX_HEADER_BYTES / 2 - (1 << 16) {
        metadata.insert("rows".to_owned(), rows.into());
    }
    let n_bytes = result
        .rows
        .len()
        .checked_mul(4 * result.width)
        .context("more bytes than fit a file")?;
    let header = json!({
        "__metadata__": metadata,
        "embeddings": {
            "dtype": "F32",
            "shape": [result.rows.len(), result.width],
            "data_offsets": [0, n_bytes],
        },
    });
    let mut header = serde_json::to_vec(&header)?;
    // Numbers begin at a multiple of 8.
    header.resize(header.len().next_multiple_of(8), b' ');
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    write_vectors(out, result.width, vectors)
}

fn json_row(row: &super::PlacedRow<'_>) -> Value {
    let mut object = Map::new();
    object.insert("path".to_owned(), row.path.into());
    if let Some(part) = &row.row.facts.part {
        object.insert("part".to_owned(), part.as_str().into());
    }
    if let Err(refusal) = &row.row.place {
        object.insert("refused".to_owned(), refusal.code.as_str().into());
    }
    object.into()
}

fn write_vectors(
    out: &mut impl Write,
    width: usize,
    vectors: impl Iterator<Item = anyhow::Result<Option<Vec<f32>>>>,
) -> anyhow::Result<()> {
    let mut bytes = Vec::with_capacity(4 * width);
    for vector in vectors {
        let vector = vector?.unwrap_or_else(|| vec![f32::NAN; width]);
        bytes.clear();
        bytes.extend(vector.iter().flat_map(|value| value.to_le_bytes()));
        out.write_all(&bytes)?;
    }
    Ok(())
}
