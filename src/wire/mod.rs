//! Codecs, file formats and names: conversion between bytes and the types of the core. This module makes no
//! decisions.
//!
//! Invariant: what a decoder returns satisfies every invariant of `core::event`. What it refuses has an index
//! and a reason. No input causes a panic or an allocation out of proportion to its size.

pub mod address;
pub mod alert;
pub(crate) mod asked;
pub mod control;
pub mod event;
pub mod hdr;
pub mod hdr_cells;
pub mod ndjson;
pub mod partial;
pub(crate) mod pipeline;
pub mod printable;
pub mod row;
pub mod schema;
pub(crate) mod signature;
pub mod snapshot;
pub(crate) mod subject;
pub mod time;
pub(crate) mod window;
