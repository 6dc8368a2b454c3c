//! Programs that show fork(2) and end by themselves.

use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::catalog::{Protocol, Traits};
use crate::check::{Case, Check, During, Failure, ORDINARY, Result};
use crate::checks::fork::{Number, real_time};
use crate::client::STALL;
use crate::job::{Job, Limits, describe};
use crate::proc;

pub(super) const CHECKS: &[Check] = &[
    Check {
        name: "parent and child name themselves, and the parent tells how the child ended",
        cause: "the parent does not wait, or what was in a buffer before the fork is printed by \
                both",
        section: "ch04-fork/two-returns.md#two-returns",
        descriptors: ORDINARY,
        applies: is_demonstration,
        run: both_speak,
    },
    Check {
        name: "a child killed by a signal is reported as killed",
        cause: "every end is taken for an exit, or the wait fails for a signal that the library \
                cannot name",
        section: "ch04-fork/reaping.md#killed-children",
        descriptors: ORDINARY,
        applies: is_demonstration,
        run: killed_child,
    },
];

fn is_demonstration(traits: &Traits) -> bool {
    traits.protocol == Protocol::Demonstration
}

/// What a started process needs besides the time that its child works.
const OVERHEAD: Duration = Duration::from_secs(1);

/// Starts the program with the seconds that its child is to work.
fn start(case: &Case, seconds: u64) -> Result<Job> {
    let mut command = Command::new(case.conventions()?);
    command.arg(seconds.to_string());
    Job::start(command, Limits::default()).during("starting the program")
}

/// Waits until the program has a child.
fn child_of(case: &Case, job: &Job) -> Result<Pid> {
    let child = || {
        let mut processes = proc::group(job.group()).into_iter();
        let child = processes.find(|process| process.parent == job.pid())?;
        Some(child.pid)
    };
    match case.deadline.within(STALL).until(child) {
        Some(child) => Ok(child),
        None => failure("looking for the child", job)
            .expected("a process whose parent is the one that was started")
            .came("none")
            .stop(),
    }
}

/// A failure with what the program said.
fn failure(what: &str, job: &Job) -> Failure {
    let mut failure = Failure::new(what);
    for (name, output) in [("stdout", &job.stdout), ("stderr", &job.stderr)] {
        let lines = output.tail(6).into_iter();
        failure
            .server
            .extend(lines.map(|line| format!("{name}: {line}")));
    }
    failure
}

/// Waits for the end, which must be exit status 0.
fn finish(case: &Case, job: &mut Job, what: &str, time: Duration) -> Result {
    let status = job.wait(case.deadline.within(time)).map(describe);
    if status.as_deref() == Some("exit status 0") {
        return Ok(());
    }
    failure(what, job)
        .expected("exit status 0")
        .came(status.unwrap_or_else(|| format!("it goes on after {:.1} s", time.as_secs_f32())))
        .stop()
}

/// Whether a line has this word, which may be a number.
fn has_word(line: &str, word: &str) -> bool {
    line.split(|c: char| !c.is_ascii_alphanumeric())
        .any(|part| part.eq_ignore_ascii_case(word))
}

fn both_speak(case: &Case) -> Result {
    proc::available()?;
    for seconds in [0, 1] {
        let what = format!("running the program with: {seconds}");
        let started = Instant::now();
        let mut job = start(case, seconds)?;
        // A child that does not work may be gone before one looks.
        let child = match seconds {
            0 => None,
            _ => Some(child_of(case, &job)?),
        };
        let work = Duration::from_secs(seconds);
        finish(case, &mut job, &what, work + OVERHEAD)?;
        if started.elapsed() < work {
            return failure(&what, &job)
                .expected(format!("an end after {seconds} s, with the child's"))
                .came(format!(
                    "an end after {:.1} s",
                    started.elapsed().as_secs_f32()
                ))
                .stop();
        }
        let lines = job.stdout.tail(usize::MAX);
        let parent = job.pid().to_string();
        let expectations = [
            (
                "a line with the parent's process id",
                lines.iter().any(|line| has_word(line, &parent)),
            ),
            (
                "a line in which the child names itself, and then its parent",
                child.is_none_or(|child| {
                    let child = child.to_string();
                    let named = |line: &String| {
                        let itself = line.split_once(child.as_str());
                        itself.is_some_and(|(before, after)| {
                            !has_word(before, &parent) && has_word(after, &parent)
                        })
                    };
                    lines.iter().any(named)
                }),
            ),
            (
                "at the end a line that says that the child exited, and with which status",
                lines.last().is_some_and(|line| {
                    let names = child.is_none_or(|child| has_word(line, &child.to_string()));
                    names && line.contains("exit") && has_word(line, "0")
                }),
            ),
            (
                "each line once",
                lines
                    .iter()
                    .enumerate()
                    .all(|(number, line)| !lines[..number].contains(line)),
            ),
        ];
        for (expected, met) in expectations {
            if !met {
                return failure(&what, &job)
                    .expected(expected)
                    .came("what it said, below")
                    .stop();
            }
        }
    }
    Ok(())
}

fn killed_child(case: &Case) -> Result {
    /// More than the check takes.
    const LONG: u64 = 60;
    proc::available()?;
    let named = [Signal::SIGTERM, Signal::SIGKILL].map(|signal| Number(signal as i32));
    for signal in named.into_iter().chain(real_time()) {
        let mut job = start(case, LONG)?;
        let child = child_of(case, &job)?;
        signal.send(child)?;
        let what = format!("sending {signal} to the child");
        finish(case, &mut job, &what, STALL)?;
        let child = child.to_string();
        let name = signal.to_string();
        // A signal without a name may be called what it likes.
        let reported = |line: &String| {
            has_word(line, &child)
                && !line.contains("exited")
                && (line.contains("killed") || line.contains("signal"))
                && (name.contains(' ') || has_word(line, &name))
        };
        if !job.stdout.tail(usize::MAX).iter().any(reported) {
            return failure(&what, &job)
                .expected(format!(
                    "a line that says that {child} was killed by {signal}"
                ))
                .came("what it said, below")
                .stop();
        }
    }
    Ok(())
}
