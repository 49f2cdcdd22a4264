//! What further vectors cost: times galleries of the same vectors as views of few rows, and as many rows.
//!
//!     view_speed FOLDER WIDTH ROWS
//!
//! Makes three galleries in FOLDER: ROWS rows, ROWS rows with four further vectors each, and five times ROWS rows, which
//! are the same vectors. Prints a table. Run on one thread (`RAYON_NUM_THREADS=1`), so that CPU time is that of one core.
//! FOLDER keeps `own.npy` and `queries.npy` for `make_gallery` and `search_speed`.
//!
//! Vectors lie around random centres, 100 rows a centre; each view has centres of its own, as projections of volumes look
//! unlike volumes. Queries lie around the centres of rows, and of each view in turn where a gallery holds views. A quarter of
//! the rows is of the queries' modality: `by modality` compares these by their own vectors alone.

#![allow(
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::unwrap_used,
    missing_docs,
    reason = "a program for measuring"
)]

use std::path::Path;

use m3ret_search::{
    AskedImage, Batch, Gallery, Maker, Method, Numbers, Queries, RowHit, SearchOptions, Setup,
    View, ViewVectors, Views, Writer, normalize, search_across,
};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// Further vectors of each row.
const N_VIEWS: usize = 4;
const K: usize = 10;
/// Queries that are asked together.
const N_BATCH: usize = 2000;
/// Queries that are asked one at a time.
const N_SINGLE: usize = 300;
/// An exact search takes so many times as long that fewer queries tell as much.
const EXACT_SHARE: usize = 10;
/// Queries whose hits are compared with the exact ones.
const N_RECALL: usize = 200;
/// The fastest of so many rounds counts.
const N_ROUNDS: usize = 3;
/// Length of the noise around a centre of length 1.
const NOISE: f32 = 0.365;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let folder = Path::new(&arguments[1]);
    let (width, n_rows): (usize, usize) = (arguments[2].parse()?, arguments[3].parse()?);
    std::fs::create_dir_all(folder)?;
    let mut clusters = Clusters::new(width, n_rows / 100);
    // The own vectors of all rows, then those of each view.
    let mut vectors = Vec::with_capacity((N_VIEWS + 1) * n_rows * width);
    for view in 0..=N_VIEWS {
        (0..n_rows).for_each(|_| clusters.draw(view, &mut vectors));
    }
    let (mut queries, mut near_rows) = (Vec::new(), Vec::new());
    (0..N_BATCH).for_each(|idx| clusters.draw(idx % (N_VIEWS + 1), &mut queries));
    (0..N_BATCH).for_each(|_| clusters.draw(0, &mut near_rows));
    let (own, further) = vectors.split_at(n_rows * width);
    write_npy(&folder.join("own.npy"), own, width)?;
    write_npy(&folder.join("queries.npy"), &near_rows, width)?;
    println!(
        "| gallery | vectors | MB | build, CPU s | search | recall@10 | batch, queries / CPU s \
         | single, queries / CPU s |\n|---|---|---|---|---|---|---|---|"
    );
    let path = folder.join("g.m3i");
    for (name, own, further, queries) in [
        ("one vector a row", own, &[][..], &near_rows),
        ("five vectors a row", own, further, &queries),
        ("the same vectors as rows", &vectors, &[], &queries),
    ] {
        let cpu = cpu_s();
        build(&path, own, further, width)?;
        let cpu = cpu_s() - cpu;
        let gallery = Gallery::open(&path)?;
        println!("<!-- {:?} -->", gallery.calibration());
        let size = n_bytes(&path)? as f64 / 1e6;
        let start = format!("{name} | {} | {size:.0} | {cpu:.1}", gallery.n_vectors()?);
        measure(&gallery, queries, &start)?;
        std::fs::remove_dir_all(&path)?;
    }
    Ok(())
}

/// Prints a line of the table for each way to search a gallery.
fn measure(gallery: &Gallery, queries: &[f32], start: &str) -> Outcome<()> {
    let width = gallery.width();
    let ways = [
        ("as calibrated", Method::Auto, Views::default(), false),
        ("exact", Method::Exact, Views::default(), false),
        ("own vectors only", Method::Auto, Views::Own, false),
        ("by modality", Method::Auto, Views::default(), true),
    ];
    let n_ways = if gallery.views().is_empty() { 2 } else { 4 };
    for (name, method, views, by_modality) in ways.into_iter().take(n_ways) {
        let options = SearchOptions {
            k: K,
            method,
            views,
            ..SearchOptions::default()
        };
        let asked = Asked {
            gallery,
            by_modality,
        };
        let share = if method == Method::Exact {
            EXACT_SHARE
        } else {
            1
        };
        let [batch, single] = [N_BATCH, N_SINGLE].map(|n| &queries[..n / share * width]);
        println!(
            "| {} x {width}, {start} | {name} | {:.4} | {:.0} | {:.0} |",
            gallery.len(),
            asked.recall(queries, &options)?,
            asked.speed(batch, N_BATCH, &options)?,
            asked.speed(single, 1, &options)?,
        );
    }
    Ok(())
}

/// Vectors around random centres.
struct Clusters {
    width: usize,
    /// For each view, [centres, width].
    centres: Vec<Vec<f32>>,
    random: ChaCha8Rng,
}

impl Clusters {
    fn new(width: usize, n: usize) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let mut centres = vec![Vec::new(); N_VIEWS + 1];
        for centres in &mut centres {
            for _ in 0..n.max(1) {
                centres.extend(direction(&mut random, width));
            }
        }
        Self {
            width,
            centres,
            random,
        }
    }

    /// Draws a vector near a centre of a view.
    fn draw(&mut self, view: usize, out: &mut Vec<f32>) {
        let centres = &self.centres[view];
        let centre = self.random.random_range(0..centres.len() / self.width) * self.width;
        let mut vector = direction(&mut self.random, self.width);
        for (x, c) in vector.iter_mut().zip(&centres[centre..]) {
            *x = c + NOISE * *x;
        }
        normalize(&mut vector).unwrap();
        out.extend(vector);
    }
}

fn direction(random: &mut ChaCha8Rng, width: usize) -> Vec<f32> {
    let mut number = || (0..4).map(|_| random.random::<f32>() - 0.5).sum::<f32>();
    let mut vector: Vec<f32> = (0..width).map(|_| number()).collect();
    normalize(&mut vector).unwrap();
    vector
}

fn build(path: &Path, own: &[f32], further: &[f32], width: usize) -> Outcome<()> {
    let setup = Setup {
        maker: Maker {
            fingerprint: "bench".into(),
            model: "bench".into(),
            precision: "f32".into(),
        },
        width,
        numbers: Numbers::F32,
    };
    let n_rows = own.len() / width;
    let ids: Vec<String> = (0..n_rows).map(|row| row.to_string()).collect();
    let modality = |row: usize| ["CT", "MR", "DX", "US"][row % 4].to_owned();
    let modalities = (0..n_rows).map(modality).collect();
    let names: Vec<String> = (1..=N_VIEWS).map(|view| format!("view {view}")).collect();
    let rows = u32::try_from(n_rows)?;
    let of = (0_u32..).take(further.len() / width).map(|idx| View {
        row: idx % rows,
        name: idx / rows,
    });
    let of: Vec<View> = of.collect();
    let mut writer = Writer::create(path, setup)?;
    writer.add(Batch {
        vectors: own,
        ids: &ids,
        columns: &[("modality".to_owned(), modalities)],
        views: ViewVectors {
            names: &names,
            of: &of,
            vectors: further,
        },
        ..Batch::default()
    })?;
    Ok(writer.compact()?)
}

/// A gallery, and how it is asked.
struct Asked<'a> {
    gallery: &'a Gallery,
    /// Queries are CT, and compared with the views of other modalities alone.
    by_modality: bool,
}

impl Asked<'_> {
    fn search(&self, vectors: &[f32], options: &SearchOptions) -> Outcome<Vec<Vec<RowHit>>> {
        let queries = Queries {
            vectors,
            ..Queries::default()
        };
        let image = AskedImage {
            modality: "CT",
            is_flat: true,
        };
        let images = vec![image; vectors.len() / self.gallery.width()];
        Ok(match self.by_modality {
            true => search_across(self.gallery, queries, &images, options)?,
            false => self.gallery.search(queries, options)?,
        })
    }

    /// Queries per CPU second, `n_together` at a time.
    fn speed(&self, queries: &[f32], n_together: usize, options: &SearchOptions) -> Outcome<f64> {
        let width = self.gallery.width();
        let mut best = f64::INFINITY;
        for _ in 0..=N_ROUNDS {
            let cpu = cpu_s();
            for queries in queries.chunks(n_together * width) {
                self.search(queries, options)?;
            }
            best = best.min(cpu_s() - cpu);
        }
        Ok((queries.len() / width) as f64 / best)
    }

    /// The share of the exact ten best that is found.
    fn recall(&self, queries: &[f32], options: &SearchOptions) -> Outcome<f64> {
        let exact = SearchOptions {
            method: Method::Exact,
            ..options.clone()
        };
        let queries = &queries[..N_RECALL * self.gallery.width()];
        let wanted = self.search(queries, &exact)?;
        let found = self.search(queries, options)?;
        let mut n_found = 0;
        for (wanted, found) in wanted.iter().zip(&found) {
            let is_found = |hit: &&RowHit| found.iter().any(|other| other.row == hit.row);
            n_found += wanted.iter().filter(is_found).count();
        }
        Ok(n_found as f64 / wanted.iter().flatten().count() as f64)
    }
}

fn n_bytes(folder: &Path) -> Outcome<u64> {
    let mut n_bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        n_bytes += entry?.metadata()?.len();
    }
    Ok(n_bytes)
}

/// Writes an array of f32, [n, width].
fn write_npy(path: &Path, values: &[f32], width: usize) -> Outcome<()> {
    let n = values.len() / width;
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({n}, {width}), }}");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend(118_u16.to_le_bytes());
    bytes.extend(format!("{header:<117}\n").bytes());
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    Ok(std::fs::write(path, bytes)?)
}

/// CPU time of all threads that still run.
fn cpu_s() -> f64 {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let all = threads.flatten().filter_map(|entry| {
        let text = std::fs::read_to_string(entry.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<f64>().ok()
    });
    all.sum::<f64>() * 1e-9
}
