use burn::backend::Flex;
use burn::tensor::TensorData;

use super::*;
use crate::parameters::numbers;

fn all(grid: [usize; 3]) -> Vec<usize> {
    (0..grid.iter().product()).collect()
}

#[test]
fn weights_of_a_cell_sum_to_one() {
    let plane = ViewRelation::Plane {
        plane: 5,
        n_planes: 8,
    };
    let rays = [Along::Rows, Along::Columns].map(ViewRelation::Rays);
    for teacher in [[1, 2, 2], [2, 3, 4], [4, 8, 8], [3, 1, 5]] {
        for student in [[1, 3, 3], [2, 6, 4], [1, 1, 1]] {
            for relation in [ViewRelation::Same, plane, rays[0], rays[1]] {
                let is_flat = relation == ViewRelation::Same || student[0] == 1;
                if !is_flat {
                    continue;
                }
                let weights = transfer(relation, teacher, student, &all(student));
                let n_cells = teacher.iter().product::<usize>();
                assert_eq!(weights.len(), n_cells * all(student).len());
                for row in weights.chunks_exact(n_cells) {
                    let sum: f32 = row.iter().sum();
                    assert!((sum - 1.0).abs() < 1e-5 && row.iter().all(|&w| w >= 0.0));
                }
            }
        }
    }
}

#[test]
fn equal_grids_give_each_cell_its_own_token() {
    let grid = [2, 3, 2];
    let weights = transfer(ViewRelation::Same, grid, grid, &[1, 7]);
    let wanted = |cell: usize| (0..12).map(move |i| f32::from(u8::from(i == cell)));
    assert!(weights.into_iter().eq(wanted(1).chain(wanted(7))));
}

/// What a field of one number a cell becomes on the student's grid.
fn moved(
    relation: ViewRelation,
    teacher: [usize; 3],
    student: [usize; 3],
    field: &[f32],
) -> Vec<f32> {
    let weights = transfer(relation, teacher, student, &all(student));
    let rows = weights.chunks_exact(field.len());
    rows.map(|row| row.iter().zip(field).map(|(a, b)| a * b).sum())
        .collect()
}

#[test]
fn a_plane_has_the_tokens_of_its_slab() {
    let field: Vec<f32> = (0..4).flat_map(|z: u8| [f32::from(z); 4]).collect();
    for (plane, slab) in [(0, 0.0), (3, 0.0), (4, 1.0), (11, 2.0), (15, 3.0)] {
        let relation = ViewRelation::Plane {
            plane,
            n_planes: 16,
        };
        let found = moved(relation, [4, 2, 2], [1, 3, 3], &field);
        assert!(found.iter().all(|x| (x - slab).abs() < 1e-6), "{found:?}");
    }
}

#[test]
fn rays_average_over_what_they_cross_and_the_last_plane_is_on_top() {
    // Value 100 z + 10 y + x.
    let mut field = Vec::new();
    for z in [0.0, 100.0] {
        for y in [0.0, 10.0] {
            field.extend([z + y, z + y + 1.0, z + y + 2.0]);
        }
    }
    let teacher = [2, 2, 3];
    let close = |found: Vec<f32>, wanted: &[f32]| {
        assert_eq!(found.len(), wanted.len());
        let pairs = found.iter().zip(wanted);
        assert!(
            pairs.clone().all(|(a, b)| (a - b).abs() < 1e-4),
            "{found:?}"
        );
    };
    let frontal = moved(ViewRelation::Rays(Along::Rows), teacher, [1, 2, 3], &field);
    close(frontal, &[105.0, 106.0, 107.0, 5.0, 6.0, 7.0]);
    let lateral = moved(
        ViewRelation::Rays(Along::Columns),
        teacher,
        [1, 2, 2],
        &field,
    );
    close(lateral, &[101.0, 111.0, 1.0, 11.0]);
}

fn rows(values: &[f32], width: usize) -> Tensor<Flex, 2> {
    let shape = [values.len() / width, width];
    Tensor::from_data(TensorData::new(values.to_vec(), shape), &Default::default())
}

#[test]
fn the_loss_is_half_a_square_near_zero_and_linear_beyond_one() {
    for (off, wanted) in [
        (0.0, 0.0),
        (0.5, 0.125),
        (-0.5, 0.125),
        (1.0, 0.5),
        (-3.0, 2.5),
    ] {
        let found = loss(&rows(&[off], 1), vec![rows(&[0.0], 1)]);
        assert!((numbers(found)[0] - wanted).abs() < 1e-6, "{off}");
    }
    // Teachers count alike, whatever their widths.
    let predicted = rows(&[1.0, 3.0, 3.0], 3);
    let found = loss(&predicted, vec![rows(&[1.0], 1), rows(&[0.0, 0.0], 2)]);
    assert!((numbers(found)[0] - 1.25).abs() < 1e-6);
}

#[test]
fn targets_have_mean_zero_and_variance_one() {
    let found = numbers(normalised(rows(
        &[1.0, 2.0, 3.0, 6.0, 5.0, 5.0, 5.0, 5.0],
        4,
    )));
    let (first, second) = found.split_at(4);
    assert!(first.iter().sum::<f32>().abs() < 1e-6);
    let variance = first.iter().map(|x| x * x).sum::<f32>() / 4.0;
    assert!((variance - 1.0).abs() < 1e-5);
    assert!(second.iter().all(|x| x.abs() < 1e-6));
}
