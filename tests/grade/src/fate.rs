//! What a signal does to a process that the grader has started, as the kernel
//! tells its parent: without reaping it, so that its id stays its own.
//!
//! Linux only: elsewhere nothing is ever seen.

use std::fs;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

/// What has become of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It has ended; by a signal it may have left a core dump.
    Ended {
        /// Whether it did.
        core: bool,
    },
    /// It stands still, with all its threads.
    Stopped,
    /// It stood still, and goes on.
    Continued,
}

/// What has become of a child of ours since it was started, or since the last
/// thing that has become of it.
#[must_use]
#[cfg(target_os = "linux")]
pub fn change(pid: Pid) -> Option<Change> {
    use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
    let flags = WaitPidFlag::WEXITED
        | WaitPidFlag::WSTOPPED
        | WaitPidFlag::WCONTINUED
        | WaitPidFlag::WNOHANG
        | WaitPidFlag::WNOWAIT;
    match waitid(Id::Pid(pid), flags).ok()? {
        WaitStatus::Exited(..) => Some(Change::Ended { core: false }),
        WaitStatus::Signaled(_, _, core) => Some(Change::Ended { core }),
        WaitStatus::Stopped(..) => Some(Change::Stopped),
        WaitStatus::Continued(_) => Some(Change::Continued),
        _ => None,
    }
}

/// Nothing that could be seen here.
#[must_use]
#[cfg(not(target_os = "linux"))]
pub fn change(_: Pid) -> Option<Change> {
    None
}

/// Whether a process has left a signal alone: neither blocked nor ignored nor
/// caught it (the masks in /proc/PID/status).
#[must_use]
pub fn leaves_alone(pid: Pid, signal: Signal) -> bool {
    let masks = ["SigBlk:", "SigIgn:", "SigCgt:"];
    status(pid).is_some_and(|status| !masks.iter().any(|mask| has(&status, mask, signal)))
}

/// Whether a process sleeps while this signal is not pending: what was sent
/// has been dealt with, and changed nothing.
#[must_use]
pub fn sleeps_without(pid: Pid, signal: Signal) -> bool {
    status(pid).is_some_and(|status| {
        let pending = ["SigPnd:", "ShdPnd:"];
        let sleeps = field(&status, "State:").is_some_and(|state| state.starts_with('S'));
        // A helper that takes the dump lets the dying process sleep.
        let dumps = field(&status, "CoreDumping:").is_some_and(|yes| yes != "0");
        sleeps && !dumps && !pending.iter().any(|mask| has(&status, mask, signal))
    })
}

fn status(pid: Pid) -> Option<String> {
    fs::read_to_string(format!("/proc/{pid}/status")).ok()
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = status.lines();
    lines
        .find_map(|line| line.strip_prefix(name))
        .map(str::trim)
}

/// Whether a mask, in hexadecimal, has a signal's bit.
fn has(status: &str, mask: &str, signal: Signal) -> bool {
    let mask = field(status, mask).and_then(|mask| u64::from_str_radix(mask, 16).ok());
    mask.unwrap_or_default() & (1 << (signal as u32 - 1)) != 0
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use nix::sys::signal::Signal::{SIGCHLD, SIGCONT, SIGHUP, SIGINT, SIGSTOP};
    use nix::sys::signal::kill;

    use super::*;
    use crate::check::Deadline;
    use crate::job::{Job, Limits};

    #[test]
    fn a_child_is_seen_to_stop_to_go_on_and_to_end() {
        let mut command = Command::new("sleep");
        command.arg("1000");
        let job = Job::start(command, Limits::default()).expect("`sleep`");
        let becomes = |signal, wanted| {
            kill(job.pid(), signal).expect("a child");
            let soon = Deadline::after(Duration::from_secs(5));
            let seen = soon.until(|| change(job.pid()).filter(|change| *change == wanted));
            assert_eq!(seen, Some(wanted), "{signal}");
        };
        assert_eq!(change(job.pid()), None);
        becomes(SIGSTOP, Change::Stopped);
        becomes(SIGCONT, Change::Continued);
        becomes(SIGHUP, Change::Ended { core: false });
    }

    #[test]
    fn a_signal_that_is_ignored_is_told_from_one_that_is_left_alone() {
        let mut command = Command::new("sleep");
        command.arg("1000");
        let limits = Limits {
            in_background: true,
            ..Limits::default()
        };
        let job = Job::start(command, limits).expect("`sleep`");
        assert!(!leaves_alone(job.pid(), SIGINT));
        assert!(leaves_alone(job.pid(), SIGCHLD));
        kill(job.pid(), SIGCHLD).expect("a child");
        let soon = Deadline::after(Duration::from_secs(5));
        let asleep = soon.until(|| sleeps_without(job.pid(), SIGCHLD).then_some(()));
        assert!(asleep.is_some());
        assert_eq!(change(job.pid()), None);
    }
}
