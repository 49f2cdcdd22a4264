//! `.safetensors`: one tensor [n, width], with the metadata of `m3ret embed`.

use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

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
        vectors: Vectors { values, width },
        maker: maker_of(word),
        names,
    })
}
