//! The folder of the results: kept apart from every input, and described by a manifest.

use m3ret_manifest::columns::{DISTURBED, PART};
use m3ret_manifest::text_of;
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

use anyhow::Context as _;
use m3ret_files::{make_folder, place_of};
use m3ret_manifest::{COLUMNS, Layout, Writer};

use super::sources::{Ct, Labels};
use crate::files::{Force, Inputs, Output, Replaces, listed_in, refuse_irregular};

/// The cells of `COLUMNS`, then the part of the file, then the seed of a disturbed picture.
pub(super) type Row = [String; COLUMNS.len() + 2];

const MANIFEST: &str = "manifest.csv";

/// The folder of the results; it is made with the first result.
#[derive(Debug)]
pub(super) struct Folder {
    /// As it was given.
    path: PathBuf,
    /// Absolute and without links.
    place: PathBuf,
}

impl Folder {
    /// Accepts a folder that is new or empty; with `is_forced`, any folder that neither holds an input nor lies in one.
    pub(super) fn choose(path: &Path, is_forced: bool, inputs: &[&Path]) -> anyhow::Result<Self> {
        let folder = Self {
            path: path.to_owned(),
            place: place_of(path).with_context(|| format!("opening {}", path.display()))?,
        };
        let inputs = Inputs {
            named: inputs,
            listed: &|| listed_in(inputs),
        };
        let output = Output {
            path,
            replaces: Replaces::Nothing,
            force: Force::of(is_forced),
        };
        output.check_folder(&inputs)?;
        Ok(folder)
    }

    /// Returns where to write a picture, and makes the folder if this is the first.
    pub(super) fn path_for(&self, name: &str) -> anyhow::Result<PathBuf> {
        make_folder(&self.path)?;
        let manifest = self.path.join(MANIFEST);
        refuse_irregular(&manifest)?;
        // The old manifest is removed first, so that no manifest lies beside pictures that it does not describe.
        match std::fs::remove_file(&manifest) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("removing {}", manifest.display()));
            }
            _ => {}
        }
        Ok(self.path.join(name))
    }

    /// The row of a CT.
    pub(super) fn ct_row(&self, ct: &Ct, part: Option<&str>, labels: &Labels) -> Row {
        let file = ct.file.canonicalize().unwrap_or_else(|_| ct.file.clone());
        [
            relative(&self.place, &file),
            "CT".into(),
            labels.body_part.clone(),
            labels.finding.clone(),
            labels.patient_id.clone(),
            labels.source.clone(),
            labels.split.clone(),
            "3d".into(),
            labels.license.clone(),
            labels.pair_id.clone(),
            part.unwrap_or_default().to_owned(),
            String::new(),
        ]
    }

    /// Writes the manifest, whole or not at all.
    pub(super) fn write_manifest(&self, rows: &[Row]) -> anyhow::Result<PathBuf> {
        let path = self.path.join(MANIFEST);
        let doing = || format!("writing {}", path.display());
        let columns: Vec<&str> = COLUMNS.into_iter().chain([PART, DISTURBED]).collect();
        let mut writer = Writer::create(&path, Layout::Csv, &columns).with_context(doing)?;
        for row in rows {
            let cells = row.iter().map(String::as_str);
            writer.push(cells).with_context(doing)?;
        }
        writer.finish().with_context(doing)?;
        Ok(path)
    }
}

/// Writes a path as seen from a folder, both absolute, with forward slashes.
fn relative(folder: &Path, file: &Path) -> String {
    let from: Vec<Component<'_>> = folder.components().collect();
    let to: Vec<Component<'_>> = file.components().collect();
    let n_shared = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    if n_shared == 0 {
        // Another drive.
        return text_of(file);
    }
    let up = from.iter().skip(n_shared).map(|_| Component::ParentDir);
    let way: PathBuf = up.chain(to.into_iter().skip(n_shared)).collect();
    text_of(&way)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_seen_from_the_folder() {
        for (folder, file, expected) in [
            ("/a/b", "/a/b/c.nii", "c.nii"),
            ("/a/b", "/a/ct/c.nii", "../ct/c.nii"),
            ("/x/y/z", "/a", "../../../a"),
        ] {
            assert_eq!(relative(folder.as_ref(), file.as_ref()), expected);
        }
    }

    #[test]
    fn results_and_inputs_are_kept_apart() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        std::fs::create_dir_all(at("in/series")).unwrap();
        std::fs::write(at("in/a.nii"), "").unwrap();
        let is_apart =
            |out: &str, input: &str| Folder::choose(&at(out), true, &[&at(input)]).is_ok();
        assert!(is_apart("new/out", "in/a.nii"));
        assert!(is_apart("in/out", "in/a.nii"));
        assert!(!is_apart("in", "in/a.nii"));
        assert!(!is_apart("in/out", "in"));
        assert!(!is_apart("in/series", "in/series"));
        let is_taken = |out: &str, is_forced| Folder::choose(&at(out), is_forced, &[]).is_err();
        assert!(is_taken("in", false));
        assert!(!is_taken("in/series", false));
        assert!(is_taken("in/a.nii", true));
    }
}
