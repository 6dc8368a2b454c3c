//! A program and all its children, which end together.
//!
//! A server may fork, and die before its children do. So every program runs
//! in a process group, and the group is led by a *warden*: a small shell that
//! does nothing but wait for the end of its standard input. That gives the
//! group two properties. Its id stays ours until the warden is reaped, so a
//! signal to the group can never reach a stranger. And if the grader itself is
//! killed, the kernel closes the warden's input, and the warden ends the group.

use std::io::{self, PipeReader, PipeWriter};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigHandler, SigSet, Signal, killpg, signal};
use nix::unistd::Pid;

use crate::check::Deadline;
use crate::transcript::Transcript;

/// What the warden does: outlive every signal but the last one, wait for the
/// end of its input, and kill its whole group, which it is part of.
const WARDEN: &str = "trap '' HUP INT QUIT TERM USR1 USR2 PIPE; read -r _; kill -KILL 0";

/// What a program is allowed, other than the grader.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// RLIMIT_NOFILE, soft and hard.
    pub descriptors: Option<u64>,
    /// RLIMIT_NPROC, soft and hard: how many processes its user may have in
    /// all. It does not bind root.
    pub processes: Option<u64>,
    /// The user to run as, which takes root to set.
    pub user: Option<u32>,
    /// Starts it with SIGINT and SIGQUIT ignored, as a script's `&` does.
    pub in_background: bool,
    /// Allows it to leave a core dump, if the hard limit does.
    pub core_dumps: bool,
}

/// A started program. Dropping it kills the whole group and waits for it.
#[derive(Debug)]
pub struct Job {
    warden: Child,
    leader: Child,
    /// What the program says on its standard output.
    pub stdout: Transcript,
    /// What it says on its standard error.
    pub stderr: Transcript,
}

impl Job {
    /// Starts `command` in a group of its own, with the signal dispositions of
    /// a fresh login and its outputs read.
    ///
    /// # Errors
    /// When the program is not there, or the system cannot start it.
    pub fn start(command: Command, limits: Limits) -> io::Result<Job> {
        let (stdout, stdout_writer) = io::pipe()?;
        let stdout = Transcript::of(stdout)?;
        Job::start_between(Stdio::null(), stdout_writer, stdout, command, limits)
    }

    /// Starts `command` between two pipes, as in the middle of a pipeline:
    /// the grader writes what it reads, and reads every byte that it writes.
    ///
    /// # Errors
    /// When the program is not there, or the system cannot start it.
    pub fn start_piped(
        command: Command,
        limits: Limits,
    ) -> io::Result<(Job, PipeWriter, PipeReader)> {
        let (stdin_reader, stdin) = io::pipe()?;
        let (stdout, stdout_writer) = io::pipe()?;
        // Nothing is said in lines: a transcript that has ended already.
        let nothing = Transcript::of(io::pipe()?.0)?;
        let job = Job::start_between(stdin_reader, stdout_writer, nothing, command, limits)?;
        Ok((job, stdin, stdout))
    }

    fn start_between(
        stdin: impl Into<Stdio>,
        stdout_writer: PipeWriter,
        stdout: Transcript,
        mut command: Command,
        limits: Limits,
    ) -> io::Result<Job> {
        let (stderr, stderr_writer) = io::pipe()?;
        let stderr = Transcript::of(stderr)?;
        let mut warden = Command::new("sh")
            .args(["-c", WARDEN])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        command
            .stdin(stdin)
            .stdout(stdout_writer)
            .stderr(stderr_writer)
            // What it says is counted and shown: no stack traces in between.
            .env_remove("RUST_BACKTRACE")
            .env_remove("RUST_LIB_BACKTRACE")
            .process_group(warden.id().cast_signed());
        if let Some(user) = limits.user {
            command.uid(user).gid(user);
        }
        // SAFETY: between fork and exec only calls are made that signal-safety(7)
        // allows or that are bare system calls (sigaction, pthread_sigmask,
        // setrlimit); nothing is allocated and no lock is taken.
        unsafe { command.pre_exec(move || prepare(limits)) };
        let started = command.spawn();
        // Only the program may hold the writing ends: they tell of its death.
        drop(command);
        match started {
            Ok(leader) => Ok(Job {
                warden,
                leader,
                stdout,
                stderr,
            }),
            Err(error) => {
                end(&mut warden);
                Err(error)
            }
        }
    }

    /// The process that was started.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.leader.id().cast_signed())
    }

    /// The group of the program and its children, and of the warden, whose
    /// process id it is.
    #[must_use]
    pub fn group(&self) -> Pid {
        Pid::from_raw(self.warden.id().cast_signed())
    }

    /// How the started process ended; `None` while it runs.
    #[must_use]
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.leader.try_wait().ok().flatten()
    }

    /// Waits for the end of the started process and of its outputs.
    /// `None` when the deadline passes first.
    pub fn wait(&mut self, deadline: Deadline) -> Option<ExitStatus> {
        let status = deadline.until(|| self.ended())?;
        self.stdout.wait_for_end(deadline);
        self.stderr.wait_for_end(deadline);
        Some(status)
    }

    /// Kills the program and all its children, and reaps what is ours.
    pub fn kill(&mut self) {
        // The only error is that no such group exists, which is the aim.
        let _ = killpg(self.group(), Signal::SIGKILL);
        end(&mut self.leader);
        end(&mut self.warden);
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.kill();
    }
}

fn end(child: &mut Child) {
    // Both fail only for a child that has already been waited for.
    let _ = child.kill();
    let _ = child.wait();
}

/// Runs in the child, before the program does. A disposition of "ignored" and
/// a signal mask survive exec, and a job that a script starts in the background
/// has SIGINT and SIGQUIT ignored: the program under test must not inherit it,
/// unless that is the test.
fn prepare(limits: Limits) -> io::Result<()> {
    for each in Signal::iterator() {
        let action = match each {
            // These two are always at their default.
            Signal::SIGKILL | Signal::SIGSTOP => continue,
            Signal::SIGINT | Signal::SIGQUIT if limits.in_background => SigHandler::SigIgn,
            _ => SigHandler::SigDfl,
        };
        // SAFETY: neither action is a handler, so there is no code that could
        // run at a bad moment.
        unsafe { signal(each, action) }?;
    }
    SigSet::empty().thread_set_mask()?;
    if let Some(descriptors) = limits.descriptors {
        setrlimit(Resource::RLIMIT_NOFILE, descriptors, descriptors)?;
    }
    if let Some(processes) = limits.processes {
        setrlimit(Resource::RLIMIT_NPROC, processes, processes)?;
    }
    // A process that a check kills by SIGSEGV leaves no core dump.
    let (_, most) = getrlimit(Resource::RLIMIT_CORE)?;
    let core = if limits.core_dumps { most } else { 0 };
    setrlimit(Resource::RLIMIT_CORE, core, core)?;
    Ok(())
}

/// A status in words: "exit status 1", "killed by SIGKILL".
#[must_use]
pub fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(number)) => match Signal::try_from(number) {
            Ok(signal) => format!("killed by {signal}"),
            Err(_) => format!("killed by signal {number}"),
        },
        (None, None) => status.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn soon() -> Deadline {
        Deadline::after(Duration::from_secs(5))
    }

    fn shell(script: &str) -> Job {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Job::start(command, Limits::default()).expect("a shell")
    }

    fn is_gone(pid: Pid) -> bool {
        // A zombie still has its id; the test's init may be slow to reap it.
        nix::sys::signal::kill(pid, None).is_err()
            || std::fs::read_to_string(format!("/proc/{pid}/stat"))
                .is_ok_and(|stat| stat.contains(") Z "))
    }

    fn first_pid(job: &Job) -> Pid {
        let line = job.stdout.wait_for_line(soon(), |_| true).expect("a pid");
        Pid::from_raw(line.parse().expect("a number"))
    }

    #[test]
    fn drop_ends_children_whose_parent_is_already_dead() {
        let mut job = shell("sleep 1000 & echo $!");
        let orphan = first_pid(&job);
        assert!(soon().until(|| job.ended()).is_some(), "the leader lives");
        assert!(!is_gone(orphan), "the orphan must outlive its parent");
        drop(job);
        assert!(soon().until(|| is_gone(orphan).then_some(())).is_some());
    }

    #[test]
    fn the_group_ends_when_the_grader_is_killed() {
        let mut job = shell("sleep 1000 & echo $!; wait");
        let child = first_pid(&job);
        // What the kernel does for a killed grader: its end of the pipe closes.
        drop(job.warden.stdin.take());
        assert!(soon().until(|| job.ended()).is_some(), "the leader lives");
        assert!(soon().until(|| is_gone(child).then_some(())).is_some());
    }

    #[test]
    fn an_ignored_signal_of_the_grader_is_not_inherited() {
        // SAFETY: no handler runs; other tests of this process do not use it.
        unsafe { signal(Signal::SIGQUIT, SigHandler::SigIgn) }.expect("ignore");
        let mut job = shell("kill -QUIT $$; sleep 1000");
        let status = job.wait(soon()).expect("the signal ends it");
        assert_eq!(describe(status), "killed by SIGQUIT");
    }

    #[test]
    fn the_limit_of_descriptors_reaches_the_program() {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -n"]);
        let limits = Limits {
            descriptors: Some(32),
            ..Limits::default()
        };
        let job = Job::start(command, limits).expect("a shell");
        let line = job.stdout.wait_for_line(soon(), |_| true);
        assert_eq!(line.as_deref(), Some("32"));
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error_and_leaves_no_warden() {
        let command = Command::new("/nowhere/at/all");
        let error = Job::start(command, Limits::default()).expect_err("not there");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
