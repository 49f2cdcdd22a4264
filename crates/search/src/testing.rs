//! Galleries for tests.

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::embedding::normalize;
use crate::gallery::{Batch, Maker, Numbers, Setup, View, ViewVectors, Writer};

/// Returns what made the vectors of tests.
pub(crate) fn maker() -> Maker {
    Maker {
        fingerprint: "test:1".to_owned(),
        model: "test".to_owned(),
        precision: "f32".to_owned(),
    }
}

/// Returns unit vectors, [n, width], around `n_clusters` centres; 0 for none.
pub(crate) fn vectors(seed: u64, n: usize, width: usize, n_clusters: usize) -> Vec<f32> {
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let number = |random: &mut ChaCha8Rng| -> f32 {
        (0..4).map(|_| random.random::<f32>() - 0.5).sum::<f32>()
    };
    let centres: Vec<f32> = (0..n_clusters * width)
        .map(|_| number(&mut random))
        .collect();
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut vectors = Vec::with_capacity(n * width);
    for _ in 0..n {
        let mut vector: Vec<f32> = (0..width).map(|_| number(&mut random)).collect();
        if n_clusters > 0 {
            let centre = random.random_range(0..n_clusters) * width;
            for (x, c) in vector.iter_mut().zip(&centres[centre..]) {
                *x = c + 0.4 * *x;
            }
        }
        normalize(&mut vector).unwrap();
        vectors.extend(vector);
    }
    vectors
}

/// Rows of a test: ids count from `first`, and columns follow from the number.
pub(crate) struct TestRows {
    pub(crate) vectors: Vec<f32>,
    pub(crate) ids: Vec<String>,
    pub(crate) columns: Vec<(String, Vec<String>)>,
    pub(crate) attachments: Vec<(String, Vec<Vec<u8>>)>,
    pub(crate) views: TestViews,
}

/// Further vectors of rows of a test.
#[derive(Default)]
pub(crate) struct TestViews {
    pub(crate) names: Vec<String>,
    pub(crate) of: Vec<View>,
    pub(crate) vectors: Vec<f32>,
}

impl TestViews {
    /// Makes up to four further vectors of each of `n_rows` rows, near other rows of the same clusters; the names
    /// that `name` gives are not in order.
    pub(crate) fn new(seed: u64, n_rows: usize, width: usize, n_clusters: usize) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed ^ 0x7669_6577);
        let names = ["side", "front", "slice 3/8", "front mirrored"].map(str::to_owned);
        let mut of = Vec::new();
        for row in 0..u32::try_from(n_rows).unwrap() {
            let has_some = random.random_range(0..3) > 0;
            let named = 0..names.len() as u32;
            let named = named.filter(|_| has_some && random.random_range(0..3) > 0);
            of.extend(named.map(|name| View { row, name }));
        }
        Self {
            names: names.to_vec(),
            vectors: vectors(seed + 1000, of.len(), width, n_clusters),
            of,
        }
    }
}

impl TestRows {
    pub(crate) fn new(first: usize, vectors: Vec<f32>, width: usize) -> Self {
        let numbers = first..first + vectors.len() / width;
        let column = |name: &str, value: fn(usize) -> String| {
            (name.to_owned(), numbers.clone().map(value).collect())
        };
        Self {
            ids: numbers.clone().map(|i| format!("row/{i}")).collect(),
            columns: vec![
                column("modality", |i| ["CT", "MR", "DX"][i % 3].to_owned()),
                column("patient_id", |i| format!("p{}", i / 4)),
                column("bucket", |i| (i % 100).to_string()),
                column("rare", |i| {
                    if i % 7 == 0 {
                        "yes".to_owned()
                    } else {
                        String::new()
                    }
                }),
                column("body_part", |i| ["head", "chest"][i / 3 % 2].to_owned()),
            ],
            attachments: vec![(
                "thumbnail".to_owned(),
                numbers.map(|i| vec![i as u8; i % 5]).collect(),
            )],
            views: TestViews::default(),
            vectors,
        }
    }

    pub(crate) fn with_views(self, views: TestViews) -> Self {
        Self { views, ..self }
    }

    pub(crate) fn batch(&self) -> Batch<'_> {
        Batch {
            vectors: &self.vectors,
            ids: &self.ids,
            columns: &self.columns,
            attachments: &self.attachments,
            views: ViewVectors {
                names: &self.views.names,
                of: &self.views.of,
                vectors: &self.views.vectors,
            },
        }
    }
}

/// Makes a gallery of one segment for each part.
pub(crate) fn gallery(
    folder: &std::path::Path,
    width: usize,
    numbers: Numbers,
    parts: &[Vec<f32>],
) -> Writer {
    let setup = Setup {
        maker: maker(),
        width,
        numbers,
    };
    let mut writer = Writer::create(folder, setup).unwrap();
    let mut first = 0;
    for part in parts {
        let rows = TestRows::new(first, part.clone(), width);
        writer.add(rows.batch()).unwrap();
        first += part.len() / width;
    }
    writer
}
