//! Wrong on purpose (B7, errata 13): a program that asks again and again whether a signal came.
//!
//! PHP's own handler only notes the signal, and the listing asks `pcntl_signal_dispatch` for
//! it in a loop with `usleep(100)`. All goes well, and a program that waits for nothing wakes
//! thousands of times a second: see `top`, or `strace -c -p PID`. Look at `wait`.
#![cfg_attr(not(unix), allow(unused))]

use std::{
    env, fs,
    io::{self, Write},
    path::PathBuf,
    process,
    sync::atomic::{AtomicI32, Ordering::SeqCst},
    thread,
    time::Duration,
};

use anyhow::Context;
use clap::Parser;
#[cfg(unix)]
use nix::{
    libc,
    sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, raise, sigaction, signal},
};

/// Wait for SIGINT or SIGTERM, and never sleep (wrong on purpose: B7)
#[derive(Parser)]
struct Args {}

#[cfg(unix)]
fn main() -> anyhow::Result<()> {
    let Args {} = Args::parse();
    // Caught before there is anything to clean up. No SA_RESTART: there is nothing to restart.
    let handler = SigHandler::Handler(set_flag);
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
    for number in [Signal::SIGINT, Signal::SIGTERM] {
        // SAFETY: the handler only stores to an atomic, which is async-signal-safe.
        unsafe { sigaction(number, &action) }.context("cannot catch signals")?;
    }

    let scratch = Scratch::create()?;
    let _ = writeln!(io::stdout(), "Created {}", scratch.path.display());
    let me = process::id();
    let _ = writeln!(
        io::stdout(),
        "Waiting for signals... (Ctrl-C, or kill {me})"
    );
    let signal = Signal::try_from(wait())?;
    let _ = writeln!(
        io::stdout(),
        "Received {signal}. Cleaning up and terminating"
    );

    drop(scratch);
    end_by(signal)
}

// ANCHOR: fault
/// The number of the signal that has come; 0 as long as none has.
static RECEIVED: AtomicI32 = AtomicI32::new(0);

extern "C" fn set_flag(number: i32) {
    RECEIVED.store(number, SeqCst);
}

fn wait() -> i32 {
    loop {
        let number = RECEIVED.load(SeqCst);
        if number != 0 {
            return number;
        }
        // The fault: a short sleep is no wait. The kernel knows when a signal comes, and
        // sigsuspend(2) or sigwait(3) would sleep until then.
        thread::sleep(Duration::from_micros(100));
    }
}
// ANCHOR_END: fault

/// A file that must not outlive the program.
struct Scratch {
    path: PathBuf,
}

impl Scratch {
    fn create() -> anyhow::Result<Scratch> {
        let path = env::temp_dir().join(format!("polls-for-signals-{}", process::id()));
        fs::write(&path, "").with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Scratch { path })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path); // at worst it stays
    }
}

/// Ends the program by the signal that it has caught, so that its parent learns the truth.
#[cfg(unix)]
fn end_by(number: Signal) -> anyhow::Result<()> {
    // SAFETY: the default action runs no code of ours.
    unsafe { signal(number, SigHandler::SigDfl) }?;
    raise(number)?; // this is the end
    // SAFETY: _exit(2) may be called at any time.
    unsafe { libc::_exit(128 + number as i32) }
}

#[cfg(not(unix))]
fn main() -> anyhow::Result<()> {
    anyhow::bail!("signals need Unix; on Windows, run this program in WSL")
}
