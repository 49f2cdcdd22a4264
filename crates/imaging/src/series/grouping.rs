//! Slices of an archive by series, and each series divided into volumes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::{Along, Key, Slice, images};
use crate::division::{self, Division};
use crate::reason::{Code, Reason};
use crate::stack::{self, Plane};

/// Fewest slices whose positions and numbers can show that they belong together.
const MIN_MENDED: usize = 3;

/// Slices by folder and what they share.
type ByKey<F> = BTreeMap<(F, Key), Vec<(PathBuf, Slice)>>;

/// Files that are read as one object.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Part {
    /// In the order of their paths.
    pub(crate) files: Vec<PathBuf>,
    /// The folder that holds every file of the series.
    pub(crate) folder: PathBuf,
    /// Tells the series of one folder apart; its parts share it.
    pub(crate) series: usize,
    /// What differs from the other parts: `echo=2, t=0`.
    pub(crate) name: Option<String>,
    /// How the files follow each other.
    pub(crate) along: Along,
    /// What a person should know of them.
    pub(crate) notes: Vec<Reason>,
    /// True if the files are one image and copies of it.
    pub(crate) is_copied_image: bool,
}

/// Puts slices together by series, and divides every series into volumes. `digest` tells equal pixels.
pub(crate) fn group(
    slices: Vec<(PathBuf, Slice)>,
    digest: &dyn Fn(&Path) -> Option<u64>,
) -> Vec<Part> {
    let mut by_key: ByKey<Option<PathBuf>> = BTreeMap::new();
    for (path, slice) in slices {
        // Without an identifier, slices of different folders are not put together.
        let is_anonymous = slice.key.series.is_empty();
        let folder = is_anonymous.then(|| folder_of(&path));
        let key = (folder, slice.key.clone());
        by_key.entry(key).or_default().push((path, slice));
    }
    let mut parts = Vec::new();
    let mut loose = Vec::new();
    let mut n_series = 0;
    let completed = complete(&mut by_key);
    for ((folder, key), mut members) in by_key {
        if members.len() == 1 {
            loose.append(&mut members);
            continue;
        }
        let mut found = divided(&members, n_series, digest);
        n_series += members.len();
        if key.series.is_empty() {
            let detail = "SeriesInstanceUID is empty; slices were put together by folder, study, \
                          patient and frame of reference";
            note_several(&mut found, detail);
        }
        if completed.contains(&(folder, key)) {
            let detail = "some slices lack identifiers that the others of their series state";
            note_several(&mut found, detail);
        }
        parts.append(&mut found);
    }
    parts.extend(mended(loose, n_series, digest));
    parts
}

/// Adds slices that lack an identifier to those of their series that state it, where only one set of
/// identifiers fits; returns which sets were completed.
fn complete(by_key: &mut ByKey<Option<PathBuf>>) -> HashSet<(Option<PathBuf>, Key)> {
    let mut of_series: HashMap<String, Vec<(Option<PathBuf>, Key)>> = HashMap::new();
    for key in by_key.keys().filter(|(_, key)| !key.series.is_empty()) {
        of_series
            .entry(key.1.series.clone())
            .or_default()
            .push(key.clone());
    }
    let mut completed = HashSet::new();
    for keys in of_series.into_values().filter(|keys| keys.len() > 1) {
        for own in &keys {
            let mut wholes = keys.iter().filter(|(_, other)| own.1.is_part_of(other));
            if let (Some(whole), None) = (wholes.next(), wholes.next())
                && let Some(members) = by_key.remove(own)
            {
                by_key.entry(whole.clone()).or_default().extend(members);
                completed.insert(whole.clone());
            }
        }
    }
    completed
}

/// Images of their own for slices that do not say where they lie; told where their series has several
/// images, since those belong together.
pub(crate) fn unplaced(unplaced: &[(PathBuf, Key)], slices: &[(PathBuf, Slice)]) -> Vec<Part> {
    let mut n_images: BTreeMap<&Key, usize> = BTreeMap::new();
    let keys = unplaced.iter().map(|(_, key)| key);
    for key in keys.chain(slices.iter().map(|(_, slice)| &slice.key)) {
        *n_images.entry(key).or_default() += 1;
    }
    let part = |(path, key): &(PathBuf, Key)| {
        let n_images = n_images.get(key).copied().unwrap_or(1);
        let detail = format!("one of {n_images} images of a series; it does not say where it lies");
        let note = Reason::new(Code::UnplacedSlice, detail);
        Part {
            files: vec![path.clone()],
            folder: folder_of(path),
            series: usize::MAX,
            name: None,
            along: Along::Space,
            notes: if n_images > 1 { vec![note] } else { Vec::new() },
            is_copied_image: false,
        }
    };
    unplaced.iter().map(part).collect()
}

fn note_several(parts: &mut [Part], detail: &str) {
    for part in parts.iter_mut().filter(|part| part.files.len() > 1) {
        let reason = Reason::new(Code::HeaderRepaired, detail);
        part.notes.push(reason);
    }
}

/// Divides the slices of one series; its grids are numbered as series from `first` on.
fn divided(
    members: &[(PathBuf, Slice)],
    first: usize,
    digest: &dyn Fn(&Path) -> Option<u64>,
) -> Vec<Part> {
    let images = images(members.iter().map(|(_, slice)| slice));
    let digest = |index: usize| members.get(index).and_then(|(path, _)| digest(path));
    let path = |&index: &usize| members.get(index).map(|(path, _)| path.clone());
    let divisions = division::divide(&images, &digest);
    let mut folders: BTreeMap<usize, PathBuf> = BTreeMap::new();
    for division in &divisions {
        for file in division.members.iter().filter_map(path) {
            let common = folders
                .entry(division.grid)
                .or_insert_with(|| folder_of(&file));
            while !file.starts_with(&*common) && common.pop() {}
        }
    }
    let part = |division: Division| {
        let mut files: Vec<PathBuf> = division.members.iter().filter_map(path).collect();
        files.sort();
        let planes: Vec<Plane> = division
            .members
            .iter()
            .filter_map(|&index| images.planes.get(index).copied())
            .collect();
        let is_one_position = stack::positions(&planes).iter().all(|&n| n == 0);
        Part {
            files,
            folder: folders.get(&division.grid).cloned().unwrap_or_default(),
            series: first + division.grid,
            name: division.name,
            along: if division.is_time {
                Along::Time
            } else {
                Along::Space
            },
            notes: division.notes,
            is_copied_image: is_one_position && division.n_copies > 0,
        }
    };
    divisions.into_iter().map(part).collect()
}

/// Puts slices together that are alone in their series, where their numbers follow each other and their
/// positions form a stack: an anonymiser gave each a series, a study or a frame of reference of its own.
fn mended(
    loose: Vec<(PathBuf, Slice)>,
    first: usize,
    digest: &dyn Fn(&Path) -> Option<u64>,
) -> Vec<Part> {
    let mut by_folder: ByKey<PathBuf> = BTreeMap::new();
    for (path, slice) in loose {
        let key = Key {
            series: String::new(),
            study: String::new(),
            frame_of_reference: String::new(),
            ..slice.key.clone()
        };
        let members = by_folder.entry((folder_of(&path), key)).or_default();
        members.push((path, slice));
    }
    let mut parts = Vec::new();
    let mut n_series = first;
    for members in by_folder.into_values() {
        let planes: Vec<Plane> = members.iter().map(|(_, slice)| slice.plane).collect();
        for grid in stack::aligned(&planes) {
            let of = |&index: &usize| members.get(index).cloned();
            let members: Vec<(PathBuf, Slice)> = grid.iter().filter_map(of).collect();
            // Without a patient, slices may be those of several people.
            let is_known = members.iter().all(|(_, slice)| !slice.key.has_no_patient());
            let mut found = if is_known && is_series(&members) {
                let mut found = divided(&members, n_series, digest);
                let detail = "each slice states a series, study or frame of reference of its own; \
                              their numbers and positions put them together";
                note_several(&mut found, detail);
                found
            } else {
                let alone = |(place, member): (usize, &(PathBuf, Slice))| {
                    divided(std::slice::from_ref(member), n_series + place, digest)
                };
                members.iter().enumerate().flat_map(alone).collect()
            };
            n_series += members.len();
            parts.append(&mut found);
        }
    }
    parts
}

/// Returns true if the numbers of slices follow each other without a gap, as their positions do.
fn is_series(members: &[(PathBuf, Slice)]) -> bool {
    let numbers: Option<Vec<f64>> = members.iter().map(|(_, slice)| slice.number).collect();
    let Some(mut numbers) = numbers.filter(|numbers| numbers.len() >= MIN_MENDED) else {
        return false;
    };
    let planes: Vec<Plane> = members.iter().map(|(_, slice)| slice.plane).collect();
    numbers.sort_by(f64::total_cmp);
    let mut steps = numbers.iter().zip(numbers.iter().skip(1));
    #[allow(clippy::float_cmp, reason = "whole numbers, exact in f64")]
    let follow = steps.all(|(a, b)| b - a == 1.0);
    follow && stack::stack(&planes, &[]).is_ok()
}

fn folder_of(path: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("")).to_owned()
}
