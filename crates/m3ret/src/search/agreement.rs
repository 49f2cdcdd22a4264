//! How far an answer can be relied on: how often first hits like its own agree with their queries.

use std::borrow::Cow;

use m3ret_manifest::columns::{BODY_PART, MODALITY};
use m3ret_search::{Agreements, Collection, Estimate, Maker, SearchOptions, Searches, Views};
use serde::{Deserialize, Serialize};

use super::{Hit, Relation};
use crate::model_name;

/// An encoder is reliable if more than this share of first hits agrees.
const RELIABLE_FROM: f64 = 0.5;

/// How often first hits with the score of an answer's agree with their query, among other patients.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Agreement {
    /// The column whose cells are equal: `body_part`, or another one that was asked for.
    pub column: String,
    /// Estimated chance that the first hit agrees, 0..=1.
    pub value: f64,
    /// Lower end of its 95 % interval. It counts searches of one patient as independent.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Number of searches that it rests on.
    pub n: u32,
    /// Which searches these were: `CT among MR`, `CT among all`, `within one modality`, `across modalities`, `all`.
    pub searches: String,
    /// Whose images these were.
    pub measured_on: MeasuredOn,
    /// Whether more than half of such searches agree, by the whole interval.
    pub is_reliable: bool,
}

/// Images on which agreement was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MeasuredOn {
    /// Those of the archive itself.
    Archive,
    /// Those that were kept apart when the model was trained.
    Model,
}

/// What is known of one column.
#[derive(Default)]
pub(super) struct Known<'a> {
    archive: Option<Cow<'a, Agreements>>,
    model: Option<Agreements>,
    /// The only modality that hits may have.
    hits: Option<String>,
}

impl<'a> Known<'a> {
    /// Finds what is known of searches with these options. A column that the caller names is measured now if the archive
    /// has not measured it before.
    pub(super) fn of(
        gallery: &'a dyn Collection,
        asked: Option<&str>,
        options: &SearchOptions,
    ) -> anyhow::Result<Self> {
        let column = asked.unwrap_or(BODY_PART);
        // What was measured are searches among all images and among those of one known modality.
        let hits = match options.filters.as_slice() {
            [] => None,
            [only] if only.column == MODALITY && !only.is_negated => match only.values.as_slice() {
                [modality] if !modality.is_empty() => Some(modality.clone()),
                _ => return Ok(Self::default()),
            },
            _ => return Ok(Self::default()),
        };
        if options.views != Views::default() {
            return Ok(Self::default());
        }
        let stored = gallery
            .statistics()?
            .and_then(|measured| measured.of(column));
        let archive = match (stored, asked) {
            (Some(stored), _) => Some(Cow::Borrowed(stored)),
            (None, Some(_)) => Some(Cow::Owned(Agreements::measure(gallery, column)?)),
            (None, None) => None,
        };
        let model = match asked {
            // Labels of another archive's column of that name may be others.
            Some(_) => None,
            None => of_model(gallery.maker()),
        };
        Ok(Self {
            archive,
            model,
            hits,
        })
    }

    /// Returns how often such answers agree; `None` if nothing is known.
    pub(super) fn agreement(&self, modality: &str, hits: &[Hit]) -> Option<Agreement> {
        // Measured among other patients; another image of the patient says nothing of them.
        let is_other =
            |hit: &&Hit| matches!(hit.relation, Relation::OtherPatient | Relation::Unknown);
        let first = hits.iter().find(is_other)?;
        if let Some(known) = self.archive.as_deref()
            && let Some(found) = known.estimate(first.score, modality, self.hits.as_deref())
        {
            return Some(told(&known.column, &found, MeasuredOn::Archive));
        }
        // The model was measured in an archive of another mix of images, where the first among all says nothing of this
        // one. What is alike are searches among images of the first hit's modality.
        let known = self.model.as_ref()?;
        let found = known.of_pair(first.score, modality, first.labels.modality.as_deref()?)?;
        Some(told(&known.column, &found, MeasuredOn::Model))
    }
}

fn told(column: &str, found: &Estimate<'_>, measured_on: MeasuredOn) -> Agreement {
    let searches = match found.searches {
        Searches::Pair { query, hits } => format!("{query} among {hits}"),
        Searches::AmongAll { query } => format!("{query} among all"),
        Searches::Within => "within one modality".to_owned(),
        Searches::Across => "across modalities".to_owned(),
        Searches::All => "all".to_owned(),
    };
    Agreement {
        column: column.to_owned(),
        value: found.value,
        low: found.low,
        high: found.high,
        n: found.n,
        searches,
        measured_on,
        is_reliable: found.low > RELIABLE_FROM,
    }
}

/// What a model's file says.
#[derive(Deserialize)]
struct OfModel {
    /// The model that it was measured with.
    fingerprint: String,
    agreements: Agreements,
}

/// Reads what the model that made a gallery says; `None` if it says nothing, or it was another one: the answer is then
/// unknown.
fn of_model(maker: &Maker) -> Option<Agreements> {
    let text = model_name::agreement_of(&maker.model)?;
    let told: OfModel = serde_json::from_str(&text).ok()?;
    let is_its = told.fingerprint == maker.fingerprint && told.agreements.column == BODY_PART;
    is_its.then_some(told.agreements)
}
