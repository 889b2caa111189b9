//! `streamgauge verify`: checks that a data dir holds what was written to it.

use super::cli::VerifyArgs;
use super::stdout::say;
use super::{FAILED, FINE, damage};
use crate::adapters::embedded::Embedded;
use crate::adapters::embedded::verify::Findings;
use anyhow::Result;

pub(crate) fn run(args: &VerifyArgs) -> Result<u8> {
    let data_dir = args.data_dir.clone().unwrap_or_else(super::config::default_data_dir);
    damage::log_of(&data_dir)?;
    let findings = damage::caught_in_time(&data_dir, |dir| Ok(Embedded::open_damaged(dir)?.verify()?))?;
    match args.json {
        true => say(serde_json::to_string(&findings)?)?,
        false => say(words(&findings))?,
    }
    Ok(if findings.is_fine() { FINE } else { FAILED })
}

fn words(findings: &Findings) -> String {
    let Findings { records, damaged, damaged_count, is_sound } = findings;
    if findings.is_fine() {
        return format!("{records} records of the log and all pages are as they were written");
    }
    let named: Vec<String> = damaged.iter().map(u64::to_string).collect();
    let records = match damaged_count {
        0 => format!("all {records} records of the log are whole"),
        count => format!(
            "{count} records of the log are damaged or missing, {records} are whole; the first: {}",
            named.join(", ")
        ),
    };
    let pages =
        if *is_sound { "all pages are as they were written" } else { "some page is not as it was written" };
    format!(
        "{records}; {pages}\nthe way out: `streamgauge export --skip-damaged --data-dir …` saves what is whole; replay it, or restore a copy of the data dir"
    )
}
