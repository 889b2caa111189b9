//! Rules as the engine runs them: parsed, checked, with every name resolved.
//!
//! `pipeline` makes these out of what people write; nothing here can be wrong any more. A rule set
//! enters the log as one control record, so it is plain data that can be stored and compared.

pub mod about;
pub mod ast;
mod deploys;
pub mod describe;
pub mod evaluate;
pub mod frozen;
mod line;
mod logic;
mod normal;
pub mod past;
pub mod rough;
pub mod scope;
pub mod share;
pub mod sound;
pub mod template;

use super::alert::Severity;
use super::escalation::Escalation;
use super::identity::Labels;
use super::mute::Maintenance;
use super::run::course::Weights;
use super::selector::Selector;
use super::series::MetricSpec;
use super::time::Span;
use super::unit::Unit;
use super::view::ViewSpec;
use ast::{Compare, Cond, Expr};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Everything a directory of pipeline files says.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RuleSet {
    pub metrics: BTreeMap<Arc<str>, MetricSpec>,
    pub declared: Vec<Declared>,
    pub pipelines: BTreeMap<Arc<str>, PipelineSpec>,
    /// What the expressions read; they refer to a view by its place here.
    pub views: Vec<ViewSpec>,
    /// In dependency order.
    pub records: Vec<RecordSpec>,
    pub rules: Vec<Rule>,
    #[serde(default)]
    pub maintenance: Vec<Maintenance>,
    #[serde(default)]
    pub inhibits: Vec<Inhibit>,
    /// How much each part of a pipeline's health counts.
    #[serde(default)]
    pub health: Weights,
    /// The files it was made of, name and text.
    pub files: Vec<(String, String)>,
}

/// Some alerts go without saying while others fire.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Inhibit {
    pub source: Selector,
    pub target: Selector,
    /// Labels that both must have in common.
    pub equal: Vec<Arc<str>>,
}

/// A series expected from the start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Declared {
    pub source: Arc<str>,
    pub name: Arc<str>,
    pub labels: Labels,
}

/// What is known of a pipeline beforehand.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PipelineSpec {
    /// In order; the end of the last ends a run where no run events are sent.
    pub stages: Vec<Arc<str>>,
}

/// A derived series.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecordSpec {
    pub name: Arc<str>,
    pub expr: Expr,
    pub unit: Option<Unit>,
    pub views: Vec<u32>,
}

/// One rule; its alerts are one per key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    pub id: Arc<str>,
    pub subject: Subject,
    /// Ascending by severity, never empty, at most [`LEVELS_MAX`].
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
    /// Whether actions are asked for in maintenance, too.
    #[serde(default)]
    pub acts_in_maintenance: bool,
    #[serde(default)]
    pub fdr: Fdr,
    /// It is judged and its transitions are kept apart: nobody is told.
    #[serde(default)]
    pub is_shadow: bool,
    pub unit: Option<Unit>,
    /// The views its expressions read, each once, ascending.
    pub views: Vec<u32>,
    pub reads: Reads,
    /// 16 hex digits over everything above: changes with the rule, not with its place.
    pub hash: Arc<str>,
    /// The expression as it was written.
    pub text: Arc<str>,
}

/// Among many keys some look unusual by chance: how many of those that are told may be.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub enum Fdr {
    /// [`FDR_DEFAULT`] for rules with a regression or an anomaly, from [`FDR_KEYS`] keys on.
    #[default]
    ByKeys,
    /// Each key is judged by itself.
    Off,
    /// This share of them.
    Share(f64),
}

/// Share of what is told that may be chance.
pub const FDR_DEFAULT: f64 = 0.05;

/// With more keys than these, they are judged together.
pub const FDR_KEYS: usize = 20;

/// What is judged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Subject {
    /// A value, judged by the comparison of each level.
    Value(Expr),
    /// A condition of its own; there is one level.
    Condition(Cond),
}

/// One severity of a rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Level {
    pub severity: Severity,
    /// For [`Subject::Value`]: when the level is met.
    pub condition: Option<Compare>,
    /// When a firing level is left; without it, when its condition ends.
    pub reset: Option<Compare>,
    pub pending_for: Span,
    pub actions: Vec<Arc<str>>,
    /// The condition as it was written, for the alert's `threshold`.
    pub threshold: Arc<str>,
}

/// Severities a rule can tell apart.
pub const LEVELS_MAX: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnUnknown {
    Hold,
    ClearAfter(Span),
    Fire,
}

/// An alert that nobody can judge for so long ends as stale, unless its rule says otherwise.
const CLEAR_AFTER: Span = Span::from_mins(30);

impl Default for OnUnknown {
    fn default() -> OnUnknown {
        OnUnknown::ClearAfter(CLEAR_AFTER)
    }
}

impl Rule {
    /// What a level compares the value of its alerts with, where that is a number.
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

/// What a rule reads besides views of series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Reads {
    /// `idle`, `age`, `in_flight`: keys come from pipelines.
    pub has_runs: bool,
    /// `idle`, `age`, `silent`: the value grows with time alone.
    pub has_elapsed: bool,
    /// `sustained`, `occurrences`: the value changes with time alone.
    pub has_shares: bool,
    /// `regression`, `regression_score`, `anomaly`: what is unusual by chance is told, too.
    #[serde(default)]
    pub has_chances: bool,
}
