//! `exec`: a program of this machine, such as one that scales something up.
//!
//! The message is its standard input, one JSON line; there is no shell, no argument and no variable that an alert
//! could write. A program that takes too long is killed. Exit codes: 0 it is done, 75 (EX_TEMPFAIL) try again, any
//! other never.

use super::log;
use crate::core::notify::Message;
use crate::driver::notify::ports::{Channel, Failure};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The code that asks for another attempt.
const TRY_AGAIN: i32 = 75;

/// Time between two looks whether it has ended.
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
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let started = command.spawn();
        let mut child = started.map_err(|error| Failure::again(format!("cannot start it: {error}")))?;
        let text = log::line(message) + "\n";
        if let Some(mut input) = child.stdin.take() {
            // A thread: a program that reads nothing must not hold this one up. It ends when the program does.
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

/// Its exit code; -1 by a signal; none: it was killed as it took too long.
fn wait(child: &mut Child, timeout: Duration) -> std::io::Result<Option<i32>> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status.code().unwrap_or(-1)));
        }
        if begun.elapsed() > timeout {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::park_timeout(LOOK_EVERY);
    }
}
