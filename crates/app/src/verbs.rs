//! One file a verb: arguments to options, a call of the library, and what is printed.

pub(crate) mod dedup;
pub(crate) mod index;
pub(crate) mod map;
pub(crate) mod search;

use crate::commands::write_json_line;
