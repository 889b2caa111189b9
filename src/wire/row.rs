//! Windows as dashboards read them in Redis: each is one MessagePack array.

use super::hdr::{self, HdrError, Writer};
use crate::core::Timestamp;
use crate::core::measure::pane::{Pane, Plain, Shape};
use serde::{Deserialize, Serialize};

/// `[n,sum,min,max,last,p50,p90,p95,p99,p999,overflow,revision,open,incomplete,last_time]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub n: u64,
    pub sum: f64,
    pub min: Option<f64>,
    pub max: Option<f64>,
    pub last: Option<f64>,
    pub p50: Option<f64>,
    pub p90: Option<f64>,
    pub p95: Option<f64>,
    pub p99: Option<f64>,
    pub p999: Option<f64>,
    pub overflow: u64,
    pub revision: u32,
    pub open: bool,
    pub incomplete: bool,
    pub last_time: Option<i64>, // epoch milliseconds
}

impl Row {
    pub fn new(pane: &Pane, shape: Shape, revision: u32, open: bool, incomplete: bool) -> Row {
        let [p50, p90, p95, p99, p999] = pane.percentiles(shape);
        let some = |value: f64| (!pane.is_empty()).then_some(value);
        Row {
            n: pane.count,
            sum: pane.sum,
            min: some(pane.min),
            max: some(pane.max),
            last: pane.last(),
            p50,
            p90,
            p95,
            p99,
            p999,
            overflow: pane.overflow,
            revision,
            open,
            incomplete,
            last_time: pane.last_time().map(Timestamp::ms),
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        // Numbers always serialise.
        rmp_serde::to_vec(self).unwrap_or_default()
    }

    pub fn read(bytes: &[u8]) -> Result<Row, rmp_serde::decode::Error> {
        rmp_serde::from_slice(bytes)
    }

    /// Rebuilds the pane from this row and its histograms.
    pub fn pane(&self, shape: Shape, positive: &[u8], negative: Option<&[u8]>) -> Result<Pane, HdrError> {
        let last = self.last.zip(self.last_time.and_then(Timestamp::from_ms));
        let plain = Plain {
            count: self.n,
            sum: self.sum,
            extremes: self.min.zip(self.max),
            last,
            overflow: self.overflow,
        };
        let negative = negative.map(|bytes| hdr::read(shape.digits, bytes)).transpose()?;
        Ok(Pane::of(plain, hdr::read(shape.digits, positive)?, negative))
    }
}

/// Encodes the histograms of a pane: values from zero up, and negative values if there are any.
pub fn histograms(pane: &Pane, writer: &mut Writer) -> Result<(Vec<u8>, Option<Vec<u8>>), HdrError> {
    let negative = pane.negative().map(|negative| writer.bytes(negative)).transpose()?;
    Ok((writer.bytes(pane.positive())?, negative))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::measure::histogram::layout::Digits;
    use crate::core::measure::pane::Sample;
    use crate::core::vocab::unit::Unit;

    #[test]
    fn a_pane_survives_its_row() {
        let shape = Shape { digits: Digits::Two, resolution: Unit::resolution(Some(&Unit::Ms)) };
        let mut writer = Writer::new(shape.digits);
        let mut pane = Pane::default();
        for value in [-3.5, 0.0, 41.25, 1e18, 7.0] {
            pane.record(Sample::new(shape, value, Timestamp::clamped(value as i64 % 1_000)));
        }
        for pane in [pane, Pane::default()] {
            let row = Row::read(&Row::new(&pane, shape, 3, false, true).bytes()).expect("own bytes");
            let (positive, negative) = histograms(&pane, &mut writer).expect("in range");
            assert_eq!(row.pane(shape, &positive, negative.as_deref()).expect("own bytes"), pane);
            assert_eq!(row.revision, 3);
        }
    }
}
