//! A gallery becomes a lake, and a lake a gallery.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use futures::TryStreamExt as _;
use lancedb::query::{ExecutableQuery as _, QueryBase as _, Select};
use m3ret_search::{
    Collection as _, Error, Gallery, Numbers, Result, RowId, Setup, View, Writer, normalize,
};

use crate::cells::Answer;
use crate::fields::{self, ID, VECTOR, VIEW};
use crate::keys::LakeKey;
use crate::lake::Lake;
use crate::place::io;
use crate::rows::Rows;
use crate::store::Patience;
use crate::writer::{Added, Brought, LakeWriter};

/// Numbers of vectors that lie in memory together.
const NUMBERS_TOGETHER: usize = 1 << 23;

/// Adds all rows of a gallery to a lake, which is made if it is not there, with the gallery's key. What was imported before
/// from the same state of the gallery is not imported again.
///
/// # Errors
/// As `Gallery::open` and `LakeWriter::add`; `Mismatch` if the lake has another key or encoder.
pub fn import(gallery: &Path, lake: &Path, step: &dyn Fn(&str)) -> Result<Added> {
    let opened = Arc::new(Gallery::open(gallery)?);
    let key = crate::keys::keep(&LakeKey::of_file(&gallery.join("key"))?)?;
    let setup = Setup {
        maker: opened.maker().clone(),
        width: opened.width(),
        numbers: opened.numbers(),
    };
    let mut writer = match LakeWriter::open(lake) {
        Err(Error::Unsupported { path, .. }) if path == *lake => {
            LakeWriter::create(lake, &setup, &key)?
        }
        opened => opened?,
    };
    writer.check(&setup, &key)?;
    step("importing");
    let rows: Vec<RowId> = opened.rows().collect();
    let n_together = (NUMBERS_TOGETHER / setup.width).max(1);
    let chunks: Vec<Vec<RowId>> = rows.chunks(n_together).map(<[RowId]>::to_vec).collect();
    let origin = format!("gallery {} {}", key.key.check(), opened.generation());
    let origins: Vec<String> = (0..chunks.len())
        .map(|number| format!("{origin} {number}"))
        .collect();
    let there = writer.origins(&origins)?;
    let columns: Vec<String> = opened.columns().into_iter().map(str::to_owned).collect();
    let attached: Vec<String> = opened
        .attachments()
        .into_iter()
        .map(str::to_owned)
        .collect();
    let wanted = origins
        .into_iter()
        .zip(chunks)
        .filter(|(origin, _)| !there.contains(origin));
    let wanted: Vec<_> = wanted.collect();
    if wanted.is_empty() {
        return Ok(Added::default());
    }
    let (names, kinds) = (columns.clone(), attached.clone());
    let pieces = wanted
        .into_iter()
        .map(move |(origin, rows)| -> Result<Brought> {
            Ok((origin, read(&opened, &rows, (&names, &kinds))?))
        });
    writer.add(&columns, &attached, pieces)
}

/// Reads rows of a gallery.
fn read(
    gallery: &Gallery,
    rows: &[RowId],
    (columns, attached): (&[String], &[String]),
) -> Result<Rows> {
    let mut read = Rows::default();
    let is_short = gallery.numbers() == Numbers::F16;
    let unit = |mut vector: Vec<f32>| -> Result<Vec<f32>> {
        if is_short {
            // 16 bits keep no unit length, which writers ask for.
            normalize(&mut vector)?;
        }
        Ok(vector)
    };
    for (number, &row) in (0..).zip(rows) {
        read.ids.push(gallery.id(row)?.to_owned());
        read.vectors.extend(unit(gallery.vector(row)?)?);
        for (name, vector) in gallery.view_vectors(row)? {
            let place = read.view_names.iter().position(|known| known == name);
            let place = place.unwrap_or_else(|| {
                read.view_names.push(name.to_owned());
                read.view_names.len() - 1
            });
            let name = u32::try_from(place).unwrap_or(u32::MAX);
            read.views.push(View { row: number, name });
            read.view_vectors.extend(unit(vector)?);
        }
    }
    for name in columns {
        let cells = rows
            .iter()
            .map(|&row| gallery.value(row, name).map(str::to_owned));
        read.columns
            .push((name.clone(), cells.collect::<Result<_>>()?));
    }
    for name in attached {
        let bytes = rows
            .iter()
            .map(|&row| gallery.attachment(row, name).map(<[u8]>::to_vec));
        read.attachments
            .push((name.clone(), bytes.collect::<Result<_>>()?));
    }
    Ok(read)
}

/// Writes all rows of a lake into a new gallery with the lake's key; returns how many.
///
/// # Errors
/// As `Lake::open` and `Writer::create`.
pub fn export(lake: &Path, gallery: &Path, step: &dyn Fn(&str)) -> Result<usize> {
    let lake = Lake::open(lake)?;
    let setup = Setup {
        maker: lake.maker().clone(),
        width: lake.width(),
        numbers: lake.numbers(),
    };
    let mut writer = Writer::create_with(gallery, setup, lake.key())?;
    step("exporting");
    let rows = lake.scan()?;
    let n_together = (NUMBERS_TOGETHER / lake.width()).max(1);
    for rows in rows.chunks(n_together) {
        let read = lake.read_all(rows)?;
        writer.add(read.batch())?;
    }
    step("measuring how to search");
    writer.compact()?;
    Ok(writer.gallery().len())
}

impl LakeWriter {
    /// Refuses rows of another encoder, width or key.
    ///
    /// # Errors
    /// `Mismatch`.
    pub fn check(&self, setup: &Setup, key: &LakeKey) -> Result<()> {
        let fault = |what: &str, expected: String, got: String| {
            Err(crate::place::mismatch(what, &expected, &got))
        };
        let (own, other) = (&self.meta.maker, &setup.maker);
        if own.fingerprint != other.fingerprint || self.meta.width != setup.width {
            let told = |model: &str, fingerprint: &str, width| {
                format!("{model} ({fingerprint}) of width {width}")
            };
            let wanted = told(&own.model, &own.fingerprint, self.meta.width);
            return fault(
                "encoder",
                wanted,
                told(&other.model, &other.fingerprint, setup.width),
            );
        }
        if self.meta.key_check != key.key.check() {
            let wanted = format!("the lake's, with check {}", self.meta.key_check);
            let got = format!(
                "{}, whose hashes of patients mean nothing here",
                key.key.check()
            );
            return fault("key", wanted, got);
        }
        Ok(())
    }
}

impl Lake {
    /// Reads everything of some rows.
    fn read_all(&self, rows: &[RowId]) -> Result<Rows> {
        let columns = self.columns();
        let ids = self.ids(rows)?.into_iter().map(|id| id.into_owned());
        let mut read = Rows {
            ids: ids.collect(),
            vectors: self.vectors(rows)?,
            ..Rows::default()
        };
        if self.numbers() == Numbers::F16 {
            for vector in read.vectors.chunks_exact_mut(self.width()) {
                normalize(vector)?;
            }
        }
        let mut cells: Vec<Vec<String>> = vec![Vec::with_capacity(rows.len()); columns.len()];
        for row in self.rows(rows, &columns)? {
            for (cells, cell) in cells.iter_mut().zip(row) {
                cells.push(cell.into_owned());
            }
        }
        let names = columns.into_iter().map(str::to_owned);
        read.columns = names.zip(cells).collect();
        for name in self.attachments() {
            let field = fields::field_of_attached(name)?;
            let bytes = self.read_rows(rows, std::slice::from_ref(&field), |answer, idx| {
                Ok(answer.bytes(&field)?.value(idx).to_vec())
            })?;
            read.attachments.push((name.clone(), bytes));
        }
        self.read_views(&mut read)?;
        Ok(read)
    }

    /// Reads the further vectors of rows whose ids are known.
    fn read_views(&self, read: &mut Rows) -> Result<()> {
        if self.views().is_empty() {
            return Ok(());
        }
        read.view_names = self.views().into_iter().map(str::to_owned).collect();
        let numbers: std::collections::HashMap<&str, u32> =
            read.ids.iter().map(String::as_str).zip(0..).collect();
        let asked = async {
            let mut found = BTreeSet::new();
            let mut vectors = Vec::new();
            let query = self
                .table
                .query()
                .only_if(crate::sql::is_among(VIEW, [""], true));
            let query = query.select(Select::columns(&[ID, VIEW, VECTOR]));
            let mut stream = query.execute().await.map_err(io("reading", self.path()))?;
            while let Some(batch) = stream
                .try_next()
                .await
                .map_err(io("reading", self.path()))?
            {
                let answer = Answer::new(&batch, self.path());
                let (ids, views) = (answer.texts(ID)?, answer.texts(VIEW)?);
                for idx in 0..answer.len() {
                    let name = self.views().binary_search(&views.value(idx));
                    if let (Some(&row), Ok(name)) = (numbers.get(ids.value(idx)), name) {
                        let name = u32::try_from(name).unwrap_or(u32::MAX);
                        found.insert((row, name, vectors.len()));
                        vectors.push(answer.vector(idx)?);
                    }
                }
            }
            Ok((found, vectors))
        };
        let (found, mut vectors) = self.wait(Patience::Scan, "reading", asked)?;
        for (row, name, place) in found {
            let mut vector = std::mem::take(&mut vectors[place]);
            if self.numbers() == Numbers::F16 {
                normalize(&mut vector)?;
            }
            read.views.push(View { row, name });
            read.view_vectors.extend(vector);
        }
        Ok(())
    }
}
