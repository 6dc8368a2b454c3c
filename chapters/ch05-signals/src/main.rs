// ANCHOR: all
// ANCHOR: about
//! Chapter 5: a program that waits for signals without polling, and cleans up when asked to end.
//!
//! The signals are blocked, so they interrupt nothing: they stay pending until sigwait(3)
//! takes them. What PHP does with a handler, a list and `pcntl_signal_dispatch` in a loop
//! is then a function call that sleeps until there is something to dispatch.
#![cfg_attr(not(unix), allow(unused))]
// ANCHOR_END: about

use std::{
    env,
    fs::{self, File},
    io::{self, Write},
    path::PathBuf,
    process,
};

use anyhow::Context;
use clap::Parser;
#[cfg(unix)]
use nix::{
    libc,
    sys::signal::{SigHandler, SigSet, Signal, raise, signal},
};

// ANCHOR: args
/// Wait for SIGINT or SIGTERM without polling, clean up, and end as the signal demands
#[derive(Parser)]
struct Args {}
// ANCHOR_END: args

// ANCHOR: block
#[cfg(unix)]
fn main() -> anyhow::Result<()> {
    let Args {} = Args::parse();
    // Blocked before there is anything to clean up: a signal that comes from here on waits
    // for us. One that came earlier has ended the program, and nothing was left behind.
    let endings = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM]);
    endings.thread_block().context("cannot block signals")?;
    // ANCHOR_END: block

    // ANCHOR: wait
    let scratch = Scratch::create()?;
    let _ = writeln!(io::stdout(), "Created {}", scratch.path.display());
    let _ = writeln!(
        io::stdout(),
        "Waiting for signals... (Ctrl-C, or kill {})",
        process::id()
    );
    let signal = endings.wait().context("cannot wait for signals")?;
    let _ = writeln!(
        io::stdout(),
        "Received {signal}. Cleaning up and terminating"
    );

    drop(scratch);
    end_by(signal)
}
// ANCHOR_END: wait

// ANCHOR: scratch
/// A file that must not outlive the program: the stand-in for a lock, a socket or a child.
/// Without the wait above its `drop` would be skipped: a signal's default action ends the
/// process in the kernel, and no code of ours runs again. (SIGKILL leaves no choice.)
struct Scratch {
    path: PathBuf,
}

impl Scratch {
    fn create() -> anyhow::Result<Scratch> {
        let path = env::temp_dir().join(format!("ch05-signals-{}", process::id()));
        // create_new: what somebody else has put there is not ours to empty or to remove.
        File::create_new(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Scratch { path })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            let _ = writeln!(
                io::stderr(),
                "cannot remove {}: {error}",
                self.path.display()
            );
        }
    }
}
// ANCHOR_END: scratch

// ANCHOR: end-by
/// Ends the program by the signal that it has caught, after all. Its parent then learns the
/// truth: not "exited with 0", but "killed by SIGINT". A shell shows that as status 128 + n
/// (130 for SIGINT, 143 for SIGTERM); after Ctrl-C it also stops the script it is running.
#[cfg(unix)]
fn end_by(caught: Signal) -> anyhow::Result<()> {
    // SAFETY: the default action runs no code of ours. (A script's shell starts background
    // jobs with SIGINT ignored, and that is inherited: it may not be the default yet.)
    unsafe { signal(caught, SigHandler::SigDfl) }?;
    raise(caught)?; // still blocked, so it is pending
    SigSet::from(caught).thread_unblock()?; // now it is delivered: the end
    // Only process 1, as in a container, comes here: no default action ends it (kill(2)).
    // SAFETY: _exit(2) may be called at any time.
    unsafe { libc::_exit(128 + caught as i32) }
}
// ANCHOR_END: end-by

// ANCHOR: not-unix
#[cfg(not(unix))]
fn main() -> anyhow::Result<()> {
    anyhow::bail!("signals need Unix; on Windows, run this program in WSL")
}
// ANCHOR_END: not-unix
// ANCHOR_END: all
