//! What is done with a whole lake.

use std::path::Path;

use m3ret_encoder::Model;
use m3ret_lake::{Added, Checked, LakeKey, LakeWriter, MaintainOptions, Maintained};
use m3ret_search::{Numbers, Setup};

use crate::galleries::maker_of;
use crate::model_name;
use crate::options::ModelChoice;
use crate::watch::Watch;

/// Makes an empty lake for vectors of a model. Its key is the one of a file, such as `key` of a gallery, or a new one; it is
/// kept in the folder of the user.
///
/// # Errors
/// `Gallery` if there is a lake; `Model` if the model cannot be opened; `Io`.
pub fn create(
    lake: &Path,
    model: &ModelChoice,
    numbers: Numbers,
    key: Option<&Path>,
    watch: &dyn Watch,
) -> crate::Result<()> {
    let model = model_name::open(model, watch)?;
    let key = match key {
        Some(path) => m3ret_lake::keep(&LakeKey::of_file(path)?)?,
        None => LakeKey::draw()?,
    };
    LakeWriter::create(lake, &setup_of(&model, numbers), &key)?;
    Ok(())
}

fn setup_of(model: &Model, numbers: Numbers) -> Setup {
    Setup {
        maker: maker_of(model),
        width: model.width(),
        numbers,
    }
}

/// Adds all rows of a gallery to a lake, which is made with the gallery's key if it is not there.
///
/// # Errors
/// `Gallery` if the lake has another key or model, or holds an id already; `Io`.
pub fn import(gallery: &Path, lake: &Path, watch: &dyn Watch) -> crate::Result<Added> {
    Ok(m3ret_lake::import(gallery, lake, &|step| watch.step(step))?)
}

/// Writes all rows of a lake into a new gallery with the lake's key; returns how many.
///
/// # Errors
/// `Gallery` if something lies where the gallery is to be; `Io`.
pub fn export(lake: &Path, gallery: &Path, watch: &dyn Watch) -> crate::Result<usize> {
    Ok(m3ret_lake::export(lake, gallery, &|step| watch.step(step))?)
}

/// Joins small files, indexes new rows, measures searches, and removes old versions.
///
/// # Errors
/// `Gallery` if searches with the new index find less than before; `Io`.
pub fn maintain(
    lake: &Path,
    options: &MaintainOptions,
    watch: &dyn Watch,
) -> crate::Result<Maintained> {
    Ok(m3ret_lake::maintain(lake, options, &|step| {
        watch.step(step)
    })?)
}

/// Reads all rows of a lake and says what is wrong with it.
///
/// # Errors
/// `Gallery` if it cannot be opened; `Io`.
pub fn verify(lake: &Path) -> crate::Result<Checked> {
    Ok(m3ret_lake::verify(lake)?)
}
