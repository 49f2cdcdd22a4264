use std::collections::HashSet;

use super::*;
use crate::random::generator;

fn plan(changed: f64) -> StudentPlan {
    StudentPlan {
        changed,
        intensities: ViewConfig::plain(8, [4, 8]),
    }
}

/// Value `(z + y / 10 + x / 100) / 10`, in every channel.
fn original(n_planes: usize) -> Input {
    let mut values = Vec::new();
    for z in 0..n_planes {
        for y in 0..8 {
            for x in 0..8 {
                #[allow(clippy::cast_precision_loss, reason = "small numbers")]
                let [z, y, x] = [z, y, x].map(|n| n as f32);
                values.push((z + y / 10.0 + x / 100.0) / 10.0);
            }
        }
    }
    Input::new(values.repeat(3), [3, n_planes, 8, 8]).unwrap()
}

#[test]
fn the_chance_decides_and_kinds_have_their_own_changes() {
    let ways = |kind: Kind, n_planes: usize, changed: f64| -> (usize, HashSet<&str>) {
        let (mut n_changed, mut names) = (0, HashSet::new());
        for place in 0..200 {
            let mut rng = generator("test", &[place]);
            let original = original(n_planes);
            let change = plan(changed).change(&original, kind, &mut rng).unwrap();
            let Some((seen, relation)) = change else {
                continue;
            };
            n_changed += 1;
            let [channels, depth, height, width] = seen.shape();
            assert_eq!([channels, height, width], [3, 8, 8]);
            assert!(
                seen.values()
                    .iter()
                    .all(|value| (0.0..=1.0).contains(value))
            );
            assert_ne!(seen, original);
            let (name, wanted) = match relation {
                ViewRelation::Same => ("same", n_planes),
                ViewRelation::Plane { .. } => ("plane", 1),
                ViewRelation::Rays(Along::Rows) => ("frontal", 1),
                ViewRelation::Rays(Along::Columns) => ("lateral", 1),
            };
            assert_eq!(depth, wanted, "{name}");
            names.insert(name);
        }
        (n_changed, names)
    };
    assert_eq!(ways(Kind::Volume, 8, 0.0).0, 0);
    assert_eq!(ways(Kind::Image, 1, 1.0), (200, HashSet::from(["same"])));
    assert_eq!(
        ways(Kind::Video, 8, 1.0),
        (200, HashSet::from(["same", "plane"]))
    );
    let (n_changed, names) = ways(Kind::Volume, 8, 0.5);
    assert!((70..130).contains(&n_changed), "{n_changed}");
    let wanted = HashSet::from(["same", "plane", "frontal", "lateral"]);
    assert_eq!(names, wanted);
}

#[test]
fn a_plane_is_that_of_the_relation() {
    let original = original(8);
    let seen = one_plane(&original, 5).unwrap();
    let first = &original.values()[5 * 64..6 * 64];
    assert_eq!(seen.values(), first.repeat(3));
}

#[test]
fn rays_rise_with_the_planes_and_the_last_is_on_top() {
    for along in [Along::Rows, Along::Columns] {
        let seen = rays(&original(8), along).unwrap();
        let column: Vec<f32> = seen.values().iter().step_by(8).take(8).copied().collect();
        assert!(
            column.windows(2).all(|pair| pair[0] > pair[1]),
            "{column:?}"
        );
        let row = &seen.values()[24..32];
        assert!(row.windows(2).all(|pair| pair[0] < pair[1]), "{row:?}");
    }
}

#[test]
fn grey_stays_grey_where_intensities_change() {
    let plan = StudentPlan {
        changed: 1.0,
        intensities: ViewConfig {
            noise: 1.0,
            noise_sigma: [0.05, 0.05],
            ..ViewConfig::plain(8, [4, 8])
        },
    };
    let mut rng = generator("test", &[1]);
    let seen = plan
        .recoloured(&original(1), Kind::Image, &mut rng)
        .unwrap();
    let (first, others) = seen.values().split_at(64);
    assert!(others.chunks_exact(64).all(|other| other == first));
}
