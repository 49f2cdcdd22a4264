//! What Orthanc tells beside DICOMweb: its feed of changes, and all series.

use serde_json::Value;

use crate::day::Day;
use crate::error::{Error, Result};
use crate::http::Http;
use crate::qido::SeriesRef;
use crate::uid::Uid;

/// Number of changes and series that are asked for at a time.
const PAGE: usize = 1000;

/// Some of the feed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// Orthanc's own names of series that became stable.
    pub(crate) stable: Vec<String>,
    /// Where the feed goes on.
    pub(crate) last: u64,
    /// Whether nothing follows.
    pub(crate) is_done: bool,
}

pub(crate) fn changes(http: &Http, since: u64) -> Result<Changes> {
    changes_at(http, &format!("/changes?since={since}&limit={PAGE}"))
}

fn changes_at(http: &Http, path: &str) -> Result<Changes> {
    parse_changes(&http.list("listing changes", path)?)
}

/// Returns the number of the newest change.
pub(crate) fn newest_change(http: &Http) -> Result<u64> {
    Ok(changes_at(http, "/changes?last")?.last)
}

fn parse_changes(found: &Value) -> Result<Changes> {
    let wrong = || {
        Error::malformed(
            "list of changes",
            "another answer",
            "Orthanc's; is this the address of Orthanc itself?",
        )
    };
    let list = found["Changes"].as_array().ok_or_else(wrong)?;
    let last = found["Last"].as_u64().ok_or_else(wrong)?;
    let is_done = found["Done"].as_bool().ok_or_else(wrong)?;
    let mut stable: Vec<String> = Vec::new();
    for change in list {
        let Some(id) = change["ID"].as_str().filter(|id| is_id(id)) else {
            continue;
        };
        // A series may become stable more than once.
        if change["ChangeType"] == "StableSeries" && !stable.iter().any(|other| other == id) {
            stable.push(id.to_owned());
        }
    }
    Ok(Changes {
        stable,
        last,
        is_done: is_done || list.is_empty(),
    })
}

/// Names of Orthanc are SHA-1 digests in five groups.
fn is_id(id: &str) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_hexdigit() || byte == b'-';
    id.len() == 44 && id.bytes().all(is_digit)
}

/// Describes a series by Orthanc's name; `None` if it is gone.
pub(crate) fn series_of(http: &Http, id: &str) -> Result<Option<(SeriesRef, String)>> {
    let Some(series) = http.json("describing a series", &format!("/series/{id}"))? else {
        return Ok(None);
    };
    let Some(study) = http.json("describing a study", &format!("/series/{id}/study"))? else {
        return Ok(None);
    };
    Ok(described(&series, &study))
}

fn described(series: &Value, study: &Value) -> Option<(SeriesRef, String)> {
    let tag = |of: &Value, name: &str| of["MainDicomTags"][name].as_str().map(str::to_owned);
    let uid = |of: &Value, name: &str| Uid::new(tag(of, name)?.as_bytes()).ok();
    let n_instances = series["Instances"].as_array().map(Vec::len);
    let series_ref = SeriesRef {
        study: uid(study, "StudyInstanceUID")?,
        series: uid(series, "SeriesInstanceUID")?,
        n_instances: n_instances.and_then(|n| u32::try_from(n).ok()),
        day: tag(study, "StudyDate").and_then(|day| Day::of_dicom(&day)),
        is_stable: true,
    };
    Some((series_ref, tag(series, "Modality").unwrap_or_default()))
}

/// Lists the UIDs of all series.
pub(crate) fn all_series(http: &Http, sink: &mut dyn FnMut(Uid)) -> Result<()> {
    for page in 0.. {
        let path = format!("/series?expand&since={}&limit={PAGE}", page * PAGE);
        let found = http.list("listing all series", &path)?;
        let list = found.as_array().map(Vec::as_slice).unwrap_or_default();
        for series in list {
            let uid = series["MainDicomTags"]["SeriesInstanceUID"].as_str();
            let uid = uid.and_then(|uid| Uid::new(uid.as_bytes()).ok());
            uid.into_iter().for_each(&mut *sink);
        }
        if list.len() < PAGE {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn stable_series_are_kept_of_the_feed() {
        let id = "0a9b3153-2512774b-2d9580de-1fc3dcf6-3bd83918";
        let feed = json!({"Changes": [
            {"ChangeType": "NewInstance", "ID": id, "Seq": 1},
            {"ChangeType": "StableSeries", "ID": id, "Seq": 2},
            {"ChangeType": "StableSeries", "ID": id, "Seq": 3},
            {"ChangeType": "StableSeries", "ID": "../../system", "Seq": 4}],
            "Done": true, "Last": 4});
        let changes = parse_changes(&feed).unwrap();
        assert_eq!(changes.stable, [id]);
        assert_eq!((changes.last, changes.is_done), (4, true));
        assert!(parse_changes(&json!([])).is_err());
    }

    #[test]
    fn a_series_is_described_by_its_tags() {
        let series = json!({"MainDicomTags": {"SeriesInstanceUID": "1.3", "Modality": "CT"},
            "Instances": ["a", "b"]});
        let study = json!({"MainDicomTags": {"StudyInstanceUID": "1.2", "StudyDate": "20260131"}});
        let (found, modality) = described(&series, &study).unwrap();
        assert_eq!((found.n_instances, modality.as_str()), (Some(2), "CT"));
        assert!(described(&study, &series).is_none());
    }
}
