//! Plans: how deep the quantised passes look for a wanted recall, as a gallery keeps them.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The share of the exact best hits that a search is to find on average.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Recall {
    /// In millionths, so that recalls compare exactly.
    millionths: u32,
}

impl Recall {
    /// The recall of a search that does not name one.
    pub const DEFAULT: Self = Self {
        millionths: 995_000,
    };
    /// All hits: an exact search.
    pub const ALL: Self = Self {
        millionths: 1_000_000,
    };

    /// Makes a recall of a share.
    ///
    /// # Errors
    /// `Mismatch` if the share is not above 0, or is above 1.
    pub fn new(share: f64) -> Result<Self> {
        if !(share > 0.0 && share <= 1.0) {
            let wanted = "a share above 0, and 1 at most";
            return Err(Error::mismatch("the recall", wanted, share.to_string()));
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "from 0 to 1,000,000"
        )]
        let millionths = (share * 1e6).round() as u32;
        Ok(Self { millionths })
    }

    /// Returns the share.
    #[must_use]
    pub fn share(self) -> f64 {
        f64::from(self.millionths) / 1e6
    }
}

impl Default for Recall {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// How many rows each quantised pass looks at, and how many it keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Hits of a query that the plan is made for.
    pub k: usize,
    /// Lists of a segment that are looked at; `None`: all rows, by their short or 1-bit codes.
    pub n_probe: Option<usize>,
    /// Candidates of the pass over short codes that the next one looks at. `None`, and in segments without short
    /// codes: the pass is over 1-bit codes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub depth_short: Option<usize>,
    /// Candidates of the pass over 1-bit codes that the next one looks at.
    pub depth_bits: usize,
    /// Candidates of the pass over 8-bit codes whose vectors are looked at.
    pub depth_codes: usize,
}

impl Plan {
    /// The plan without quantised passes.
    pub(super) const EXACT: Self = Self {
        k: 0,
        n_probe: None,
        depth_short: None,
        depth_bits: 0,
        depth_codes: 0,
    };

    /// Returns the plan for searches whose rows may lie in any list, and be few: over the 1-bit codes of all that pass.
    pub(super) fn of_filtered(self) -> Self {
        let depth_codes = match self.depth_short {
            None => self.depth_codes,
            // A plan over short codes looks at fewer vectors than were measured with 1-bit codes.
            Some(_) => self.depth_codes.max(4 * self.k),
        };
        Self {
            n_probe: None,
            depth_short: None,
            depth_codes,
            ..self
        }
    }

    /// Returns how many candidates of a query the first pass keeps at most.
    pub(super) fn depth(self) -> usize {
        let first = self.depth_short.unwrap_or(self.depth_bits);
        first.max(self.depth_codes)
    }
}

/// Plans for one recall.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Level {
    /// The recall that its plans are for.
    pub recall: f64,
    /// Plans for few hits first.
    pub plans: Vec<Plan>,
    /// Share of the exact 10 best that the first plan found.
    pub recall_at_10: f64,
}

/// What was measured on a gallery with its own rows as queries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Rows of the gallery at that time.
    pub n_rows: usize,
    /// Rows that were queries.
    pub n_queries: usize,
    /// The recall that plans had to reach.
    pub target: f64,
    /// Plans of the default recall, for few hits first; empty for a small gallery, where every search is exact.
    pub plans: Vec<Plan>,
    /// Share of the exact 10 best that the first plan found.
    pub recall_at_10: f64,
    /// The same share for a search with filters, which looks at the 1-bit codes of all rows that pass.
    pub recall_at_10_filtered: f64,
    /// Plans of other recalls, the lowest first; empty where an older m3ret measured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub levels: Vec<Level>,
}

/// Most rows that plans are made for, and the deepest that they look.
const MAX_COUNT: u64 = 1 << 40;

impl Calibration {
    /// Says whether a search can follow every plan: a calibration comes from a file.
    pub(crate) fn is_sound(&self) -> bool {
        let fits = |count: usize| count as u64 <= MAX_COUNT;
        let is_possible = |plan: &Plan| {
            plan.k > 0
                && plan.n_probe != Some(0)
                && [
                    plan.k,
                    plan.depth_short.unwrap_or(plan.k),
                    plan.depth_bits,
                    plan.depth_codes,
                ]
                .into_iter()
                .all(fits)
        };
        let of_levels = self.levels.iter().flat_map(|level| &level.plans);
        fits(self.n_rows)
            && self.plans.iter().chain(of_levels).all(is_possible)
            && self.levels.iter().all(|level| level.recall > 0.0)
    }

    /// Says whether a program that knows only the default recall cannot read it.
    pub(crate) fn has_levels(&self) -> bool {
        !self.levels.is_empty() || self.plans.iter().any(|plan| plan.depth_short.is_some())
    }

    /// Returns the plan for `k` hits; `None` for an exact search.
    pub(super) fn plan(&self, k: usize, recall: Recall) -> Option<Plan> {
        let plans = self.plans_of(recall)?;
        let last = plans.last()?;
        if let Some(&plan) = plans.iter().find(|plan| k <= plan.k) {
            return Some(plan);
        }
        // Codes of 8 bits confuse only close neighbours, so a margin beyond `k` is enough. Codes of 1 bit and short
        // codes confuse many more: their depth grows with `k`.
        let depth_codes = k + k / 4 + last.depth_codes;
        let grown = |depth: usize| {
            let depth = depth.saturating_mul(k).div_ceil(last.k);
            depth.max(2 * depth_codes)
        };
        // From an eighth of all rows on the exact search takes the plan's place: it reads rows in order. The number
        // of lists was measured for fewer hits, so the derived plan looks at all rows.
        (depth_codes * 8 < self.n_rows).then(|| Plan {
            k,
            n_probe: None,
            depth_short: last.depth_short.map(grown),
            depth_bits: grown(last.depth_bits),
            depth_codes,
        })
    }

    /// Returns the plans of the lowest level that reaches a recall; `None` if no level does.
    fn plans_of(&self, recall: Recall) -> Option<&[Plan]> {
        let default = (Recall::DEFAULT.share(), &self.plans[..]);
        let levels = self
            .levels
            .iter()
            .map(|level| (level.recall, &level.plans[..]));
        let reaching = levels
            .chain([default])
            .filter(|(share, _)| *share >= recall.share());
        let lowest = reaching.min_by(|(a, _), (b, _)| a.total_cmp(b));
        lowest.map(|(_, plans)| plans)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plans(depth_codes: usize) -> Vec<Plan> {
        let plan = |k: usize| Plan {
            k,
            n_probe: Some(7),
            depth_short: Some(9 * k),
            depth_bits: 80 * k,
            depth_codes,
        };
        vec![plan(10), plan(100)]
    }

    fn calibration(levels: &[f64]) -> Calibration {
        let levels = levels.iter().enumerate().map(|(idx, &recall)| Level {
            recall,
            plans: plans(20 + idx),
            recall_at_10: 1.0,
        });
        Calibration {
            n_rows: 100_000,
            n_queries: 1,
            target: 0.998,
            plans: plans(50),
            recall_at_10: 1.0,
            recall_at_10_filtered: 1.0,
            levels: levels.collect(),
        }
    }

    #[test]
    fn a_search_takes_the_lowest_level_that_reaches_its_recall() {
        let measured = calibration(&[0.95, 0.99, 0.999]);
        let depth = |share: f64| {
            let plan = measured.plan(10, Recall::new(share).unwrap());
            plan.map(|plan| plan.depth_codes)
        };
        for (share, expected) in [
            (0.5, Some(20)),
            (0.95, Some(20)),
            (0.951, Some(21)),
            (0.99, Some(21)),
            (0.995, Some(50)),
            (0.996, Some(22)),
            (0.9995, None),
            (1.0, None),
        ] {
            assert_eq!(depth(share), expected, "{share}");
        }
        // An older m3ret measured one level: a lower recall takes it, too.
        let old = calibration(&[]);
        for (share, expected) in [(0.5, true), (0.995, true), (0.999, false)] {
            let plan = old.plan(10, Recall::new(share).unwrap());
            assert_eq!(plan.is_some(), expected, "{share}");
        }
    }

    #[test]
    fn more_hits_than_measured_look_deeper_at_all_rows() {
        let plan = calibration(&[]).plan(300, Recall::DEFAULT).unwrap();
        assert_eq!(plan.n_probe, None);
        assert_eq!(plan.depth_codes, 300 + 75 + 50);
        assert_eq!((plan.depth_short, plan.depth_bits), (Some(2700), 24_000));
        assert_eq!(calibration(&[]).plan(20_000, Recall::DEFAULT), None);
    }

    #[test]
    fn recalls_are_shares() {
        for share in [0.0, -0.1, 1.01, f64::NAN] {
            assert!(Recall::new(share).is_err(), "{share}");
        }
        assert_eq!(Recall::new(0.995).unwrap(), Recall::default());
        assert_eq!(Recall::new(1.0).unwrap(), Recall::ALL);
    }

    #[test]
    fn calibrations_without_levels_are_read_and_written_as_before() {
        let json = r#"{"n_rows":9000,"n_queries":128,"target":0.998,"plans":[{"k":10,"n_probe":3,"depth_bits":160,"depth_codes":40}],"recall_at_10":1.0,"recall_at_10_filtered":1.0}"#;
        let read: Calibration = serde_json::from_str(json).unwrap();
        assert!(!read.has_levels() && read.is_sound());
        assert_eq!(serde_json::to_string(&read).unwrap(), json);
    }
}
