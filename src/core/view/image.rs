//! The form of a view in a snapshot.

use super::group::Group;
use super::{View, ViewSpec};
use crate::core::measure::pane::Shape;
use crate::core::vocab::limits::Lateness;
use crate::core::vocab::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The stored form of a view.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ViewImage {
    groups: Vec<Option<Group>>,
    free: Vec<u32>,
    dirty: Vec<u32>,
    rolls: BTreeMap<Timestamp, Vec<u32>>,
    shape: Shape,
}

impl View {
    pub(crate) fn image(&self) -> impl Serialize + '_ {
        (&self.groups, &self.free, &self.dirty, &self.rolls, &self.shape)
    }

    pub(crate) fn restore(spec: ViewSpec, image: ViewImage, lateness: Lateness) -> View {
        let mut view = View::new(spec, image.shape, lateness);
        let groups = image.groups.iter().enumerate();
        view.by_key = groups.filter_map(|(at, g)| Some((g.as_ref()?.key, at as u32))).collect();
        let mut view =
            View { groups: image.groups, free: image.free, dirty: image.dirty, rolls: image.rolls, ..view };
        view.count_gone();
        view
    }
}
