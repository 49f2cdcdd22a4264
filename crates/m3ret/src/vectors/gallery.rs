//! A gallery of images: the vector of each, and the further ones of volumes.

use std::path::Path;

use m3ret_manifest::text_of;
use m3ret_search::Gallery;

use super::{NamedBy, Names, VectorFile, Vectors, place_of};
use crate::galleries::columns::PART;
use crate::galleries::{RowCells, stored_parts};

/// Reads all vectors; projections come with them, slices do not.
pub(super) fn read(path: &Path) -> anyhow::Result<VectorFile> {
    let gallery = Gallery::open(path)?;
    let width = gallery.width();
    let mut file = VectorFile::bare(Vectors {
        values: Vec::with_capacity(gallery.len() * width),
        width,
    });
    let rows: Vec<_> = gallery.rows().collect();
    let mut names = Vec::with_capacity(rows.len());
    for (place, (&row, cells)) in rows
        .iter()
        .zip(RowCells::of_rows(&gallery, &rows)?)
        .enumerate()
    {
        let parts = stored_parts(&gallery, row)?;
        file.vectors.values.extend(parts.vector);
        let further = parts.views.into_iter();
        let further = further.filter(|(view, _)| !m3ret_search::names::is_slice(view));
        file.further
            .extend(further.map(|(_, vector)| (place, vector)));
        let file = text_of(&place_of(&cells.file()));
        names.push((place, (file, cells.get(PART).to_owned())));
    }
    file.maker = Some(gallery.maker().clone());
    file.lacks_refused = true;
    file.names = Names::Images {
        names,
        named_by: NamedBy::File,
    };
    Ok(file)
}
