//! Programs that wait for signals, and have no socket.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::str::FromStr;
use std::thread;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::Signal::{
    self, SIGALRM, SIGCHLD, SIGCONT, SIGHUP, SIGINT, SIGKILL, SIGPIPE, SIGQUIT, SIGSTOP, SIGTERM,
    SIGTSTP, SIGTTIN, SIGTTOU, SIGUSR1, SIGUSR2, SIGWINCH,
};
use nix::sys::signal::kill;
use tempfile::TempDir;

use crate::bytes::count;
use crate::catalog::{Protocol, Shutdown, Traits};
use crate::check::{Case, Check, Deadline, During, Failure, ORDINARY, Result, Stop};
use crate::checks::idle::rests;
use crate::client::STALL;
use crate::fate::{self, Change};
use crate::job::{Job, Limits, describe};
use crate::pipe::Pipe;
use crate::proc;
use crate::program::Kind;
use crate::server::{Launch, Server};

pub(super) const CHECKS: &[Check] = &[
    Check {
        name: "until a signal comes the program sleeps",
        cause: "the program wakes again and again to look at a flag, instead of waiting in \
                the kernel: sigwait, sigsuspend, or poll without a timeout",
        section: "ch05-signals/waiting.md#waiting",
        descriptors: ORDINARY,
        applies: Traits::awaits_signals,
        run: sleeps,
    },
    Check {
        name: "SIGINT and SIGTERM are answered by a line that names the signal",
        cause: "the signal has its default action: it is neither blocked nor caught when \
                the program says that it waits",
        section: "ch05-signals/handlers.md#handlers",
        descriptors: ORDINARY,
        applies: cleans_up,
        run: names_the_signal,
    },
    Check {
        name: "SIGINT and SIGTERM leave no scratch file behind",
        cause: "the default action of a signal ends the program in the kernel, and no Drop \
                and no exit handler runs",
        section: "ch05-signals/steps.md#cleaning-up",
        descriptors: ORDINARY,
        applies: cleans_up,
        run: removes_its_file,
    },
    Check {
        name: "a shell sees status 130 after SIGINT and 143 after SIGTERM",
        cause: "the program exits after its clean-up, instead of restoring the default \
                action and raising the signal again; so its parent learns nothing of it",
        section: "ch05-signals/steps.md#exit-status",
        descriptors: ORDINARY,
        applies: cleans_up,
        run: ends_by_the_signal,
    },
    Check {
        name: "two signals at once end the program once",
        cause: "a second signal interrupts the clean-up, or starts it again",
        section: "ch05-signals/signals.md#coalescing",
        descriptors: ORDINARY,
        applies: cleans_up,
        run: two_at_once,
    },
    Check {
        name: "a program that was started with SIGINT ignored ends on SIGINT all the same",
        cause: "a script's & leaves SIGINT ignored, which survives exec: raising the signal \
                does nothing before its default action is restored",
        section: "ch05-signals/steps.md#inherited-dispositions",
        descriptors: ORDINARY,
        applies: cleans_up,
        run: started_in_background,
    },
    Check {
        name: "SIGKILL ends the program at once, and its scratch file stays",
        cause: "there is no scratch file to see; what SIGKILL leaves behind is for the next \
                start to find",
        section: "ch05-signals/steps.md#cleaning-up",
        descriptors: ORDINARY,
        applies: cleans_up,
        run: killed,
    },
    Check {
        name: "the table has the notes' signals and their relatives, with the kernel's defaults",
        cause: "the notes err here: SIGINT can be refused, SIGTTIN is for a read and SIGTTOU \
                for a write, SIGCHLD is ignored",
        section: "ch05-signals/signals.md#the-signals",
        descriptors: ORDINARY,
        applies: explains,
        run: table_is_true,
    },
    Check {
        name: "the table says which signals dump core, as the kernel does",
        cause: "SIGQUIT is taken for a softer SIGINT; it dumps core besides",
        section: "ch05-signals/signals.md#the-signals",
        descriptors: ORDINARY,
        applies: explains,
        run: cores_are_true,
    },
    Check {
        name: "each signal that arrives is a line, with its sender where the system tells",
        cause: "a signal of the table is not caught, or its siginfo is not looked at",
        section: "ch05-signals/signals.md#sender",
        descriptors: ORDINARY,
        applies: explains,
        run: arrivals,
    },
    Check {
        name: "SIGINT twice in a row or SIGTERM ends the explorer with status 0",
        cause: "the signal has its default action, or one SIGINT is enough, or any two are",
        section: "ch05-signals/signals.md#the-signals",
        descriptors: ORDINARY,
        applies: explains,
        run: explorer_ends,
    },
    Check {
        name: "the explorer ends when nobody reads its output",
        cause: "a write that nobody reads raises SIGPIPE; blocked, it is told of like any other \
                signal, and that write raises the next",
        section: "ch05-signals/sigpipe.md#sigpipe",
        descriptors: ORDINARY,
        applies: explains,
        run: explorer_ends_unheard,
    },
    Check {
        name: "100 signals to a stopped program arrive at least once, and not 100 times",
        cause: "a signal is lost; that it arrives less often than it was sent is right: one \
                that is pending already is not queued",
        section: "ch05-signals/signals.md#coalescing",
        descriptors: ORDINARY,
        applies: explains,
        run: coalescing,
    },
    Check {
        name: "each of 200 signals, sent when the one before it was told, is told",
        cause: "the handler is gone after its first call, or a signal that comes between the \
                look at a flag and the sleep is missed",
        section: "ch05-signals/waiting.md#waiting",
        descriptors: ORDINARY,
        applies: waits,
        run: one_by_one,
    },
    Check {
        name: "a signal that comes while the program is busy is told afterwards",
        cause: "the flag is looked at, and then the program sleeps: a signal that came in \
                between has set the flag, and nobody looks again. Block the signal, and \
                unblock it in the call that sleeps",
        section: "ch05-signals/waiting.md#the-race",
        descriptors: ORDINARY,
        applies: waits,
        run: while_busy,
    },
    Check {
        name: "10,000 signals as fast as possible are survived, and the last one is told",
        cause: "the handler does what is not async-signal-safe: it prints, allocates, locks",
        section: "ch05-signals/handlers.md#handlers",
        descriptors: ORDINARY,
        applies: waits,
        run: storm_is_survived,
    },
    Check {
        name: "a flood of SIGUSR1 loses no SIGTERM, even if nobody reads the output",
        cause: "the number of the signal is a byte in a self-pipe, and that is full: set a \
                flag for each signal, and let the byte say no more than \"look\"",
        section: "ch05-signals/self-pipe.md#self-pipe",
        descriptors: ORDINARY,
        applies: |traits| waits(traits) || traits.shutdown == Shutdown::Draining,
        run: flood_loses_no_ending,
    },
    Check {
        name: "SIGINT and SIGTERM end the waiting with a line and status 0",
        cause: "the signal has its default action, or its turn never comes",
        section: "ch05-signals/waiting.md#waiting",
        descriptors: ORDINARY,
        applies: waits,
        run: waiting_ends,
    },
];

fn cleans_up(traits: &Traits) -> bool {
    traits.protocol == Protocol::SignalCleanup
}

fn explains(traits: &Traits) -> bool {
    traits.protocol == Protocol::SignalExplorer
}

fn waits(traits: &Traits) -> bool {
    traits.protocol == Protocol::SignalWaits
}

/// How the line begins with which a program says that it is ready.
const READY: &str = "Waiting for signals";

/// The program under examination, about to be started.
fn launch<'a>(case: &'a Case) -> Launch<'a> {
    case.launch().ready(READY)
}

/// Whether a line, other than the one of a program that is ready, has this
/// signal's name in it.
fn names(line: &str, signal: Signal) -> bool {
    let mut words = line.split(|character: char| !character.is_ascii_alphanumeric());
    !line.starts_with(READY) && words.any(|word| word == signal.as_str())
}

/// Sends a signal and waits for the line about it.
fn tells(case: &Case, server: &Server, signal: Signal) -> Result<String> {
    server.signal(signal)?;
    let line = server.wait_for_line(case.deadline.within(STALL), |line| names(line, signal));
    line.map_or_else(
        || {
            Failure::new("waiting for a line about a signal")
                .sent(signal.as_str())
                .expected(format!("a line with {} in it", signal.as_str()))
                .came("none")
                .stop()
        },
        Ok,
    )
}

/// Waits for the program's end, which must be this one.
pub(super) fn ends(case: &Case, server: &Server, sent: &str, expected: &str) -> Result {
    let ended = server.wait(case.deadline.within(STALL));
    if ended.as_deref() == Some(expected) {
        return Ok(());
    }
    Failure::new("waiting for the end of the program")
        .sent(sent)
        .expected(expected)
        .came(ended.unwrap_or_else(|| format!("none within {} s", STALL.as_secs())))
        .stop()
}

fn killed_by(signal: Signal) -> String {
    describe(ExitStatus::from_raw(signal as i32))
}

/// Runs the program in each of its ways, all at the same time. A program that
/// is not ours has one way, which its command names.
fn in_every_way(case: &Case, body: impl Fn(&Server) -> Result + Sync) -> Result {
    let ways: &[&[&str]] = match (&case.program.kind, case.traits().protocol) {
        (Kind::Ours(_), Protocol::SignalWaits) if cfg!(target_os = "linux") => {
            &[&["flag"], &["self-pipe"], &["signalfd"], &["sigwait"]]
        }
        (Kind::Ours(_), Protocol::SignalWaits) => &[&["flag"], &["self-pipe"], &["sigwait"]],
        _ => &[&[]],
    };
    let in_one_way = |way: &[&str]| {
        let ran = case.run_with(launch(case).arguments(way), &body);
        ran.map_err(|stop| match stop {
            Stop::Failed(mut failure) if !way.is_empty() => {
                failure.what = format!("{}: {}", way.join(" "), failure.what);
                Stop::Failed(failure)
            }
            other => other,
        })
    };
    thread::scope(|scope| {
        let in_one_way = &in_one_way;
        let all: Vec<_> = ways
            .iter()
            .map(|way| scope.spawn(move || in_one_way(way)))
            .collect();
        let all = all.into_iter().map(thread::ScopedJoinHandle::join);
        let all: Vec<Result> = all
            .map(|ran| ran.unwrap_or_else(|panic| resume_unwind(panic)))
            .collect();
        all.into_iter().collect()
    })
}

fn sleeps(case: &Case) -> Result {
    proc::available()?;
    in_every_way(case, |server| {
        rests(
            server,
            "watching a program to which no signal comes".to_string(),
        )
    })
}

const ENDINGS: [Signal; 2] = [SIGINT, SIGTERM];

fn names_the_signal(case: &Case) -> Result {
    ENDINGS.into_iter().try_for_each(|signal| {
        case.run_with(launch(case), |server| {
            tells(case, server, signal).map(|_| ())
        })
    })
}

/// The file that the program's first line names, and which is there.
fn scratch_file(case: &Case, server: &Server) -> Result<PathBuf> {
    let line = server.wait_for_line(case.deadline.within(STALL), |_| true);
    let line = line.unwrap_or_default();
    let path = line.find('/').map(|at| PathBuf::from(&line[at..]));
    match path {
        Some(path) if path.exists() => Ok(path),
        _ => Failure::new("looking for the scratch file")
            .expected("a first line that ends with the path of a file, and the file")
            .came(line)
            .stop(),
    }
}

fn removes_its_file(case: &Case) -> Result {
    ENDINGS.into_iter().try_for_each(|signal| {
        case.run_with(launch(case), |server| {
            let path = scratch_file(case, server)?;
            server.signal(signal)?;
            let ended = server.wait(case.deadline.within(STALL));
            if ended.is_some() && !path.exists() {
                return Ok(());
            }
            let it = if ended.is_some() { "ended" } else { "runs on" };
            Failure::new("looking for the scratch file after the program's end")
                .sent(signal.as_str())
                .expected("an end, and no file")
                .came(format!("the program {it}, and {} is there", path.display()))
                .stop()
        })
    })
}

fn ends_by_the_signal(case: &Case) -> Result {
    ENDINGS.into_iter().try_for_each(|signal| {
        case.run_with(launch(case), |server| {
            server.signal(signal)?;
            // What a shell shows as 128 + n.
            ends(case, server, signal.as_str(), &killed_by(signal))
        })
    })
}

fn two_at_once(case: &Case) -> Result {
    let pairs = [(SIGINT, SIGTERM), (SIGTERM, SIGINT), (SIGINT, SIGINT)];
    // With the program stopped meanwhile they are pending together for sure.
    for (first, second) in pairs {
        for stopped in [true, false] {
            if stopped && !cfg!(target_os = "linux") {
                continue;
            }
            case.run_with(launch(case), |server| {
                let path = scratch_file(case, server)?;
                if stopped {
                    server.pause(case.deadline.within(STALL))?;
                }
                server.signal(first)?;
                server.signal(second)?;
                if stopped {
                    server.signal(SIGCONT)?;
                }
                ended_once(case, server, first, second)?;
                if !path.exists() {
                    return Ok(());
                }
                Failure::new("looking for the scratch file after two signals")
                    .expected("no file")
                    .came(path.display().to_string())
                    .stop()
            })?;
        }
    }
    Ok(())
}

/// One signal is told, the program ends by it, and there is no complaint.
fn ended_once(case: &Case, server: &Server, first: Signal, second: Signal) -> Result {
    let status = server.wait(case.deadline.within(STALL));
    let lines = server.latest_lines(usize::MAX);
    let is_told = |signal| lines.iter().filter(move |line| names(line, signal)).count();
    let cause = [first, second]
        .into_iter()
        .find(|&signal| is_told(signal) > 0);
    let told = lines
        .iter()
        .filter(|line| names(line, first) || names(line, second));
    let told = told.count();
    // Whether it may exit instead is another check's question.
    let by_other = |status: &str| {
        status.starts_with("killed") && cause.is_none_or(|signal| status != killed_by(signal))
    };
    let is_right = status.as_deref().is_some_and(|status| !by_other(status));
    if told == 1 && is_right && server.complaints() == 0 {
        return Ok(());
    }
    Failure::new("sending two signals at once")
        .sent(format!("{first} and {second}"))
        .expected("one line that names one of them, an end by that one, and no complaint")
        .came(format!(
            "{told} lines, {}, and {} complaints",
            status.unwrap_or_else(|| "no end".to_string()),
            server.complaints()
        ))
        .stop()
}

fn started_in_background(case: &Case) -> Result {
    case.run_with(launch(case).in_background(), |server| {
        let path = scratch_file(case, server)?;
        tells(case, server, SIGINT)?;
        ends(
            case,
            server,
            "SIGINT, which was ignored at the start",
            &killed_by(SIGINT),
        )?;
        if !path.exists() {
            return Ok(());
        }
        Failure::new("looking for the scratch file after the program's end")
            .expected("no file")
            .came(path.display().to_string())
            .stop()
    })
}

/// The file goes with the server's directory, as its TMPDIR is there.
fn killed(case: &Case) -> Result {
    case.run_with(launch(case), |server| {
        let path = scratch_file(case, server)?;
        server.signal(SIGKILL)?;
        ends(case, server, "SIGKILL", &killed_by(SIGKILL))?;
        if path.exists() {
            return Ok(());
        }
        Failure::new("looking for the scratch file after SIGKILL")
            .expected("the file: the program had no chance to remove it")
            .came("no file")
            .stop()
    })
}

/// What a signal does to a program that has not asked for anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Ends { core: bool },
    Stops,
    GoesOn,
    Ignored,
}

impl Action {
    /// Reads what the table says.
    fn named(action: &str) -> Option<Self> {
        let action = action.to_lowercase();
        let core = action.contains("core");
        let known = [
            ("ignored", Action::Ignored),
            ("stops", Action::Stops),
            ("goes on", Action::GoesOn),
            ("ends", Action::Ends { core }),
        ];
        let mut known = known.into_iter();
        known
            .find(|(word, _)| action.contains(word))
            .map(|(_, it)| it)
    }

    fn is_like(self, other: Self) -> bool {
        let ends = |it| matches!(it, Action::Ends { .. });
        self == other || ends(self) && ends(other)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Action::Ends { core: false } => "ends",
            Action::Ends { core: true } => "ends, dumps core",
            Action::Stops => "stops",
            Action::GoesOn => "goes on",
            Action::Ignored => "is ignored",
        })
    }
}

/// The signals of the notes, and those beside them that a server meets.
const WANTED: [Signal; 16] = [
    SIGINT, SIGQUIT, SIGHUP, SIGCHLD, SIGTTIN, SIGTTOU, SIGTERM, SIGKILL, SIGSTOP, SIGTSTP,
    SIGCONT, SIGPIPE, SIGALRM, SIGUSR1, SIGUSR2, SIGWINCH,
];

/// The rows of the explorer's table: a name, a default action, and a meaning,
/// with two spaces or more after the action.
fn table(server: &Server) -> Result<Vec<(Signal, Action)>> {
    let lines = server.latest_lines(usize::MAX);
    let rows = lines.iter().filter(|line| line.starts_with("SIG"));
    rows.map(|row| {
        let (name, rest) = row.split_once(' ').unwrap_or((row, ""));
        let action = rest.trim_start().split("  ").next().unwrap_or_default();
        match (Signal::from_str(name), Action::named(action)) {
            (Ok(signal), Some(action)) => Ok((signal, action)),
            _ => Failure::new("reading the table of signals")
                .expected(
                    "a signal, two spaces, and one of: ends; ends, dumps core; stops; \
                     goes on; is ignored",
                )
                .came(row.clone())
                .stop(),
        }
    })
    .collect()
}

fn table_is_true(case: &Case) -> Result {
    only_linux()?;
    case.run_with(launch(case), |server| {
        let table = table(server)?;
        let is_there = |signal: &Signal| table.iter().any(|(it, _)| it == signal);
        let missing: Vec<_> = WANTED.iter().filter(|it| !is_there(it)).collect();
        if !missing.is_empty() {
            return Failure::new("reading the table of signals")
                .expected("all of the notes' signals and their relatives")
                .came(format!("all but {missing:?}"))
                .stop();
        }
        let limits = Limits::default();
        for &(signal, said) in &table {
            let true_one = kernels_default(case, signal, limits)?;
            if !true_one.is_like(said) {
                return Failure::new("sending a signal to a process that has its default")
                    .sent(signal.as_str())
                    .expected(format!("{true_one}, as the kernel did"))
                    .came(format!("{said}, in the table"))
                    .stop();
            }
        }
        Ok(())
    })
}

fn cores_are_true(case: &Case) -> Result {
    only_linux()?;
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern");
    if pattern.is_ok_and(|pattern| pattern.contains(['/', '|'])) {
        return Err(Stop::skipped(
            "core dumps do not go to the working directory here (kernel.core_pattern)",
        ));
    }
    let (_, most) = getrlimit(Resource::RLIMIT_CORE).during("asking for the limit of dumps")?;
    if most == 0 {
        return Err(Stop::skipped(
            "no core dumps are allowed here (ulimit -H -c)",
        ));
    }
    case.run_with(launch(case), |server| {
        let limits = Limits {
            core_dumps: true,
            ..Limits::default()
        };
        let table = table(server)?;
        let ends = table
            .iter()
            .filter(|(_, said)| matches!(said, Action::Ends { .. }));
        for &(signal, said) in ends {
            let true_one = kernels_default(case, signal, limits)?;
            // What else may be wrong is for the check before this one.
            if true_one != said && true_one.is_like(said) {
                return Failure::new("sending a signal to a process that may dump core")
                    .sent(signal.as_str())
                    .expected(format!("{true_one}, as the kernel did"))
                    .came(format!("{said}, in the table"))
                    .stop();
            }
        }
        Ok(())
    })
}

fn only_linux() -> Result {
    if cfg!(target_os = "linux") {
        proc::available()
    } else {
        Err(Stop::skipped("watches a process as only Linux allows"))
    }
}

/// Asks the kernel, by sending the signal to a process with nothing but
/// defaults, and looking what becomes of it.
fn kernels_default(case: &Case, signal: Signal, limits: Limits) -> Result<Action> {
    let directory = TempDir::new().during("making a directory for a core dump")?;
    let mut command = Command::new("sleep");
    command.arg("1000").current_dir(directory.path());
    let sleeper = Job::start(command, limits).during("starting `sleep`")?;
    let pid = sleeper.pid();
    if !fate::leaves_alone(pid, signal) {
        return Err(Stop::skipped(format!(
            "`sleep` has {signal} ignored, blocked or caught here"
        )));
    }
    let deadline = case.deadline.within(STALL);
    kill(pid, signal).during("sending it a signal")?;
    let seen = deadline.until(|| match fate::change(pid) {
        // Asked before the change is looked for again: what is pending no more
        // has been dealt with, if the process sleeps.
        None if fate::sleeps_without(pid, signal) => Some(fate::change(pid)),
        None => None,
        change => Some(change),
    });
    match seen {
        Some(Some(Change::Ended { core })) => return Ok(Action::Ends { core }),
        Some(Some(Change::Stopped)) => return Ok(Action::Stops),
        Some(None) => {}
        other => {
            return Failure::new("watching what a signal does to `sleep`")
                .sent(signal.as_str())
                .came(format!("{other:?}"))
                .stop();
        }
    }
    // It does nothing to a running process; perhaps to a stopped one.
    kill(pid, SIGSTOP).during("stopping it")?;
    let stopped = deadline.until(|| fate::change(pid).filter(|it| *it == Change::Stopped));
    if stopped.is_none() {
        return Failure::new("stopping `sleep`").came("it runs on").stop();
    }
    kill(pid, signal).during("sending it a signal")?;
    // The kernel notes it before kill(2) returns.
    Ok(match fate::change(pid) {
        Some(Change::Continued) => Action::GoesOn,
        _ => Action::Ignored,
    })
}

fn arrivals(case: &Case) -> Result {
    let me = std::process::id().to_string();
    let cannot_come = [SIGKILL, SIGSTOP];
    let end_it = [SIGINT, SIGTERM];
    case.serve_with(launch(case), |server| {
        let harmless = WANTED
            .into_iter()
            .filter(|signal| !cannot_come.contains(signal) && !end_it.contains(signal));
        for signal in harmless.chain([SIGINT]) {
            server.signal(signal)?;
            // Not the row of the table.
            let is_arrival = |line: &str| names(line, signal) && !line.starts_with("SIG");
            let line = server.wait_for_line(case.deadline.within(STALL), is_arrival);
            let mut words = line.iter().flat_map(|line| line.split_whitespace());
            let has_sender = words.any(|word| word == me);
            if line.is_none() || cfg!(target_os = "linux") && !has_sender {
                return Failure::new("waiting for a line about a signal")
                    .sent(format!("{signal} from process {me}"))
                    .expected("a line with the signal and its sender")
                    .came(line.unwrap_or_else(|| "none".to_string()))
                    .stop();
            }
        }
        Ok(())
    })
}

/// The lines about arrivals of a signal, so far.
fn arrived(server: &Server, signal: Signal) -> usize {
    let lines = server.latest_lines(usize::MAX);
    let arrivals = lines.iter().filter(|line| !line.starts_with("SIG"));
    arrivals.filter(|line| names(line, signal)).count()
}

/// Sends a signal and waits for one more line.
fn one_more(case: &Case, server: &Server, signal: Signal) -> Result {
    let before = server.lines();
    server.signal(signal)?;
    if server.wait_for_lines(case.deadline.within(STALL), before + 1) {
        return Ok(());
    }
    Failure::new("waiting for a line about a signal")
        .sent(signal.as_str())
        .expected("a line more than before")
        .came(format!("nothing within {} s", STALL.as_secs()))
        .stop()
}

fn explorer_ends(case: &Case) -> Result {
    case.run_with(launch(case), |server| {
        // Twice, but not in a row.
        for signal in [SIGINT, SIGUSR1, SIGINT] {
            one_more(case, server, signal)?;
        }
        server.signal(SIGINT)?;
        ends(case, server, "SIGINT again", "exit status 0")?;
        let told = arrived(server, SIGINT);
        if told == 3 {
            return Ok(());
        }
        Failure::new("counting the lines about SIGINT")
            .sent("SIGINT, SIGUSR1, SIGINT, SIGINT")
            .expected("3")
            .came(told.to_string())
            .stop()
    })?;
    case.run_with(launch(case), |server| {
        server.signal(SIGTERM)?;
        ends(case, server, "SIGTERM", "exit status 0")
    })
}

fn explorer_ends_unheard(case: &Case) -> Result {
    case.run_with(launch(case), |server| {
        server.close_its_outputs();
        server.signal(SIGUSR1)?;
        ends(case, server, "SIGUSR1 while nobody reads", "exit status 0")
    })
}

fn coalescing(case: &Case) -> Result {
    const TIMES: usize = 100;
    only_linux()?;
    case.serve_with(launch(case), |server| {
        server.pause(case.deadline.within(STALL))?;
        for _ in 0..TIMES {
            server.signal(SIGUSR1)?;
        }
        server.signal(SIGCONT)?;
        // A higher number than SIGUSR1's, and so it comes after it.
        let after = |line: &str| names(line, SIGUSR2) && !line.starts_with("SIG");
        server.signal(SIGUSR2)?;
        let last = server.wait_for_line(case.deadline.within(STALL), after);
        let told = arrived(server, SIGUSR1);
        if last.is_some() && (1..TIMES).contains(&told) {
            return Ok(());
        }
        Failure::new("counting what arrives of signals to a stopped program")
            .sent(format!("SIGUSR1 {TIMES} times, SIGCONT, SIGUSR2"))
            .expected("SIGUSR1 at least once, and not as often; then SIGUSR2")
            .came(format!("SIGUSR1 {told} times, then {last:?}"))
            .stop()
    })
}

fn one_by_one(case: &Case) -> Result {
    const TIMES: usize = 200;
    in_every_way(case, |server| {
        for _ in 0..TIMES {
            one_more(case, server, SIGUSR1)?;
        }
        // Not more often, and not another one.
        let lines = server.latest_lines(TIMES);
        if lines.iter().all(|line| names(line, SIGUSR1)) {
            return Ok(());
        }
        Failure::new("reading the last 200 lines")
            .sent("SIGUSR1, 200 times")
            .expected("200 lines about SIGUSR1")
            .came("others among them")
            .stop()
    })
}

/// The program is busy in the middle of telling a signal, for as long as
/// nobody reads: its standard output is full. Another signal comes then; it
/// must not be forgotten when the first one is done with.
fn while_busy(case: &Case) -> Result {
    only_linux()?;
    in_every_way(case, |server| {
        let stdout = small_output(server)?;
        let before = server.lines();
        let held = server.hold_output();
        let mut sent = 0;
        let mut line = 1;
        while stdout.waiting() + line <= stdout.capacity() {
            let waiting = stdout.waiting();
            server.signal(SIGUSR1)?;
            sent += 1;
            if !stdout.holds_more_than(waiting, case.deadline.within(STALL)) {
                return Failure::new("waiting for a line about a signal")
                    .sent(format!("SIGUSR1 number {sent}"))
                    .came(format!("nothing within {} s", STALL.as_secs()))
                    .stop();
            }
            line = stdout.waiting() - waiting;
        }
        // The next line does not fit: whoever writes it, waits.
        let idle = server.snapshot();
        server.signal(SIGUSR1)?;
        is_stuck(case, server, &idle)?;
        server.signal(SIGUSR1)?;
        drop(held);
        sent += 2;
        if server.wait_for_lines(case.deadline.within(STALL), before + sent) {
            return Ok(());
        }
        Failure::new("sending a signal while the program writes its line about another one")
            .sent(format!("SIGUSR1, {sent} times"))
            .expected("a line for each: the last one was sent long after the one before it")
            .came(format!("{} lines", server.lines() - before))
            .stop()
    })
}

/// The standard output of a program, with room for a page.
fn small_output(server: &Server) -> Result<Pipe> {
    let Some(stdout) = Pipe::of(server.pid(), 1) else {
        return Err(Stop::skipped("looks into a program's pipe through /proc"));
    };
    stdout.shrink();
    Ok(stdout)
}

/// Waits until the program has done something and rests again.
fn is_stuck(case: &Case, server: &Server, idle: &proc::Snapshot) -> Result {
    let rests = || {
        let before = server.snapshot();
        thread::sleep(Duration::from_millis(30));
        let woke = !before.since(idle).is_none();
        (woke && server.snapshot().since(&before).is_none()).then_some(())
    };
    match case.deadline.within(STALL).until(rests) {
        Some(()) => Ok(()),
        None => Failure::new("waiting for the program to be held by its full output")
            .expected("a program that has woken, and sleeps again")
            .came("another one")
            .stop(),
    }
}

fn storm_is_survived(case: &Case) -> Result {
    const STORM: u64 = 10_000;
    in_every_way(case, |server| {
        let before = server.lines();
        for _ in 0..STORM {
            server.signal(SIGUSR1)?;
        }
        let came = server.wait_for_lines(case.deadline.within(STALL), before + 1);
        // The lines of those before it may still be on their way.
        let steady = || {
            let lines = server.lines();
            thread::sleep(Duration::from_millis(100));
            (server.lines() == lines).then_some(lines)
        };
        let all = case.deadline.within(STALL).until(steady);
        let told = all.unwrap_or_else(|| server.lines()) - before;
        if !came || all.is_none() || told > STORM || server.ended().is_some() {
            return Failure::new("sending signals as fast as possible")
                .sent(format!("SIGUSR1, {} times", count(STORM)))
                .expected("between one line and one for each, and a program that lives")
                .came(format!("{} lines", count(told)))
                .stop();
        }
        one_more(case, server, SIGUSR1)
    })
}

fn flood_loses_no_ending(case: &Case) -> Result {
    only_linux()?;
    if waits(case.traits()) {
        return in_every_way(case, |server| flood(case, server));
    }
    case.run_with(case.launch(), |server| flood(case, server))
}

/// Fills every pipe of the program, and then asks it to end.
fn flood(case: &Case, server: &Server) -> Result {
    /// Enough for a program that has no pipe of its own to fill.
    const SENT: u32 = 10_000;
    const FILLED: Duration = Duration::from_secs(4);
    let _stdout = small_output(server)?;
    let own = Pipe::own(server.pid());
    own.iter().for_each(Pipe::shrink);
    let is_full = || own.iter().any(Pipe::is_full);
    let waiting = || own.iter().map(Pipe::waiting).max();
    let held = server.hold_output();
    let limit = case.deadline.within(FILLED);
    for sent in 1.. {
        let before = waiting();
        server.signal(SIGUSR1)?;
        // One that is pending already is not queued: let the handler run.
        let moment = Deadline::after(Duration::from_micros(200));
        while before.is_some() && waiting() <= before && !moment.left().is_zero() {
            thread::yield_now();
        }
        if is_full() {
            // And not only for a moment: the program is held by its output.
            thread::sleep(Duration::from_millis(10));
        }
        if is_full() || limit.left().is_zero() || own.is_empty() && sent >= SENT {
            break;
        }
    }
    server.signal(SIGTERM)?;
    drop(held);
    ends(
        case,
        server,
        "SIGUSR1 again and again while nobody reads, then SIGTERM",
        "exit status 0",
    )
}

fn waiting_ends(case: &Case) -> Result {
    for signal in ENDINGS {
        in_every_way(case, |server| {
            one_more(case, server, SIGUSR1)?;
            tells(case, server, signal)?;
            ends(case, server, signal.as_str(), "exit status 0")
        })?;
    }
    Ok(())
}
