//! Measured values: panes of observations, the open windows of a series, and the table of series.
//!
//! Intuition: an observation is added to a [`pane`], the panes of a series make up its [`window`]s, and
//! [`series`] holds the windows of all series. A pane is kept small as a sparse [`histogram`] or [`packed`] as
//! bytes; [`partial`] is the part of a pane that one partition measured.

pub mod histogram;
pub(crate) mod packed;
pub mod pane;
pub mod partial;
pub(crate) mod series;
pub mod window;
