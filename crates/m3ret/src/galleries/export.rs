//! Writes what a gallery holds for other programs: vectors as `.npy`, ids and columns as CSV beside it.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use m3ret_files::Finished;
use m3ret_manifest::columns::ID;
use m3ret_search::{Gallery, RowId};
use serde::Serialize;

use super::columns;
use crate::embed::remove_if_there;
use crate::error::ensure;
use crate::files::{Force, Inputs, Output, Replaces, write_beside};
use crate::vectors::{VECTOR, list_of, npy_header};

/// What `export` wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Exported {
    /// Number of vectors.
    pub n_items: usize,
    /// Number of values of a vector.
    pub width: usize,
    /// The vectors: f32 [n, width].
    pub vectors: PathBuf,
    /// The CSV file: `row`, the number of the vector, `id`, and every column that is no bookkeeping of m3ret's own.
    pub rows: PathBuf,
    /// Number of further vectors, such as those of projections. They are in `F.views.npy`, and `F.views.npy.rows.csv` says
    /// which `row` and `view` each is of; without any, neither file is written.
    pub n_views: usize,
}

/// Writes all vectors of a gallery to `out`, and their ids and columns to `out`.rows.csv, in ascending order of ids.
/// `m3ret index build --embeddings` reads both again.
///
/// # Errors
/// If the gallery cannot be opened or is damaged; if `out` does not end in `.npy`; if a file is there already and
/// `is_forced` is false, or cannot be written.
pub fn export(gallery: &Path, out: &Path, is_forced: bool) -> crate::Result<Exported> {
    let rows = list_of(out);
    let view_vectors = out.with_extension("views.npy");
    let view_rows = list_of(&view_vectors);
    ensure!(
        out.extension()
            .is_some_and(|end| end.eq_ignore_ascii_case("npy")),
        "{}: found another ending, wanted .npy",
        out.display()
    );
    let inputs = [gallery];
    let inputs = Inputs {
        named: &inputs,
        listed: &Vec::new,
    };
    for path in [out, &rows, &view_vectors, &view_rows] {
        let output = Output {
            path,
            replaces: Replaces::Nothing,
            force: Force::of(is_forced),
        };
        output.check_file(&inputs)?;
    }
    let opened = Gallery::open(gallery)?;
    let mut order = Vec::with_capacity(opened.len());
    for row in opened.rows() {
        order.push((opened.id(row)?, row));
    }
    order.sort_unstable();
    let own = order.iter().map(|(_, row)| Ok(opened.vector(*row)?));
    let mut parts = vec![
        write_rows(&rows, &opened, &order)?,
        write_vectors(out, [order.len(), opened.width()], own)?,
    ];
    let mut views = Vec::new();
    for (number, (_, row)) in order.iter().enumerate() {
        let of_row = opened.view_vectors(*row)?.into_iter();
        views.extend(of_row.map(|(name, vector)| (number, name, vector)));
    }
    if !views.is_empty() {
        let further = views.iter().map(|(.., vector)| Ok(vector.clone()));
        let shape = [views.len(), opened.width()];
        parts.push(write_vectors(&view_vectors, shape, further)?);
        parts.push(write_view_rows(&view_rows, &views)?);
    }
    // All parts are whole now. Old ones go first: vectors never lie beside the rows of others.
    for path in [out, &rows, &view_vectors, &view_rows] {
        remove_if_there(path)?;
    }
    for part in parts {
        part.put()?;
    }
    Ok(Exported {
        n_items: order.len(),
        width: opened.width(),
        vectors: out.to_owned(),
        rows,
        n_views: views.len(),
    })
}

/// Writes vectors as an array of f32, [n, width].
fn write_vectors(
    path: &Path,
    [n_rows, width]: [usize; 2],
    vectors: impl Iterator<Item = anyhow::Result<Vec<f32>>>,
) -> anyhow::Result<Finished> {
    write_beside(path, |file| {
        let mut file = BufWriter::new(file);
        file.write_all(&npy_header(n_rows, width)?)?;
        for vector in vectors {
            for value in vector? {
                file.write_all(&value.to_le_bytes())?;
            }
        }
        Ok(file.flush()?)
    })
}

/// Writes the number, id and cells of each row.
fn write_rows(path: &Path, gallery: &Gallery, order: &[(&str, RowId)]) -> anyhow::Result<Finished> {
    let mut names = gallery.columns();
    names.retain(|name| !name.starts_with(columns::OWN) && ![ID, VECTOR].contains(name));
    write_beside(path, |file| {
        let mut csv = csv::Writer::from_writer(file);
        csv.write_record([VECTOR, ID].iter().chain(&names))?;
        for (number, (id, row)) in order.iter().enumerate() {
            csv.write_field(number.to_string())?;
            csv.write_field(id)?;
            for name in &names {
                csv.write_field(gallery.value(*row, name)?)?;
            }
            csv.write_record(None::<&[u8]>)?;
        }
        csv.flush().context("writing ids and columns")
    })
}

/// A row's number, the name of its view, and the vector.
type ViewVector<'a> = (usize, &'a str, Vec<f32>);

/// Writes which row and view each further vector is of.
fn write_view_rows(path: &Path, views: &[ViewVector<'_>]) -> anyhow::Result<Finished> {
    write_beside(path, |file| {
        let mut csv = csv::Writer::from_writer(file);
        csv.write_record([VECTOR, "view"])?;
        for (number, name, _) in views {
            csv.write_record([&number.to_string(), *name])?;
        }
        Ok(csv.flush()?)
    })
}
