//! Erases a patient from every index.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Response;
use m3ret::erase::{EraseOptions, Patient, Refused as ErasureRefused, Subject, WhyRefused, erase};
use m3ret::watch::Watch;
use serde::Deserialize;
use utoipa::ToSchema;

use super::jobs::{accepted, key_of};
use super::{Service, read_json, taken};
use crate::accounts::Role;
use crate::audit::Entry;
use crate::clock;
use crate::guard::Asker;
use crate::jobs::{JobView, Outcome, Work, failed};
use crate::openapi::Refused;
use crate::problem::{Problem, Result, is_locked};

/// How long an erasure waits for other writers, and the pause between two attempts.
const PATIENCE: Duration = Duration::from_secs(300);
const PAUSE: Duration = Duration::from_millis(250);
/// Longest reason.
const MAX_REASON: usize = 256;

/// Who is erased.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ErasureRequest {
    /// `PatientID`
    #[schema(min_length = 1, max_length = 1024)]
    patient_id: String,
    /// `IssuerOfPatientID`, where headers name one.
    #[schema(min_length = 1, max_length = 1024)]
    issuer: Option<String>,
    /// Why; it stands in the receipt, and must not name the patient.
    #[serde(default)]
    #[schema(max_length = 256)]
    reason: String,
    /// Whether rows are erased from snapshots below the galleries, too; without it a snapshot that holds some is an error.
    #[serde(default)]
    snapshots: bool,
}

/// Erases a patient from every index, as a job whose result is the receipt. All uploads are erased, too.
#[utoipa::path(
    post,
    path = "/v1/erasures",
    params(("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 128, description = "A request that is sent again with it does nothing more")),
    request_body = ErasureRequest,
    responses((status = 202, body = JobView), Refused)
)]
pub(super) async fn begin(
    State(service): State<Arc<Service>>,
    Extension(asker): Extension<Asker>,
    request: Request,
) -> Result<Response<Body>> {
    let (head, body) = request.into_parts();
    let read = taken(body, async |body| {
        asker.must(|role| role == Role::Admin)?;
        read_json::<ErasureRequest>(body, &head.headers, &service.limits).await
    });
    let request = read.await?;
    let key = key_of(&head.headers)?;
    let invalid = |detail: &str| Problem::unprocessable("invalid_request", detail);
    if request.reason.len() > MAX_REASON || request.reason.chars().any(char::is_control) {
        return Err(invalid("reason: one line of at most 256 bytes is wanted"));
    }
    let patient = Patient::new(&request.patient_id, request.issuer.as_deref());
    let patient =
        patient.map_err(|_| invalid("patient_id, issuer: one number of a patient is wanted"))?;
    if patient.is_named_in(&request.reason) {
        return Err(invalid(
            "reason: it holds the number of the patient, and the receipt must not",
        ));
    }
    // The number itself is kept nowhere.
    let asked = serde_json::json!([
        request.patient_id,
        request.issuer,
        request.reason,
        request.snapshots
    ]);
    let asked = blake3::hash(asked.to_string().as_bytes())
        .to_hex()
        .to_string();
    if let Some(key) = &key
        && let Some(known) = service.jobs.repeated(&asker.name, key, &asked)?
    {
        return accepted(&known);
    }
    service.record(&asker, entry("begun")).await?;
    let options = EraseOptions {
        snapshots: request.snapshots,
        who: asker.name.clone(),
        reason: request.reason,
        time: clock::now(),
        settled: service
            .dicom
            .iter()
            .map(|dicom| dicom.spool.folder().to_owned())
            .collect(),
        ..EraseOptions::default()
    };
    let work = work(
        Arc::clone(&service),
        asker.clone(),
        Subject::Patient(patient),
        options,
    );
    accepted(
        &service
            .jobs
            .add(&asker.name, key.map(|key| (key, asked)), None, work)?,
    )
}

fn entry(receipt: &str) -> Entry {
    Entry {
        action: "110105 DICOM Study Deleted".to_owned(),
        query: receipt.to_owned(),
        ..Entry::default()
    }
}

fn work(service: Arc<Service>, asker: Asker, subject: Subject, options: EraseOptions) -> Work {
    Box::new(move || {
        let places = service
            .indexes
            .all()
            .iter()
            .map(|index| index.place().to_owned());
        let places: Vec<PathBuf> = places.collect();
        // An upload may show the patient, and so may a picture that was drawn, or an object that waits.
        service.spool.erase_uploads();
        service.pictures.forget();
        let watch = service.jobs.watch();
        let settle = || match &service.dicom {
            Some(dicom) => dicom.settle(&watch, &|names| service.received(names)),
            None => Ok(()),
        };
        let erased = settle()
            .map_err(m3ret::Error::from)
            .and_then(|()| patiently(&watch, || erase(&places, &subject, &options, &watch)))
            // What came in the meantime was refused as a row, and its file must go, too.
            .and_then(|receipt| settle().map(|()| receipt).map_err(m3ret::Error::from));
        let receipt = match erased {
            Ok(receipt) => receipt,
            Err(error) => {
                let reason = reason_of(&error);
                // The trail says how it ended; the job tells it in any case.
                let _ = service.write(&asker, entry(reason));
                return failed(reason);
            }
        };
        service.pictures.forget();
        for index in service.indexes.all() {
            // Whatever is wrong with a gallery is told to whoever asks it.
            let _ = index.newest();
        }
        let Ok(result) = serde_json::to_value(&receipt) else {
            return failed("internal_error");
        };
        let digest = blake3::hash(result.to_string().as_bytes())
            .to_hex()
            .to_string();
        let mut outcome = Outcome {
            done: places.len(),
            failures: Vec::new(),
            result: Some(result),
        };
        if service.write(&asker, entry(&digest)).is_err() {
            outcome.failures = failed("audit").failures;
        }
        outcome
    })
}

/// Repeats what another writer stops, for a while: an erasure that was begun is completed by being called again.
fn patiently<T>(watch: &dyn Watch, work: impl Fn() -> m3ret::Result<T>) -> m3ret::Result<T> {
    let until = Instant::now() + PATIENCE;
    loop {
        match work() {
            Err(error) if is_locked(&error) && Instant::now() < until && !watch.is_stopped() => {
                std::thread::sleep(PAUSE);
            }
            done => return done,
        }
    }
}

/// Why not everything was erased.
fn reason_of(error: &m3ret::Error) -> &'static str {
    match error {
        _ if is_locked(error) => "locked_ask_again",
        _ => match ErasureRefused::of(error).map(|refused| refused.why) {
            Some(WhyRefused::NothingThere) => "nothing_to_erase",
            Some(WhyRefused::NoPatientsStored) => "no_patients_stored",
            Some(WhyRefused::HeldBySnapshot) => "held_by_snapshot",
            Some(WhyRefused::RepairPending) => "repair_pending",
            None => Problem::of_library(error).code(),
        },
    }
}
