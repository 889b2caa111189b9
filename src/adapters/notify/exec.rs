//! `exec`: a program of this machine, such as one that scales something up.
//!
//! The message is the program's standard input, one JSON line. There is no shell, and no argument or
//! environment variable contains text of an alert. A program that exceeds its timeout is killed with all
//! its children, because it leads a process group of its own. Exit codes: 0 is a success, 75 (EX_TEMPFAIL)
//! asks for a retry, any other is a permanent failure.

use super::log;
use crate::core::notify::Message;
use crate::driver::notify::ports::{Channel, Failure};
use rustix::process::{Pid, Signal, kill_process_group};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Exit code that asks for a retry (EX_TEMPFAIL).
const TRY_AGAIN: i32 = 75;

/// Interval at which the program's end is polled.
const LOOK_EVERY: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub struct Exec {
    pub program: PathBuf,
    pub arguments: Vec<String>,
    pub timeout: Duration,
}

impl Channel for Exec {
    fn send(&mut self, message: &Message) -> Result<(), Failure> {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin");
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let started = command.spawn();
        let mut child = started.map_err(|error| Failure::again(format!("cannot start it: {error}")))?;
        let text = log::line(message) + "\n";
        if let Some(mut input) = child.stdin.take() {
            // Write in a thread, so that a program that reads nothing does not block this one. The thread
            // ends with the program.
            std::thread::spawn(move || drop(input.write_all(text.as_bytes())));
        }
        let ended = wait(&mut child, self.timeout);
        match ended.map_err(|error| Failure::again(format!("cannot wait for it: {error}")))? {
            None => Err(Failure::never(format!("it was killed after {:?}", self.timeout))),
            Some(0) => Ok(()),
            Some(TRY_AGAIN) => Err(Failure::again("it asks for another attempt (exit 75)")),
            Some(code) => Err(Failure::never(format!("it ended with {code}"))),
        }
    }
}

/// Returns the exit code, -1 after a signal, or `None` if the program exceeded the timeout and was killed.
fn wait(child: &mut Child, timeout: Duration) -> std::io::Result<Option<i32>> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status.code().unwrap_or(-1)));
        }
        if begun.elapsed() > timeout {
            kill_with_children(child)?;
            return Ok(None);
        }
        std::thread::park_timeout(LOOK_EVERY);
    }
}

/// Kills the child's process group, because a shell script would otherwise leave its commands behind.
///
/// The child has not been reaped yet, so no other process can have its number.
fn kill_with_children(child: &mut Child) -> std::io::Result<()> {
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        kill_process_group(group, Signal::KILL)?;
    }
    child.kill()?;
    child.wait().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_out_kills_what_the_program_started() {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "sleep 600 & echo $!; wait"]).process_group(0).stdout(Stdio::piped());
        let mut child = command.spawn().expect("a shell");
        let mut line = String::new();
        let output = child.stdout.take().expect("it is piped");
        std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line).expect("its number");
        assert_eq!(wait(&mut child, Duration::from_millis(50)).expect("it can be waited for"), None);
        let is_gone = || {
            let status = std::fs::read_to_string(format!("/proc/{}/stat", line.trim())).unwrap_or_default();
            status.is_empty() || status.contains(") Z")
        };
        let deadline = Instant::now() + Duration::from_secs(10);
        while !is_gone() {
            assert!(Instant::now() < deadline, "the sleeping child lives on");
            std::thread::sleep(LOOK_EVERY);
        }
    }
}
