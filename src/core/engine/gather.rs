//! Sending of partials: this partition sends the aggregate the data that rules across partitions read.

use super::Engine;
use crate::core::effect::Effects;
use crate::core::measure::partial::{PARTIALS_BYTES_MAX, PARTIALS_EVERY, Partial, Partials};
use crate::core::view::ViewKind;
use crate::core::vocab::time::Timestamp;
use serde::{Deserialize, Serialize};

type Spans = Vec<(Timestamp, Timestamp)>;

/// Interruptions and losses of the log that no partials have reported yet.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct PendingPartials {
    interrupted: Spans,
    lost: Spans,
    /// When the next partials are sent; `None`: at the next grid point.
    due: Option<Timestamp>,
}

impl Engine {
    /// Records a span in which no owner wrote to the log, or whose content is unknown. Timers exclude the span.
    pub(super) fn interrupt(&mut self, from: Timestamp, to: Timestamp) {
        self.timeline.interrupt(from, to);
        if self.views.is_gathering() {
            self.pending_partials.interrupted.push((from, to));
        }
    }

    /// Notes a span whose records are lost. Every window that covers the span is incomplete.
    pub(super) fn note_lost(&mut self, from: Timestamp, to: Timestamp) {
        self.timeline.lose(from, to);
        if self.views.is_gathering() {
            self.pending_partials.lost.push((from, to));
        }
    }

    /// Returns when the next partials are sent, if this partition gathers any.
    pub(super) fn next_partials(&self) -> Option<Timestamp> {
        self.views.is_gathering().then(|| self.pending_partials.due.unwrap_or(self.timeline.now()))
    }

    /// Sends the gathered data and the clock of the log, at the first grid point of each ten seconds.
    pub(super) fn send_partials(&mut self, at: Timestamp, out: &mut Effects) {
        if !self.views.is_gathering() || self.pending_partials.due.is_some_and(|due| at < due) {
            return;
        }
        let next = PendingPartials { due: Some(at.next(PARTIALS_EVERY)), ..PendingPartials::default() };
        let pending_partials = std::mem::replace(&mut self.pending_partials, next);
        let mut partials = Partials {
            interrupted: pending_partials.interrupted,
            lost: pending_partials.lost,
            ..Partials::new(at)
        };
        let mut bytes = 0;
        for view in 0..self.views.all().len() {
            for part in self.gathered(view as u32) {
                if bytes > PARTIALS_BYTES_MAX {
                    let full = std::mem::replace(&mut partials, Partials::new(at));
                    out.partials.push(Partials { is_last: false, ..full });
                    bytes = 0;
                }
                bytes += part.pane.content_bytes();
                partials.parts.push(part);
            }
        }
        out.partials.push(partials);
    }

    /// Takes the data that one view gathered since the last partials, in key order.
    fn gathered(&mut self, view: u32) -> Vec<Partial> {
        let view = self.views.at_mut(view);
        let ViewKind::Gathering { of, .. } = view.spec.kind else { return Vec::new() };
        let name = view.spec.selector.name.as_deref();
        let (shape, unit) = (view.shape(), name.and_then(|name| self.measures.series().unit_of(name)));
        let mut taken = view.take_gathered();
        taken.sort_by(|(a, ..), (b, ..)| self.keys.get(*a).cmp(self.keys.get(*b)));
        let mut parts = Vec::new();
        for (key, newest, trails) in taken {
            let key = self.keys.get(key);
            let part = |time, pane, m2| Partial {
                view: of,
                key: key.clone(),
                unit: unit.clone(),
                shape,
                time,
                pane,
                m2,
            };
            if trails.is_empty() {
                parts.push(part(newest, Default::default(), 0.0));
            }
            for trail in trails {
                let time = trail.pane.last_time().unwrap_or(newest);
                parts.push(part(time, trail.pane, trail.m2));
            }
        }
        parts
    }
}
