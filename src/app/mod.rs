//! Composition roots: each command assembles what it needs from the other modules.

pub(crate) mod asking;
pub(crate) mod backtest;
pub(crate) mod channels;
pub(crate) mod check;
mod checked;
pub mod cli;
mod client;
pub(crate) mod config;
pub(crate) mod convert;
pub(crate) mod damage;
pub(crate) mod demo;
pub mod embedded;
pub(crate) mod explain;
pub mod export;
pub(crate) mod listing;
pub(crate) mod logging;
pub(crate) mod notify;
pub(crate) mod outputs;
pub(crate) mod partitioned;
pub(crate) mod positions;
pub(crate) mod publish;
pub(crate) mod receivers;
pub(crate) mod remote;
pub(crate) mod replay;
pub(crate) mod reporting;
pub(crate) mod role;
pub(crate) mod rule_files;
pub(crate) mod rules_keeper;
pub mod run;
pub mod service;
pub(crate) mod stderr;
pub(crate) mod stdout;
mod support;
pub(crate) mod telling;
pub(crate) mod test;
pub(crate) mod text;
pub(crate) mod verify;
pub(crate) mod waiting;

use crate::core::vocab::partition::Partition;
use crate::wire::subject::Subjects;
use anyhow::Result;
use cli::{Cli, Command};

/// Exit codes: success, failure, usage error and configuration error.
pub const FINE: u8 = 0;
pub const FAILED: u8 = 1;
pub const BAD_USAGE: u8 = 2;
pub const BAD_CONFIG: u8 = 78;

/// An error in the configuration or in the pipeline files.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadConfig(pub String);

/// Runs the command of the parsed command line, or reports why the command line could not be parsed. Returns
/// the exit code.
pub fn perform(words: Result<Cli, clap::Error>) -> u8 {
    let cli = match words {
        Ok(cli) => cli,
        Err(answer) => return cli::answer(&answer),
    };
    dispatch(cli).unwrap_or_else(|error| {
        // The reader of standard output has read enough and closed it, which is no failure.
        if stdout::is_closed(&error) {
            return FINE;
        }
        stderr::note(format_args!("streamgauge: {error:#}"));
        exit_code(&error)
    })
}

/// The version, and the commit of a release build.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), env!("STREAMGAUGE_COMMIT_NAMED"));

/// Runs one command and returns its exit code.
pub fn dispatch(cli: Cli) -> Result<u8> {
    match cli.command {
        Command::Replay(args) => replay::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::SupportBundle(args) => support::run(&args),
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
            stdout::put(mapping(&root, partitions)).map(|()| FINE)
        }
        Command::Schema { kind } => stdout::say(schema(kind)).map(|()| FINE),
        Command::Completions { shell } => stdout::put(cli::completions(shell)).map(|()| FINE),
        Command::Later(words) => {
            let word = words.first().map_or("", |word| word.to_str().unwrap_or(""));
            Err(cli::not_yet(word))
        }
    }
}

/// Returns the subject mapping in the syntax of the NATS server's configuration file.
fn mapping(root: &str, partitions: u32) -> String {
    let partition = Partition { index: 0, count: partitions.max(1) };
    let lines =
        Subjects::new(root, partition).mapping().map(|(from, to)| format!("  \"{from}\": \"{to}\"\n"));
    format!("mappings = {{\n{}}}\n", lines.concat())
}

/// Returns the exit code of an error, which depends on the error types anywhere in its chain of causes.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    if holds::<cli::Usage>(error) {
        BAD_USAGE
    } else if holds::<BadConfig>(error) {
        BAD_CONFIG
    } else {
        FAILED
    }
}

/// Whether an error is of this type, was caused by such an error, or has such an error as its context.
fn holds<E: std::error::Error + Send + Sync + 'static>(error: &anyhow::Error) -> bool {
    error.is::<E>() || error.chain().any(|cause| cause.is::<E>())
}

/// Returns the JSON Schema of an input or output format, or of the configuration file.
pub fn schema(kind: crate::wire::schema::Kind) -> String {
    match kind {
        crate::wire::schema::Kind::Config => config::schema(),
        other => crate::wire::schema::text(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn the_exit_code_is_found_behind_every_context() {
        let bad = || BadConfig("no such file".into());
        let plain = anyhow::Error::new(bad());
        let wrapped = anyhow::Error::new(bad()).context("cannot start");
        let as_context = Err::<(), _>(std::io::Error::other("gone")).context(bad());
        for error in [plain, wrapped, as_context.expect_err("an error").context("cannot start")] {
            assert_eq!(exit_code(&error), BAD_CONFIG, "{error:?}");
        }
        let usage = anyhow::Error::new(cli::Usage("what?".into())).context("in a command");
        assert_eq!((exit_code(&usage), exit_code(&anyhow::anyhow!("else"))), (BAD_USAGE, FAILED));
    }
}
