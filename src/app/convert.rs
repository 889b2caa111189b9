//! `streamgauge convert prometheus-rules`: rule files of Prometheus as a pipeline file.

use super::cli::ConvertCommand;
use super::{FAILED, FINE};
use crate::pipeline::prometheus;
use anyhow::{Context, Result};
use std::path::Path;

pub fn run(command: &ConvertCommand) -> Result<u8> {
    let ConvertCommand::PrometheusRules { files, out, strict } = command;
    let texts = files.iter().map(|path| Ok((path.display().to_string(), read(path)?)));
    let converted = prometheus::convert(&texts.collect::<Result<Vec<_>>>()?).map_err(anyhow::Error::msg)?;
    match out {
        Some(path) => std::fs::write(path, converted.yaml())
            .with_context(|| format!("cannot write {}; is the path right?", path.display()))?,
        None => print!("{}", converted.yaml()),
    }
    for note in &converted.notes {
        eprintln!("note      {note}");
    }
    for left_out in &converted.left_out {
        eprintln!("left out  {left_out}");
    }
    eprintln!("{}", converted.summary());
    let left = converted.left_out.len();
    Ok(if *strict && left > 0 { FAILED } else { FINE })
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path)
        .with_context(|| format!("cannot read {}; is the path right?", path.display()))
}
