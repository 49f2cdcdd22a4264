//! The time of day, as the audit trail writes it.

use std::time::{SystemTime, UNIX_EPOCH};

/// Returns the time in UTC, `2026-01-31T12:34:56.789Z`.
#[must_use]
pub fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    // A clock before 1970 is wrong, and says so.
    let since = since.unwrap_or_default();
    written(since.as_secs(), since.subsec_millis())
}

fn written(seconds: u64, millis: u32) -> String {
    let (day, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(day);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// Returns year, month and day of the month of a day, counted from 1970-01-01.
fn date(day: u64) -> (u64, u64, u64) {
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let mut left = day;
    let mut year = 1970;
    loop {
        let n_days = if is_leap(year) { 366 } else { 365 };
        if left < n_days {
            break;
        }
        left -= n_days;
        year += 1;
    }
    let february = if is_leap(year) { 29 } else { 28 };
    let months = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 1;
    for n_days in months {
        if left < n_days {
            break;
        }
        left -= n_days;
        month += 1;
    }
    (year, month, left + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, wanted) in [
            (0, "1970-01-01T00:00:00.007Z"),
            (951_782_399, "2000-02-28T23:59:59.007Z"),
            (951_782_400, "2000-02-29T00:00:00.007Z"),
            (4_107_542_400, "2100-03-01T00:00:00.007Z"),
            (1_798_761_599, "2026-12-31T23:59:59.007Z"),
        ] {
            assert_eq!(written(seconds, 7), wanted);
        }
        assert!(now().as_str() > "2024");
    }
}
