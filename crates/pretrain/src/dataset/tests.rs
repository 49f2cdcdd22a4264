//! Claims about the whole path from a manifest to batches, on files written here.

pub(super) mod files;
mod guard;
mod items;
mod loading;
mod sampling;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::{
    Config, ImageSettings, Method, MonitorSettings, OptimizerSettings, TrainSettings, ViewSettings,
};

use super::*;

/// A folder with a manifest, gone at the end of the test.
pub(super) struct Archive {
    folder: tempfile::TempDir,
    rows: Vec<String>,
    header: &'static str,
}

impl Archive {
    pub(super) fn new(header: &'static str) -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            rows: Vec::new(),
            header,
        }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn row(&mut self, row: impl Into<String>) {
        self.rows.push(row.into());
    }

    /// Writes the manifest and returns a small run over it.
    pub(super) fn config(&self) -> Config {
        let path = self.path("manifest.csv");
        let text = format!("{}\n{}\n", self.header, self.rows.join("\n"));
        std::fs::write(&path, text).unwrap();
        small_run(&path)
    }
}

/// A run with four views of 16 pixels an item, and no item kept for validation.
fn small_run(manifest: &Path) -> Config {
    Config {
        out: manifest.with_file_name("out"),
        manifests: vec![manifest.to_path_buf()],
        method: Method::SimDino,
        seed: 7,
        init: None,
        model: crate::config::ModelSettings {
            patch: Some([4, 8, 8]),
            side: 16,
            max_depth: 8,
            ..Default::default()
        },
        images: ImageSettings {
            validation: 0.0,
            readers: 2,
            memory_mib: 16,
            ..ImageSettings::default()
        },
        views: ViewSettings {
            side: 16,
            depth: 8,
            local_side: 8,
            local_depth: 4,
            n_local: 2,
            flip: 0.5,
            ..ViewSettings::default()
        },
        mae: Default::default(),
        simdino: Default::default(),
        salt: Default::default(),
        optimizer: OptimizerSettings::default(),
        train: TrainSettings {
            batch: 4,
            ..TrainSettings::default()
        },
        monitor: MonitorSettings::default(),
    }
}

pub(super) fn load(config: &Config) -> Arc<Items> {
    Arc::new(Items::load(config).unwrap())
}

/// All batches of some steps.
fn batches(items: &Arc<Items>, config: &Config, first: u64, n: u64) -> Vec<Batch> {
    Loader::start(Arc::clone(items), config, first, n)
        .unwrap()
        .collect::<crate::error::Result<_>>()
        .unwrap()
}
