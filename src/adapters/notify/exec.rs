//! `exec`: runs a program on this machine for each message, such as a program that starts more servers.
//!
//! The program gets the message on its standard input, as one JSON line. No shell is involved, and no argument or
//! environment variable contains text of an alert. The program leads its own process group, so if it exceeds its
//! timeout, it is killed with all its children. Exit codes: 0 is a success, 75 (EX_TEMPFAIL)
//! asks for a retry, any other is a permanent failure.

use super::log;
use crate::core::notify::Message;
use crate::driver::receivers::ports::{Channel, Failure};
use rustix::process::{Pid, Signal, kill_process_group};
use std::collections::BTreeSet;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Exit code that asks for a retry (EX_TEMPFAIL).
const TRY_AGAIN: i32 = 75;

/// Interval at which the program's end is polled.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Time reserved for killing a program that exceeded its timeout.
const KILL_WITHIN: Duration = Duration::from_secs(1);

/// Process groups of the programs that run now. `is_over` is set when this process ends, and forbids new programs.
#[derive(Debug, Default)]
struct Running {
    groups: BTreeSet<i32>,
    is_over: bool,
}

static RUNNING: Mutex<Running> = Mutex::new(Running { groups: BTreeSet::new(), is_over: false });

fn running() -> MutexGuard<'static, Running> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Kills all running programs with their children, and prevents new ones from starting. A program that outlived this
/// process would have no timeout any more.
pub(crate) fn end_all() {
    let mut running = running();
    running.is_over = true;
    for group in std::mem::take(&mut running.groups) {
        // The kill fails if the program has just ended, which is harmless.
        let _ = kill(group);
    }
}

/// Kills a process group. Does nothing if `group` is no valid process id.
fn kill(group: i32) -> std::io::Result<()> {
    match Pid::from_raw(group) {
        Some(group) => Ok(kill_process_group(group, Signal::KILL)?),
        None => Ok(()),
    }
}

/// Starts a program, unless the process is ending.
fn spawn(command: &mut Command) -> Result<Child, Failure> {
    let mut running = running();
    if running.is_over {
        return Err(Failure::again("this process is ending"));
    }
    let child =
        command.spawn().map_err(|error| Failure::again(format!("cannot start the program: {error}")))?;
    running.groups.extend(i32::try_from(child.id()).ok());
    Ok(child)
}

#[derive(Debug)]
pub(crate) struct Exec {
    pub program: PathBuf,
    pub arguments: Vec<String>,
    pub timeout: Duration,
}

impl Channel for Exec {
    fn send(&mut self, message: &Message) -> Result<(), Failure> {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin");
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let mut child = spawn(&mut command)?;
        let text = log::line(message) + "\n";
        if let Some(mut input) = child.stdin.take() {
            // A separate thread writes the message, because a program that reads nothing would block the write. The
            // thread ends with the program.
            std::thread::spawn(move || drop(input.write_all(text.as_bytes())));
        }
        let ended = wait(&mut child, self.timeout);
        match ended.map_err(|error| Failure::again(format!("cannot wait for the program: {error}")))? {
            None => Err(Failure::never(format!("the program was killed after {:?}", self.timeout))),
            Some(0) => Ok(()),
            Some(TRY_AGAIN) => Err(Failure::again("the program asks for a retry (exit code 75)")),
            Some(code) => Err(Failure::never(format!("the program ended with exit code {code}"))),
        }
    }

    fn attempt_max(&self) -> Duration {
        self.timeout + KILL_WITHIN
    }
}

/// Returns the exit code, -1 after a signal, or `None` if the program exceeded the timeout and was killed.
fn wait(child: &mut Child, timeout: Duration) -> std::io::Result<Option<i32>> {
    let begun = Instant::now();
    loop {
        if let Some(status) = ended(child)? {
            return Ok(Some(status.code().unwrap_or(-1)));
        }
        if begun.elapsed() > timeout {
            kill_with_children(child)?;
            return Ok(None);
        }
        std::thread::park_timeout(LOOK_EVERY);
    }
}

/// Returns the status of the child if it has ended. `try_wait` frees the child's process id, and the kernel may reuse
/// it. So the lock is held until the id is removed from [`RUNNING`]; otherwise [`end_all`] could kill an unrelated
/// group.
fn ended(child: &mut Child) -> std::io::Result<Option<ExitStatus>> {
    let mut running = running();
    let status = child.try_wait()?;
    if status.is_some() {
        forget(&mut running, child);
    }
    Ok(status)
}

fn forget(running: &mut Running, child: &Child) {
    if let Ok(group) = i32::try_from(child.id()) {
        running.groups.remove(&group);
    }
}

/// Kills the child's process group, because a shell script would otherwise leave its commands behind.
///
/// The child has not been reaped yet, so no other process can have its number.
fn kill_with_children(child: &mut Child) -> std::io::Result<()> {
    if let Ok(group) = i32::try_from(child.id()) {
        kill(group)?;
    }
    forget(&mut running(), child);
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
