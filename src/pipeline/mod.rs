//! What people write in `pipelines/*.yaml`, read, checked and turned into a rule set.
//!
//! Intuition: a file is parsed into a tree that remembers where everything stands; the checks walk
//! it and note every problem with its place instead of stopping at the first; only a directory
//! without errors becomes a [`RuleSet`](crate::core::rule::RuleSet), in which nothing can be wrong.

pub mod ask;
mod bounds;
mod builtin;
pub mod define;
pub mod diagnostic;
pub mod document;
pub mod expr;
mod firsts;
pub mod life;
pub mod load;
pub mod prometheus;
mod record;
mod reset;
pub mod rule;
mod stage_limit;
mod summary;
pub mod test_case;
mod threshold;
pub mod tree;
pub mod yaml;

pub use diagnostic::Diagnostic;
pub use load::{Loaded, load_dir, load_files};
