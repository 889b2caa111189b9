//! Bytes in, bytes out: codecs, file formats, names. Nothing here decides anything.
//!
//! Invariant: what a decoder returns satisfies every invariant of `core::event`; what it refuses
//! has a place and a reason; no input makes it panic or take memory out of proportion to its size.

pub mod address;
pub mod alert;
pub mod asked;
pub mod control;
pub mod event;
pub mod hdr;
pub mod hdr_cells;
pub mod line;
pub mod partial;
pub mod pipeline;
pub mod printable;
pub mod row;
pub mod schema;
pub mod signature;
pub mod snapshot;
pub mod subject;
pub mod time;
pub mod window;
