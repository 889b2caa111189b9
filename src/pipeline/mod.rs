//! Reads and checks the files in `pipelines/*.yaml` and compiles them into a rule set.
//!
//! Intuition: a file is parsed into a tree whose nodes keep their place in the file. The checks walk the tree
//! and note every problem with its place instead of stopping at the first one. Only a directory without
//! errors becomes a [`RuleSet`](crate::core::rule::RuleSet), so a rule set has no errors.

pub mod ask;
mod bounds;
mod builtin;
pub(crate) mod define;
pub mod diagnostic;
pub(crate) mod document;
pub mod expr;
mod firsts;
pub(crate) mod life;
pub mod load;
pub mod prometheus;
mod record;
mod reset;
pub(crate) mod rule;
mod stage_limit;
mod summary;
pub(crate) mod test_case;
mod threshold;
pub(crate) mod tree;
pub(crate) mod yaml;

pub use diagnostic::Diagnostic;
pub use load::{Loaded, load_dir, load_files};
