//! Days of the calendar and times of the day, in UTC.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const SECONDS_OF_DAY: u64 = 86_400;

/// A day as the number of days since 1970-01-01.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day(i64);

impl Day {
    /// Returns today.
    #[must_use]
    pub fn today() -> Self {
        Self::of_seconds(seconds_now())
    }

    /// Returns the day of a time in seconds since 1970.
    #[must_use]
    pub fn of_seconds(seconds: u64) -> Self {
        Self(i64::try_from(seconds / SECONDS_OF_DAY).unwrap_or(i64::MAX))
    }

    /// Returns the day that comes `n_days` later.
    #[must_use]
    pub fn plus(self, n_days: i64) -> Self {
        Self(self.0.saturating_add(n_days))
    }

    /// Reads a day as DICOM writes it, `YYYYMMDD`.
    #[must_use]
    pub fn of_dicom(text: &str) -> Option<Self> {
        let is_whole = text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<i64>().ok();
        is_whole.then_some(())?;
        Self::of(number(0..4)?, number(4..6)?, number(6..8)?)
    }

    /// Writes a day as DICOM does, `YYYYMMDD`.
    #[must_use]
    pub fn to_dicom(self) -> String {
        let [year, month, day] = self.civil();
        format!("{year:04}{month:02}{day:02}")
    }

    /// Counts days from 0000-03-01, so that a leap day is the last of its year.
    fn of(year: i64, month: i64, day: i64) -> Option<Self> {
        let is_fine = (1..=9999).contains(&year) && (1..=12).contains(&month) && day >= 1;
        is_fine.then_some(())?;
        let shifted = if month > 2 { year } else { year - 1 };
        let (era, of_era) = (shifted / 400, shifted % 400);
        let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
        let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
        // A day that the month does not have comes back as another.
        let made = Self(days);
        (made.civil() == [year, month, day]).then_some(made)
    }

    fn civil(self) -> [i64; 3] {
        let days = self.0.saturating_add(719_468);
        let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year + year / 4 - year / 100);
        let shifted = (5 * of_year + 2) / 153;
        let day = of_year - (153 * shifted + 2) / 5 + 1;
        let month = if shifted < 10 {
            shifted + 3
        } else {
            shifted - 9
        };
        let year = year + era * 400 + i64::from(month <= 2);
        [year, month, day]
    }
}

impl fmt::Display for Day {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [year, month, day] = self.civil();
        write!(formatter, "{year:04}-{month:02}-{day:02}")
    }
}

impl FromStr for Day {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_dashed = text.len() == 10 && text.bytes().filter(|byte| *byte == b'-').count() == 2;
        let day = is_dashed.then(|| Self::of_dicom(&text.replace('-', "")));
        day.flatten()
            .ok_or_else(|| "a day is wanted, such as 2026-01-31".to_owned())
    }
}

/// Hours in which a PACS may be asked, in minutes of the day in UTC; the end may be on the next day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    from: u64,
    to: u64,
}

impl Window {
    /// Returns how long to wait until the window is open; zero while it is.
    #[must_use]
    pub fn wait(self) -> Duration {
        self.wait_at(seconds_now() % SECONDS_OF_DAY)
    }

    fn wait_at(self, second: u64) -> Duration {
        let (from, to) = (self.from * 60, self.to * 60);
        let is_open = match from <= to {
            true => (from..to).contains(&second),
            false => second >= from || second < to,
        };
        match is_open {
            true => Duration::ZERO,
            false => Duration::from_secs((from + SECONDS_OF_DAY - second) % SECONDS_OF_DAY),
        }
    }
}

impl FromStr for Window {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "two times are wanted, such as 02:00-06:00 (UTC)".to_owned();
        let minutes = |text: &str| {
            let (hours, minutes) = text.split_once(':')?;
            let (hours, minutes): (u64, u64) = (hours.parse().ok()?, minutes.parse().ok()?);
            (hours < 24 && minutes < 60).then_some(hours * 60 + minutes)
        };
        let (from, to) = text.split_once('-').ok_or_else(wrong)?;
        let (from, to) = (
            minutes(from).ok_or_else(wrong)?,
            minutes(to).ok_or_else(wrong)?,
        );
        match from == to {
            true => Err(wrong()),
            false => Ok(Self { from, to }),
        }
    }
}

/// Returns the time of day; this crate asks no other clock for it.
#[allow(
    clippy::disallowed_methods,
    reason = "studies are listed by their days, and this is the crate that lists them"
)]
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}

/// Returns the seconds since 1970.
pub(crate) fn seconds_now() -> u64 {
    let since = now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_read_and_written_and_false_ones_refused() {
        for text in ["1970-01-01", "2000-02-29", "2026-11-30", "1899-12-31"] {
            let day: Day = text.parse().unwrap();
            assert_eq!(day.to_string(), text);
            assert_eq!(Day::of_dicom(&day.to_dicom()), Some(day));
        }
        let day: Day = "1970-01-01".parse().unwrap();
        assert_eq!((day.0, day.plus(31).to_dicom()), (0, "19700201".to_owned()));
        for wrong in ["2026-02-30", "2026-13-01", "20260101", "2026-1-01", ""] {
            assert!(wrong.parse::<Day>().is_err(), "{wrong}");
        }
        assert_eq!(Day::of_dicom("2026010x"), None);
    }

    #[test]
    fn a_window_may_cross_midnight() {
        let window: Window = "22:00-06:00".parse().unwrap();
        assert_eq!(window.wait_at(23 * 3600), Duration::ZERO);
        assert_eq!(window.wait_at(5 * 3600), Duration::ZERO);
        assert_eq!(window.wait_at(6 * 3600), Duration::from_secs(16 * 3600));
        let window: Window = "02:00-06:00".parse().unwrap();
        assert_eq!(window.wait_at(6 * 3600), Duration::from_secs(20 * 3600));
        assert!("2-6".parse::<Window>().is_err());
        assert!("02:00-02:00".parse::<Window>().is_err());
    }
}
