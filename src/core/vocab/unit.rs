//! Units of metrics: the meaning of a number, the numbers it may be compared with, and its resolution.
//!
//! Invariant: two units convert exactly when they have the same [`Dimension`]. Any other pair is refused as
//! `unit`, never guessed. An unknown unit is a dimension of its own.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::sync::Arc;

/// A unit of a metric or of a number in a rule.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Unit {
    Ns,
    Us,
    Ms,
    S,
    Bytes,
    Kib,
    Mib,
    Gib,
    Percent,
    Ratio,
    Count,
    /// Any other word, unchanged; it converts only to itself.
    Other(Arc<str>),
}

/// The kind of quantity that a unit measures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dimension {
    Time,
    Data,
    Fraction,
    Count,
    Other(Arc<str>),
}

impl Unit {
    /// The unit of this name; an unknown name is kept unchanged.
    pub fn from_name(name: &str) -> Unit {
        Unit::known(name).unwrap_or_else(|| Unit::Other(name.into()))
    }

    /// The unit of this name; `None` if the name is not one of the known units.
    pub fn known(name: &str) -> Option<Unit> {
        Some(match name {
            "ns" => Unit::Ns,
            "us" | "µs" => Unit::Us,
            "ms" => Unit::Ms,
            "s" | "seconds" => Unit::S,
            "bytes" | "B" | "By" => Unit::Bytes,
            "kib" | "KiB" => Unit::Kib,
            "mib" | "MiB" => Unit::Mib,
            "gib" | "GiB" => Unit::Gib,
            "percent" | "%" => Unit::Percent,
            "ratio" | "1" => Unit::Ratio,
            "count" => Unit::Count,
            _ => return None,
        })
    }

    /// The unit that the suffix of a metric's name states: `latency_ms`, `disk_percent`.
    pub fn from_suffix(metric: &str) -> Option<Unit> {
        let (_, suffix) = metric.rsplit_once('_')?;
        match suffix {
            "ns" | "us" | "ms" | "seconds" | "bytes" | "percent" | "ratio" => Unit::known(suffix),
            _ => None,
        }
    }

    pub fn name(&self) -> &str {
        match self {
            Unit::Ns => "ns",
            Unit::Us => "us",
            Unit::Ms => "ms",
            Unit::S => "s",
            Unit::Bytes => "bytes",
            Unit::Kib => "kib",
            Unit::Mib => "mib",
            Unit::Gib => "gib",
            Unit::Percent => "percent",
            Unit::Ratio => "ratio",
            Unit::Count => "count",
            Unit::Other(name) => name,
        }
    }

    pub fn dimension(&self) -> Dimension {
        match self {
            Unit::Ns | Unit::Us | Unit::Ms | Unit::S => Dimension::Time,
            Unit::Bytes | Unit::Kib | Unit::Mib | Unit::Gib => Dimension::Data,
            Unit::Percent | Unit::Ratio => Dimension::Fraction,
            Unit::Count => Dimension::Count,
            Unit::Other(name) => Dimension::Other(name.clone()),
        }
    }

    /// The number of `to` units in one of this unit; `None` across dimensions.
    pub fn factor_to(&self, to: &Unit) -> Option<f64> {
        if self == to {
            return Some(1.0);
        }
        (self.dimension() == to.dimension()).then(|| self.in_base() / to.in_base())
    }

    /// The size of one histogram step for values of this unit.
    pub fn resolution(unit: Option<&Unit>) -> Resolution {
        match unit {
            Some(Unit::S) => Resolution::per_unit(1e6),
            Some(Unit::Bytes) => Resolution::per_unit(1.0),
            Some(Unit::Percent) => Resolution::per_unit(1e2),
            Some(Unit::Ratio) => Resolution::per_unit(1e5),
            _ => Resolution::per_unit(1e3),
        }
    }

    /// Size in the dimension's base unit: nanosecond, byte, hundredth.
    fn in_base(&self) -> f64 {
        match self {
            Unit::Us => 1e3,
            Unit::Kib => 1_024.0,
            Unit::Ms => 1e6,
            Unit::S => 1e9,
            Unit::Mib => 1_048_576.0,
            Unit::Gib => 1_073_741_824.0,
            Unit::Ratio => 100.0,
            Unit::Ns | Unit::Bytes | Unit::Percent | Unit::Count | Unit::Other(_) => 1.0,
        }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Unit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Unit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Unit, D::Error> {
        String::deserialize(deserializer).map(|name| Unit::from_name(&name))
    }
}

/// The scale between values and integer steps of a histogram: steps = value × `steps_per_unit`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Resolution {
    steps_per_unit: f64, // > 0, finite
}

impl Resolution {
    /// `steps` histogram steps for each whole unit; 1000 keeps thousandths.
    pub const fn per_unit(steps: f64) -> Resolution {
        Resolution { steps_per_unit: steps }
    }

    /// The resolution whose steps have this size, as the catalog of a store states it.
    pub fn of_scale(scale: f64) -> Resolution {
        Resolution { steps_per_unit: (1.0 / scale).round().max(1.0) }
    }

    /// The size of one step in the metric's unit.
    pub fn step(self) -> f64 {
        1.0 / self.steps_per_unit
    }

    /// Whole steps of a magnitude, rounded half up; the result may exceed the histogram's range.
    #[inline]
    pub fn steps(self, magnitude: f64) -> u64 {
        (magnitude * self.steps_per_unit + 0.5) as u64
    }

    /// The magnitude of this many steps.
    #[inline]
    pub fn magnitude(self, steps: u64) -> f64 {
        steps as f64 / self.steps_per_unit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_of_one_dimension_convert_and_others_do_not() {
        assert_eq!(Unit::S.factor_to(&Unit::Ms), Some(1_000.0));
        assert_eq!(Unit::Us.factor_to(&Unit::Ms), Some(0.001));
        assert_eq!(Unit::Ratio.factor_to(&Unit::Percent), Some(100.0));
        assert_eq!(Unit::Mib.factor_to(&Unit::Kib), Some(1_024.0));
        assert_eq!(Unit::Ms.factor_to(&Unit::Percent), None);
        let requests = Unit::from_name("requests");
        assert_eq!(requests.factor_to(&Unit::from_name("requests")), Some(1.0));
        assert_eq!(requests.factor_to(&Unit::Count), None);
    }

    #[test]
    fn a_suffix_states_a_unit() {
        assert_eq!(Unit::from_suffix("latency_ms"), Some(Unit::Ms));
        assert_eq!(Unit::from_suffix("stage_duration_seconds"), Some(Unit::S));
        assert_eq!(Unit::from_suffix("requests"), None);
        assert_eq!(Unit::from_suffix("errors_total"), None);
    }

    #[test]
    fn values_round_to_the_nearest_step() {
        let ms = Unit::resolution(Some(&Unit::Ms));
        assert_eq!(ms.steps(41.13), 41_130);
        assert_eq!(ms.steps(0.0004), 0);
        assert_eq!(ms.steps(f64::MAX), u64::MAX);
    }
}
