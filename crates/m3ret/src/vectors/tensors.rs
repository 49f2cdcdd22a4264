//! `.safetensors`: one tensor [n, width], with the metadata of `m3ret embed`.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use m3ret_search::Maker;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use serde_json::Value;

use super::{NamedBy, Names, VectorFile, Vectors, maker_of, npy};

/// The name of the tensor of vectors; any name is accepted if there is only one tensor.
const EMBEDDINGS: &str = "embeddings";

/// One image of the metadata `rows`.
#[derive(Debug, Deserialize)]
struct Row {
    path: String,
    #[serde(default)]
    part: String,
}

/// Longest header that is read to see what made the vectors.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// Returns what made the vectors of a file, if it says so.
pub(super) fn maker(path: &Path) -> Option<Maker> {
    let mut file = File::open(path).ok()?;
    let mut n_header = [0; 8];
    file.read_exact(&mut n_header).ok()?;
    let n_header = u64::from_le_bytes(n_header);
    let mut header = Vec::new();
    if n_header <= MAX_HEADER_BYTES {
        file.take(n_header).read_to_end(&mut header).ok()?;
    }
    let header: Value = serde_json::from_slice(&header).ok()?;
    let words = header.get("__metadata__")?;
    maker_of(|name| Some(words.get(name)?.as_str()?.to_owned()))
}

pub(super) fn read(path: &Path) -> anyhow::Result<VectorFile> {
    let bytes = std::fs::read(path)?;
    let (_, header) = SafeTensors::read_metadata(&bytes)?;
    let tensors = SafeTensors::deserialize(&bytes)?;
    let names = tensors.names();
    let name = match names[..] {
        [only] => only,
        _ => EMBEDDINGS,
    };
    let tensor = tensors.tensor(name).with_context(|| {
        format!(
            "found the tensors {}; one, or {EMBEDDINGS}, is wanted",
            names.join(", ")
        )
    })?;
    let &[n_rows, width] = tensor.shape() else {
        bail!(
            "found a tensor of shape {:?}; [rows, width] is wanted",
            tensor.shape()
        );
    };
    ensure!(width > 0, "found vectors of no number");
    let n_bytes = match tensor.dtype() {
        Dtype::F16 => 2,
        Dtype::F32 => 4,
        Dtype::F64 => 8,
        other => bail!("found numbers of type {other:?}; F16, F32 or F64 are wanted"),
    };
    let mut values = Vec::with_capacity(n_rows * width);
    npy::append(tensor.data(), n_bytes, &mut values);
    let word = |name: &str| header.metadata().as_ref()?.get(name).cloned();
    let names = match word("rows") {
        None => Names::None,
        Some(rows) => {
            let rows: Vec<Row> = serde_json::from_str(&rows)
                .context("the metadata `rows` is no list of {\"path\", \"part\"}")?;
            ensure!(
                rows.len() == n_rows,
                "found {n_rows} vectors, and names of {} images",
                rows.len()
            );
            Names::Images {
                names: rows
                    .into_iter()
                    .map(|row| (row.path, row.part))
                    .enumerate()
                    .collect(),
                named_by: NamedBy::Words,
            }
        }
    };
    Ok(VectorFile {
        further: Vec::new(),
        lacks_refused: false,
        vectors: Vectors { values, width },
        maker: maker_of(word),
        names,
    })
}
