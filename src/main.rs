//! Passes the arguments to the library and returns its exit code; everything else is in the library.

use clap::Parser;
use std::process::ExitCode;
use streamgauge::app::cli::Cli;

fn main() -> ExitCode {
    streamgauge::app::run::catch_signals();
    ExitCode::from(streamgauge::app::perform(Cli::try_parse()))
}
