//! Rules as the engine runs them: parsed, checked, with every name resolved.
//!
//! The `pipeline` module builds these values from the pipeline files and rejects every mistake there. A
//! rule set enters the log as one control record, so it is plain data that can be stored and compared.

pub(crate) mod about;
pub(crate) mod ast;
pub(crate) mod describe;
pub(crate) mod scope;
pub(crate) mod sound;
pub(crate) mod template;

use super::mute::Maintenance;
use super::view::ViewSpec;
use crate::core::measure::series::MetricSpec;
use crate::core::vocab::comparison::Compare;
use crate::core::vocab::escalation::Escalation;
use crate::core::vocab::identity::Labels;
use crate::core::vocab::pipeline::{PipelineSpec, Weights};
use crate::core::vocab::selector::Selector;
use crate::core::vocab::severity::Severity;
use crate::core::vocab::time::Span;
use crate::core::vocab::unit::Unit;
use ast::{Cond, Expr};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The checked content of a directory of pipeline files.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RuleSet {
    pub metrics: BTreeMap<Arc<str>, MetricSpec>,
    pub declared: Vec<Declared>,
    pub pipelines: BTreeMap<Arc<str>, PipelineSpec>,
    /// The views that the expressions read; an expression refers to a view by its index here.
    pub views: Vec<ViewSpec>,
    /// In dependency order: a record comes after the records it reads.
    pub records: Vec<RecordSpec>,
    pub rules: Vec<Rule>,
    #[serde(default)]
    pub maintenance: Vec<Maintenance>,
    #[serde(default)]
    pub inhibits: Vec<Inhibit>,
    /// The weight of each part of a pipeline's health.
    #[serde(default)]
    pub health: Weights,
    /// The files the set was built from, as name and text.
    pub files: Vec<(String, String)>,
}

/// An inhibition: alerts that match `target` are suppressed while an alert that matches `source` fires.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Inhibit {
    pub source: Selector,
    pub target: Selector,
    /// Labels that both alerts must have in common.
    pub equal: Vec<Arc<str>>,
}

/// A series that is expected from the start, even before its first event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Declared {
    pub source: Arc<str>,
    pub name: Arc<str>,
    pub labels: Labels,
}

/// A derived series.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecordSpec {
    pub name: Arc<str>,
    pub expr: Expr,
    pub unit: Option<Unit>,
    pub views: Vec<u32>,
}

/// One rule; it has one alert per key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    pub id: Arc<str>,
    pub subject: Subject,
    /// Ascending by severity, never empty, at most [`LEVELS_MAX`](crate::core::vocab::severity::LEVELS_MAX).
    pub levels: Vec<Level>,
    pub keep_firing_for: Span,
    pub min_count: u64,
    pub on_unknown: OnUnknown,
    pub cooldown: Span,
    pub labels: BTreeMap<Arc<str>, Arc<str>>,
    pub summary: Option<Arc<str>>,
    pub runbook: Option<Arc<str>>,
    #[serde(default)]
    pub escalation: Option<Escalation>,
    /// Whether actions are requested during maintenance, too.
    #[serde(default)]
    pub acts_in_maintenance: bool,
    #[serde(default)]
    pub fdr: Fdr,
    /// Whether the rule is a shadow: it is evaluated and its transitions are kept apart, but no receiver is
    /// notified.
    #[serde(default)]
    pub is_shadow: bool,
    pub unit: Option<Unit>,
    /// The views that the rule's expressions read, each once, ascending.
    pub views: Vec<u32>,
    pub reads: Reads,
    /// A hash of 16 hex digits over the id, the text and the settings (without `acts_in_maintenance`). It does
    /// not depend on the position of the rule in its file.
    pub hash: Arc<str>,
    /// The expression as written in the file.
    pub text: Arc<str>,
}

/// The false discovery rate of a rule. Among many keys some look unusual by chance; this is the share of
/// published alerts that may be chance findings.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub enum Fdr {
    /// [`FDR_DEFAULT`] for rules with a regression or an anomaly, if they have more than [`FDR_KEYS`] keys.
    #[default]
    ByKeys,
    /// No control of the rate: each key is tested on its own.
    Off,
    /// This share of the published alerts.
    Share(f64),
}

/// The default share of published alerts that may be chance findings.
pub const FDR_DEFAULT: f64 = 0.05;

/// The number of keys above which [`Fdr::ByKeys`] controls the false discovery rate.
pub const FDR_KEYS: usize = 20;

/// The subject that a rule judges.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Subject {
    /// A value, which the comparison of each level judges.
    Value(Expr),
    /// A complete condition; the rule then has one level.
    Condition(Cond),
}

/// One severity of a rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Level {
    pub severity: Severity,
    /// For [`Subject::Value`]: the comparison that meets the level.
    pub condition: Option<Compare>,
    /// The comparison that resets a firing level (hysteresis). Without it, the level resets when its condition
    /// is no longer met.
    pub reset: Option<Compare>,
    pub pending_for: Span,
    pub actions: Vec<Arc<str>>,
    /// The condition as written in the file, for the alert's `threshold`.
    pub threshold: Arc<str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnUnknown {
    Hold,
    ClearAfter(Span),
    Fire,
}

/// An alert whose condition is unknown for this long ends as stale, unless its rule says otherwise.
const CLEAR_AFTER: Span = Span::from_mins(30);

impl Default for OnUnknown {
    fn default() -> OnUnknown {
        OnUnknown::ClearAfter(CLEAR_AFTER)
    }
}

impl Rule {
    /// Returns the limit that a level compares its value with; `None` if that is not a constant.
    pub fn limit(&self, level: usize) -> Option<f64> {
        match &self.subject {
            Subject::Value(_) => Some(self.levels.get(level)?.condition?.limit),
            Subject::Condition(cond) => match cond.leading() {
                (_, _, Expr::Number(limit)) => Some(*limit),
                _ => None,
            },
        }
    }
}

/// Inputs of a rule besides views of series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Reads {
    /// `idle`, `age`, `in_flight`: the keys come from pipelines.
    pub has_runs: bool,
    /// `idle`, `age`, `silent`: the value grows with time alone.
    pub has_elapsed: bool,
    /// `sustained`, `occurrences`: the value changes with time alone.
    pub has_shares: bool,
    /// `regression`, `regression_score`, `anomaly`: some results are significant by chance alone.
    #[serde(default)]
    pub has_chances: bool,
}
