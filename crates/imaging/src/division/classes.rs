//! Images by the value of one attribute, and the names of the classes.

use std::cmp::Ordering;
use std::collections::HashMap;

use super::{Grid, Images, Quantity, Shows, Value};

/// Settings that differ by less, relative to their size, are the same written differently.
const SAME_SETTING: f64 = 1e-5;
/// Longest word of a header that stands in a name.
const MAX_WORD: usize = 16;

/// Returns the members by the value of a column, smallest value first.
pub(super) fn by_value(images: &Images, members: &[usize], column: usize) -> Vec<Vec<usize>> {
    let quantity = images.quantities.get(column);
    let is_exact = quantity.is_none_or(|q| q.role.has_order());
    let value = |index: usize| images.value(index, column);
    let mut sorted = members.to_vec();
    // Stable, so that members keep their order within a class.
    sorted.sort_by(|&a, &b| order(value(a), value(b)));
    let mut classes: Vec<Vec<usize>> = Vec::new();
    let mut last: Option<&Value> = None;
    for index in sorted {
        let here = value(index);
        match classes.last_mut() {
            Some(class) if last.is_some_and(|last| is_same(last, here, is_exact)) => {
                class.push(index);
            }
            _ => classes.push(vec![index]),
        }
        last = Some(here);
    }
    // Words have no order of their own: that of the images stands for it.
    let is_word = |class: &Vec<usize>| {
        let first = class.first();
        first.is_some_and(|&index| matches!(value(index), Value::Text(_)))
    };
    if classes.iter().any(is_word) {
        let first = |class: &Vec<usize>| {
            let numbers = images.numbers(class).into_iter().flatten();
            let number = numbers.fold(f64::INFINITY, f64::min);
            (number, class.iter().min().copied())
        };
        classes.sort_by(|a, b| {
            let ((a, a_index), (b, b_index)) = (first(a), first(b));
            a.total_cmp(&b).then(a_index.cmp(&b_index))
        });
    }
    classes
}

fn order(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.total_cmp(b),
        (Value::Text(a), Value::Text(b)) => a.cmp(b),
        _ => rank(a).cmp(&rank(b)),
    }
}

fn rank(value: &Value) -> u8 {
    match value {
        Value::Missing => 0,
        Value::Number(_) => 1,
        Value::Text(_) => 2,
    }
}

fn is_same(a: &Value, b: &Value, is_exact: bool) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) if !is_exact => {
            (a - b).abs() <= SAME_SETTING * a.abs().max(b.abs())
        }
        (a, b) => order(a, b) == Ordering::Equal,
    }
}

/// Divides members by a column so that every class has equally many images at every position;
/// `None` if the column does not divide them so.
pub(super) fn even(grid: &Grid<'_>, members: &[usize], column: usize) -> Option<Vec<Vec<usize>>> {
    let classes = by_value(grid.images, members, column);
    if classes.len() < 2 {
        return None;
    }
    if is_even(grid, members, &classes) {
        return Some(classes);
    }
    let quantity = grid.images.quantities.get(column)?;
    let is_stated = |&index: &usize| *grid.images.value(index, column) != Value::Missing;
    if !quantity.role.has_order() || !members.iter().all(is_stated) {
        return None;
    }
    let ranked = by_rank(grid, &classes);
    (ranked.len() > 1 && is_even(grid, members, &ranked)).then_some(ranked)
}

/// Puts the n-th class at each position into the n-th result.
fn by_rank(grid: &Grid<'_>, classes: &[Vec<usize>]) -> Vec<Vec<usize>> {
    // How many classes were seen at each position, and the last of them.
    let mut seen: HashMap<usize, (usize, usize)> = HashMap::new();
    let mut ranked: Vec<Vec<usize>> = Vec::new();
    for (number, class) in classes.iter().enumerate() {
        for &index in class {
            let here = seen.entry(grid.position(index)).or_insert((0, number));
            if here.1 != number {
                *here = (here.0 + 1, number);
            }
            if ranked.len() <= here.0 {
                ranked.push(Vec::new());
            }
            if let Some(place) = ranked.get_mut(here.0) {
                place.push(index);
            }
        }
    }
    ranked
}

fn is_even(grid: &Grid<'_>, members: &[usize], classes: &[Vec<usize>]) -> bool {
    let counts = |members: &[usize]| {
        let mut counts: HashMap<usize, usize> = HashMap::new();
        for &index in members {
            *counts.entry(grid.position(index)).or_default() += 1;
        }
        counts
    };
    let n_positions = counts(members).len();
    classes.iter().all(|class| {
        let counts = counts(class);
        let first = counts.values().next();
        counts.len() == n_positions && counts.values().all(|n| Some(n) == first)
    })
}

/// Returns the name of each class: `b=1000`, or its place where the value is long or repeats.
pub(super) fn labels(images: &Images, classes: &[Vec<usize>], column: usize) -> Vec<String> {
    let Some(quantity) = images.quantities.get(column) else {
        return Vec::new();
    };
    let words: Option<Vec<String>> = classes
        .iter()
        .map(|class| word(quantity, class.first().map(|&i| images.value(i, column))?))
        .collect();
    let is_distinct = |words: &Vec<String>| {
        let mut sorted = words.clone();
        sorted.sort_unstable();
        sorted.dedup();
        sorted.len() == words.len()
    };
    let first = match quantity.shows {
        Shows::Place(first) => first,
        Shows::Value => 1,
    };
    let words = words
        .map(|words| distinguishing(&words))
        .filter(is_distinct);
    let words = words.unwrap_or_else(|| {
        let places = first..first + classes.len();
        places.map(|place| place.to_string()).collect()
    });
    let name = quantity.name;
    words
        .into_iter()
        .map(|word| format!("{name}={word}"))
        .collect()
}

/// Returns a value as a word, if names show values and it is a number or a short plain word.
fn word(quantity: &Quantity, value: &Value) -> Option<String> {
    match (quantity.shows, value) {
        (Shows::Place(_), _) => None,
        (Shows::Value, Value::Missing) => Some("none".to_owned()),
        (Shows::Value, Value::Number(number)) => {
            let text = format!("{number:.3}");
            let short = text.trim_end_matches('0').trim_end_matches('.');
            Some(short.to_owned())
        }
        (Shows::Value, Value::Text(text)) => Some(text.clone()),
    }
}

/// Of words with several parts, as `ORIGINAL\PRIMARY\M`, keeps the first part that differs.
/// Words that are long or hold other than letters, digits and a few signs are not shown.
fn distinguishing(words: &[String]) -> Vec<String> {
    let parts: Vec<Vec<&str>> = words.iter().map(|w| w.split('\\').collect()).collect();
    let n_parts = parts.iter().map(Vec::len).max().unwrap_or(0);
    let column = |place: usize| -> Vec<&str> {
        let words = parts.iter();
        words
            .map(|parts| parts.get(place).map_or("", |part| part.trim()))
            .collect()
    };
    let is_plain = |word: &&str| {
        let is_sign = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '+');
        !word.is_empty() && word.len() <= MAX_WORD && word.chars().all(is_sign)
    };
    let differs = |column: &Vec<&str>| {
        let mut sorted = column.clone();
        sorted.sort_unstable();
        sorted.dedup();
        sorted.len() == column.len() && column.iter().all(is_plain)
    };
    (0..n_parts).map(column).find(differs).map_or_else(
        || vec![String::new(); words.len()],
        |found| found.into_iter().map(str::to_owned).collect(),
    )
}
