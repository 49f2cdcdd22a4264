//! The time of day, as the audit trail writes it.

use std::time::{SystemTime, UNIX_EPOCH};

use m3ret_dicomnet::day::Day;

/// Returns the time in UTC, `2026-01-31T12:34:56.789Z`.
#[must_use]
pub fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    // A clock before 1970 is wrong, and says so.
    let since = since.unwrap_or_default();
    written(since.as_secs(), since.subsec_millis())
}

fn written(seconds: u64, millis: u32) -> String {
    let (day, second) = (Day::of_seconds(seconds), seconds % 86_400);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{day}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
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
