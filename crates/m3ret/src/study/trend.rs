//! Fits how retrieval grows with the size of the model and the amount of data.

use anyhow::{Context as _, ensure};
use m3ret_search::evaluation::{
    Bootstrap, Clusters, Interval, Metric, QueryPair, Strata, Stratum, percentiles,
};
use serde::Serialize;

use super::StudyRun;
use crate::evaluation::runs::Run;

/// The means of one group of tasks.
#[derive(Debug, Serialize)]
pub(super) struct Scores {
    pub group: String,
    pub n_tasks: u32,
    pub n_queries: usize,
    pub n_patients: usize,
    /// Mean chance of the metric.
    pub chance: f64,
    pub pixels: f64,
    /// One for each run.
    pub values: Vec<f64>,
    #[serde(skip)]
    pub intervals: Vec<Option<Interval>>,
    pub trend: Option<Trend>,
}

/// A plane: value = a + b log2(parameters) + c log2(images).
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Trend {
    /// `b`: gain from twice the parameters.
    pub per_doubling_of_size: Slope,
    /// `c`: gain from twice the images.
    pub per_doubling_of_data: Slope,
    /// Root mean square of the residuals of the plane.
    pub residual: f64,
}

/// A slope and its 95 % interval over draws of patients.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Slope {
    pub value: f64,
    pub ci95_low: f64,
    pub ci95_high: f64,
}

/// The values of all runs for the queries of one group.
#[derive(Default)]
struct Group {
    name: String,
    n_tasks: u32,
    chance: f64,
    strata: Vec<Stratum>,
    patients: Vec<u32>,
    pixels: Vec<f64>,
    /// For each run the values of all queries.
    values: Vec<Vec<f64>>,
}

/// Computes the mean of every group for every run, and fits how it grows.
pub(super) fn scores(
    runs: &[StudyRun],
    pixels: &Run,
    metric: Metric,
    bootstrap: Bootstrap,
) -> anyhow::Result<Vec<Scores>> {
    let mut groups: Vec<Group> = Vec::new();
    for (name, task) in &pixels.tasks {
        if !pixels.standing(name, Some(pixels)).is_in_mean() {
            continue;
        }
        let mut of_runs = Vec::with_capacity(runs.len());
        for run in runs {
            let other = run.evaluation.tasks.get(name);
            let other =
                other.with_context(|| format!("{}: no task {name}", run.evaluation.name))?;
            pixels.check_protocol(&run.evaluation)?;
            let pairs = task.pairs(other, &metric.to_string())?;
            ensure!(
                pairs.len() == task.n(),
                "{}: not all queries of {name}",
                run.evaluation.name
            );
            of_runs.push(pairs);
        }
        let group = &task.about.group;
        let place = groups.iter().position(|other| other.name == *group);
        let place = place.unwrap_or_else(|| {
            groups.push(Group::new(group, runs.len()));
            groups.len() - 1
        });
        let chance = task.about.chance.get(&metric.to_string());
        groups[place].add(chance.copied().unwrap_or(f64::NAN), &of_runs);
    }
    ensure!(
        !groups.is_empty(),
        "no task is fit for a mean: 20 queries, chance of at most 0.8, pixels below 0.98 and no fixed ranking at 0.8 of the maximum are wanted"
    );
    Ok(groups
        .iter()
        .map(|group| group.scores(runs, bootstrap))
        .collect())
}

impl Group {
    fn new(name: &str, n_runs: usize) -> Self {
        Self {
            name: name.to_owned(),
            values: vec![Vec::new(); n_runs],
            ..Self::default()
        }
    }

    fn add(&mut self, chance: f64, of_runs: &[Vec<QueryPair>]) {
        let first = of_runs.first().map_or(&[][..], Vec::as_slice);
        let task = self.n_tasks;
        let strata = first.iter().map(|pair| Stratum {
            task,
            ..pair.stratum
        });
        self.strata.extend(strata);
        self.patients.extend(first.iter().map(|pair| pair.patient));
        self.pixels.extend(first.iter().map(|pair| pair.a));
        for (values, pairs) in self.values.iter_mut().zip(of_runs) {
            values.extend(pairs.iter().map(|pair| pair.b));
        }
        self.chance += chance;
        self.n_tasks += 1;
    }

    fn scores(&self, runs: &[StudyRun], bootstrap: Bootstrap) -> Scores {
        let clusters = Clusters::new(&self.patients);
        let mut models: Vec<&[f64]> = self.values.iter().map(Vec::as_slice).collect();
        models.push(&self.pixels);
        let strata = Strata::new(&self.strata);
        let draws = clusters.draws(&strata, &models, bootstrap);
        let interval =
            |run: usize| percentiles(draws.as_ref()?.iter().map(|means| means[run]).collect());
        let values: Vec<f64> = models.iter().map(|values| strata.mean(values)).collect();
        let places: Vec<[f64; 3]> = runs.iter().map(place).collect();
        Scores {
            group: self.name.clone(),
            n_tasks: self.n_tasks,
            n_queries: self.strata.len(),
            n_patients: clusters.len(),
            chance: self.chance / f64::from(self.n_tasks),
            pixels: values[runs.len()],
            intervals: (0..runs.len()).map(interval).collect(),
            trend: draws
                .as_ref()
                .and_then(|draws| trend(&places, &values, draws)),
            values: values[..runs.len()].to_vec(),
        }
    }
}

fn place(run: &StudyRun) -> [f64; 3] {
    let log = |n: u64| (n.max(1) as f64).log2();
    [
        1.0,
        log(run.training.n_parameters),
        log(run.training.n_images),
    ]
}

/// Fits the plane to the values, and again to every draw.
fn trend(places: &[[f64; 3]], values: &[f64], draws: &[Vec<f64>]) -> Option<Trend> {
    let own = plane(places, values)?;
    let all: Vec<[f64; 3]> = draws
        .iter()
        .map(|means| plane(places, means))
        .collect::<Option<_>>()?;
    let slope = |i: usize| {
        let interval = percentiles(all.iter().map(|plane| plane[i]).collect())?;
        Some(Slope {
            value: own[i],
            ci95_low: interval.low,
            ci95_high: interval.high,
        })
    };
    let rest = places.iter().zip(values).map(|(place, value)| {
        let fitted: f64 = place.iter().zip(own).map(|(x, b)| x * b).sum();
        (value - fitted).powi(2)
    });
    Some(Trend {
        per_doubling_of_size: slope(1)?,
        per_doubling_of_data: slope(2)?,
        residual: (rest.sum::<f64>() / places.len() as f64).sqrt(),
    })
}

/// Fits a plane by least squares with the normal equations; `None` if sizes or shares do not differ.
fn plane(places: &[[f64; 3]], values: &[f64]) -> Option<[f64; 3]> {
    // Centred on the means, which leaves two unknowns.
    let n = places.len() as f64;
    let mean = |of: &dyn Fn(usize) -> f64| (0..places.len()).map(of).sum::<f64>() / n;
    let [x, y] = [1, 2].map(|axis| mean(&|i| places[i][axis]));
    let z = mean(&|i| values[i]);
    let sum = |of: &dyn Fn(f64, f64, f64) -> f64| -> f64 {
        let terms = places.iter().zip(values);
        terms
            .map(|(place, value)| of(place[1] - x, place[2] - y, value - z))
            .sum()
    };
    let (xx, xy, yy) = (
        sum(&|x, _, _| x * x),
        sum(&|x, y, _| x * y),
        sum(&|_, y, _| y * y),
    );
    let (xz, yz) = (sum(&|x, _, z| x * z), sum(&|_, y, z| y * z));
    let determinant = xx * yy - xy * xy;
    if determinant < 1e-9 {
        return None;
    }
    let b = (xz * yy - yz * xy) / determinant;
    let c = (yz * xx - xz * xy) / determinant;
    Some([z - b * x - c * y, b, c])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plane_is_found_again() {
        let places: Vec<[f64; 3]> = (0..9)
            .map(|i| [1.0, f64::from(10 + i / 3), f64::from(5 + 2 * (i % 3))])
            .collect();
        let values: Vec<f64> = places
            .iter()
            .map(|place| 0.1 + 0.03 * place[1] - 0.01 * place[2])
            .collect();
        let found = plane(&places, &values).unwrap();
        for (found, wanted) in found.iter().zip([0.1, 0.03, -0.01]) {
            assert!((found - wanted).abs() < 1e-12, "{found} {wanted}");
        }
        let flat: Vec<[f64; 3]> = places.iter().map(|place| [1.0, place[1], 5.0]).collect();
        assert_eq!(plane(&flat, &values), None);
    }
}
