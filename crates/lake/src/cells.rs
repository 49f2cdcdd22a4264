//! Rows as record batches of the table, and back.

use std::path::Path;
use std::sync::Arc;

use half::f16;
use lancedb::arrow::arrow_array::types::{Float16Type, Float32Type};
use lancedb::arrow::arrow_array::{
    Array, ArrayRef, BinaryArray, FixedSizeListArray, Float16Array, Float32Array, PrimitiveArray,
    RecordBatch, StringArray, UInt64Array,
};
use lancedb::arrow::arrow_schema::{DataType, Schema};
use m3ret_search::{Error, Result};

use crate::fields::{self, COMMIT, ID, ORIGIN, ROW, VECTOR, VIEW};
use crate::place::io;
use crate::rows::Rows;

/// Makes a record batch of rows: each row's own vector, and then all further vectors with the cells of their rows. A column
/// that the rows lack is empty.
pub(crate) fn to_batch(
    rows: &Rows,
    schema: &Arc<Schema>,
    (commit, origin): (&str, &str),
    path: &Path,
) -> Result<RecordBatch> {
    let own = 0..u32::try_from(rows.ids.len()).unwrap_or(u32::MAX);
    // The row of each vector, and the view that it is of.
    let of: Vec<(usize, &str)> = own
        .map(|row| (row as usize, ""))
        .chain(rows.views.iter().map(|view| {
            let name = rows.view_names.get(view.name as usize);
            (view.row as usize, name.map_or("", String::as_str))
        }))
        .collect();
    let arrays = schema.fields().iter().map(|field| -> Result<ArrayRef> {
        Ok(match field.name().as_str() {
            ID => texts(of.iter().map(|(row, _)| rows.ids[*row].as_str())),
            VIEW => texts(of.iter().map(|(_, view)| *view)),
            COMMIT => texts(of.iter().map(|_| commit)),
            ORIGIN => texts(of.iter().map(|_| origin)),
            VECTOR => vectors(rows, field.data_type(), path)?,
            name => match fields::attached_of(name) {
                Some(name) => {
                    let attached = rows.attachments.iter().find(|(other, _)| *other == name);
                    let bytes = of.iter().map(|(row, view)| match attached {
                        Some((_, bytes)) if view.is_empty() => bytes[*row].as_slice(),
                        _ => &[],
                    });
                    Arc::new(BinaryArray::from_iter_values(bytes))
                }
                None => {
                    let column = fields::column_of(name).unwrap_or_default();
                    let cells = rows.columns.iter().find(|(other, _)| *other == column);
                    texts(
                        of.iter()
                            .map(|(row, _)| cells.map_or("", |(_, cells)| cells[*row].as_str())),
                    )
                }
            },
        })
    });
    let arrays: Vec<ArrayRef> = arrays.collect::<Result<_>>()?;
    RecordBatch::try_new(Arc::clone(schema), arrays).map_err(io("arranging rows for", path))
}

fn texts<'a>(texts: impl Iterator<Item = &'a str>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(texts))
}

fn vectors(rows: &Rows, of: &DataType, path: &Path) -> Result<ArrayRef> {
    let DataType::FixedSizeList(item, width) = of else {
        return Err(damaged(path, "vectors of another type"));
    };
    let values = rows.vectors.iter().chain(&rows.view_vectors).copied();
    let values: ArrayRef = match item.data_type() {
        DataType::Float16 => Arc::new(PrimitiveArray::<Float16Type>::from_iter_values(
            values.map(f16::from_f32),
        )),
        _ => Arc::new(PrimitiveArray::<Float32Type>::from_iter_values(values)),
    };
    let list = FixedSizeListArray::try_new(Arc::clone(item), *width, values, None);
    Ok(Arc::new(list.map_err(io("arranging vectors for", path))?))
}

/// The columns of an answer of the table.
pub(crate) struct Answer<'a> {
    batch: &'a RecordBatch,
    path: &'a Path,
}

impl<'a> Answer<'a> {
    pub(crate) fn new(batch: &'a RecordBatch, path: &'a Path) -> Self {
        Self { batch, path }
    }

    pub(crate) fn len(&self) -> usize {
        self.batch.num_rows()
    }

    fn column<T: Array + 'static>(&self, field: &str) -> Result<&'a T> {
        let column = self.batch.column_by_name(field);
        let column = column.and_then(|column| column.as_any().downcast_ref::<T>());
        column.ok_or_else(|| {
            damaged(
                self.path,
                &format!("no field {field} of the type that was written"),
            )
        })
    }

    pub(crate) fn texts(&self, field: &str) -> Result<&'a StringArray> {
        self.column(field)
    }

    pub(crate) fn bytes(&self, field: &str) -> Result<&'a BinaryArray> {
        self.column(field)
    }

    /// Returns the addresses of the rows.
    pub(crate) fn addresses(&self) -> Result<&'a [u64]> {
        Ok(self.column::<UInt64Array>(ROW)?.values())
    }

    /// Returns all vectors, [rows, width].
    pub(crate) fn vectors(&self) -> Result<Vec<f32>> {
        self.vectors_in(0..self.len())
    }

    /// Returns the vector of a row.
    pub(crate) fn vector(&self, row: usize) -> Result<Vec<f32>> {
        self.vectors_in(row..row + 1)
    }

    fn vectors_in(&self, rows: std::ops::Range<usize>) -> Result<Vec<f32>> {
        let list: &FixedSizeListArray = self.column(VECTOR)?;
        let width = usize::try_from(list.value_length()).unwrap_or(0);
        let start = usize::try_from(list.value_offset(rows.start)).unwrap_or(0);
        let end = start + rows.len() * width;
        let values = list.values();
        if let Some(values) = values.as_any().downcast_ref::<Float32Array>() {
            return Ok(values.values()[start..end].to_vec());
        }
        let Some(values) = values.as_any().downcast_ref::<Float16Array>() else {
            return Err(damaged(self.path, "vectors of another type"));
        };
        Ok(values.values()[start..end]
            .iter()
            .map(|x| x.to_f32())
            .collect())
    }
}

pub(crate) fn damaged(path: &Path, found: &str) -> Error {
    Error::Damaged {
        path: path.to_owned(),
        found: found.to_owned(),
        advice: "restore it from an older version of the object, or make the lake again of its parts; `m3ret lake verify` reads all rows",
    }
}
