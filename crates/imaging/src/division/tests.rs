use super::*;

const SETTING: Quantity = Quantity {
    name: "echo",
    role: Role::Setting,
    shows: Shows::Place(1),
};
const B_VALUE: Quantity = Quantity {
    name: "b",
    role: Role::Kind,
    shows: Shows::Value,
};
const KIND: Quantity = Quantity {
    name: "type",
    role: Role::Kind,
    shows: Shows::Value,
};
const ACQUISITION: Quantity = Quantity {
    name: "acquisition",
    role: Role::Number,
    shows: Shows::Value,
};
const PHASE: Quantity = Quantity {
    name: TIME,
    role: Role::Phase,
    shows: Shows::Place(0),
};
const COUNT: Quantity = Quantity {
    name: "set",
    role: Role::Count,
    shows: Shows::Place(1),
};

/// One image at `z` mm, and a value for each quantity.
type Row = (f64, Vec<Value>);

fn images(quantities: &[Quantity], rows: &[Row]) -> Images {
    let plane = |z: f64| {
        let axial = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0];
        Plane::new(axial, [0.0, 0.0, z], [1.0, 1.0]).unwrap()
    };
    let count = quantities.iter().position(|q| q.role == Role::Count);
    let number = |values: &Vec<Value>| match values.get(count?)? {
        Value::Number(number) => Some(*number),
        _ => None,
    };
    Images {
        quantities: quantities.to_vec(),
        numbers: rows.iter().map(|(_, values)| number(values)).collect(),
        planes: rows.iter().map(|(z, _)| plane(*z)).collect(),
        values: rows.iter().map(|(_, values)| values.clone()).collect(),
    }
}

fn n(number: f64) -> Value {
    Value::Number(number)
}

/// Compares the divisions of images without copies with `name: members`.
fn check(quantities: &[Quantity], rows: &[Row], expected: &[(&str, &[usize])]) -> Vec<Division> {
    let divisions = divide(&images(quantities, rows), &|_| None);
    let found: Vec<(&str, &[usize])> = divisions
        .iter()
        .map(|d| (d.name.as_deref().unwrap_or(""), d.members.as_slice()))
        .collect();
    assert_eq!(found, expected);
    divisions
}

fn has(division: &Division, code: Code) -> bool {
    division.notes.iter().any(|note| note.code == code)
}

#[test]
fn an_attribute_divides_only_where_positions_repeat() {
    let rows: Vec<Row> = (0..4)
        .map(|i| (f64::from(i), vec![n(f64::from(i))]))
        .collect();
    check(&[ACQUISITION], &rows, &[("", &[0, 1, 2, 3])]);
}

#[test]
fn settings_divide_first_and_then_times_within_them() {
    let mut rows = Vec::new();
    for z in [0.0, 1.0] {
        for echo in [2.46, 4.92] {
            for phase in [0.0, 0.03] {
                rows.push((z, vec![n(echo), n(phase + z * 0.004)]));
            }
        }
    }
    let expected: &[(&str, &[usize])] = &[
        ("echo=1, t=0", &[0, 4]),
        ("echo=1, t=1", &[1, 5]),
        ("echo=2, t=0", &[2, 6]),
        ("echo=2, t=1", &[3, 7]),
    ];
    check(&[SETTING, PHASE], &rows, expected);
}

#[test]
fn a_number_written_differently_is_the_same_setting() {
    let rows = [
        (0.0, vec![n(2.46)]),
        (0.0, vec![n(4.92)]),
        (1.0, vec![n(2.460_000_001)]),
        (1.0, vec![n(4.92)]),
    ];
    check(
        &[SETTING],
        &rows,
        &[("echo=1", &[0, 2]), ("echo=2", &[1, 3])],
    );
}

#[test]
fn equal_trigger_times_of_other_phases_are_not_mixed() {
    // 90 ms is the third phase of the first slice and the second of the other one.
    let rows = [
        (0.0, vec![n(0.0)]),
        (0.0, vec![n(0.045)]),
        (0.0, vec![n(0.09)]),
        (3.0, vec![n(0.0)]),
        (3.0, vec![n(0.09)]),
        (3.0, vec![n(0.18)]),
    ];
    let expected: &[(&str, &[usize])] = &[("t=0", &[0, 3]), ("t=1", &[1, 4]), ("t=2", &[2, 5])];
    check(&[PHASE], &rows, expected);
}

#[test]
fn words_name_parts_by_what_differs_and_values_by_themselves() {
    let kind = |word: &str| Value::Text(format!("ORIGINAL\\PRIMARY\\{word}"));
    let rows = [
        (0.0, vec![kind("M"), Value::Missing]),
        (0.0, vec![kind("P"), n(0.0)]),
        (0.0, vec![kind("P"), n(1000.0)]),
        (1.0, vec![kind("M"), Value::Missing]),
        (1.0, vec![kind("P"), n(0.0)]),
        (1.0, vec![kind("P"), n(1000.0)]),
    ];
    let expected: &[(&str, &[usize])] = &[
        ("type=M", &[0, 3]),
        ("type=P, b=0", &[1, 4]),
        ("type=P, b=1000", &[2, 5]),
    ];
    check(&[KIND, B_VALUE], &rows, expected);
    // A word that could be anything is not shown.
    let odd = |word: &str| Value::Text(word.to_owned());
    let rows = [
        (0.0, vec![odd("a word about <somebody>")]),
        (0.0, vec![odd("B30f")]),
        (1.0, vec![odd("a word about <somebody>")]),
        (1.0, vec![odd("B30f")]),
    ];
    check(&[KIND], &rows, &[("type=1", &[0, 2]), ("type=2", &[1, 3])]);
}

#[test]
fn the_number_of_the_image_is_the_last_resort_and_told() {
    let rows: Vec<Row> = [(0.0, 1.0), (0.0, 2.0), (1.0, 3.0), (1.0, 4.0)]
        .map(|(z, number)| (z, vec![n(1.0), n(number)]))
        .to_vec();
    let expected: &[(&str, &[usize])] = &[("set=1", &[0, 2]), ("set=2", &[1, 3])];
    let divisions = check(&[ACQUISITION, COUNT], &rows, expected);
    assert!(divisions.iter().all(|d| has(d, Code::DividedSeries)));
}

#[test]
fn what_nothing_divides_evenly_stays_together() {
    let rows = [
        (0.0, vec![n(1.0)]),
        (0.0, vec![n(2.0)]),
        (0.0, vec![n(3.0)]),
        (1.0, vec![n(4.0)]),
        (1.0, vec![n(5.0)]),
    ];
    check(&[COUNT], &rows, &[("", &[0, 1, 2, 3, 4])]);
    let silent = [(0.0, vec![Value::Missing]), (0.0, vec![Value::Missing])];
    check(&[PHASE], &silent, &[("", &[0, 1])]);
}

#[test]
fn equal_pixels_at_one_position_are_copies_and_not_a_division() {
    let rows: Vec<Row> = [(0.0, 1.0), (1.0, 2.0), (2.0, 3.0), (0.0, 9.0)]
        .map(|(z, number)| (z, vec![n(number)]))
        .to_vec();
    let pixels = |index: usize| Some([7, 8, 9, 7][index]);
    let divisions = divide(&images(&[COUNT], &rows), &pixels);
    assert_eq!(divisions.len(), 1);
    assert_eq!(divisions[0].members, [0, 1, 2, 3]);
    assert_eq!(divisions[0].n_copies, 1);
}

#[test]
fn phases_of_other_lengths_are_volumes_of_their_own() {
    let mut rows: Vec<Row> = (0..3).map(|z| (f64::from(z), vec![n(1.0)])).collect();
    rows.extend((1..5).map(|z| (f64::from(z), vec![n(2.0)])));
    let expected: &[(&str, &[usize])] = &[
        ("acquisition=1", &[0, 1, 2]),
        ("acquisition=2", &[3, 4, 5, 6]),
    ];
    check(&[ACQUISITION], &rows, expected);
}

#[test]
fn a_series_that_was_broken_off_keeps_its_whole_volumes_and_tells_of_the_last() {
    let mut rows = Vec::new();
    for time in 0..3 {
        let n_slices = if time == 2 { 1 } else { 3 };
        rows.extend((0..n_slices).map(|z| (f64::from(z), vec![n(f64::from(time))])));
    }
    let expected: &[(&str, &[usize])] = &[
        ("acquisition=0", &[0, 1, 2]),
        ("acquisition=1", &[3, 4, 5]),
        ("acquisition=2", &[6]),
    ];
    let divisions = check(&[ACQUISITION], &rows, expected);
    let is_told: Vec<bool> = divisions
        .iter()
        .map(|d| has(d, Code::IncompletePart))
        .collect();
    assert_eq!(is_told, [false, false, true]);
}

#[test]
fn two_distances_are_two_stretches_unless_numbers_say_that_slices_miss() {
    let at = |positions: &[f64], step: f64| -> Vec<Row> {
        let numbered = positions.iter().enumerate();
        numbered
            .map(|(place, &z)| {
                let skipped = if z > 10.0 { step } else { 0.0 };
                (z, vec![n(place as f64 + skipped)])
            })
            .collect()
    };
    let positions = [0.0, 2.5, 5.0, 7.5, 10.0, 17.5, 25.0, 32.5];
    let expected: &[(&str, &[usize])] =
        &[("stretch=1", &[0, 1, 2, 3, 4]), ("stretch=2", &[5, 6, 7])];
    let divisions = check(&[COUNT], &at(&positions, 0.0), expected);
    assert!(divisions.iter().all(|d| has(d, Code::DividedSeries)));
    check(
        &[COUNT],
        &at(&positions, 2.0),
        &[("", &[0, 1, 2, 3, 4, 5, 6, 7])],
    );
    // The slice between both distances goes where it is needed.
    let expected: &[(&str, &[usize])] = &[("stretch=1", &[0, 1, 2, 3]), ("stretch=2", &[4, 5, 6])];
    check(&[COUNT], &at(&positions[..7], 0.0), expected);
    // Uneven distances are no stretches.
    check(
        &[COUNT],
        &at(&[0.0, 1.0, 2.5, 3.0, 5.0], 0.0),
        &[("", &[0, 1, 2, 3, 4])],
    );
}

#[test]
fn a_slice_that_misses_where_acquisitions_meet_is_not_hidden() {
    let rows = |skip: f64| -> Vec<Row> {
        let first = (0..3).map(|z| (f64::from(z), vec![n(1.0), n(f64::from(z))]));
        let second =
            (4..7).map(move |z| (f64::from(z), vec![n(2.0), n(f64::from(z) - 1.0 + skip)]));
        first.chain(second).collect()
    };
    let columns = [ACQUISITION, COUNT];
    check(&columns, &rows(1.0), &[("", &[0, 1, 2, 3, 4, 5])]);
    let expected: &[(&str, &[usize])] =
        &[("acquisition=1", &[0, 1, 2]), ("acquisition=2", &[3, 4, 5])];
    check(&columns, &rows(0.0), expected);
}

#[test]
fn acquisitions_whose_slices_lie_between_each_other_are_divided_and_told() {
    let number = |place: i32| if place % 2 == 0 { n(1.0) } else { n(2.0) };
    let rows: Vec<Row> = (0..6).map(|i| (f64::from(i), vec![number(i)])).collect();
    let expected: &[(&str, &[usize])] =
        &[("acquisition=1", &[0, 2, 4]), ("acquisition=2", &[1, 3, 5])];
    let divisions = check(&[ACQUISITION], &rows, expected);
    assert!(divisions.iter().all(|d| has(d, Code::DividedSeries)));
    // One behind the other they are one scan.
    let rows: Vec<Row> = (0..6)
        .map(|i| (f64::from(i), vec![number(i / 3)]))
        .collect();
    check(&[ACQUISITION], &rows, &[("", &[0, 1, 2, 3, 4, 5])]);
}

#[test]
fn images_at_one_position_that_follow_in_time_are_a_film() {
    let rows = [
        (5.0, vec![n(0.06)]),
        (5.0, vec![n(0.0)]),
        (5.0, vec![n(0.03)]),
    ];
    let divisions = check(&[PHASE], &rows, &[("", &[1, 2, 0])]);
    assert!(divisions[0].is_time);
    let (order, seconds) = in_time(&images(&[PHASE], &rows)).unwrap();
    assert_eq!(order, [1, 2, 0]);
    assert!((seconds.unwrap() - 0.03).abs() < 1e-12);
}

#[test]
fn images_beside_each_other_are_no_film_though_each_has_a_moment_of_its_own() {
    let rows = [0.0, 0.03, 0.06].map(|time| (5.0, vec![n(time)]));
    let divided = |places: [f64; 3]| {
        let mut images = images(&[PHASE], &rows);
        for (plane, x) in images.planes.iter_mut().zip(places) {
            plane.position[0] = x;
        }
        divide(&images, &|_| None)
    };
    // Two pictures of one station and one of the next: not every place has as many, so nothing parts them before.
    for places in [[0.0, 0.0, 100.0], [0.0, 1.0, 0.0], [0.0, -40.0, 0.0]] {
        let divisions = divided(places);
        assert_eq!(divisions.len(), 3, "{places:?}");
        assert!(divisions.iter().all(|division| !division.is_time));
    }
    // Positions are rounded text.
    let film = divided([0.0, 0.4, -0.4]);
    assert!(film.len() == 1 && film[0].is_time);
    // The same moments along the patient are a stack.
    let stack = [0.0, 1.0, 2.0].map(|z| (z, vec![n(0.03 * z)]));
    let divisions = check(&[PHASE], &stack, &[("", &[0, 1, 2])]);
    assert!(!divisions[0].is_time);
}

proptest::proptest! {
    /// Whatever headers say, no image is lost or doubled, and no volume holds two at one position
    /// unless it is refused on reading.
    #[test]
    fn every_image_is_in_one_division(
        rows in proptest::collection::vec((0_u8..4, 0_u8..4, 0_u8..4, 0_u8..40), 1..40)
    ) {
        let rows: Vec<Row> = rows
            .into_iter()
            .map(|(z, a, b, c)| {
                let values = [a, b, c].map(|v| if v == 0 { Value::Missing } else { n(f64::from(v)) });
                (f64::from(z), values.to_vec())
            })
            .collect();
        let images = images(&[SETTING, PHASE, COUNT], &rows);
        let divisions = divide(&images, &|index| Some(index as u64 % 7));
        let mut members: Vec<usize> = divisions.iter().flat_map(|d| d.members.clone()).collect();
        members.sort_unstable();
        proptest::prop_assert_eq!(members, (0..rows.len()).collect::<Vec<_>>());
        if divisions.len() > 1 {
            for division in divisions.iter().filter(|d| d.n_copies == 0 && !d.is_time) {
                let mut at: Vec<f64> = division.members.iter().map(|&i| rows[i].0).collect();
                at.sort_unstable_by(f64::total_cmp);
                at.dedup();
                proptest::prop_assert_eq!(at.len(), division.members.len());
            }
        }
    }
}
