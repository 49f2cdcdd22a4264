//! The objects of a zip archive, each a part of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Found, Skipped, find_in};
use crate::error::{Error, Result};
use crate::read::ReadOptions;
use crate::reason::Code;
use crate::store::Store;
use crate::zip::Zip;

/// The members of an archive that one object is read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Members {
    pub(super) zip: Arc<Zip>,
    /// In their order.
    pub(super) names: Vec<PathBuf>,
}

/// Finds every object of an archive.
///
/// A series is called `series=1`, any other object by the name of its member, unless the archive
/// holds nothing else. What is skipped is called by the path of the archive and its own name.
///
/// # Errors
/// As `Zip::open`.
pub(super) fn find(path: &Path, options: &ReadOptions) -> Result<Found> {
    let zip = Arc::new(Zip::open(path, &options.limits)?);
    let names: Vec<PathBuf> = zip.names().map(Path::to_owned).collect();
    if names.is_empty() {
        let found = "an archive without files";
        return Err(Error::refused("zip", Code::NoPixels, found, "an image"));
    }
    let mut found = find_in(Store::Zip(&zip), names, options);
    let is_only = found.objects.len() == 1;
    for object in &mut found.objects {
        let names = std::mem::replace(&mut object.files, vec![path.to_owned()]);
        let name = match names.as_slice() {
            [only] => only.to_string_lossy().into_owned(),
            _ => "series=1".to_owned(),
        };
        object.part = object.part.take().or((!is_only).then_some(name));
        object.path = path.to_owned();
        object.members = Some(Members {
            zip: Arc::clone(&zip),
            names,
        });
    }
    for Skipped { path: name, .. } in &mut found.skipped {
        *name = path.join(&*name);
    }
    Ok(found)
}
