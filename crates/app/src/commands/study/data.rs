//! Shares of the training images: manifests of fewer patients.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use m3ret_imaging::Limits;
use m3ret_imaging::manifest::{Layout, Manifest, Row, Table, Writer};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Writes each manifest again with a share of its patients, and returns the paths of these.
///
/// In each modality and dims, patients are put into the order of a hash, and the first ones are taken: so
/// a smaller share is part of a larger one, and every kind keeps its share. Rows without a patient count
/// as one each.
pub(super) fn shares(
    manifests: &[PathBuf],
    (fraction, seed): (f64, u64),
    folder: &Path,
) -> anyhow::Result<Vec<PathBuf>> {
    std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let numbered = manifests.iter().enumerate();
    let written = numbered.map(|(idx, manifest)| {
        let doing = || format!("reading {}", manifest.display());
        let table = Manifest::open(manifest, &Limits::default()).with_context(doing)?;
        let table = table.load().with_context(doing)?;
        let path = folder.join(format!("{idx}.csv"));
        write(&table, &chosen(&table, fraction, seed), &path)?;
        Ok(path)
    });
    written.collect()
}

/// Says of each row whether it is in the share.
fn chosen(table: &Table, fraction: f64, seed: u64) -> Vec<bool> {
    let hash = |row: &Row<'_>| {
        let patient = row.get("patient_id").filter(|patient| !patient.is_empty());
        xxh3_64_with_seed(patient.unwrap_or_else(|| row.path()).as_bytes(), seed)
    };
    let kind = |row: &Row<'_>| {
        let cell = |name: &str| row.get(name).unwrap_or_default().to_owned();
        (cell("split"), cell("modality"), cell("dims"))
    };
    let mut patients = BTreeMap::<_, Vec<u64>>::new();
    for row in table.rows() {
        patients.entry(kind(&row)).or_default().push(hash(&row));
    }
    for hashes in patients.values_mut() {
        hashes.sort_unstable();
        hashes.dedup();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of a count"
        )]
        let n = (fraction * hashes.len() as f64).ceil() as usize;
        hashes.truncate(n.max(1));
    }
    let is_chosen = |row: Row<'_>| {
        let hashes = patients.get(&kind(&row));
        hashes.is_some_and(|hashes| hashes.binary_search(&hash(&row)).is_ok())
    };
    table.rows().map(is_chosen).collect()
}

/// Writes the chosen rows; paths become absolute, as the manifest lies elsewhere.
fn write(table: &Table, chosen: &[bool], path: &Path) -> anyhow::Result<()> {
    let names: Vec<&str> = table.columns().iter().map(String::as_str).collect();
    let mut writer = Writer::create(path, Layout::Csv, &names)?;
    for (row, _) in table
        .rows()
        .zip(chosen)
        .filter(|(_, is_chosen)| **is_chosen)
    {
        let file = std::path::absolute(row.file())?;
        let file = file.to_string_lossy();
        let cells = names.iter().zip(row.cells());
        writer.push(cells.map(|(name, cell)| if *name == "path" { &file } else { cell }))?;
    }
    writer.finish()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_nested_and_keep_patients_and_kinds() {
        let mut text = String::from("path,modality,patient_id\n");
        for i in 0..200 {
            let modality = if i < 40 { "CT" } else { "DX" };
            text += &format!("{i}.png,{modality},p{}\n", i / 2);
        }
        let table = Manifest::from_bytes(text.into_bytes(), Path::new(""), &Limits::default());
        let table = table.unwrap().load().unwrap();
        let [small, large] = [0.25, 0.5].map(|share| chosen(&table, share, 7));
        assert!(
            small
                .iter()
                .zip(&large)
                .all(|(small, large)| !small || *large)
        );
        let count = |rows: &[bool]| rows.iter().filter(|&&row| row).count();
        assert_eq!((count(&small), count(&large)), (50, 100));
        assert_eq!((count(&small[..40]), count(&large[..40])), (10, 20));
        assert!(large.chunks(2).all(|pair| pair[0] == pair[1]));
        assert_ne!(chosen(&table, 0.25, 8), small);
        assert_eq!(count(&chosen(&table, 1.0, 7)), 200);
    }
}
