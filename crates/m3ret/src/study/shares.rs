//! Shares of the training images: manifests of fewer patients.

use m3ret_manifest::text_of;
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use m3ret_files::make_folder;
use m3ret_imaging::Limits;
use m3ret_manifest::columns::{DIMS, MODALITY, PATH, PATIENT, SPLIT};
use m3ret_manifest::{Layout, Manifest, Row, Table, Writer};
use m3ret_pretrain::Config;
use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed};

use crate::evaluation::protocol::PROTOCOL;

/// Which part of the patients is trained on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Share {
    /// Above 0, at most 1.
    pub(super) fraction: f64,
    /// Decides which patients they are.
    pub(super) seed: u64,
}

/// Writes each manifest again with a share of its patients, and returns the paths of these.
///
/// In each modality and dims, patients are sorted by a hash and the first ones are kept. So a smaller share is part
/// of a larger one, and every kind keeps its share. Rows without a patient count as one patient each.
pub(super) fn write_shares(
    manifests: &[PathBuf],
    share: Share,
    folder: &Path,
) -> anyhow::Result<Vec<PathBuf>> {
    make_folder(folder)?;
    let numbered = manifests.iter().enumerate();
    let written = numbered.map(|(idx, manifest)| {
        let doing = || format!("reading {}", manifest.display());
        let table = Manifest::open(manifest, &Limits::default()).with_context(doing)?;
        let table = table.load().with_context(doing)?;
        let path = folder.join(format!("{idx}.csv"));
        write(&table, &chosen(&table, share), &path)?;
        Ok(path)
    });
    written.collect()
}

/// Hashes the settings of a run, and the manifests that it trains on.
pub(super) fn hash_of(config: &Config) -> anyhow::Result<String> {
    let mut hash = Xxh3::new();
    hash.update(config.to_toml()?.as_bytes());
    for path in &config.manifests {
        hash.update(&read(path)?);
    }
    Ok(format!("{:016x}", hash.digest()))
}

/// Hashes the manifest of an evaluation, and the config and weights of a model's folder.
pub(super) fn hash_of_evaluation(manifest: &Path, model: &str) -> anyhow::Result<String> {
    let mut hash = Xxh3::new();
    // Evaluations by other rules are computed again.
    hash.update(&PROTOCOL.to_le_bytes());
    hash.update(&read(manifest)?);
    hash.update(model.as_bytes());
    for name in ["config.json", "model.safetensors"] {
        let path = Path::new(model).join(name);
        if path.is_file() {
            hash.update(&read(&path)?);
        }
    }
    Ok(format!("{:016x}", hash.digest()))
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("reading {}", path.display()))
}

/// Counts the patients of rows that are trained on who are also queries or in the gallery.
pub(super) fn n_common_patients(
    manifests: &[PathBuf],
    split: &str,
    evaluate: &Path,
) -> anyhow::Result<usize> {
    let patients = |path: &Path, is_wanted: &dyn Fn(&str) -> bool| {
        let doing = || format!("reading {}", path.display());
        let table = Manifest::open(path, &Limits::default()).with_context(doing)?;
        let table = table.load().with_context(doing)?;
        let rows = table
            .rows()
            .filter(|row| row.get(SPLIT).is_none_or(is_wanted));
        let known = rows.filter_map(|row| row.get(PATIENT).filter(|id| !id.is_empty()));
        anyhow::Ok(known.map(str::to_owned).collect::<HashSet<String>>())
    };
    let evaluated = patients(evaluate, &|split| split != "pretrain")?;
    let mut both = HashSet::new();
    for path in manifests {
        let trained = patients(path, &|own| own == split)?;
        both.extend(
            trained
                .into_iter()
                .filter(|patient| evaluated.contains(patient)),
        );
    }
    Ok(both.len())
}

/// Returns for each row whether it is in the share.
fn chosen(table: &Table, share: Share) -> Vec<bool> {
    let Share { fraction, seed } = share;
    let hash = |row: &Row<'_>| {
        let patient = row.get(PATIENT).filter(|patient| !patient.is_empty());
        xxh3_64_with_seed(patient.unwrap_or_else(|| row.path()).as_bytes(), seed)
    };
    let kind = |row: &Row<'_>| {
        let cell = |name: &str| row.get(name).unwrap_or_default().to_owned();
        (cell(SPLIT), cell(MODALITY), cell(DIMS))
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
        let file = text_of(&file);
        let cells = names.iter().zip(row.cells());
        writer.push(cells.map(|(name, cell)| if *name == PATH { &file } else { cell }))?;
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
        let chosen = |fraction: f64, seed: u64| chosen(&table, Share { fraction, seed });
        let [small, large] = [0.25, 0.5].map(|fraction| chosen(fraction, 7));
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
        assert_ne!(chosen(0.25, 8), small);
        assert_eq!(count(&chosen(1.0, 7)), 200);
    }
}
