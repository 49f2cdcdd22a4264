//! One file a verb: arguments to options, a call of the library, and what is printed.

pub(crate) mod map;
