//! Prepares queries: files, series, ids of the gallery, vectors, and what is made of several of these.

mod examples;

use m3ret_manifest::{path_of, text_of};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use m3ret_imaging::Region;
use m3ret_manifest::Table;
use m3ret_manifest::columns::{BODY_PART, DIMS, FINDING, LABEL, MODALITY, SOURCE};
use m3ret_search::names::{FLAT, is_slice};
use m3ret_search::{AskedImage, Collection, RowId};

pub use self::examples::{Example, MAX_EXAMPLES, UNLIKE_WEIGHT};
use super::{Ask, Labels, RefusedQuery};
use crate::embed::ahead::AheadOptions;
use crate::embed::items::{Item, Listing, list};
use crate::embed::work::embed_each;
use crate::embed::{Facts, Outputs, Views};
use crate::files::way_between;
use crate::galleries::columns::{self, own_names};
use crate::galleries::{
    Archive, Pseudonym, Pseudonyms, RowCells, cells_of_manifest, is_same_place, maker_of, views_of,
};
use crate::images::{ImageSource, MemoryImage};
use crate::options::{FolderChoice, VolumeViews};
use crate::vectors::{self, VectorFile};
use crate::watch::{Stopped, Watch};

/// A query with its vector and what is known of its image.
#[derive(Debug, Default)]
pub(super) struct ReadyQuery {
    /// Path or id as it was given, or the number of the vector.
    pub(super) name: String,
    pub(super) part: Option<String>,
    /// Where the image lies; `None` for a vector.
    pub(super) file: Option<PathBuf>,
    /// The image, if it was given in memory.
    pub(super) image: Option<Arc<MemoryImage>>,
    pub(super) vector: Vec<f32>,
    /// Its further vectors, which are compared only where the gallery has some, too.
    pub(super) views: Views,
    /// The rows of the gallery that hold the same image: more than one where a manifest lists it more than once.
    pub(super) own: Vec<RowId>,
    pub(super) labels: Labels,
    pub(super) people: Pseudonyms,
    pub(super) pixels: String,
    /// Cells of the manifest that the query came from, by our names of columns.
    stated: Vec<(String, String)>,
    /// Whether it is made of several images or of a region of one: how often such searches agree was not measured.
    pub(super) is_composed: bool,
    /// The images that it is made of and that hits should be like, whose patients it has.
    pub(super) others: Vec<ReadyQuery>,
}

impl ReadyQuery {
    /// Adds what a manifest says of the query; it takes precedence over what the file says.
    fn learn(&mut self, table: &Table, row_idx: usize, gallery: &dyn Collection) {
        self.stated = cells_of_manifest(table, row_idx, gallery);
        self.stated.retain(|(_, value)| !value.is_empty());
        for (name, value) in &self.stated {
            let place = match name.as_str() {
                MODALITY => &mut self.labels.modality,
                BODY_PART => &mut self.labels.body_part,
                FINDING => &mut self.labels.finding,
                LABEL => &mut self.labels.label,
                DIMS => &mut self.labels.dims,
                SOURCE => &mut self.labels.source,
                columns::PATIENT => {
                    self.people.patient.stated.clone_from(value);
                    continue;
                }
                columns::STUDY => {
                    self.people.study.stated.clone_from(value);
                    continue;
                }
                columns::SERIES => {
                    self.people.series.stated.clone_from(value);
                    continue;
                }
                _ => continue,
            };
            *place = Some(value.clone());
        }
    }

    /// Returns whether its patient is known, or one of them.
    pub(super) fn has_patient(&self) -> bool {
        let own = self.people.patient != Pseudonym::default();
        own || self.others.iter().any(Self::has_patient)
    }

    /// Returns what is known of its image for the choice of the vectors that are compared.
    pub(super) fn asked(&self) -> AskedImage<'_> {
        AskedImage {
            modality: self.labels.modality.as_deref().unwrap_or_default(),
            is_flat: self.labels.dims.as_deref() == Some(FLAT),
        }
    }

    /// Returns the query's value in a column of the gallery; empty where it is not known.
    pub(super) fn value(&self, gallery: &dyn Collection, column: &str) -> anyhow::Result<String> {
        if let Some((_, value)) = self.stated.iter().find(|(name, _)| name == column) {
            return Ok(value.clone());
        }
        if let Some(&row) = self.own.first() {
            return Ok(gallery.value(row, column)?.into_owned());
        }
        let label = |label: &Option<String>| label.clone().unwrap_or_default();
        Ok(match column {
            columns::PATIENT => self.people.patient.shown().to_owned(),
            columns::STUDY => self.people.study.shown().to_owned(),
            columns::SERIES => self.people.series.shown().to_owned(),
            columns::OWN_PATIENT => self.people.patient.header.clone(),
            columns::OWN_ISSUED_PATIENT => self.people.patient.issued.clone(),
            columns::OWN_STUDY => self.people.study.header.clone(),
            columns::OWN_SERIES => self.people.series.header.clone(),
            column if column == own_names(gallery).pixels => self.pixels.clone(),
            MODALITY => label(&self.labels.modality),
            BODY_PART => label(&self.labels.body_part),
            DIMS => label(&self.labels.dims),
            _ => String::new(),
        })
    }
}

/// The queries of a search.
#[derive(Debug, Clone)]
pub enum Queries {
    /// Files, folders in which every image is a query, and ids of images of the gallery where no file lies.
    Images(Vec<PathBuf>),
    /// Images in memory, and files and folders.
    Sources(Vec<ImageSource>),
    /// Ids of images of the gallery. No file is opened for them, so they may come from a stranger.
    Ids(Vec<String>),
    /// Vectors that the model of the archive made.
    Vectors(VectorQueries),
    /// Such vectors in memory; they are scaled to length 1.
    Values(Vec<Vec<f32>>),
    /// One query of several images: the mean of their vectors, less `UNLIKE_WEIGHT` times the mean of others, scaled to
    /// length 1. Further views of the images, such as projections, do not take part.
    Examples {
        /// What hits should be like.
        like: Vec<Example>,
        /// What they should not be like.
        unlike: Vec<Example>,
    },
    /// A region of an image, which is embedded alone.
    Region {
        /// The image.
        of: Example,
        /// Its region.
        region: Region,
    },
}

impl Queries {
    /// Asks with the images of files and folders, and with ids of images of the gallery.
    pub fn images<P: Into<PathBuf>>(paths: impl IntoIterator<Item = P>) -> Self {
        Self::Images(paths.into_iter().map(Into::into).collect())
    }
}

/// A file of vectors that are queries.
#[derive(Debug, Clone)]
pub struct VectorQueries {
    /// `.npy`, `.safetensors` or `.parquet`, [queries, width].
    pub path: PathBuf,
    /// Name of the model that made the vectors; needed if the file does not state it.
    pub encoder: Option<String>,
    /// Whether vectors are scaled to unit length; without it, other lengths are an error.
    pub normalizes: bool,
}

/// Reads and embeds every query.
pub(super) fn all(
    queries: &Queries,
    ask: &Ask,
    archive: &Archive,
    watch: &dyn Watch,
) -> anyhow::Result<(Vec<ReadyQuery>, Vec<RefusedQuery>)> {
    let inputs: Vec<ImageSource> = match queries {
        Queries::Images(inputs) => inputs.iter().cloned().map(ImageSource::Path).collect(),
        Queries::Sources(inputs) => inputs.clone(),
        Queries::Ids(ids) => return of_ids(ids, archive.gallery.as_ref()),
        Queries::Vectors(file) => {
            check_anonymous(ask)?;
            return of_vectors(file, archive.gallery.as_ref());
        }
        Queries::Values(vectors) => {
            check_anonymous(ask)?;
            return of_values(vectors, archive.gallery.as_ref());
        }
        Queries::Examples { like, unlike } => {
            return examples::of_examples([like, unlike], ask, archive, watch);
        }
        Queries::Region { of, region } => {
            return examples::of_region(of, region, ask, archive, watch);
        }
    };
    let gallery = archive.gallery.as_ref();
    let roots = gallery.values(own_names(gallery).root)?;
    let mut reader = QueryReader {
        roots: roots.iter().map(|root| path_of(root)).collect(),
        ..QueryReader::default()
    };
    // Files cannot be asked with where the vectors were made elsewhere, so that a name is an id.
    let has_ids_first = archive.gallery.maker().fingerprint.starts_with("external:");
    for input in &inputs {
        let input = match input {
            ImageSource::Path(input) => input,
            ImageSource::Memory(image) => {
                archive.open_model(watch)?;
                reader.memory(image, archive, watch)?;
                continue;
            }
        };
        if has_ids_first && let Some(query) = of_id(input, archive.gallery.as_ref())? {
            reader.ready.push(query);
        } else if std::fs::symlink_metadata(input).is_ok() {
            archive.open_model(watch)?;
            reader.images(input, archive, watch)?;
        } else {
            match of_id(input, archive.gallery.as_ref())? {
                Some(query) => reader.ready.push(query),
                None => reader.refuse(
                    input,
                    "neither a file or folder nor the id of an image in the gallery".to_owned(),
                ),
            }
        }
    }
    Ok((reader.ready, reader.refused))
}

/// Refuses exclusions for queries of which nothing but a vector is known.
fn check_anonymous(ask: &Ask) -> anyhow::Result<()> {
    ensure!(
        ask.exclude.is_empty(),
        "--exclude needs to know whose image a query is, and vectors do not say so"
    );
    Ok(())
}

/// Builds queries from rows' stored vectors.
fn of_ids(
    ids: &[String],
    gallery: &dyn Collection,
) -> anyhow::Result<(Vec<ReadyQuery>, Vec<RefusedQuery>)> {
    let (mut ready, mut refused) = (Vec::new(), Vec::new());
    for id in ids {
        match of_id(Path::new(id), gallery)? {
            Some(query) => ready.push(query),
            None => refused.push(RefusedQuery {
                path: PathBuf::from(id),
                message: "no image of the gallery has this id".to_owned(),
            }),
        }
    }
    Ok((ready, refused))
}

fn of_values(
    vectors: &[Vec<f32>],
    gallery: &dyn Collection,
) -> anyhow::Result<(Vec<ReadyQuery>, Vec<RefusedQuery>)> {
    let ready = vectors.iter().enumerate().map(|(row, vector)| {
        ensure!(
            vector.len() == gallery.width(),
            "the vector of row {row} (from 0) holds {} numbers, and those of the gallery {}",
            vector.len(),
            gallery.width()
        );
        let mut vector = vector.clone();
        m3ret_search::normalize(&mut vector).with_context(|| format!("row {row} (from 0)"))?;
        Ok(ReadyQuery {
            name: format!("row {row}"),
            vector,
            ..ReadyQuery::default()
        })
    });
    Ok((ready.collect::<anyhow::Result<_>>()?, Vec::new()))
}

fn of_vectors(
    file: &VectorQueries,
    gallery: &dyn Collection,
) -> anyhow::Result<(Vec<ReadyQuery>, Vec<RefusedQuery>)> {
    let path = &file.path;
    let VectorFile {
        vectors: mut read,
        maker,
        ..
    } = vectors::read(path)?;
    ensure!(
        read.width == gallery.width(),
        "{} holds vectors of {} numbers, and the gallery of {}",
        path.display(),
        read.width,
        gallery.width()
    );
    if let Some(maker) = &maker {
        gallery
            .check_maker(maker)
            .with_context(|| path.display().to_string())?;
    } else {
        let maker = gallery.maker();
        let encoder = file.encoder.as_ref();
        let encoder = encoder.ok_or_else(|| vectors::unnamed(path, Some(maker)))?;
        ensure!(
            *encoder == maker.model,
            "--encoder {encoder}: the gallery's vectors were made by {}",
            maker.model
        );
    }
    let (mut ready, mut refused) = (Vec::new(), Vec::new());
    for (row, vector) in read.values.chunks_exact_mut(read.width).enumerate() {
        if vector.iter().any(|x| !x.is_finite()) {
            // As `embed` writes it for an image that it could not read.
            refused.push(RefusedQuery {
                path: PathBuf::from(format!("row {row}")),
                message: "the vector holds numbers that are not finite".to_owned(),
            });
            continue;
        }
        if file.normalizes {
            m3ret_search::normalize(vector).with_context(|| format!("row {row} (from 0)"))?;
        }
        ensure!(
            m3ret_search::check_unit(vector, read.width).is_ok(),
            "{}: the vector of row {row} (from 0) does not have length 1; --normalize scales it",
            path.display()
        );
        ready.push(ReadyQuery {
            name: format!("row {row}"),
            vector: vector.to_vec(),
            ..ReadyQuery::default()
        });
    }
    Ok((ready, refused))
}

/// Builds a query from a row's stored vector; `None` if no row has this id.
fn of_id(input: &Path, gallery: &dyn Collection) -> anyhow::Result<Option<ReadyQuery>> {
    // An id is given as it is shown, whose escapes must not be escaped again.
    let shown = input.to_str().unwrap_or_default();
    let (id, row) = match gallery.find(shown)? {
        Some(row) => (shown.to_owned(), row),
        None => {
            let id = text_of(input);
            match gallery.find(&id)? {
                Some(row) => (id, row),
                None => return Ok(None),
            }
        }
    };
    let mut vector = gallery.vectors(&[row])?;
    m3ret_search::normalize(&mut vector)?;
    let cells = RowCells::of_row(gallery, row)?;
    let own = rows_at(row, &cells, gallery)?;
    let mut views = views_of(gallery, row)?;
    views.retain(|(name, _)| !is_slice(name));
    Ok(Some(ReadyQuery {
        name: id,
        part: cells.part().map(str::to_owned),
        file: Some(cells.file()),
        image: None,
        vector,
        views,
        own,
        labels: Labels::of(&cells),
        people: Pseudonyms::of(&cells),
        pixels: cells.pixels().to_owned(),
        ..ReadyQuery::default()
    }))
}

/// A file, a folder or an image in memory, and what is listed of it.
struct ListedQuery<'a> {
    /// The file or folder, or the name of the image.
    input: &'a Path,
    /// The image, if it is in memory.
    image: Option<&'a Arc<MemoryImage>>,
    listing: Listing,
}

/// Queries while they are read.
#[derive(Default)]
struct QueryReader {
    ready: Vec<ReadyQuery>,
    refused: Vec<RefusedQuery>,
    /// The folders that paths of the archive are relative to.
    roots: Vec<PathBuf>,
}

impl QueryReader {
    fn refuse(&mut self, path: &Path, message: String) {
        let path = path.to_owned();
        self.refused.push(RefusedQuery { path, message });
    }

    /// Reads and embeds the images of a file or folder.
    fn images(&mut self, input: &Path, archive: &Archive, watch: &dyn Watch) -> anyhow::Result<()> {
        let listing = list(
            input,
            &Outputs::default(),
            &archive.reading.options,
            &FolderChoice::every_file(),
        );
        match listing {
            Ok(listing) => {
                let query = ListedQuery {
                    input,
                    image: None,
                    listing,
                };
                self.listed(&query, archive, watch)
            }
            // A query that cannot be read is refused and ends no other query.
            Err(error) => {
                self.refuse(input, format!("{error:#}"));
                Ok(())
            }
        }
    }

    /// Embeds an image in memory.
    fn memory(
        &mut self,
        image: &Arc<MemoryImage>,
        archive: &Archive,
        watch: &dyn Watch,
    ) -> anyhow::Result<()> {
        let query = ListedQuery {
            input: Path::new(&image.name),
            image: Some(image),
            listing: Listing::of_memory(Arc::clone(image)),
        };
        self.listed(&query, archive, watch)
    }

    /// Embeds what is listed of a query.
    fn listed(
        &mut self,
        query: &ListedQuery<'_>,
        archive: &Archive,
        watch: &dyn Watch,
    ) -> anyhow::Result<()> {
        let ListedQuery {
            input,
            image,
            listing,
        } = query;
        let model = archive
            .model()
            .context("a model is needed to embed queries")?;
        let gallery = archive.gallery.as_ref();
        gallery.check_maker(&maker_of(model))?;
        let items: Vec<&Item> = listing.items.iter().collect();
        let n_before = self.ready.len() + self.refused.len();
        let ahead = AheadOptions {
            options: &archive.reading.options,
            n_readers: archive.reading.n_readers,
            has_thumbnails: false,
            views: VolumeViews::of_queries(gallery.views()),
            known: None,
        };
        embed_each(&items, model, ahead, |done| {
            Stopped::check(watch, "interrupted; nothing was searched")?;
            let Some((idx, images)) = done else {
                return Ok(());
            };
            let path = path_of(&items[idx].path);
            let path = match (&listing.table, input.parent()) {
                (Some(_), Some(folder)) => folder.join(path),
                _ => path,
            };
            // An image in memory is that of its file, if it has one.
            let file = image.map_or(Some(&path), |image| image.file.as_ref());
            for (facts, outcome) in images {
                match outcome {
                    Ok(vector) => {
                        let part = facts.part.clone();
                        let rows =
                            |file: &PathBuf| rows_of(file, part.as_deref(), gallery, &self.roots);
                        let own = file.map_or(Ok(Vec::new()), rows)?;
                        let mut query = of_image(&path, facts, vector, gallery, own)?;
                        query.file = file.cloned();
                        query.image = image.cloned();
                        if let Some(table) = &listing.table {
                            query.learn(table, idx, gallery);
                        }
                        self.ready.push(query);
                    }
                    Err(refusal) => self.refuse(&path, refusal.message),
                }
            }
            Ok(())
        })?;
        if self.ready.len() + self.refused.len() == n_before {
            self.refuse(input, "no image was found there".to_owned());
        }
        Ok(())
    }
}

fn of_image(
    path: &Path,
    facts: Facts,
    vector: Vec<f32>,
    gallery: &dyn Collection,
    own: Vec<RowId>,
) -> anyhow::Result<ReadyQuery> {
    let people = Pseudonyms::of_facts(&facts, gallery);
    let pixels = format!("{:032x}", facts.traits.pixels);
    let views = facts.traits.views;
    let mut labels = Labels {
        modality: facts.modality,
        body_part: facts
            .body_part
            .map(|part| part.to_ascii_lowercase().replace(' ', "-")),
        dims: facts.dims,
        ..Labels::default()
    };
    let mut asked = ReadyQuery {
        name: text_of(path),
        part: facts.part,
        file: None,
        image: None,
        vector,
        views,
        own,
        people,
        pixels,
        ..ReadyQuery::default()
    };
    if let Some(&row) = asked.own.first() {
        // The archive may hold labels of a manifest that the file lacks.
        let cells = RowCells::of_row(gallery, row)?;
        labels = Labels::of(&cells);
        asked.people = Pseudonyms::of(&cells);
    }
    Ok(ReadyQuery { labels, ..asked })
}

/// Finds the rows that stand for an image of a file.
///
/// Searches the dictionary of paths for every name that the archive may use for the file: its path below each folder
/// of `roots`, to which the archive's paths are relative. No row with another path is read.
fn rows_of(
    path: &Path,
    part: Option<&str>,
    gallery: &dyn Collection,
    roots: &[PathBuf],
) -> anyhow::Result<Vec<RowId>> {
    let mut own = Vec::new();
    let Ok(place) = path.canonicalize() else {
        return Ok(own);
    };
    // An archive knows a link in it by the link's own name.
    let named = std::path::absolute(path).unwrap_or_else(|_| place.clone());
    let names: BTreeSet<PathBuf> = roots
        .iter()
        .flat_map(|root| [names_below(root, &place), names_below(root, &named)])
        .flatten()
        .collect();
    for name in names {
        let rows = gallery.find_rows(columns::PATH, &text_of(&name))?;
        if rows.is_empty() {
            continue;
        }
        for (row, cells) in rows.iter().zip(RowCells::of_rows(gallery, &rows)?) {
            if cells.part() == part && is_same_place(&cells.file(), &place) {
                own.push(*row);
            }
        }
    }
    Ok(own)
}

/// Finds the rows of the image that a row stands for: that row alone if it never had a file.
fn rows_at(
    row: RowId,
    image: &RowCells<'_>,
    gallery: &dyn Collection,
) -> anyhow::Result<Vec<RowId>> {
    if image.get(columns::PATH).is_empty() {
        return Ok(vec![row]);
    }
    let rows = gallery.find_rows(columns::PATH, image.get(columns::PATH))?;
    let cells = RowCells::of_rows(gallery, &rows)?;
    let is_own =
        |cells: &RowCells<'_>| cells.root() == image.root() && cells.part() == image.part();
    let own = rows.iter().zip(&cells).filter(|(_, cells)| is_own(cells));
    Ok(own.map(|(&row, _)| row).collect())
}

/// Returns the names that paths relative to a folder may use for a file: its path below the folder, the way up and
/// down, or the absolute path. A manifest may use any of these.
fn names_below(root: &Path, file: &Path) -> Vec<PathBuf> {
    let mut names = vec![file.to_owned()];
    if let Ok(below) = file.strip_prefix(root) {
        // An archive of one file calls it by its name, a folder with one series `.`.
        let is_root = below == Path::new("");
        names.insert(
            0,
            if is_root {
                PathBuf::from(".")
            } else {
                below.to_owned()
            },
        );
    }
    // `way_between` asks for the way from a file in the folder.
    if let Ok(way) = way_between(&root.join("manifest"), file)
        && let Some(name) = file.file_name()
    {
        names.push(way.join(name));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_called_as_manifests_call_it() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("lists")).unwrap();
        std::fs::create_dir_all(root.join("images")).unwrap();
        let names = names_below(&root.join("lists"), &root.join("images/1.png"));
        assert!(
            names.contains(&PathBuf::from("../images/1.png")),
            "{names:?}"
        );
        let names = names_below(&root, &root.join("images/1.png"));
        assert_eq!(names[0], Path::new("images/1.png"));
        assert_eq!(names[1], root.join("images/1.png"));
        assert_eq!(names_below(&root, &root)[0], Path::new("."));
    }
}
