//! Fetches a series by WADO-RS into the spool, one file a part, in constant memory.

use crate::error::{Error, Result};
use crate::http::{Answer, Http};
use crate::multipart::{Event, Fault, Splitter};
use crate::qido::SeriesRef;
use crate::spool::{Fetching, Incoming, Spool, SpooledSeries};

/// Objects as they are stored: without `*`, Orthanc fails on JPEG 2000.
const ACCEPT: &str = "multipart/related; type=\"application/dicom\"; transfer-syntax=*";
const WHAT: &str = "fetching a series";

/// Fetches a series; `None` if the PACS has it no more.
pub(crate) fn fetch(
    http: &Http,
    root: &str,
    wanted: &SeriesRef,
    spool: &Spool,
) -> Result<Option<SpooledSeries>> {
    let path = format!(
        "{root}/studies/{}/series/{}",
        wanted.study.expose(),
        wanted.series.expose()
    );
    let Answer::Body(mut body) = http.open(WHAT, &path, ACCEPT)? else {
        return Ok(None);
    };
    let mut splitter = Splitter::new(body.kind()).map_err(of_fault)?;
    let mut parts = Parts {
        fetching: spool.begin_series(&wanted.study, &wanted.series)?,
        open: None,
    };
    while let Some(bytes) = http.next(WHAT, &mut body)? {
        for event in splitter.push(&bytes).map_err(of_fault)? {
            parts.take(event)?;
        }
    }
    splitter.finish().map_err(of_fault)?;
    check_count(wanted, parts.fetching.n_objects())?;
    parts.fetching.finish().map(Some)
}

/// Compares what came with what the PACS counts: fewer objects are no series.
pub(crate) fn check_count(wanted: &SeriesRef, n_objects: usize) -> Result<()> {
    let n_wanted = wanted.n_instances.unwrap_or(1);
    match usize::try_from(n_wanted).is_ok_and(|n_wanted| n_objects >= n_wanted) {
        true => Ok(()),
        false => Err(Error::Unreachable {
            what: WHAT,
            found: format!("{n_objects} of {n_wanted} objects"),
        }),
    }
}

struct Parts<'a> {
    fetching: Fetching<'a>,
    open: Option<Incoming>,
}

impl Parts<'_> {
    fn take(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Begin(_) => self.open = Some(self.fetching.begin()?),
            Event::Bytes(bytes) => {
                if let Some(open) = &mut self.open {
                    open.write(&bytes)?;
                }
            }
            Event::End => {
                if let Some(open) = self.open.take() {
                    self.fetching.take(&open)?;
                }
            }
        }
        Ok(())
    }
}

fn of_fault(fault: Fault) -> Error {
    let found = match fault {
        // A proxy that gave up in the middle.
        Fault::Cut => {
            return Error::Unreachable {
                what: WHAT,
                found: "an answer that was cut short".to_owned(),
            };
        }
        Fault::NoBoundary => "no boundary",
        Fault::LongHeader => "a part whose header is too long",
        Fault::NoName => "a part without a name",
        Fault::Broken => "a boundary that begins and ends nothing",
    };
    Error::malformed(WHAT, found, "a body of the kind multipart/related")
}
