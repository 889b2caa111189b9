//! Composition roots: each command builds what it needs out of the other rooms.

pub mod asking;
pub mod backtest;
pub mod channels;
pub mod check;
pub mod cli;
pub mod config;
pub mod convert;
pub mod demo;
pub mod explain;
pub mod export;
pub mod listing;
pub mod notify;
pub mod partitioned;
pub mod publish;
pub mod receivers;
pub mod remote;
pub mod replay;
pub mod role;
pub mod rule_files;
pub mod rulebook;
pub mod run;
pub mod service;
pub mod telling;
pub mod test;

use crate::core::partition::Partition;
use crate::wire::subject::Subjects;
use anyhow::Result;
use cli::{Cli, Command};

/// Exit codes (CONTRACT §7).
pub const FINE: u8 = 0;
pub const FAILED: u8 = 1;
pub const BAD_CONFIG: u8 = 78;

/// Something in the configuration or in pipeline files is wrong.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadConfig(pub String);

/// Runs one command; the exit code it ends with.
pub fn dispatch(cli: Cli) -> Result<u8> {
    match cli.command {
        Command::Replay(args) => replay::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Publish(args) => publish::run(&args),
        Command::Alerts { command } => remote::alerts(&command),
        Command::Rules { command } => remote::rules(&command),
        Command::Notify { command } => notify::run(&command),
        Command::Backtest(args) => backtest::run(&args),
        Command::Convert { command } => convert::run(&command),
        Command::Silence { command } => asking::silence(&command),
        Command::Maintenance { command } => asking::maintenance(&command),
        Command::Nats { command: cli::NatsCommand::Mapping { partitions, root } } => {
            print!("{}", mapping(&root, partitions));
            Ok(FINE)
        }
        Command::Schema { kind } => {
            println!("{}", schema(kind));
            Ok(FINE)
        }
        Command::Completions { shell } => {
            cli::completions(shell);
            Ok(FINE)
        }
        Command::Later(words) => {
            let word = words.first().map_or("", |word| word.to_str().unwrap_or(""));
            Err(cli::not_yet(word))
        }
    }
}

/// The mapping in the syntax of the server's configuration file.
fn mapping(root: &str, partitions: u32) -> String {
    let partition = Partition { index: 0, count: partitions.max(1) };
    let lines =
        Subjects::new(root, partition).mapping().map(|(from, to)| format!("  \"{from}\": \"{to}\"\n"));
    format!("mappings = {{\n{}}}\n", lines.concat())
}

/// The exit code of an error.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    if error.is::<cli::Usage>() {
        2
    } else if error.is::<BadConfig>() {
        BAD_CONFIG
    } else {
        FAILED
    }
}

/// The JSON Schema of what goes in or comes out, or of the configuration file.
pub fn schema(kind: crate::wire::schema::Kind) -> String {
    match kind {
        crate::wire::schema::Kind::Config => config::schema(),
        other => crate::wire::schema::text(other),
    }
}
