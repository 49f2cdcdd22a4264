//! What there is to choose from, for options that name a column or a value that does not exist.

use std::collections::BTreeSet;

use m3ret_manifest::LABEL_SEPARATOR;
use m3ret_manifest::columns::{OWN_PREFIX, PAIR};
use m3ret_manifest::privacy::identifies_people;
use m3ret_search::Collection;

use crate::galleries::columns::own_names;

/// Most values that a message lists.
const MAX_LISTED: usize = 12;

/// Returns the columns of a gallery that people may choose: m3ret's own are left out.
pub(crate) fn columns_of(gallery: &dyn Collection) -> Vec<&str> {
    let own = own_names(gallery);
    let mut columns = gallery.columns();
    columns.retain(|name| {
        !name.starts_with(OWN_PREFIX) && ![own.root, own.key, own.pixels].contains(name)
    });
    columns
}

/// Returns the error for a column that `holder`, a manifest or a gallery, does not have.
///
/// `option` is the option with its value, such as `--group-by nix`; `columns` are those there are.
pub(crate) fn no_column<'a>(
    option: &str,
    holder: &str,
    columns: impl IntoIterator<Item = &'a str>,
) -> anyhow::Error {
    let columns: Vec<&str> = columns.into_iter().collect();
    match columns.as_slice() {
        [] => anyhow::anyhow!("{option}: {holder} has no columns"),
        _ => anyhow::anyhow!(
            "{option}: {holder} has no such column; it has {}",
            columns.join(", ")
        ),
    }
}

/// Returns the error for a value that no row has in a column.
///
/// `option` is the option with its value, such as `--filter finding=nix`; `cells` are those of the column, any number
/// of times each. Labels are listed one by one, as filters match them. Nothing is listed of columns that identify or
/// link people: galleries store hashes of these, and no message names a patient.
pub(crate) fn no_value<'a>(
    option: &str,
    column: &str,
    cells: impl IntoIterator<Item = &'a str>,
) -> anyhow::Error {
    if column.starts_with(OWN_PREFIX) || column == PAIR || identifies_people(column) {
        return anyhow::anyhow!("{option}: no image has this value");
    }
    let labels = cells
        .into_iter()
        .flat_map(|cell| cell.split(LABEL_SEPARATOR));
    let labels = labels.map(str::trim).filter(|label| !label.is_empty());
    let labels: BTreeSet<&str> = labels.collect();
    let n_more = labels.len().saturating_sub(MAX_LISTED);
    let listed: Vec<&str> = labels.into_iter().take(MAX_LISTED).collect();
    let listed = listed.join(", ");
    match (listed.as_str(), n_more) {
        ("", _) => anyhow::anyhow!("{option}: no image has a value in this column"),
        (listed, 0) => anyhow::anyhow!("{option}: no image has this value; there are {listed}"),
        (listed, n) => {
            anyhow::anyhow!("{option}: no image has this value; there are {listed}, and {n} more")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_listed_as_filters_know_them() {
        let told = |column: &str, cells: &[&str]| {
            no_value("--filter a=b", column, cells.iter().copied()).to_string()
        };
        assert_eq!(
            told("finding", &["", "mass|cyst", " mass", "y | x"]),
            "--filter a=b: no image has this value; there are cyst, mass, x, y"
        );
        assert_eq!(
            told("finding", &["", " "]),
            "--filter a=b: no image has a value in this column"
        );
        let many: Vec<String> = (10..30).map(|n| n.to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(told("note", &many).ends_with("20, 21, and 8 more"));
        for column in [
            "patient_id",
            "study_id",
            "series_id",
            "pair_id",
            "m3ret:patient_id",
        ] {
            assert!(!told(column, &["secret"]).contains("secret"), "{column}");
        }
    }
}
