//! DIMSE: what a PACS sends to us, and what we ask a PACS that has no DICOMweb.

mod command;
mod receive;
mod remote;

pub use command::{Command, Field};
pub use receive::{PeerRule, Receiver, ReceiverCounts, ReceiverOptions};
pub use remote::Peer;
pub(crate) use remote::Remote;

/// Verification SOP class.
const VERIFICATION: &str = "1.2.840.10008.1.1";
/// Longest wait for the other side.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);
