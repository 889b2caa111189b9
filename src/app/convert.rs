//! `streamgauge convert prometheus-rules`: converts rule files of Prometheus to a pipeline file.

use super::cli::ConvertCommand;
use super::stderr::note;
use super::stdout::put;
use super::{FAILED, FINE, outputs, text};
use crate::pipeline::prometheus;
use anyhow::{Context, Result};

pub(crate) fn run(command: &ConvertCommand) -> Result<u8> {
    let ConvertCommand::PrometheusRules { files, out, strict } = command;
    outputs::check(&[("--out", out.as_deref())], files)?;
    let texts = files.iter().map(|path| Ok((path.display().to_string(), text::read(path)?)));
    let converted = prometheus::convert(&texts.collect::<Result<Vec<_>>>()?).map_err(anyhow::Error::msg)?;
    match out {
        Some(path) => std::fs::write(path, converted.yaml())
            .with_context(|| format!("cannot write {}; is the path right?", path.display()))?,
        None => put(converted.yaml())?,
    }
    for remark in &converted.notes {
        note(format_args!("note      {remark}"));
    }
    for left_out in &converted.left_out {
        note(format_args!("left out  {left_out}"));
    }
    note(converted.summary());
    let left = converted.left_out.len();
    Ok(if *strict && left > 0 { FAILED } else { FINE })
}
