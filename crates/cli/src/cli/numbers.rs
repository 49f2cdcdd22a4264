//! Numbers as a person types them; what is no such number is refused in words, and not in those of Rust.

use std::num::NonZeroUsize;

use m3ret::options::MAX_THREADS;
use m3ret::search::Recall;

/// Reads a count of threads.
pub(super) fn thread_count(text: &str) -> Result<NonZeroUsize, String> {
    let count = text.parse().ok();
    let count = count.filter(|count: &NonZeroUsize| count.get() <= MAX_THREADS);
    count.ok_or_else(|| format!("a number from 1 to {MAX_THREADS} is wanted"))
}

/// Reads a count of at least 1.
pub(super) fn count(text: &str) -> Result<NonZeroUsize, String> {
    let count = text.parse();
    count.map_err(|_| "a whole number from 1 is wanted".to_owned())
}

/// Reads a whole number, such as a seed.
pub(super) fn whole(text: &str) -> Result<u64, String> {
    let number = text.parse();
    number.map_err(|_| "a whole number from 0 is wanted".to_owned())
}

/// Reads a number of bytes: `1048576`, `512M`, `2GiB`. Units are powers of 1024.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || "bytes are wanted, such as 1048576, 512M or 2G".to_owned();
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = lower.get(digits.len()..).unwrap_or_default();
    let power = match unit {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        _ => return Err(wrong()),
    };
    let number: u64 = digits.trim_end().parse().map_err(|_| wrong())?;
    let n_bytes = number.checked_mul(1024_u64.pow(power));
    n_bytes.filter(|n| *n > 0).ok_or_else(wrong)
}

/// Reads a cosine, from which on images count as alike.
pub(super) fn cosine(text: &str) -> Result<f32, String> {
    let cosine = text.parse().ok();
    let cosine = cosine.filter(|cosine: &f32| (-1.0..=1.0).contains(cosine));
    cosine.ok_or_else(|| "a number from -1 to 1 is wanted".to_owned())
}

/// Reads the share of the exact hits that a search is to find.
pub(super) fn recall(text: &str) -> Result<Recall, String> {
    let share = text.parse().ok().and_then(|share| Recall::new(share).ok());
    share.ok_or_else(|| "a number above 0, and at most 1, is wanted".to_owned())
}

/// Reads what scores lose.
pub(super) fn handicap(text: &str) -> Result<f32, String> {
    let handicap = text.parse().ok();
    let handicap = handicap.filter(|handicap: &f32| (0.0..=2.0).contains(handicap));
    handicap.ok_or_else(|| "a number from 0 to 2 is wanted".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recalls_are_shares() {
        assert_eq!(recall("1"), Ok(Recall::ALL));
        assert!(recall("0.99").is_ok_and(|recall| recall < Recall::DEFAULT));
        for wrong in ["0", "1.01", "-0.5", "nan", "99%", ""] {
            assert!(recall(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn threads_are_a_number_that_a_machine_can_bear() {
        assert_eq!(thread_count("512"), Ok(NonZeroUsize::new(512).unwrap()));
        for wrong in ["0", "513", "100000", "-1", "", "two"] {
            assert!(thread_count(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_no_number_is_refused_with_what_is_wanted() {
        for wrong in ["", "-1", "1.5", "ten", "99999999999999999999999"] {
            assert!(count(wrong).unwrap_err().ends_with("is wanted"), "{wrong}");
            assert!(whole(wrong).unwrap_err().ends_with("is wanted"), "{wrong}");
        }
        assert!(count("0").is_err() && whole("0") == Ok(0));
        assert_eq!(bytes("1048576"), bytes("1 MiB"));
        assert_eq!((bytes("2G"), bytes("5b")), (Ok(2 << 30), Ok(5)));
        for wrong in ["", "0", "G", "-1", "1.5G", "1X", "99999999T"] {
            let told = bytes(wrong).unwrap_err();
            assert!(told.starts_with("bytes are wanted"), "{wrong}: {told}");
        }
        assert_eq!(cosine("0.5"), Ok(0.5));
        for wrong in ["", "2", "nan", "inf", "50%"] {
            assert!(cosine(wrong).unwrap_err().ends_with("is wanted"), "{wrong}");
        }
    }
}
