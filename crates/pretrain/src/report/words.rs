//! Numbers and sentences for people.

use super::last_part;
use crate::config::{Config, Method};
use crate::dataset::Facts;

#[allow(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
#[must_use]
pub(crate) fn as_f64(n: usize) -> f64 {
    n as f64
}

/// Returns `12,345`.
#[must_use]
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Returns a count as `12,345`.
#[must_use]
pub fn count(n: usize) -> String {
    thousands(u64::try_from(n).unwrap_or(u64::MAX))
}

/// Returns `1 row` or `12,345 rows`.
#[must_use]
pub fn counted(n: usize, one: &str, several: &str) -> String {
    format!("{} {}", count(n), if n == 1 { one } else { several })
}

/// Returns a number with about four digits that matter: `0.4123`, `12.35`, `12,346`, `5.12e-4`.
#[must_use]
pub fn significant(value: f64) -> String {
    let size = value.abs();
    if size < f64::MIN_POSITIVE {
        return "0".to_owned();
    }
    if !(1e-3..1e9).contains(&size) {
        return format!("{value:.2e}");
    }
    if size >= 999.5 {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "below 1e9 and not negative"
        )]
        let whole = thousands(size.round() as u64);
        let sign = if value < 0.0 { "-" } else { "" };
        return format!("{sign}{whole}");
    }
    let decimals = match size {
        size if size >= 100.0 => 1,
        size if size >= 10.0 => 2,
        size if size >= 1.0 => 3,
        _ => 4,
    };
    format!("{value:.decimals$}")
}

/// Makes text harmless in HTML, between tags and in quoted attributes.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            letter => safe.push(letter),
        }
    }
    // What belongs together stays on one line.
    safe.replace(" %", "&nbsp;%")
        .replace(" x ", "&nbsp;x&nbsp;")
}

/// Says whether MRI or PET was trained on. `init` names the weights that the run started from.
#[must_use]
pub fn mr_statement(items: &Facts, is_allowed: bool, init: Option<&str>) -> String {
    let mut sentences = Vec::new();
    let n_unknown = items.n_unknown_modality;
    let unknown = |verb| format!("{} {verb}", counted(n_unknown, "row", "rows"));
    if is_allowed || items.n_mr > 0 {
        sentences.push(format!(
            "MRI and PET were allowed ({}).",
            counted(items.n_mr, "item", "items")
        ));
        if n_unknown > 0 {
            let verb = if n_unknown == 1 { "names" } else { "name" };
            sentences.push(format!(
                "{} no known modality and may be MRI or PET too.",
                unknown(verb)
            ));
        }
    } else if n_unknown > 0 {
        let verb = if n_unknown == 1 { "names" } else { "name" };
        sentences.push(format!(
            "Exclusion of MRI and PET unverified: {} no known modality.",
            unknown(verb)
        ));
    } else {
        sentences.push(
            "No MRI or PET was trained on: every row names another modality, and DICOM headers were checked."
                .to_owned(),
        );
    }
    if items.n_mr_left_out > 0 {
        let n = items.n_mr_left_out;
        let rows = counted(n, "row of MRI or PET was", "rows of MRI or PET were");
        sentences.push(format!("{rows} left out."));
    }
    if let Some(name) = init {
        sentences.push(format!(
            "The weights it started from ({name}) may have seen MRI or PET."
        ));
    }
    sentences.join(" ")
}

/// Says that what frozen teachers saw is not known here, as a sentence that follows another one.
#[must_use]
pub fn teachers_statement(config: &Config) -> Option<String> {
    let names = config.salt.teachers.iter().map(|path| last_part(path));
    let names: Vec<String> = names.collect();
    (config.method == Method::Salt).then(|| {
        format!(
            " The frozen teachers it learned from ({}) may have seen other images, MRI and PET too: their cards say.",
            names.join(", ")
        )
    })
}

/// Says how many synthetic objects were trained on; `None` where none were asked for.
#[must_use]
pub fn synthetic_statement(share: f64, n_seen: u64) -> Option<String> {
    (share > 0.0).then(|| {
        let objects = if n_seen == 1 { "object" } else { "objects" };
        format!(
            "Beside these images, {} synthetic {objects} were trained on ({} % of the batches): random \
             shapes in random contrast that m3ret draws itself, each seen once.",
            thousands(n_seen),
            significant(100.0 * share),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_grouped_by_three() {
        for (n, wanted) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (867_653, "867,653"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(thousands(n), wanted);
        }
    }

    #[test]
    fn numbers_have_four_digits_that_matter() {
        for (value, wanted) in [
            (0.0, "0"),
            (0.412_34, "0.4123"),
            (0.012_345, "0.0123"),
            (-1.234_56, "-1.235"),
            (12.345_6, "12.35"),
            (123.456, "123.5"),
            (1234.56, "1,235"),
            (999.9, "1,000"),
            (-12_345.6, "-12,346"),
            (0.000_512, "5.12e-4"),
            (1e12, "1.00e12"),
        ] {
            assert_eq!(significant(value), wanted);
        }
    }

    #[test]
    fn escaped_text_holds_no_markup() {
        assert_eq!(
            escape("<b title=\"a\" id='c'>&"),
            "&lt;b title=&quot;a&quot; id=&#39;c&#39;&gt;&amp;"
        );
        assert_eq!(
            escape("4 x 16, 50 % off"),
            "4&nbsp;x&nbsp;16, 50&nbsp;% off"
        );
    }

    #[test]
    fn the_statement_on_mri_claims_no_more_than_is_known() {
        let clean = Facts::default();
        let unknown = Facts {
            n_unknown_modality: 1,
            n_mr_left_out: 1200,
            ..Facts::default()
        };
        let some = Facts {
            n_mr: 3,
            n_unknown_modality: 2,
            ..Facts::default()
        };
        for (items, is_allowed, init, wanted) in [
            (
                &clean,
                false,
                None,
                "No MRI or PET was trained on: every row names another modality, and DICOM headers were checked.",
            ),
            (&clean, true, None, "MRI and PET were allowed (0 items)."),
            (
                &unknown,
                false,
                None,
                "Exclusion of MRI and PET unverified: 1 row names no known modality. 1,200 rows of MRI or PET were left out.",
            ),
            (
                &some,
                true,
                Some("dinov2-small"),
                "MRI and PET were allowed (3 items). 2 rows name no known modality and may be MRI or PET too. \
                 The weights it started from (dinov2-small) may have seen MRI or PET.",
            ),
        ] {
            assert_eq!(mr_statement(items, is_allowed, init), wanted);
        }
    }
}
