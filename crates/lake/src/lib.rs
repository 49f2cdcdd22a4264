//! Galleries on an object store: rows of many writers, searched by many readers, for more vectors than one machine holds.
//!
//! A lake is a folder of an S3 bucket, or a local folder of the same layout: a LanceDB table `vectors.lance`, and small
//! objects beside it of which `meta.json` is the one that counts: it names the version of the table that readers open.
//! docs/scale.md says when a lake pays, and what it does when a part fails.

mod cache;
mod cells;
mod environment;
mod erase;
mod fields;
mod keys;
mod lake;
mod maintain;
mod meta;
mod objects;
mod place;
mod rows;
mod search;
mod seen;
mod sql;
mod store;
mod transfer;
mod verify;
mod writer;

pub use erase::{Erased, Leftover, Searched, allow_again, erase, is_erased, search_for};
pub use keys::{LakeKey, keep, keep_in};
pub use lake::Lake;
pub use maintain::{MaintainOptions, Maintained, maintain};
pub use meta::{Level, Plans};
pub use rows::Rows;
pub use transfer::{export, import};
pub use verify::{Checked, Finding, verify};
pub use writer::{Added, Brought, LakeWriter, OF_PATIENTS};
