//! Vectors of what is evaluated: embedded by a model, or read from a file.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use m3ret_manifest::columns::MODALITY;
use m3ret_search::DEFAULT_HANDICAP;
use m3ret_search::evaluation::{Embeddings, RankedViews};

use super::contenders::{Contender, Source};
use super::files::VECTORS;
use super::options::EvaluateOptions;
use super::subject::Subject;
use crate::embed::precision_name;
use crate::embed::rows::{RowVectors, WantedRows, embed_rows};
use crate::model_name;
use crate::vectors;
use crate::watch::Watch;
use crate::words::counted;

/// The vectors of one contender, and what made them.
pub(super) struct ContenderVectors {
    pub(super) rows: RowVectors,
    pub(super) fingerprint: String,
    /// `None` for vectors that do not state it.
    pub(super) precision: Option<String>,
}

/// One contender with its vectors, and the folder of its files.
pub(super) struct Trial<'a> {
    pub(super) folder: PathBuf,
    pub(super) contender: &'a Contender,
    pub(super) vectors: ContenderVectors,
}

impl<'a> Trial<'a> {
    /// Reads or computes the vectors of a contender; models keep them in `folder`.
    pub(super) fn prepare(
        options: &EvaluateOptions,
        subject: &Subject,
        contender: &'a Contender,
        folder: PathBuf,
        watch: &dyn Watch,
    ) -> anyhow::Result<Self> {
        let vectors = match &contender.source {
            Source::Model(place) => of_model(options, subject, place, &folder.join(VECTORS), watch),
            Source::File(path) => of_file(options, subject, &contender.name, path, watch),
        };
        Ok(Self {
            vectors: vectors.with_context(|| format!("evaluating {}", contender.name))?,
            folder,
            contender,
        })
    }
}

/// Further vectors of the rows that take part.
pub(super) struct Further {
    rows: Vec<u32>,
    /// [further vectors, width]
    vectors: Vec<f32>,
    /// A number for the modality of each row that takes part.
    modalities: Vec<u32>,
}

impl Further {
    /// Collects those of rows that have a vector in `embeddings`.
    pub(super) fn of(subject: &Subject, vectors: &RowVectors, embeddings: &Embeddings<'_>) -> Self {
        let mut of_row: HashMap<usize, Vec<&[f32]>> = HashMap::new();
        for (row, vector) in &vectors.further {
            of_row.entry(*row as usize).or_default().push(vector);
        }
        let modality = subject.columns.get(MODALITY);
        let mut all = Self {
            rows: Vec::new(),
            vectors: Vec::new(),
            modalities: Vec::with_capacity(subject.rows.len()),
        };
        for (row, manifest_row) in (0_u32..).zip(&subject.rows) {
            let known = modality.filter(|column| !column.text(row as usize).is_empty());
            let number = known.map_or(0, |column| column.code(row as usize) + 1);
            all.modalities.push(number);
            for vector in of_row.get(manifest_row).into_iter().flatten() {
                if embeddings.has(row as usize) {
                    all.rows.push(row);
                    all.vectors.extend_from_slice(vector);
                }
            }
        }
        all
    }

    /// Says that there are some; `None` if there are none.
    pub(super) fn told(&self) -> Option<String> {
        let n = self.rows.len() as u64;
        (n > 0).then(|| {
            format!(
                "{} of volumes are compared across modalities, less a handicap of {DEFAULT_HANDICAP}",
                counted(n, "further vector", "further vectors")
            )
        })
    }

    /// Returns them as searches compare them.
    pub(super) fn views(&self) -> RankedViews<'_> {
        RankedViews {
            rows: &self.rows,
            vectors: &self.vectors,
            modalities: &self.modalities,
            handicap: DEFAULT_HANDICAP,
        }
    }
}

fn of_model(
    options: &EvaluateOptions,
    subject: &Subject,
    place: &str,
    work: &Path,
    watch: &dyn Watch,
) -> anyhow::Result<ContenderVectors> {
    let model = model_name::open_named(place, &options.run)?;
    let wanted = subject.wanted();
    Ok(ContenderVectors {
        rows: embed_rows(
            WantedRows {
                listing: &subject.listing,
                is_wanted: &wanted,
            },
            &model,
            &options.reading,
            work,
            watch,
        )?,
        fingerprint: model.fingerprint().to_owned(),
        precision: Some(precision_name(model.precision()).to_owned()),
    })
}

/// Reads vectors that were made elsewhere, one for each row of the manifest.
fn of_file(
    options: &EvaluateOptions,
    subject: &Subject,
    name: &str,
    path: &Path,
    watch: &dyn Watch,
) -> anyhow::Result<ContenderVectors> {
    let file = vectors::read(path)?;
    let (fingerprint, precision) = match file.maker.clone() {
        Some(maker) => (maker.fingerprint, Some(maker.precision)),
        None => (format!("external:{name}"), None),
    };
    let table = subject.listing.table.as_ref().context("a manifest")?;
    let joined = file.rows_of(path, table)?;
    let (mut values, width) = (joined.vectors.values, joined.vectors.width);
    watch.note(&joined.join.told(path));
    if options.normalizes {
        for vector in values
            .chunks_exact_mut(width)
            .filter(|vector| vector.iter().any(|x| !x.is_nan()))
        {
            m3ret_search::normalize(vector).with_context(|| path.display().to_string())?;
        }
    }
    // Rows still have the numbers of the file here.
    Embeddings::new(&values, width).with_context(|| path.display().to_string())?;
    let rows = RowVectors {
        values,
        width,
        refused: Vec::new(),
        further: joined.further,
    };
    Ok(ContenderVectors {
        rows,
        fingerprint,
        precision,
    })
}

/// Removes the vectors of images that one of several contenders lacks, so that all rank the same images; returns the
/// number of these images.
pub(super) fn keep_common(trials: &mut [Trial<'_>], subject: &Subject) -> usize {
    let wanted = subject.wanted();
    let lacks = |trial: &Trial<'_>, row: usize| {
        let rows = &trial.vectors.rows;
        rows.values[row * rows.width..][..rows.width]
            .iter()
            .all(|x| x.is_nan())
    };
    let mut n_left_out = 0;
    for row in (0..wanted.len()).filter(|&row| wanted[row]) {
        let n_lacking = trials.iter().filter(|trial| lacks(trial, row)).count();
        if n_lacking == 0 || n_lacking == trials.len() {
            continue;
        }
        n_left_out += 1;
        for trial in trials.iter_mut() {
            let rows = &mut trial.vectors.rows;
            rows.values[row * rows.width..][..rows.width].fill(f32::NAN);
        }
    }
    n_left_out
}
