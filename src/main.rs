//! argv, signals, exit code; everything else is in the library.

use clap::Parser;
use std::process::ExitCode;
use streamgauge::app::cli::Cli;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match streamgauge::app::dispatch(cli) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("streamgauge: {error:#}");
            ExitCode::from(streamgauge::app::exit_code(&error))
        }
    }
}
