use m3ret_imaging::{ViewConfig, view};
use rand::SeedableRng as _;

use super::*;

const SIZE: PhantomSize = PhantomSize {
    picture: 48,
    side: 32,
    depth: 8,
};

fn phantoms(n: u64) -> impl Iterator<Item = Phantom> {
    (0..n).map(|place| Phantom::draw(SIZE, [7, 3, place]))
}

#[test]
fn an_object_follows_from_seed_step_and_place_alone() {
    let drawn = |key| {
        let phantom = Phantom::draw(SIZE, key);
        [0, 1].map(|idx| phantom.contrast(idx).unwrap())
    };
    let first = drawn([1, 2, 3]);
    assert_eq!(first, drawn([1, 2, 3]));
    for other in [[0, 2, 3], [1, 0, 3], [1, 2, 0]] {
        assert_ne!(first, drawn(other), "{other:?}");
    }
}

#[test]
fn values_are_a_share_of_one_and_every_object_shows_something() {
    let mut n_volumes = 0;
    for phantom in phantoms(200) {
        let object = phantom.contrast(0).unwrap();
        let values = object.values();
        assert!(values.iter().all(|value| (0.0..=1.0).contains(value)));
        let [_, depth, height, width] = object.shape();
        n_volumes += usize::from(depth > 1);
        let wanted = if depth == 1 { [48, 48] } else { [32, 32] };
        assert_eq!([height, width], wanted);
        let high = values.iter().copied().fold(0.0, f32::max);
        let low = values.iter().copied().fold(1.0, f32::min);
        assert!(high - low > 0.2, "{low} to {high}");
    }
    assert!((70..130).contains(&n_volumes), "{n_volumes}");
}

/// Pearson's correlation.
fn correlation(a: &[f32], b: &[f32]) -> f64 {
    let n = f64::from(u32::try_from(a.len()).unwrap());
    let mean = |x: &[f32]| x.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let sum = |f: &dyn Fn(f64, f64) -> f64| -> f64 {
        let pairs = a.iter().zip(b);
        pairs
            .map(|(&a, &b)| f(f64::from(a) - mean_a, f64::from(b) - mean_b))
            .sum()
    };
    let scale = (sum(&|a, _| a * a) * sum(&|_, b| b * b)).sqrt();
    sum(&|a, b| a * b) / scale.max(1e-12)
}

/// Sizes of the in-plane gradients of the inner pixels of 4 x 4 means, which textures do not reach.
fn gradients(object: &Scaled) -> Vec<f32> {
    let [_, depth, height, width] = object.shape();
    let (rows, columns) = (height / 4, width / 4);
    let mut sizes = Vec::new();
    for plane in object.values().chunks_exact(height * width).take(depth) {
        let mean = |y: usize, x: usize| -> f32 {
            let cells = (0..16).map(|i| plane[(4 * y + i / 4) * width + 4 * x + i % 4]);
            cells.sum::<f32>() / 16.0
        };
        for y in 1..rows - 1 {
            for x in 1..columns - 1 {
                let down = mean(y + 1, x) - mean(y - 1, x);
                let right = mean(y, x + 1) - mean(y, x - 1);
                sizes.push(down.hypot(right));
            }
        }
    }
    sizes
}

#[test]
fn contrasts_of_one_phantom_share_edges_and_not_intensities() {
    let n = 150;
    let (mut edges, mut others, mut intensities) = (0.0, 0.0, Vec::new());
    let mut before: Option<Scaled> = None;
    for phantom in phantoms(n) {
        let [a, b] = [0, 1].map(|idx| phantom.contrast(idx).unwrap());
        edges += correlation(&gradients(&a), &gradients(&b));
        // Where it is not dark outside in both: a body on air is bright in every contrast.
        let inside = phantom.labels.labels.iter().map(|&label| label > 0);
        let inside: Vec<bool> = inside.collect();
        let shown = |object: &Scaled| -> Vec<f32> {
            let values = object.values().iter().zip(&inside);
            values
                .filter(|(_, inside)| **inside)
                .map(|(v, _)| *v)
                .collect()
        };
        let (shown_a, shown_b) = (shown(&a), shown(&b));
        intensities.push(correlation(&shown_a, &shown_b));
        if let Some(before) = before.filter(|before| before.shape() == a.shape()) {
            others += correlation(&gradients(&a), &gradients(&before));
        }
        before = Some(a);
    }
    let n = f64::from(u32::try_from(n).unwrap());
    let mean = intensities.iter().sum::<f64>() / n;
    let n_negative = intensities.iter().filter(|value| **value < 0.0).count();
    let (edges, others) = (edges / n, others / n);
    assert!(edges > 0.5, "edges {edges}, {others} between objects");
    assert!(
        edges > 2.0 * others,
        "edges {edges}, {others} between objects"
    );
    assert!(mean.abs() < 0.15, "intensities {mean}");
    assert!((40..110).contains(&n_negative), "{n_negative} of {n}");
}

#[test]
fn volumes_can_be_cut_projected_and_sliced() {
    let volume = phantoms(20).find(|phantom| phantom.labels.shape[0] > 1);
    let object = volume.unwrap().contrast(1).unwrap();
    let mut config = ViewConfig::plain(16, [4, 8]);
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut depth = |config: &ViewConfig| view(&object, config, &mut rng).unwrap().shape()[1];
    assert_eq!(depth(&config), 8);
    config.project = 1.0;
    assert_eq!(depth(&config), 1);
    (config.project, config.slice) = (0.0, 1.0);
    assert_eq!(depth(&config), 1);
}

#[test]
fn without_depth_there_are_pictures_only() {
    let size = PhantomSize::of_views(16, 1);
    for place in 0..20 {
        let phantom = Phantom::draw(size, [1, 2, place]);
        assert_eq!(phantom.labels.shape, [1, 24, 24]);
    }
}
