//! A PACS to files on disk: DICOMweb, Orthanc and DIMSE, and what they send to us.
//!
//! Objects come in through a client (`sync`), by C-STORE (`receive`) or by STOW-RS (`stow`), and lie in one spool until
//! the caller has embedded them. Nothing of the network becomes a path, and no identifier is printed.

pub mod collect;
mod cursor;
pub mod day;
pub mod dimse;
mod error;
mod http;
pub mod multipart;
mod names;
mod orthanc;
pub mod part10;
mod qido;
mod source;
pub mod spool;
pub mod stow;
pub mod sync;
mod uid;
mod wado;

pub use cursor::{Cursor, CursorFile};
pub use error::{Error, Result};
pub use http::{HttpOptions, Login};
pub use names::Names;
pub use source::Selection;
pub use uid::Uid;
