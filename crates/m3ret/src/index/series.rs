//! Adds DICOM series that lie on disk for a while: their rows stay, their files do not.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use m3ret_encoder::Model;
use m3ret_imaging::Code;
use m3ret_manifest::columns::SOURCE;
use m3ret_search::{Gallery, Numbers, RowId, Setup, Writer};

use crate::embed::Outputs;
use crate::embed::ahead::AheadOptions;
use crate::embed::items::{Content, Item, list};
use crate::embed::work::{Embedded, embed_each};
use crate::error::ensure;
use crate::galleries::{
    self, PendingRows, RowParts, Stored, columns, digest_of_cells, is_of_erased, maker_of,
    with_part,
};
use crate::model_name;
use crate::options::{FolderChoice, ModelChoice, Reading, VolumeViews};
use crate::sealed::SealKey;
use crate::watch::{Stopped, Watch};

/// A DICOM series in a folder of its own. Its files are named so that equal objects have equal names.
#[derive(Clone)]
pub struct SeriesFolder {
    /// The folder.
    pub folder: PathBuf,
    /// Begin of the ids of its images; a keyed hash of the series.
    pub name: String,
    /// Number of its objects.
    pub n_objects: usize,
    /// `StudyInstanceUID`; it reaches the gallery only as a keyed hash, and sealed.
    pub study_uid: String,
    /// `SeriesInstanceUID`; as `study_uid`.
    pub series_uid: String,
}

impl fmt::Debug for SeriesFolder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SeriesFolder({})", self.name)
    }
}

/// How series become rows.
#[derive(Debug, Clone)]
pub struct SeriesOptions {
    /// The gallery; it is made if it is not there.
    pub gallery: PathBuf,
    /// What the series come from, as a keyed hash: rows are found by it again.
    pub origin: String,
    /// The model of a new gallery; of an older one, the one that made it.
    pub model: ModelChoice,
    /// How images are read.
    pub reading: Reading,
    /// Whether a small picture of each image is stored.
    pub has_thumbnails: bool,
    /// Of which pictures volumes have further vectors; `None` for those that the gallery has.
    pub views: Option<VolumeViews>,
    /// Number format of a new gallery.
    pub numbers: Numbers,
}

/// What became of series.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct SeriesSummary {
    /// Number of new rows.
    pub n_rows: usize,
    /// Number of rows that these replaced.
    pub n_replaced: usize,
    /// Names of series without a row.
    pub without_images: Vec<String>,
    /// Number of refused images by reason code.
    pub refused: BTreeMap<String, usize>,
}

/// Columns of rows whose files are gone.
const ORIGIN: &str = "m3ret:origin";
const NAME: &str = "m3ret:origin_series";
const N_OBJECTS: &str = "m3ret:origin_objects";
/// Study and series, sealed (docs/hospital.md).
pub const UID_SEALED: &str = "uid_sealed";

/// Value of `source` of rows that came over the network.
const NETWORK: &str = "pacs";
/// Time between two attempts to lock the gallery.
const PATIENCE: Duration = Duration::from_millis(250);

/// Returns where objects wait that others send: beside the gallery, which is copied and shared while they are not.
#[must_use]
pub fn received_beside(gallery: &Path) -> PathBuf {
    gallery.with_extension("received")
}

/// Returns where objects wait that are fetched: beside the gallery, too.
#[must_use]
pub fn spool_beside(gallery: &Path) -> PathBuf {
    gallery.with_extension("spool")
}

/// Returns one sealed cell of a gallery; `None` if it has none.
fn one_sealed(gallery: &Gallery) -> crate::Result<Option<String>> {
    for row in gallery.rows() {
        let sealed = gallery.value(row, UID_SEALED)?;
        if !sealed.is_empty() {
            return Ok(Some(sealed.to_owned()));
        }
    }
    Ok(None)
}

/// Refuses a key that does not open what the gallery holds: nobody could open all rows of such a gallery.
fn check_key(gallery: &Gallery, key: Option<&SealKey>) -> crate::Result<()> {
    let Some(key) = key else {
        return Ok(());
    };
    let sealed = one_sealed(gallery)?;
    ensure!(
        sealed.is_none_or(|sealed| key.unseal(&sealed).is_ok()),
        "{}: its identifiers were sealed with another key than that of --key-file; give the file of that key, or no \
         --key-file to store none",
        gallery.folder().display()
    );
    Ok(())
}

/// Opens the key file of galleries; makes it if neither it nor anything that another key has sealed is there.
///
/// # Errors
/// `Caller` if the file is not there and a gallery holds sealed identifiers, or as `SealKey::open`; `Gallery` if a
/// gallery is damaged.
pub fn key_of(galleries: &[PathBuf], file: &Path) -> crate::Result<SealKey> {
    if std::fs::symlink_metadata(file).is_ok() {
        return SealKey::open(file);
    }
    // A gallery that cannot be opened may still have to be made.
    let there = galleries
        .iter()
        .filter_map(|place| Gallery::open(place).ok());
    for gallery in there {
        ensure!(
            one_sealed(&gallery)?.is_none(),
            "--key-file {}: found no such file, and the identifiers of {} are sealed with a key; give the file of that key",
            file.display(),
            gallery.folder().display()
        );
    }
    SealKey::open_or_create(file)
}

/// A gallery that takes series, and the model that embeds them.
pub struct SeriesGallery {
    options: SeriesOptions,
    model: Arc<Model>,
    key: Option<SealKey>,
    gallery: Gallery,
}

impl SeriesGallery {
    /// Opens the gallery and its model, or makes the gallery.
    ///
    /// # Errors
    /// `Model` or `Gallery` if either cannot be opened, or another model made the gallery.
    pub fn open(
        options: SeriesOptions,
        key: Option<SealKey>,
        watch: &dyn Watch,
    ) -> crate::Result<Self> {
        let there = Gallery::open(&options.gallery);
        let is_there = std::fs::symlink_metadata(&options.gallery).is_ok()
            && !m3ret_search::is_begun(&options.gallery);
        let (model, gallery) = match there {
            Ok(gallery) => {
                let model = match &options.model.name {
                    Some(_) => model_name::open(&options.model, watch)?,
                    None => galleries::model_of(&gallery, &options.model, watch)?,
                };
                gallery.check_maker(&maker_of(&model))?;
                check_key(&gallery, key.as_ref())?;
                (model, gallery)
            }
            Err(error) if is_there => return Err(error.into()),
            Err(_) => {
                let model = model_name::open(&options.model, watch)?;
                let setup = Setup {
                    maker: maker_of(&model),
                    width: model.width(),
                    numbers: options.numbers,
                };
                drop(Writer::create(&options.gallery, setup)?);
                (model, Gallery::open(&options.gallery)?)
            }
        };
        Ok(Self {
            options,
            model: Arc::new(model),
            key,
            gallery,
        })
    }

    /// Opens a gallery that is there with its model, which is open already.
    ///
    /// # Errors
    /// `Gallery` if it cannot be opened, or another model made it.
    pub fn with_model(
        options: SeriesOptions,
        model: Arc<Model>,
        key: Option<SealKey>,
    ) -> crate::Result<Self> {
        let gallery = Gallery::open(&options.gallery)?;
        gallery.check_maker(&maker_of(&model))?;
        check_key(&gallery, key.as_ref())?;
        Ok(Self {
            options,
            model,
            key,
            gallery,
        })
    }

    /// Returns a secret of this gallery and purpose, from which names are derived.
    pub fn secret(&self, purpose: &str) -> String {
        self.gallery.pseudonym("m3ret:secret", purpose)
    }

    /// Says what the series come from, which may be named by a secret of this gallery.
    pub fn set_origin(&mut self, origin: &str) {
        origin.clone_into(&mut self.options.origin);
    }

    /// Opens the gallery in its newest state.
    fn refresh(&mut self) -> crate::Result<()> {
        self.gallery = Gallery::open(&self.options.gallery)?;
        Ok(())
    }

    /// Returns of how many objects a series was made; `None` if no row came from it.
    ///
    /// # Errors
    /// `Gallery` if it is damaged.
    pub fn n_objects(&self, name: &str) -> crate::Result<Option<usize>> {
        let rows = self.gallery.find_rows(NAME, name)?;
        let counts = rows.iter().map(|row| {
            let count = self.gallery.value(*row, N_OBJECTS)?;
            Ok(count.parse().unwrap_or(0))
        });
        let counts: crate::Result<Vec<usize>> = counts.collect();
        Ok(counts?.into_iter().max())
    }

    /// Returns the names of all series that came from the origin.
    ///
    /// # Errors
    /// `Gallery` if it is damaged or gone.
    pub fn names(&mut self) -> crate::Result<HashSet<String>> {
        self.refresh()?;
        let mut names = HashSet::new();
        for row in self.gallery.find_rows(ORIGIN, &self.options.origin)? {
            names.insert(self.gallery.value(row, NAME)?.to_owned());
        }
        Ok(names)
    }

    /// Returns the ids of the images of a series.
    ///
    /// # Errors
    /// `Gallery` if it is damaged.
    pub fn ids(&self, name: &str) -> crate::Result<Vec<String>> {
        let rows = self.gallery.find_rows(NAME, name)?;
        let ids = rows
            .into_iter()
            .map(|row| Ok(self.gallery.id(row)?.to_owned()));
        ids.collect()
    }

    /// Embeds series and adds their images, in place of all rows of the same series. All of it is one change of the
    /// gallery, which survives a power cut when this returns; whatever is repeated gives equal rows.
    ///
    /// # Errors
    /// `Gallery` if it cannot be written; `Stopped` if the watcher stopped the work, in which case nothing was added.
    pub fn put(
        &mut self,
        series: &[SeriesFolder],
        watch: &dyn Watch,
    ) -> crate::Result<SeriesSummary> {
        // Another process may have erased a patient since.
        self.refresh()?;
        let mut summary = SeriesSummary::default();
        let mut batch = SeriesRows {
            of: self,
            pending: PendingRows::default(),
            ids: HashSet::new(),
        };
        let (items, owners) = listed(series, &batch.of.options.reading, &mut summary)?;
        let items: Vec<&Item> = items.iter().collect();
        let options = &batch.of.options;
        let views = options.views.unwrap_or_else(|| VolumeViews {
            slices: VolumeViews::among(batch.of.gallery.views()).slices,
            ..VolumeViews::default()
        });
        let reading = AheadOptions {
            options: &options.reading.options,
            n_readers: options.reading.n_readers,
            has_thumbnails: options.has_thumbnails,
            views,
            known: None,
        };
        let mut with_rows = HashSet::new();
        embed_each(&items, &self.model, reading, |done| {
            Stopped::check(watch, "interrupted; the series are added with the next run")?;
            let Some((idx, images)) = done else {
                return Ok(());
            };
            if let (Some(item), Some(owner)) = (items.get(idx), owners.get(idx))
                && let Some(series) = series.get(*owner)
                && batch.take(item, series, images, &mut summary.refused)?
            {
                with_rows.insert(series.name.clone());
            }
            Ok(())
        })?;
        summary.n_rows = batch.pending.len();
        let mut pending = batch.pending;
        summary.n_replaced = self.save(series, &mut pending, watch)?;
        let without = series.iter().map(|series| &series.name);
        let without = without.filter(|name| !with_rows.contains(*name));
        summary.without_images = without.cloned().collect();
        Ok(summary)
    }

    /// Writes rows in place of all earlier ones of the same series; returns the number of these.
    fn save(
        &mut self,
        series: &[SeriesFolder],
        pending: &mut PendingRows,
        watch: &dyn Watch,
    ) -> crate::Result<usize> {
        let mut writer = self.writer(watch)?;
        let mut removed = HashSet::new();
        for series in series {
            for row in writer.gallery().find_rows(NAME, &series.name)? {
                removed.insert(writer.gallery().id(row)?.to_owned());
            }
        }
        let removed: Vec<String> = removed.into_iter().collect();
        pending.save(&mut writer, &removed)?;
        if writer.is_calibration_old() {
            watch.step("measuring how to search");
            writer.compact()?;
        }
        drop(writer);
        self.refresh()?;
        Ok(removed.len())
    }

    /// Removes the rows of series; returns their number.
    ///
    /// # Errors
    /// As `put`.
    pub fn remove(&mut self, names: &HashSet<String>, watch: &dyn Watch) -> crate::Result<usize> {
        let mut writer = self.writer(watch)?;
        let mut ids = Vec::new();
        let rows: Vec<RowId> = writer.gallery().find_rows(ORIGIN, &self.options.origin)?;
        for row in rows {
            if names.contains(writer.gallery().value(row, NAME)?) {
                ids.push(writer.gallery().id(row)?.to_owned());
            }
        }
        writer.remove(&ids)?;
        drop(writer);
        self.refresh()?;
        Ok(ids.len())
    }

    /// Locks the gallery; while another process writes, it waits.
    fn writer(&self, watch: &dyn Watch) -> crate::Result<Writer> {
        let mut has_told = false;
        loop {
            match Writer::open(&self.options.gallery) {
                Err(m3ret_search::Error::Locked { .. }) => {
                    if !std::mem::replace(&mut has_told, true) {
                        watch.note("another process writes to the gallery; waiting for it");
                    }
                    Stopped::check(watch, "interrupted; the series are added with the next run")?;
                    std::thread::sleep(PATIENCE);
                }
                writer => {
                    let writer = writer?;
                    writer.gallery().check_maker(&maker_of(&self.model))?;
                    return Ok(writer);
                }
            }
        }
    }
}

/// Lists the objects of all series, each with the position of its series; counts what cannot be read at all.
fn listed(
    series: &[SeriesFolder],
    reading: &Reading,
    summary: &mut SeriesSummary,
) -> anyhow::Result<(Vec<Item>, Vec<usize>)> {
    let (mut items, mut owners) = (Vec::new(), Vec::new());
    for (owner, series) in series.iter().enumerate() {
        let choice = FolderChoice::every_file();
        let found = list(
            &series.folder,
            &Outputs::default(),
            &reading.options,
            &choice,
        );
        let found = found.with_context(|| format!("reading series {}", series.name))?;
        if found.n_foreign > 0 {
            *summary
                .refused
                .entry("not_an_image".to_owned())
                .or_default() += found.n_foreign;
        }
        owners.extend(std::iter::repeat_n(owner, found.items.len()));
        items.extend(found.items);
    }
    Ok((items, owners))
}

/// Rows of series on their way into the gallery.
struct SeriesRows<'a> {
    of: &'a SeriesGallery,
    pending: PendingRows,
    ids: HashSet<String>,
}

impl SeriesRows<'_> {
    /// Takes what became of an object; returns whether it has a row.
    fn take(
        &mut self,
        item: &Item,
        series: &SeriesFolder,
        images: Vec<Embedded>,
        refused: &mut BTreeMap<String, usize>,
    ) -> anyhow::Result<bool> {
        let mut has_row = false;
        let own = columns::own_names(&self.of.gallery);
        for (facts, outcome) in images {
            let vector = match outcome {
                Ok(vector) => vector,
                Err(refusal) => {
                    *refused.entry(refusal.code.to_string()).or_default() += 1;
                    continue;
                }
            };
            let stored = Stored::of(&facts, &self.of.gallery);
            let id = self.new_id(&object_id(item, series), facts.part.as_deref());
            let text = |name: &str, value: &str| (name.to_owned(), value.to_owned());
            let mut cells = stored.placed_nowhere(own);
            cells.push(text(
                columns::CELLS,
                &digest_of_cells(None, &self.of.gallery),
            ));
            cells.push(text(columns::STATED, ""));
            cells.push(text(SOURCE, NETWORK));
            cells.push(text(ORIGIN, &self.of.options.origin));
            cells.push(text(NAME, &series.name));
            cells.push(text(N_OBJECTS, &series.n_objects.to_string()));
            if let Some(key) = &self.of.key {
                cells.push((UID_SEALED.to_owned(), self.sealed(key, series)?));
            }
            cells.extend(stored.shown());
            if is_of_erased(&self.of.gallery, &cells) {
                *refused.entry(Code::Erased.to_string()).or_default() += 1;
                continue;
            }
            let parts = RowParts {
                vector,
                thumbnail: facts.traits.thumbnail,
                views: facts.traits.views,
            };
            self.pending.push(id, cells, parts);
            has_row = true;
        }
        Ok(has_row)
    }

    /// Seals study and series; equal ones are sealed alike, so that a repeated sync writes equal rows.
    fn sealed(&self, key: &SealKey, series: &SeriesFolder) -> anyhow::Result<String> {
        let uids = [series.study_uid.as_str(), series.series_uid.as_str()];
        let nonce = self.of.gallery.pseudonym(UID_SEALED, &uids.join("\n"));
        Ok(key.seal(uids, &nonce)?)
    }

    /// Makes an id that no other row of the batch has.
    fn new_id(&mut self, object: &str, part: Option<&str>) -> String {
        let id = with_part(object, part);
        let mut candidate = id.clone();
        for number in 2.. {
            if self.ids.insert(candidate.clone()) {
                break;
            }
            candidate = format!("{id}#{number}");
        }
        candidate
    }
}

/// Returns the id of an object: that of the series, and of a single file of several also the file's name.
fn object_id(item: &Item, series: &SeriesFolder) -> String {
    let file = match &item.content {
        Content::Object(object) if object.path.is_file() => object.path.file_stem(),
        Content::Object(_) | Content::Row { .. } | Content::Memory(_) => None,
        Content::Unreadable { .. } => Path::new(&item.path).file_stem(),
    };
    match file {
        Some(file) if series.n_objects > 1 => {
            format!("{}/{}", series.name, file.to_string_lossy())
        }
        _ => series.name.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::Quiet;

    /// Makes a folder with copies of files of the test data.
    fn series(folder: &Path, name: &str, files: &[&str]) -> SeriesFolder {
        let place = folder.join(name);
        std::fs::create_dir_all(&place).unwrap();
        for (idx, file) in files.iter().enumerate() {
            let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata");
            std::fs::copy(from.join(file), place.join(format!("{idx}.dcm"))).unwrap();
        }
        SeriesFolder {
            folder: place,
            name: name.to_owned(),
            n_objects: files.len(),
            study_uid: "1.2.840.1".to_owned(),
            series_uid: format!("1.2.840.2.{}", name.len()),
        }
    }

    fn open(folder: &Path, key: Option<SealKey>) -> SeriesGallery {
        let options = SeriesOptions {
            gallery: folder.join("g.m3i"),
            origin: "one".to_owned(),
            model: ModelChoice::named("pixels"),
            reading: Reading::default(),
            has_thumbnails: true,
            views: None,
            numbers: Numbers::F32,
        };
        SeriesGallery::open(options, key, &Quiet).unwrap()
    }

    #[test]
    fn series_become_rows_that_repeats_replace_and_uids_are_sealed() {
        let folder = tempfile::tempdir().unwrap();
        let key = SealKey::open_or_create(&folder.path().join("key")).unwrap();
        let mut gallery = open(folder.path(), Some(key.clone()));
        let one = series(folder.path(), "aa", &["dicom/rle_12_s_1.dcm"]);
        let two = ["dicom/jpeg_dct_8_3_420.dcm", "dicom/palette_8_little.dcm"];
        let two = series(folder.path(), "bbb", &two);
        let none = series(folder.path(), "cccc", &["README.md"]);
        let all = [one, two, none];
        let put = gallery.put(&all, &Quiet).unwrap();
        assert_eq!((put.n_rows, put.n_replaced), (3, 0));
        assert_eq!(put.without_images, ["cccc"]);
        assert_eq!(gallery.n_objects("bbb").unwrap(), Some(2));
        assert_eq!(gallery.n_objects("cccc").unwrap(), None);
        let cells = |gallery: &SeriesGallery| -> BTreeMap<String, Vec<String>> {
            let opened = &gallery.gallery;
            let of_row = |row| {
                let names = opened.columns().into_iter();
                let cells = names.map(|name| opened.value(row, name).unwrap().to_owned());
                (opened.id(row).unwrap().to_owned(), cells.collect())
            };
            opened.rows().map(of_row).collect()
        };
        let before = cells(&gallery);
        let ids: Vec<&str> = before.keys().map(String::as_str).collect();
        assert_eq!(ids, ["aa", "bbb/0", "bbb/1"]);
        assert!(!format!("{before:?}").contains("1.2.840"));
        let put = gallery.put(&all[..2], &Quiet).unwrap();
        assert_eq!((put.n_rows, put.n_replaced), (3, 3));
        assert_eq!(cells(&gallery), before);
        let row = gallery.gallery.find("aa").unwrap().unwrap();
        let sealed = gallery.gallery.value(row, UID_SEALED).unwrap();
        assert_eq!(key.unseal(sealed).unwrap(), ["1.2.840.1", "1.2.840.2.2"]);
        // What has no file is not gone.
        galleries::prune(&folder.path().join("g.m3i"), true).unwrap();
        let mut again = open(folder.path(), None);
        assert_eq!(again.names().unwrap().len(), 2);
        let gone = HashSet::from(["bbb".to_owned()]);
        assert_eq!(again.remove(&gone, &Quiet).unwrap(), 2);
        assert_eq!(again.names().unwrap(), HashSet::from(["aa".to_owned()]));
    }
}
