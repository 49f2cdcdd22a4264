//! Numbers written as text (DS and IS), also with commas where the standard has points.

/// Numbers of one value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Numbers {
    pub(super) numbers: Vec<f64>,
    /// How they are written, where that breaks the standard.
    pub(super) fault: Option<&'static str>,
}

const DECIMAL_COMMA: &str = "decimal commas; read as decimal points";
const SEPARATOR: &str = "numbers separated by other than a backslash; read as separate numbers";

/// Reads numbers that backslashes separate.
pub(super) fn separated(text: &str) -> Option<Numbers> {
    read(text.split('\\'))
}

/// Reads exactly `n` numbers; without any backslash, other separators are accepted where just one
/// of them leads to `n` numbers.
pub(super) fn exactly(text: &str, n: usize) -> Option<Numbers> {
    if let Some(numbers) = separated(text).filter(|found| found.numbers.len() == n) {
        return Some(numbers);
    }
    if n < 2 || text.contains('\\') {
        return None;
    }
    let readings = [
        read(text.split(';')),
        read(text.split('/')),
        read(text.split_ascii_whitespace()),
        // "1,5" may be one number or two: a comma separates only numbers with points.
        read(text.split(',')).filter(|_| text.contains('.')),
    ];
    let mut fitting = readings
        .into_iter()
        .flatten()
        .filter(|found| found.numbers.len() == n);
    let only = fitting.next()?;
    fitting.next().is_none().then_some(Numbers {
        fault: Some(SEPARATOR),
        ..only
    })
}

fn read<'t>(parts: impl Iterator<Item = &'t str>) -> Option<Numbers> {
    let mut fault = None;
    let numbers = parts.map(|part| {
        let part = part.trim();
        part.parse().ok().or_else(|| {
            // One comma and no point: a thousand has no separator in DICOM.
            let is_decimal = part.matches(',').count() == 1 && !part.contains('.');
            let number = part.replace(',', ".").parse().ok().filter(|_| is_decimal)?;
            fault = Some(DECIMAL_COMMA);
            Some(number)
        })
    });
    let numbers = numbers.collect::<Option<Vec<f64>>>()?;
    Some(Numbers { numbers, fault })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_are_points_or_separators_where_one_reading_fits() {
        let cases: [(&str, usize, Option<&[f64]>); 14] = [
            ("0.8\\0.7", 2, Some(&[0.8, 0.7])),
            ("0,8\\0,7", 2, Some(&[0.8, 0.7])),
            ("-1,5e-1 \\ 3", 2, Some(&[-0.15, 3.0])),
            ("0.8,0.7", 2, Some(&[0.8, 0.7])),
            ("0.8, 0.7", 2, Some(&[0.8, 0.7])),
            ("0,8;0,7", 2, Some(&[0.8, 0.7])),
            ("0.8/0.7", 2, Some(&[0.8, 0.7])),
            ("0.8 0.7", 2, Some(&[0.8, 0.7])),
            ("1.0,0,0,0,1,0", 6, Some(&[1.0, 0.0, 0.0, 0.0, 1.0, 0.0])),
            ("1,5", 2, None),
            ("0,8,0,7", 2, None),
            ("1.5,2.5,3.5", 2, None),
            ("1,000.5\\1", 2, None),
            ("x\\1", 2, None),
        ];
        for (text, n, wanted) in cases {
            let found = exactly(text, n).map(|found| found.numbers);
            assert_eq!(found.as_deref(), wanted, "{text}");
        }
        assert_eq!(exactly("0.8\\0.7", 2).unwrap().fault, None);
        assert_eq!(exactly("0,8\\0,7", 2).unwrap().fault, Some(DECIMAL_COMMA));
        assert_eq!(exactly("0.8,0.7", 2).unwrap().fault, Some(SEPARATOR));
    }
}
