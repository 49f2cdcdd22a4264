//! Which retrieval tasks a table of images holds: docs/evaluation.md, "Tasks".

use std::collections::BTreeSet;

use super::columns::Columns;
use crate::error::{Error, Result};
use crate::names::{DIMS, DISTURBED, MODALITY, PAIR, PATIENT, SOURCE, SPLIT};

/// Sources of simulated radiographs start so; they enter only pair tasks.
const SIMULATED: &str = "drr-";

/// Who is asked for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Such as `within/DX-2d/body_part`.
    pub name: String,
    /// Rows of the table.
    pub queries: Vec<u32>,
    /// Rows of the table; a query among them never finds itself.
    pub gallery: Vec<u32>,
    /// The column whose equal values are relevant to each other.
    pub relevance: String,
    /// The modality of all queries, where it is one.
    pub query_modality: Option<String>,
    /// The modality of the whole gallery, where it is one.
    pub gallery_modality: Option<String>,
    /// One of these modalities is one that no encoder is trained on.
    pub has_unseen: bool,
}

impl Task {
    /// Returns the group in whose mean the task may be: the first part of the name, but `cross-unseen`
    /// where one side of a cross task is of an unseen modality.
    #[must_use]
    pub fn group(&self) -> &str {
        match self.kind() {
            "cross" if self.has_unseen => "cross-unseen",
            kind => kind,
        }
    }

    /// Returns the first part of the name: `within`, `within-source`, `cross`, `pair`,
    /// `pair-disturbed`, `unseen`, `all`, `mixed` or `privacy`.
    fn kind(&self) -> &str {
        self.name.split('/').next().unwrap_or_default()
    }

    /// Returns whether the task's value is the mean over the classes of queries, and needs two classes
    /// on both sides: one fixed ranking answers all queries of one class.
    #[must_use]
    pub fn is_mean_of_classes(&self) -> bool {
        self.kind() == "cross"
    }

    /// Returns whether the same patient may be found: in pair tasks it is what is looked for.
    #[must_use]
    pub fn finds_same_patient(&self) -> bool {
        matches!(self.kind(), "pair" | "pair-disturbed" | "privacy")
    }
}

/// Which tasks are wanted.
#[derive(Debug, Clone)]
pub struct Scope {
    /// Columns whose equal values are relevant to each other; `pair_id` is always one.
    pub relevance: Vec<String>,
    /// Also tasks over all images together.
    pub is_pooled: bool,
    /// Says whether no encoder is trained on a modality, such as MR.
    pub is_unseen: fn(&str) -> bool,
}

/// The tasks of a table, and what about it is worth knowing.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    /// In the order of reports; some may have no query that counts.
    pub tasks: Vec<Task>,
    /// How much of a score is the same patient: every image against all others of its kind.
    pub privacy: Vec<Task>,
    /// All modalities in one gallery, a task a relevance column; none where there is one modality.
    pub mixed: Vec<Task>,
    /// Whether every row is query and gallery in turn.
    pub is_leave_one_out: bool,
    /// Rows whose `split` is neither query nor gallery.
    pub n_other_split: usize,
}

/// Lists the tasks of a table.
///
/// # Errors
/// `Mismatch` if a relevance column is missing, or `split` has queries without a gallery, a gallery
/// without queries, or neither.
pub fn derive(columns: &mut Columns, scope: &Scope) -> Result<Tasks> {
    for name in &scope.relevance {
        columns.require(name)?;
    }
    let columns = &*columns;
    let split = SplitRows::new(columns)?;
    let rows = TableRows {
        columns,
        split,
        is_unseen: scope.is_unseen,
    };
    let mut tasks = Vec::new();
    tasks.extend(rows.within(scope));
    tasks.extend(rows.within_source(scope));
    tasks.extend(rows.cross(scope));
    tasks.extend(rows.pairs());
    tasks.extend(rows.unseen(scope));
    if scope.is_pooled || columns.get(MODALITY).is_none() {
        tasks.extend(rows.pooled(scope));
    }
    Ok(Tasks {
        privacy: rows.privacy(),
        mixed: rows.mixed(scope),
        is_leave_one_out: rows.split.is_leave_one_out,
        n_other_split: rows.split.n_other,
        tasks,
    })
}

/// Which rows ask, and which are found.
struct SplitRows {
    is_query: Vec<bool>,
    is_gallery: Vec<bool>,
    is_leave_one_out: bool,
    n_other: usize,
}

impl SplitRows {
    fn new(columns: &Columns) -> Result<Self> {
        let rows = || 0..columns.n_rows();
        let values: BTreeSet<&str> = rows().map(|row| columns.text(SPLIT, row)).collect();
        let is_leave_one_out = values.iter().all(|value| value.is_empty());
        let has = |value: &str| -> Vec<bool> {
            rows()
                .map(|row| is_leave_one_out || columns.text(SPLIT, row) == value)
                .collect()
        };
        let split = Self {
            is_query: has("query"),
            is_gallery: has("gallery"),
            is_leave_one_out,
            n_other: 0,
        };
        if !split.is_query.contains(&true) || !split.is_gallery.contains(&true) {
            let found: Vec<&str> = values
                .into_iter()
                .filter(|value| !value.is_empty())
                .collect();
            return Err(Error::mismatch(
                "column split",
                "rows with query and rows with gallery, or no split at all (m3ret split makes one)",
                if found.is_empty() {
                    "no rows".to_owned()
                } else {
                    found.join(", ")
                },
            ));
        }
        let n_other = rows().filter(|&row| !split.is_query[row] && !split.is_gallery[row]);
        Ok(Self {
            n_other: n_other.count(),
            ..split
        })
    }
}

/// The rows of the two sides of a task.
#[derive(Clone, Copy)]
struct TaskRows<'a> {
    /// Those that ask.
    queries: &'a [u32],
    /// Those that are found.
    gallery: &'a [u32],
}

impl<'a> TaskRows<'a> {
    /// Takes the same rows on both sides.
    fn both(rows: &'a [u32]) -> Self {
        Self {
            queries: rows,
            gallery: rows,
        }
    }
}

struct TableRows<'a> {
    columns: &'a Columns,
    split: SplitRows,
    is_unseen: fn(&str) -> bool,
}

impl TableRows<'_> {
    fn modality(&self, row: u32) -> &str {
        self.columns.text(MODALITY, row as usize)
    }

    fn dims(&self, row: u32) -> &str {
        self.columns.text(DIMS, row as usize)
    }

    fn all(&self) -> impl Iterator<Item = u32> + '_ {
        0..u32::try_from(self.columns.n_rows()).unwrap_or(u32::MAX)
    }

    /// Rows of tasks that are not about pairs: neither simulated nor disturbed.
    fn real(&self) -> impl Iterator<Item = u32> + '_ {
        let text = |name: &str, row: u32| self.columns.text(name, row as usize);
        self.all().filter(move |&row| {
            !text(SOURCE, row).starts_with(SIMULATED) && text(DISTURBED, row).is_empty()
        })
    }

    /// Real rows of all modalities but the unseen ones.
    fn seen(&self) -> impl Iterator<Item = u32> + '_ {
        self.real()
            .filter(|&row| !(self.is_unseen)(self.modality(row)))
    }

    /// Makes one task for each relevance column, of the queries and the gallery of the split among some
    /// rows; none where either side is empty.
    fn by_relevance(&self, name: &str, rows: TaskRows<'_>, relevance: &[String]) -> Vec<Task> {
        let chosen = |rows: &[u32], is_in: &[bool]| -> Vec<u32> {
            let rows = rows.iter().copied();
            rows.filter(|&row| is_in[row as usize]).collect()
        };
        let queries = chosen(rows.queries, &self.split.is_query);
        let gallery = chosen(rows.gallery, &self.split.is_gallery);
        if queries.is_empty() || gallery.is_empty() {
            return Vec::new();
        }
        let rows = TaskRows {
            queries: &queries,
            gallery: &gallery,
        };
        let columns = relevance.iter();
        columns
            .map(|column| self.task(&format!("{name}/{column}"), column, rows))
            .collect()
    }

    fn task(&self, name: &str, relevance: &str, rows: TaskRows<'_>) -> Task {
        let modality = |rows: &[u32]| {
            let all: BTreeSet<&str> = rows.iter().map(|&row| self.modality(row)).collect();
            let mut all = all.into_iter();
            let first = all.next().filter(|name| !name.is_empty());
            first.filter(|_| all.next().is_none()).map(str::to_owned)
        };
        // Names are printed: a cell must not steer a terminal.
        let name = name.replace(char::is_control, "\u{fffd}");
        let sides = [modality(rows.queries), modality(rows.gallery)];
        let has_unseen = sides.iter().flatten().any(|side| (self.is_unseen)(side));
        let [query_modality, gallery_modality] = sides;
        Task {
            query_modality,
            gallery_modality,
            has_unseen,
            name,
            queries: rows.queries.to_vec(),
            gallery: rows.gallery.to_vec(),
            relevance: relevance.to_owned(),
        }
    }

    /// `DX-2d`, or `DX` where dims are not known; `None` where the modality is not.
    fn kind(&self, row: u32) -> Option<String> {
        let parts = (self.modality(row), self.dims(row));
        match parts {
            ("", _) => None,
            (modality, "") => Some(modality.to_owned()),
            (modality, dims) => Some(format!("{modality}-{dims}")),
        }
    }

    /// Makes tasks inside each group of rows that `key` names.
    fn inside(
        &self,
        prefix: &str,
        rows: &[u32],
        key: impl Fn(u32) -> Option<String>,
        relevance: &[String],
    ) -> Vec<Task> {
        let groups = grouped(rows, key).into_iter();
        groups
            .flat_map(|(name, members)| {
                let name = format!("{prefix}/{name}");
                self.by_relevance(&name, TaskRows::both(&members), relevance)
            })
            .collect()
    }

    fn within(&self, scope: &Scope) -> Vec<Task> {
        let rows: Vec<u32> = self.seen().collect();
        self.inside("within", &rows, |row| self.kind(row), &scope.relevance)
    }

    fn within_source(&self, scope: &Scope) -> Vec<Task> {
        let rows: Vec<u32> = self.seen().collect();
        let source = |row: u32| {
            let source = self.columns.text(SOURCE, row as usize);
            match (source, self.dims(row)) {
                ("", _) => None,
                (source, "") => Some(source.to_owned()),
                (source, dims) => Some(format!("{source}-{dims}")),
            }
        };
        self.inside("within-source", &rows, source, &scope.relevance)
    }

    fn unseen(&self, scope: &Scope) -> Vec<Task> {
        let is_unseen = |&row: &u32| (self.is_unseen)(self.modality(row));
        let rows: Vec<u32> = self.real().filter(is_unseen).collect();
        self.inside("unseen", &rows, |row| self.kind(row), &scope.relevance)
    }

    /// Lists the tasks between two modalities: first those of modalities that encoders are trained on.
    fn cross(&self, scope: &Scope) -> Vec<Task> {
        let rows: Vec<u32> = self.real().collect();
        let kinds = grouped(&rows, |row| named(self.modality(row)));
        let (mut tasks, mut with_unseen) = (Vec::new(), Vec::new());
        for (from, queries) in &kinds {
            for (to, gallery) in kinds.iter().filter(|(to, _)| to != from) {
                let name = format!("cross/{from}-{to}");
                let has_unseen = (self.is_unseen)(from) || (self.is_unseen)(to);
                let list = if has_unseen {
                    &mut with_unseen
                } else {
                    &mut tasks
                };
                let rows = TaskRows { queries, gallery };
                list.extend(self.by_relevance(&name, rows, &scope.relevance));
            }
        }
        tasks.append(&mut with_unseen);
        tasks
    }

    /// Every image that has a partner asks, whatever its split. Disturbed radiographs have tasks of
    /// their own, in which they take the place of the others of their modality.
    fn pairs(&self) -> Vec<Task> {
        let text = |name: &str, row: u32| self.columns.text(name, row as usize);
        let has_pair = |&row: &u32| !text(PAIR, row).is_empty();
        let is_disturbed = |row: &u32| !text(DISTURBED, *row).is_empty();
        let (disturbed, clean): (Vec<u32>, Vec<u32>) =
            self.all().filter(has_pair).partition(is_disturbed);
        let by_modality = |rows: &[u32]| grouped(rows, |row| named(self.modality(row)));
        let (disturbed, clean) = (by_modality(&disturbed), by_modality(&clean));
        let mut tasks = Vec::new();
        for (from, queries) in &clean {
            for (to, gallery) in &clean {
                let name = format!("pair/{from}-{to}");
                tasks.push(self.task(&name, PAIR, TaskRows { queries, gallery }));
            }
        }
        let is_in = |name: &String| disturbed.iter().any(|(other, _)| other == name);
        let undisturbed = clean.iter().filter(|(name, _)| !is_in(name));
        let mut kinds: Vec<&(String, Vec<u32>)> = disturbed.iter().chain(undisturbed).collect();
        kinds.sort_unstable();
        for (from, queries) in &kinds {
            for (to, gallery) in kinds.iter().filter(|(to, _)| is_in(from) || is_in(to)) {
                let name = format!("pair-disturbed/{from}-{to}");
                tasks.push(self.task(&name, PAIR, TaskRows { queries, gallery }));
            }
        }
        tasks
    }

    /// What a person meets who searches a whole archive.
    fn mixed(&self, scope: &Scope) -> Vec<Task> {
        let rows: Vec<u32> = self
            .real()
            .filter(|&row| !self.modality(row).is_empty())
            .collect();
        let mut tasks = self.by_relevance("mixed", TaskRows::both(&rows), &scope.relevance);
        tasks.retain(|task| task.query_modality.is_none() || task.gallery_modality.is_none());
        tasks
    }

    fn pooled(&self, scope: &Scope) -> Vec<Task> {
        let rows: Vec<u32> = self.seen().collect();
        self.by_relevance("all", TaskRows::both(&rows), &scope.relevance)
    }

    fn privacy(&self) -> Vec<Task> {
        let Some(patients) = self.columns.get(PATIENT) else {
            return Vec::new();
        };
        let is_known = |&row: &u32| patients.code(row as usize) != 0;
        let rows: Vec<u32> = self.real().filter(is_known).collect();
        let kinds = grouped(&rows, |row| self.kind(row).or_else(|| named("all")));
        kinds
            .into_iter()
            .map(|(kind, rows)| {
                let name = format!("privacy/{kind}");
                self.task(&name, PATIENT, TaskRows::both(&rows))
            })
            .collect()
    }
}

fn named(name: &str) -> Option<String> {
    (!name.is_empty()).then(|| name.to_owned())
}

/// Groups rows by a name, in the order of names; rows without one are in no group.
fn grouped(rows: &[u32], key: impl Fn(u32) -> Option<String>) -> Vec<(String, Vec<u32>)> {
    let mut groups = std::collections::BTreeMap::<String, Vec<u32>>::new();
    for &row in rows {
        if let Some(name) = key(row) {
            groups.entry(name).or_default().push(row);
        }
    }
    groups.into_iter().collect()
}

#[cfg(test)]
mod tests;
