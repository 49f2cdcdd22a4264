//! Whatever becomes of an archive, its galleries say what a new one would say.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "person/binary.rs"]
mod binary;
#[path = "person/pictures.rs"]
mod pictures;

use std::path::Path;

use serde_json::Value;

use binary::{json_lines, npy, run};
use pictures::{picture, put};

/// Numbers that look random and are the same in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % n
    }
}

/// An archive with files of a few contents, and a list of them with ids and findings.
struct Archive {
    folder: tempfile::TempDir,
    dice: Dice,
    /// Names of the files that are there.
    files: Vec<String>,
    /// Number of files that were made.
    n_made: usize,
}

const N_CONTENTS: usize = 6;
const FOLDERS: [&str; 3] = ["arch", "arch/a", "arch/b"];
const FINDINGS: [&str; 3] = ["mass", "normal", "nodule"];

impl Archive {
    fn new(seed: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in FOLDERS {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        put(folder.path(), "query.npy", npy(&[16, 16], &picture(40)));
        let mut archive = Self {
            folder,
            dice: Dice(seed),
            files: Vec::new(),
            n_made: 0,
        };
        for _ in 0..5 {
            archive.make();
        }
        archive
    }

    fn root(&self) -> &Path {
        self.folder.path()
    }

    fn new_name(&mut self) -> String {
        self.n_made += 1;
        format!("{}/{}.npy", FOLDERS[self.dice.below(3)], self.dice.below(5))
    }

    fn fill(&mut self, name: &str) {
        let content = npy(&[16, 16], &picture(self.dice.below(N_CONTENTS)));
        put(self.root(), name, content);
    }

    fn make(&mut self) {
        let name = self.new_name();
        self.fill(&name);
        if !self.files.contains(&name) {
            self.files.push(name);
        }
    }

    fn any(&mut self) -> String {
        let idx = self.dice.below(self.files.len());
        self.files[idx].clone()
    }

    /// Does one thing that happens to archives.
    fn change(&mut self) {
        let one = self.any();
        let path = self.root().join(&one);
        match self.dice.below(7) {
            0 => self.make(),
            1 => self.fill(&one),
            2 if self.files.len() > 2 => {
                std::fs::remove_file(path).unwrap();
                self.files.retain(|name| *name != one);
            }
            3 => {
                let to = self.new_name();
                std::fs::rename(path, self.root().join(&to)).unwrap();
                self.files.retain(|name| *name != one && *name != to);
                self.files.push(to);
            }
            4 => {
                // Two files exchange their names.
                let other = self.any();
                let spare = self.root().join("spare");
                std::fs::rename(&path, &spare).unwrap();
                if other != one {
                    std::fs::rename(self.root().join(&other), &path).unwrap();
                }
                std::fs::rename(spare, self.root().join(&other)).unwrap();
            }
            5 => {
                let to = self.new_name();
                if to != one {
                    std::fs::copy(path, self.root().join(&to)).unwrap();
                    self.files.retain(|name| *name != to);
                    self.files.push(to);
                }
            }
            _ => {
                let time = std::time::UNIX_EPOCH
                    + std::time::Duration::from_secs(self.dice.below(99) as u64);
                let file = std::fs::File::options().write(true).open(path).unwrap();
                file.set_modified(time).unwrap();
            }
        }
    }

    /// Writes a list of some of the files, each with any of a few ids, some files twice.
    fn list(&mut self) {
        let mut text = "path,id,finding\n".to_owned();
        let mut ids: Vec<usize> = (0..self.files.len() + 2).collect();
        for name in self.files.clone() {
            for _ in 0..1 + usize::from(self.dice.below(4) == 0) {
                if (self.dice.below(5) == 0 && text.lines().count() > 1) || ids.is_empty() {
                    continue;
                }
                let id = ids.swap_remove(self.dice.below(ids.len()));
                let finding = FINDINGS[self.dice.below(3)];
                text += &format!("{name},i{id},{finding}\n");
            }
        }
        put(self.root(), "list.csv", text);
    }

    /// Returns ids, files, findings and scores of all images that a search finds.
    fn found(&self, archive: &str, cache: &str) -> Vec<String> {
        let words = [
            "search",
            "-d",
            archive,
            "--cache",
            cache,
            "--json",
            "-k",
            "99",
            "-i",
            "query.npy",
            "--model",
            "pixels",
        ];
        let (_, out, told) = run(self.root(), &words);
        let answers = json_lines(&out);
        assert!(!answers.is_empty(), "{told}");
        let mut rows: Vec<String> = answers[0]["hits"]
            .as_array()
            .unwrap()
            .iter()
            .map(line)
            .collect();
        rows.sort();
        rows
    }
}

fn line(hit: &Value) -> String {
    format!(
        "{} {} {} {}",
        hit["id"], hit["file"], hit["finding"], hit["score"]
    )
}

#[test]
fn a_search_finds_what_a_new_cache_would_find() {
    for seed in 0..12 {
        let mut archive = Archive::new(seed);
        for step in 0..6 {
            archive.list();
            for source in ["arch", "list.csv"] {
                let new = format!("new{step}");
                let (kept, wanted) = (archive.found(source, "kept"), archive.found(source, &new));
                assert_eq!(kept, wanted, "seed {seed}, step {step}, {source}");
            }
            for _ in 0..1 + archive.dice.below(3) {
                archive.change();
            }
        }
    }
}

#[test]
fn a_gallery_that_is_added_to_has_each_file_once_with_its_own_vector() {
    for seed in 100..112 {
        let mut archive = Archive::new(seed);
        let index = |archive: &Archive, action: &str| {
            let words = [
                "index", action, "g.m3i", "arch", "--model", "pixels", "--json",
            ];
            let (status, out, told) = run(archive.root(), &words);
            assert_eq!(status, 0, "{told}");
            json_lines(&out).remove(0)
        };
        index(&archive, "build");
        for step in 0..6 {
            for _ in 0..1 + archive.dice.below(3) {
                archive.change();
            }
            index(&archive, "add");
            run(archive.root(), &["index", "prune", "g.m3i", "--force"]);
            let words = [
                "search",
                "-d",
                "g.m3i",
                "--json",
                "-k",
                "99",
                "-i",
                "query.npy",
            ];
            let (_, out, _) = run(archive.root(), &words);
            let hits = json_lines(&out)[0]["hits"].as_array().unwrap().clone();
            let of_file = |hit: &Value| format!("{} {}", hit["file"], hit["score"]);
            let mut kept: Vec<String> = hits.iter().map(of_file).collect();
            kept.sort();
            let new = archive.found("arch", &format!("new{step}"));
            let new: Vec<String> = new
                .iter()
                .map(|line| {
                    let words: Vec<&str> = line.split(' ').collect();
                    format!("{} {}", words[1], words[3])
                })
                .collect();
            let mut new = new;
            new.sort();
            assert_eq!(kept, new, "seed {seed}, step {step}");
            // Nothing is left to do.
            let again = index(&archive, "add");
            let counts = ["n_added", "n_reused", "n_relabelled", "n_replaced"];
            assert_eq!(
                counts.map(|name| again[name].as_u64().unwrap()),
                [0; 4],
                "seed {seed}, step {step}"
            );
        }
    }
}
