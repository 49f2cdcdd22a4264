//! Reads vectors that were made elsewhere or by `m3ret embed` (`.npy`, `.safetensors`, `.parquet`), and joins them
//! with the rows of a manifest.

mod gallery;
mod npy;
mod table;
mod tensors;

use std::collections::{HashMap, HashSet};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use m3ret_imaging::Limits;
use m3ret_manifest::columns::{BODY_PART, DIMS, MODALITY, PART, PATH};
use m3ret_manifest::{Manifest, Row, Table, path_of, text_of};
use m3ret_search::Maker;

use crate::galleries::is_gallery;
use crate::words::counted;

/// Vectors, one after another.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Vectors {
    /// [n, width]
    pub(super) values: Vec<f32>,
    pub(super) width: usize,
}

impl Vectors {
    pub(super) fn len(&self) -> usize {
        self.values.len() / self.width
    }
}

/// What a file of vectors holds.
#[derive(Debug)]
pub(super) struct VectorFile {
    pub(super) vectors: Vectors,
    /// What made the vectors, if the file states it as files of `m3ret embed` do.
    pub(super) maker: Option<Maker>,
    /// Further unit vectors, such as those of projections, each with the place of its image's vector.
    further: Vec<(usize, Vec<f32>)>,
    /// Whether images that were refused are not named: rows of a manifest may have no vector.
    lacks_refused: bool,
    names: Names,
}

/// The vectors of a manifest's rows, one for each, and how they were joined.
pub(super) struct RowsOf {
    pub(super) vectors: Vectors,
    /// Further vectors, each with its row, in ascending order of rows.
    pub(super) further: Vec<(u32, Vec<f32>)>,
    pub(super) join: Join,
}

/// The name of an image: its path and part.
type Name = (String, String);

/// How a file assigns vectors to images.
#[derive(Debug)]
enum Names {
    None,
    /// Places of vectors, each with its image.
    Images {
        names: Vec<(usize, Name)>,
        named_by: NamedBy,
    },
}

/// How vectors were joined with the rows of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Join {
    /// By path and part, as this file has them.
    Name(PathBuf),
    /// The first vector is that of the first row, and so on.
    Position,
}

impl Join {
    /// Describes the join in a sentence for people.
    pub(super) fn told(&self, vectors: &Path) -> String {
        let name = vectors.display();
        match self {
            Self::Name(list) => format!(
                "{name}: joined with the manifest by path, as {} has them",
                list.display()
            ),
            Self::Position => format!(
                "{name}: vectors are those of the manifest's rows by position, as nothing names their images"
            ),
        }
    }
}

/// Returns what stands before the numbers of a `.npy` file of f32, [n, width].
pub(super) fn npy_header(n_rows: usize, width: usize) -> anyhow::Result<Vec<u8>> {
    npy::header(n_rows, width)
}

/// Reads a file of vectors in the format of its extension.
pub(super) fn read(path: &Path) -> anyhow::Result<VectorFile> {
    let end = path.extension().unwrap_or_default().to_ascii_lowercase();
    let read = match end.to_str() {
        _ if is_gallery(path) => gallery::read(path),
        Some("safetensors") => tensors::read(path),
        Some("parquet") => table::read(path),
        _ => npy::read(path).map(VectorFile::bare),
    };
    let doing = || format!("reading {}", path.display());
    let mut file = read.with_context(doing)?;
    let list = list_of(path);
    if matches!(file.names, Names::None) && list.exists() {
        let doing = || format!("reading {}", list.display());
        let table = Manifest::open(&list, &Limits::default()).and_then(Manifest::load);
        let table = table.with_context(doing)?;
        file.names = Names::Images {
            names: listed(&table, file.vectors.len()).with_context(doing)?,
            named_by: NamedBy::Words,
        };
    }
    Ok(file)
}

/// Returns whether a file of vectors was written by `m3ret embed`.
///
/// A table and a tensor say what made their vectors. An array cannot; beside it lies the list that `embed` writes, with
/// one numbered row for each of its vectors.
pub(super) fn is_of_embed(path: &Path) -> bool {
    let end = path.extension().unwrap_or_default().to_ascii_lowercase();
    match end.to_str() {
        Some("parquet" | "pq") => table::maker(path).is_some(),
        Some("safetensors") => tensors::maker(path).is_some(),
        _ => {
            let n_listed = n_listed_by_embed(&list_of(path));
            n_listed.is_some_and(|n_rows| npy::n_rows(path).is_ok_and(|n| n == n_rows))
        }
    }
}

/// Returns whether a file is a list that `m3ret embed` wrote beside an array.
pub(super) fn is_list_of_embed(path: &Path) -> bool {
    n_listed_by_embed(path).is_some()
}

/// Returns the number of vectors of a list that has the columns which `m3ret embed` writes, and its numbers; `None`
/// if it is no such list.
fn n_listed_by_embed(path: &Path) -> Option<usize> {
    let mut reader = csv::Reader::from_path(path).ok()?;
    let is_ours = reader.headers().ok()?.iter().eq(LIST);
    let mut n_rows = 0;
    for record in reader.records() {
        match record.ok()?.get(0)? {
            // Objects without a vector.
            "" => {}
            number if number == n_rows.to_string() => n_rows += 1,
            _ => return None,
        }
    }
    is_ours.then_some(n_rows)
}

/// Returns the error for vectors of which neither the file nor the caller says what made them; `maker` is that of the
/// gallery they are for.
pub(super) fn unnamed(path: &Path, maker: Option<&Maker>) -> anyhow::Error {
    let of_gallery = maker.map_or_else(String::new, |maker| {
        format!("; those of the gallery were made by {}", maker.model)
    });
    anyhow::anyhow!(
        "--encoder is missing: {} does not say what made its vectors{of_gallery}",
        path.display()
    )
}

/// Returns where the list of rows lies beside an array, as `m3ret embed` writes it.
pub(super) fn list_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".rows.csv");
    PathBuf::from(name)
}

/// The column of a list with the number of the vector of each row.
pub(super) const VECTOR: &str = "row";

/// The column with the reason why a row has no vector.
pub(super) const REFUSED: &str = "refused";

/// The columns of a list that `m3ret embed` writes.
const LIST: [&str; 7] = [VECTOR, PATH, PART, MODALITY, BODY_PART, DIMS, REFUSED];

/// Returns the vector and name of each row of a list; rows without a vector were refused.
fn listed(table: &Table, n_vectors: usize) -> anyhow::Result<Vec<(usize, Name)>> {
    let mut names = Vec::with_capacity(table.len());
    for row in table.rows() {
        let Some(place) = row.get(VECTOR).filter(|place| !place.is_empty()) else {
            continue;
        };
        let place: usize = place.parse().context("a row number that is none")?;
        ensure!(
            place < n_vectors,
            "row {place} has no vector: the list belongs to another array"
        );
        names.push((place, name_of(row, NamedBy::Words)));
    }
    Ok(names)
}

fn name_of(row: Row<'_>, named_by: NamedBy) -> Name {
    (
        named_by.name(row),
        row.part().unwrap_or_default().to_owned(),
    )
}

impl VectorFile {
    fn bare(vectors: Vectors) -> Self {
        Self {
            vectors,
            maker: None,
            further: Vec::new(),
            lacks_refused: false,
            names: Names::None,
        }
    }

    /// Joins the vectors with a manifest's rows.
    ///
    /// If the file, or the list beside it, names its images, they are looked up by name: the manifest may be sorted
    /// otherwise, lack images, or lie elsewhere.
    pub(super) fn rows_of(self, path: &Path, table: &Table) -> anyhow::Result<RowsOf> {
        let (names, named_by) = match self.names {
            Names::None => {
                let n_vectors = self.vectors.len();
                ensure!(
                    n_vectors == table.len(),
                    "{}: found {}, and the manifest has {}; one for each row, in its order, is wanted",
                    path.display(),
                    counted(n_vectors as u64, "vector", "vectors"),
                    counted(table.len() as u64, "row", "rows")
                );
                return Ok(RowsOf {
                    vectors: self.vectors,
                    further: Vec::new(),
                    join: Join::Position,
                });
            }
            Names::Images { names, named_by } => (names, named_by),
        };
        let (names, named_by) = by_words_or_files(names, named_by, table);
        let mut places_of: HashMap<Name, Vec<usize>> = HashMap::new();
        for (place, name) in names {
            places_of.entry(name).or_default().push(place);
        }
        let list = Some(list_of(path)).filter(|list| list.exists());
        let list = list.unwrap_or_else(|| path.to_owned());
        let places = joined(&places_of, table, named_by);
        let lacks_first = || places.iter().position(Option::is_none);
        if !self.lacks_refused
            && let Some(row) = lacks_first()
        {
            bail!(
                "reading {}: no vector of row {} of the manifest is there; give the manifest that the vectors were \
                 made of, or an array without a list, to join by position",
                list.display(),
                row + 1
            );
        }
        let width = self.vectors.width;
        let mut further_of: HashMap<usize, Vec<Vec<f32>>> = HashMap::new();
        for (place, vector) in self.further {
            further_of.entry(place).or_default().push(vector);
        }
        let (mut values, mut further) = (Vec::with_capacity(places.len() * width), Vec::new());
        for (row, place) in (0_u32..).zip(places) {
            let Some(place) = place else {
                values.extend(std::iter::repeat_n(f32::NAN, width));
                continue;
            };
            values.extend(&self.vectors.values[place * width..][..width]);
            let of_row = further_of.get(&place).into_iter().flatten();
            further.extend(of_row.map(|vector| (row, vector.clone())));
        }
        Ok(RowsOf {
            vectors: Vectors { values, width },
            further,
            join: Join::Name(list),
        })
    }
}

/// How images are named: as lists write them, or by the file that a table leads to from where it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NamedBy {
    Words,
    File,
}

impl NamedBy {
    /// Returns the name of a row's image without its part.
    fn name(self, row: Row<'_>) -> String {
        match self {
            Self::Words => row.path().to_owned(),
            Self::File => text_of(&place_of(&row.file())),
        }
    }
}

/// Names images by the files that they lie in where no row of a manifest has one of the names as words.
fn by_words_or_files(
    names: Vec<(usize, Name)>,
    named_by: NamedBy,
    table: &Table,
) -> (Vec<(usize, Name)>, NamedBy) {
    let known: HashSet<&str> = names.iter().map(|(_, (name, _))| name.as_str()).collect();
    if named_by == NamedBy::File || table.rows().any(|row| known.contains(row.path())) {
        return (names, named_by);
    }
    let by_file = |(place, (name, part)): (usize, Name)| {
        let name = text_of(&place_of(&path_of(&name)));
        (place, (name, part))
    };
    (names.into_iter().map(by_file).collect(), NamedBy::File)
}

/// Returns where a file lies: without links if it exists, else with `..` removed from the path.
fn place_of(path: &Path) -> PathBuf {
    let lexical = || {
        let mut place = PathBuf::new();
        for part in std::path::absolute(path).unwrap_or_default().components() {
            match part {
                Component::ParentDir => _ = place.pop(),
                part => place.push(part),
            }
        }
        place
    };
    path.canonicalize().unwrap_or_else(|_| lexical())
}

/// Returns the place of the vector of each row of a manifest; `None` where none has its name.
fn joined(
    places_of: &HashMap<Name, Vec<usize>>,
    table: &Table,
    named_by: NamedBy,
) -> Vec<Option<usize>> {
    let mut joined = Vec::with_capacity(table.len());
    // An image in several rows has several vectors, in the order of its rows.
    let mut n_used: HashMap<Name, usize> = HashMap::new();
    for row in table.rows() {
        let name = name_of(row, named_by);
        let Some(places) = places_of.get(&name) else {
            joined.push(None);
            continue;
        };
        let used = n_used.entry(name).or_default();
        let place = places[(*used).min(places.len() - 1)];
        *used += 1;
        joined.push(Some(place));
    }
    joined
}

/// Returns what made the vectors, from the metadata that `m3ret embed` writes.
fn maker_of(word: impl Fn(&str) -> Option<String>) -> Option<Maker> {
    Some(Maker {
        fingerprint: word("fingerprint").filter(|word| !word.is_empty())?,
        model: word("model")?,
        precision: word("precision")?,
    })
}
