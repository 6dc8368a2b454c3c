// ANCHOR: all
// ANCHOR: about
//! Shows signals: what each does by default, and a line whenever one arrives.
//!
//! Try Ctrl-C, Ctrl-\ and Ctrl-Z here, and `kill -HUP PID` from another terminal. All of them
//! are blocked and then read, one after the other; so none has its default effect. Send one
//! many times at once, and fewer arrive: a signal that is pending already is not queued.
#![cfg_attr(not(unix), allow(unused))]
// ANCHOR_END: about

use std::{
    io::{self, Write},
    process,
};

use anyhow::Context;
use clap::Parser;
#[cfg(unix)]
use nix::{
    libc,
    sys::signal::{SigSet, Signal, Signal::*},
};

// ANCHOR: args
/// Show what signals do by default, then every one that arrives
#[derive(Parser)]
struct Args {}
// ANCHOR_END: args

// ANCHOR: table
/// The signals of the handbook and their relatives, with the default action (signal(7)).
#[cfg(unix)]
const SIGNALS: [(Signal, &str, &str); 16] = [
    (SIGINT, "ends", "Ctrl-C, a request from the terminal"),
    (
        SIGQUIT,
        "ends, dumps core",
        "Ctrl-\\, the same and a dump: not softer than SIGINT",
    ),
    (
        SIGTERM,
        "ends",
        "kill's own signal: the polite request to end",
    ),
    (
        SIGHUP,
        "ends",
        "the terminal has gone; to a daemon: re-read your settings",
    ),
    (
        SIGCHLD,
        "is ignored",
        "a child has ended, stopped or gone on",
    ),
    (
        SIGTTIN,
        "stops",
        "a background job has read from the terminal",
    ),
    (
        SIGTTOU,
        "stops",
        "it has written there (with TOSTOP), or changed its settings",
    ),
    (SIGTSTP, "stops", "Ctrl-Z, a request that can be refused"),
    (
        SIGCONT,
        "goes on",
        "what has stopped goes on, even if this signal is blocked",
    ),
    (
        SIGPIPE,
        "ends",
        "written to a pipe or socket that nobody reads",
    ),
    (SIGALRM, "ends", "the timer of alarm(2) has run out"),
    (SIGUSR1, "ends", "free for the program's own use"),
    (SIGUSR2, "ends", "free for the program's own use"),
    (
        SIGWINCH,
        "is ignored",
        "the terminal's window has a new size",
    ),
    (SIGKILL, "ends", "cannot be caught, blocked or ignored"),
    (SIGSTOP, "stops", "cannot be caught, blocked or ignored"),
];
// ANCHOR_END: table

// ANCHOR: block
#[cfg(unix)]
fn main() -> anyhow::Result<()> {
    let Args {} = Args::parse();
    // Asking to block SIGKILL and SIGSTOP, too, is no error, and has no effect.
    let watched = SigSet::from_iter(SIGNALS.map(|(signal, ..)| signal));
    watched.thread_block().context("cannot block signals")?;
    let arrivals = Arrivals::new(&watched).context("cannot watch signals")?;

    for (signal, action, meaning) in SIGNALS {
        let _ = writeln!(
            io::stdout(),
            "{:<8} {action:<17} {meaning}",
            signal.as_str()
        );
    }
    let me = process::id();
    let _ = writeln!(
        io::stdout(),
        "Waiting for signals as process {me}: SIGTERM ends it, or SIGINT twice in a row"
    );
    // ANCHOR_END: block

    // ANCHOR: loop
    let mut before = None;
    loop {
        let (signal, sender) = arrivals.next().context("cannot wait for signals")?;
        let told = writeln!(io::stdout(), "Received {signal} {sender}");
        // A write that nobody reads raises SIGPIPE, and to tell of that would raise the next.
        let unheard = told.is_err();
        if unheard || signal == SIGTERM || signal == SIGINT && before == Some(SIGINT) {
            return Ok(());
        }
        before = Some(signal);
    }
}
// ANCHOR_END: loop

// ANCHOR: signalfd
/// On Linux signals can be read from a descriptor, with a note on who sent them.
#[cfg(target_os = "linux")]
struct Arrivals(nix::sys::signalfd::SignalFd);

#[cfg(target_os = "linux")]
impl Arrivals {
    fn new(watched: &SigSet) -> nix::Result<Arrivals> {
        let flags = nix::sys::signalfd::SfdFlags::SFD_CLOEXEC;
        nix::sys::signalfd::SignalFd::with_flags(watched, flags).map(Arrivals)
    }

    fn next(&self) -> nix::Result<(Signal, String)> {
        loop {
            let info = match self.0.read_signal() {
                Ok(Some(info)) => info,
                Ok(None) | Err(nix::Error::EINTR) => continue,
                Err(error) => return Err(error),
            };
            let sender = match info.ssi_code {
                // A process has called kill(2), tgkill(2) or sigqueue(3).
                libc::SI_USER | libc::SI_TKILL | libc::SI_QUEUE => {
                    format!("from process {} of user {}", info.ssi_pid, info.ssi_uid)
                }
                // For SIGCHLD a positive code says what the child did.
                _ if info.ssi_pid != 0 => format!("about process {}", info.ssi_pid),
                _ => "from the kernel".into(),
            };
            return Ok((Signal::try_from(info.ssi_signo as i32)?, sender));
        }
    }
}
// ANCHOR_END: signalfd

// ANCHOR: elsewhere
/// Elsewhere sigwait(3) tells the number and no more, and may never see the signals that are
/// ignored, by default (SIGCHLD, SIGWINCH) or by Rust's runtime (SIGPIPE).
#[cfg(all(unix, not(target_os = "linux")))]
struct Arrivals(SigSet);

#[cfg(all(unix, not(target_os = "linux")))]
impl Arrivals {
    fn new(watched: &SigSet) -> nix::Result<Arrivals> {
        Ok(Arrivals(*watched))
    }

    fn next(&self) -> nix::Result<(Signal, String)> {
        Ok((self.0.wait()?, String::new()))
    }
}
// ANCHOR_END: elsewhere

// ANCHOR: not-unix
#[cfg(not(unix))]
fn main() -> anyhow::Result<()> {
    anyhow::bail!("signals need Unix; on Windows, run this program in WSL")
}
// ANCHOR_END: not-unix
// ANCHOR_END: all
