//! Lists of series as QIDO-RS gives them, in DICOM JSON (PS3.18, annex F).

use serde_json::Value;

use crate::day::Day;
use crate::error::{Error, Result};
use crate::uid::Uid;

/// A series of a PACS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SeriesRef {
    pub(crate) study: Uid,
    pub(crate) series: Uid,
    /// Number of its instances; `None` if the PACS does not say.
    pub(crate) n_instances: Option<u32>,
    /// Day of the study.
    pub(crate) day: Option<Day>,
    /// Whether the PACS says that no instance is missing.
    pub(crate) is_stable: bool,
}

/// Number of series that are asked for at a time.
pub(crate) const PAGE: usize = 100;

/// What is asked of a PACS.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Question<'a> {
    pub(crate) modality: Option<&'a str>,
    pub(crate) days: Option<(Day, Day)>,
    pub(crate) series: Option<&'a Uid>,
    pub(crate) offset: usize,
}

/// Returns the address of a list.
pub(crate) fn path_of(question: &Question<'_>) -> String {
    let mut path = format!(
        "/series?limit={PAGE}&offset={}&includefield=00201209&includefield=00080020",
        question.offset
    );
    if let Some(modality) = question.modality {
        path += &format!("&Modality={modality}");
    }
    if let Some((from, to)) = question.days {
        path += &format!("&StudyDate={}-{}", from.to_dicom(), to.to_dicom());
    }
    if let Some(series) = question.series {
        path += &format!("&SeriesInstanceUID={}", series.expose());
    }
    path
}

/// Reads a list; series without their identifiers are counted and left out.
pub(crate) fn parse(list: &Value) -> Result<(Vec<SeriesRef>, usize)> {
    let Some(list) = list.as_array() else {
        return Err(Error::malformed(
            "list of series",
            "no array",
            "an array; is this the address of DICOMweb?",
        ));
    };
    let found: Vec<SeriesRef> = list.iter().filter_map(series_of).collect();
    let n_without = list.len() - found.len();
    Ok((found, n_without))
}

fn series_of(attributes: &Value) -> Option<SeriesRef> {
    let uid = |tag: &str| Uid::new(first(attributes, tag)?.as_str()?.as_bytes()).ok();
    let n_instances = first(attributes, "00201209").and_then(|n| match n {
        // Some write numbers of VR IS as text.
        Value::String(text) => text.trim().parse().ok(),
        n => n.as_u64().and_then(|n| u32::try_from(n).ok()),
    });
    let day = first(attributes, "00080020").and_then(|day| Day::of_dicom(day.as_str()?));
    Some(SeriesRef {
        study: uid("0020000D")?,
        series: uid("0020000E")?,
        n_instances,
        day,
        is_stable: false,
    })
}

fn first<'a>(attributes: &'a Value, tag: &str) -> Option<&'a Value> {
    attributes.get(tag)?.get("Value")?.get(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lists_are_read_and_what_names_no_series_is_left_out() {
        let list = json!([
            {"0020000D": {"vr": "UI", "Value": ["1.2"]}, "0020000E": {"vr": "UI", "Value": ["1.3"]},
             "00201209": {"vr": "IS", "Value": ["12"]}, "00080020": {"vr": "DA", "Value": ["20260131"]}},
            {"0020000D": {"vr": "UI", "Value": ["1.2"]}, "0020000E": {"vr": "UI", "Value": ["1.4"]},
             "00201209": {"vr": "IS", "Value": [3]}},
            {"0020000D": {"vr": "UI", "Value": ["1.2/../x"]}, "0020000E": {"vr": "UI", "Value": ["1.4"]}},
            {"0020000E": {"vr": "UI"}}, 5, null
        ]);
        let (found, n_without) = parse(&list).unwrap();
        assert_eq!((found.len(), n_without), (2, 4));
        assert_eq!(found[0].n_instances, Some(12));
        assert_eq!(found[0].day.unwrap().to_string(), "2026-01-31");
        assert_eq!((found[1].n_instances, found[1].day), (Some(3), None));
        assert!(parse(&json!({})).is_err());
    }

    #[test]
    fn a_question_becomes_an_address() {
        let day: Day = "2026-01-31".parse().unwrap();
        let question = Question {
            modality: Some("CT"),
            days: Some((day, day)),
            offset: 100,
            series: None,
        };
        assert_eq!(
            path_of(&question),
            "/series?limit=100&offset=100&includefield=00201209&includefield=00080020&Modality=CT\
             &StudyDate=20260131-20260131"
        );
    }
}
