//! A collection that is kept far away is asked as a gallery is, and in few ways there.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use m3ret::galleries::{Archive, OpenOptions};
use m3ret::index::{AddOptions, BuildOptions, add, build};
use m3ret::options::{FolderChoice, ModelChoice, Reading, VolumeViews};
use m3ret::search::{Ask, Queries};
use m3ret::watch::Quiet;
use m3ret_imaging::{Pixels, encode_png};
use m3ret_search::{
    Collection, Gallery, Maker, Numbers, Queries as RowQueries, Result, RowHit, RowId,
    SearchOptions, Statistics,
};

/// A gallery of which nothing can be borrowed, and which counts the ways to it.
struct Far {
    gallery: Gallery,
    n_ways: Arc<AtomicUsize>,
}

impl Far {
    fn there(&self) -> &dyn Collection {
        self.n_ways.fetch_add(1, Ordering::Relaxed);
        &self.gallery
    }
}

fn owned<'a>(cells: impl IntoIterator<Item = Cow<'a, str>>) -> Vec<Cow<'static, str>> {
    cells
        .into_iter()
        .map(|cell| Cow::Owned(cell.into_owned()))
        .collect()
}

impl Collection for Far {
    fn len(&self) -> usize {
        self.gallery.len()
    }
    fn width(&self) -> usize {
        self.gallery.width()
    }
    fn numbers(&self) -> Numbers {
        self.gallery.numbers()
    }
    fn maker(&self) -> &Maker {
        self.gallery.maker()
    }
    fn columns(&self) -> Vec<&str> {
        self.gallery.columns()
    }
    fn scan(&self) -> Result<Vec<RowId>> {
        self.there().scan()
    }
    fn find(&self, id: &str) -> Result<Option<RowId>> {
        self.there().find(id)
    }
    fn find_rows(&self, column: &str, value: &str) -> Result<Vec<RowId>> {
        self.there().find_rows(column, value)
    }
    fn values(&self, column: &str) -> Result<Vec<Cow<'_, str>>> {
        Ok(owned(self.there().values(column)?))
    }
    fn ids(&self, rows: &[RowId]) -> Result<Vec<Cow<'_, str>>> {
        Ok(owned(self.there().ids(rows)?))
    }
    fn rows(&self, rows: &[RowId], columns: &[&str]) -> Result<Vec<Vec<Cow<'_, str>>>> {
        let rows = self.there().rows(rows, columns)?;
        Ok(rows.into_iter().map(owned).collect())
    }
    fn vectors(&self, rows: &[RowId]) -> Result<Vec<f32>> {
        self.there().vectors(rows)
    }
    fn attachment(&self, row: RowId, name: &str) -> Result<Cow<'_, [u8]>> {
        self.there().attachment(row, name)
    }
    fn search(&self, queries: RowQueries<'_>, options: &SearchOptions) -> Result<Vec<Vec<RowHit>>> {
        self.there().search(queries, options)
    }
    fn statistics(&self) -> Result<Option<&Statistics>> {
        self.gallery.statistics()
    }
    fn pseudonym(&self, kind: &str, identifier: &str) -> String {
        self.gallery.pseudonym(kind, identifier)
    }
}

/// Pictures `0.png` to `29.png`, a list with findings, and a gallery of it.
fn archive(root: &Path) {
    let mut list = "path,finding,patient_id\n".to_owned();
    for i in 0..30_u32 {
        let pixels: Vec<u8> = (0..64 * 64_u32)
            .map(|at| u8::try_from(at * (i + 1) / 16 % 251).unwrap())
            .collect();
        let png = encode_png(Pixels::Grey8(&pixels), 64, 64).unwrap();
        std::fs::write(root.join(format!("{i}.png")), png).unwrap();
        list += &format!("{i}.png,kind{},p{}\n", i % 3, i / 2);
    }
    std::fs::write(root.join("list.csv"), list).unwrap();
    let options = BuildOptions {
        gallery: root.join("g.m3i"),
        source: root.join("list.csv"),
        vectors: None,
        numbers: Numbers::F32,
        has_thumbnails: false,
        views: Some(VolumeViews::NONE),
        model: ModelChoice::named("pixels"),
        reading: Reading::default(),
        folder: FolderChoice::default(),
    };
    assert_eq!(build(&options, &Quiet).unwrap().n_items, 30);
    // Nothing is left to do.
    assert_eq!(
        add(&options, AddOptions::default(), &Quiet)
            .unwrap()
            .updated
            .n_new,
        0
    );
}

fn over(root: &Path, n_ways: &Arc<AtomicUsize>) -> Archive {
    let far = Far {
        gallery: Gallery::open(&root.join("g.m3i")).unwrap(),
        n_ways: Arc::clone(n_ways),
    };
    Archive::over(Path::new("far"), Box::new(far), &OpenOptions::default())
}

#[test]
fn a_far_collection_answers_as_a_gallery_in_few_ways() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    archive(root);
    let near = Archive::open(&root.join("g.m3i"), &OpenOptions::default(), &Quiet).unwrap();
    let n_ways = Arc::default();
    let far = over(root, &n_ways);
    let mut counts = Vec::new();
    for k in [2, 20] {
        let ask = Ask {
            k,
            exclude: vec!["same_patient".to_owned()],
            ..Ask::default()
        };
        let queries = Queries::images((0..5).map(|i| root.join(format!("{i}.png"))));
        let wanted = near.ask(&queries, &ask, &Quiet).unwrap();
        n_ways.store(0, Ordering::Relaxed);
        let found = far.ask(&queries, &ask, &Quiet).unwrap();
        counts.push(n_ways.load(Ordering::Relaxed));
        let json = |answers| serde_json::to_string(answers).unwrap();
        assert_eq!(json(&found.answers), json(&wanted.answers));
        assert_eq!(found.answers[0].hits.len(), k);
    }
    // The number of hits costs no way.
    assert_eq!(counts[0], counts[1]);
    assert!(counts[0] < 60, "{counts:?}");
    let pairs = |archive: &Archive| {
        serde_json::to_string(&archive.duplicates(0.5, &Quiet).unwrap()).unwrap()
    };
    assert_eq!(pairs(&far), pairs(&near));
}

#[test]
fn an_archive_is_shared_between_threads() {
    fn is_shared<T: Send + Sync>() {}
    is_shared::<Archive>();
}
