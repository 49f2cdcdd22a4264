//! How many patients an account may see in an hour.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::problem::{Problem, Result};

/// The time in which patients are counted.
const WINDOW: Duration = Duration::from_secs(3600);

/// Which patients an account saw, by keyed hashes, and when last.
#[derive(Default)]
struct Seen(HashMap<u64, Instant>);

/// Counts the patients that accounts see.
pub(crate) struct PatientGuard {
    limit: usize,
    /// By names of accounts.
    seen: Mutex<HashMap<String, Seen>>,
}

impl PatientGuard {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            seen: Mutex::default(),
        }
    }

    /// Counts patients whom an answer shows; an answer that would show too many must not leave.
    pub(crate) fn admit(&self, account: &str, patients: &[u64]) -> Result<()> {
        self.admit_at(account, patients, Instant::now())
    }

    fn admit_at(&self, account: &str, patients: &[u64], now: Instant) -> Result<()> {
        let mut all = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if !all.contains_key(account) {
            // Accounts that saw nobody lately are forgotten, so that names cannot fill the memory.
            all.retain(|_, seen| {
                seen.0
                    .values()
                    .any(|last| now.saturating_duration_since(*last) < WINDOW)
            });
        }
        let Seen(seen) = all.entry(account.to_owned()).or_default();
        seen.retain(|_, last| now.saturating_duration_since(*last) < WINDOW);
        let mut new: Vec<u64> = patients
            .iter()
            .copied()
            .filter(|patient| !seen.contains_key(patient))
            .collect();
        new.sort_unstable();
        new.dedup();
        if seen.len() + new.len() > self.limit {
            let detail = format!(
                "an account may see images of {} patients in an hour; ask again later, or the owner for more",
                self.limit
            );
            return Err(Problem::new(429, "too_many_patients", detail));
        }
        // A patient who is seen again is not counted again, and is counted an hour longer.
        seen.extend(patients.iter().map(|&patient| (patient, now)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_sees_as_many_patients_in_an_hour_as_it_may() {
        let guard = PatientGuard::new(3);
        let start = Instant::now();
        let at = |minutes: u64| start + Duration::from_secs(60 * minutes);
        assert!(guard.admit_at("ann", &[1, 2, 2, 1], at(0)).is_ok());
        assert!(guard.admit_at("ann", &[1], at(30)).is_ok());
        // A refused answer shows nobody, so it counts for nothing.
        assert!(guard.admit_at("ann", &[3, 4], at(31)).is_err());
        assert!(guard.admit_at("ann", &[3], at(32)).is_ok());
        assert!(guard.admit_at("ann", &[4], at(33)).is_err());
        assert!(guard.admit_at("ann", &[2, 1, 3], at(34)).is_ok());
        assert!(guard.admit_at("bob", &[4], at(35)).is_ok());
        // All three were seen at 34.
        assert!(guard.admit_at("ann", &[4], at(93)).is_err());
        assert!(guard.admit_at("ann", &[4, 5, 6], at(95)).is_ok());
        assert!(guard.admit_at("ann", &[], at(96)).is_ok());
    }
}
