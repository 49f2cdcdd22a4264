//! What the server counts and measures, for Prometheus.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Upper bounds of the buckets of times, seconds.
const BUCKETS: [f64; 12] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 120.0,
];

fn times() -> Histogram {
    Histogram::new(BUCKETS)
}

/// A route as it is declared, never as it was asked, so that no id becomes a label.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct IndexLabels {
    index: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    state: String,
}

/// Everything that is counted.
pub(crate) struct Metrics {
    registry: Registry,
    http: Family<RouteLabels, Histogram, fn() -> Histogram>,
    search: Histogram,
    embed: Histogram,
    vectors: Family<IndexLabels, Gauge>,
    decode_failures: Family<ReasonLabels, Counter>,
    jobs: Family<StateLabels, Gauge>,
    audit_failures: Counter<u64, AtomicU64>,
    dicom_failures: Counter<u64, AtomicU64>,
    dicom_waiting: Gauge,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("m3ret");
        let http: Family<RouteLabels, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(times);
        let (search, embed) = (times(), times());
        let (vectors, jobs) = (Family::default(), Family::default());
        let (decode_failures, audit_failures) = (Family::default(), Counter::default());
        let seconds = || Unit::Seconds;
        let told = "Time from a request's head to its answer";
        registry.register_with_unit("http", told, seconds(), http.clone());
        let told = "Time of a search by id or vector, with what it waited";
        registry.register_with_unit("search", told, seconds(), search.clone());
        let told = "Time of a search with an image that is read and embedded, with what it waited";
        registry.register_with_unit("embed", told, seconds(), embed.clone());
        registry.register("index_vectors", "Rows of an index", vectors.clone());
        let told = "Uploads that could not be read";
        registry.register("decode_failures", told, decode_failures.clone());
        registry.register("jobs", "Jobs by state", jobs.clone());
        let told = "Lines of the audit trail that could not be written";
        registry.register("audit_failures", told, audit_failures.clone());
        let (dicom_failures, dicom_waiting) = (Counter::default(), Gauge::default());
        let told =
            "Times that received series could not be added; they wait, and it is tried again";
        registry.register("dicom_failures", told, dicom_failures.clone());
        let told = "Series that were received and are no rows yet";
        registry.register("dicom_waiting_series", told, dicom_waiting.clone());
        Self {
            registry,
            http,
            search,
            embed,
            vectors,
            decode_failures,
            jobs,
            audit_failures,
            dicom_failures,
            dicom_waiting,
        }
    }

    pub(crate) fn request(&self, route: &str, status: u16, took: Duration) {
        let labels = RouteLabels {
            route: route.to_owned(),
            status,
        };
        self.http.get_or_create(&labels).observe(took.as_secs_f64());
    }

    pub(crate) fn search(&self, is_embedded: bool, took: Duration) {
        let histogram = if is_embedded {
            &self.embed
        } else {
            &self.search
        };
        histogram.observe(took.as_secs_f64());
    }

    pub(crate) fn vectors(&self, index: &str, n: usize) {
        let labels = IndexLabels {
            index: index.to_owned(),
        };
        let n = i64::try_from(n).unwrap_or(i64::MAX);
        self.vectors.get_or_create(&labels).set(n);
    }

    pub(crate) fn decode_failure(&self, reason: &str) {
        let labels = ReasonLabels {
            reason: reason.to_owned(),
        };
        self.decode_failures.get_or_create(&labels).inc();
    }

    pub(crate) fn jobs(&self, state: &str, n: usize) {
        let labels = StateLabels {
            state: state.to_owned(),
        };
        let n = i64::try_from(n).unwrap_or(i64::MAX);
        self.jobs.get_or_create(&labels).set(n);
    }

    pub(crate) fn audit_failure(&self) {
        self.audit_failures.inc();
    }

    pub(crate) fn dicom_failure(&self) {
        self.dicom_failures.inc();
    }

    pub(crate) fn dicom_waiting(&self, n: usize) {
        self.dicom_waiting.set(i64::try_from(n).unwrap_or(i64::MAX));
    }

    /// Writes everything in the format of OpenMetrics.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a `String` cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_was_counted_is_in_the_text() {
        let metrics = Metrics::new();
        metrics.request("/v1/indexes", 200, Duration::from_millis(3));
        metrics.request("/v1/indexes", 401, Duration::from_millis(1));
        metrics.search(false, Duration::from_millis(2));
        metrics.search(true, Duration::from_millis(70));
        metrics.vectors("archive", 7);
        metrics.decode_failure("not_an_image");
        metrics.jobs("running", 1);
        metrics.audit_failure();
        let text = metrics.text();
        for line in [
            "m3ret_http_seconds_count{route=\"/v1/indexes\",status=\"200\"} 1",
            "m3ret_http_seconds_bucket{le=\"0.005\",route=\"/v1/indexes\",status=\"200\"} 1",
            "m3ret_http_seconds_count{route=\"/v1/indexes\",status=\"401\"} 1",
            "m3ret_search_seconds_count 1",
            "m3ret_embed_seconds_count 1",
            "m3ret_index_vectors{index=\"archive\"} 7",
            "m3ret_decode_failures_total{reason=\"not_an_image\"} 1",
            "m3ret_jobs{state=\"running\"} 1",
            "m3ret_audit_failures_total 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }
}
