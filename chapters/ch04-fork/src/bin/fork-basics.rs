// ANCHOR: all
// ANCHOR: intro
//! fork(2) alone: one process becomes two, the child works, the parent waits for it.
//!
//! Both go on after the same call; what it returned tells them who they are.
#![cfg_attr(not(unix), allow(unused))]

use std::{
    io::{self, Write},
    process, thread,
    time::Duration,
};

use anyhow::Context;
use clap::Parser;
#[cfg(unix)]
use nix::{
    libc,
    sys::wait::{WaitStatus, waitpid},
    unistd::{ForkResult, Pid, fork},
};
// ANCHOR_END: intro

// ANCHOR: args
/// Fork a child, let it work, and learn how it ended
#[derive(Parser)]
struct Args {
    /// How long the child works
    #[arg(default_value_t = 2)]
    seconds: u64,
}
// ANCHOR_END: args

// ANCHOR: fork
#[cfg(unix)]
fn main() -> anyhow::Result<()> {
    let Args { seconds } = Args::parse();
    let _ = writeln!(io::stdout(), "I am process {}", process::id());

    // What stdout still holds back would be copied, and printed twice: flush before a fork.
    // (Rust's stdout keeps back no finished line; C's does when it is no terminal.)
    let _ = io::stdout().flush();
    // SAFETY: this process has one thread, so the child may do whatever its parent may.
    match unsafe { fork() }.context("cannot fork")? {
        ForkResult::Child => work(seconds),
        ForkResult::Parent { child } => wait_for(child),
    }
}
// ANCHOR_END: fork

// ANCHOR: work
#[cfg(unix)]
fn work(seconds: u64) -> ! {
    let (me, parent) = (process::id(), Pid::parent());
    let _ = writeln!(
        io::stdout(),
        "I am {me}, a child of {parent}, and work for {seconds} s"
    );
    thread::sleep(Duration::from_secs(seconds));
    // SAFETY: _exit(2) may be called at any time. It ends the child here, without the
    // clean-up that its parent has registered for its own end.
    unsafe { libc::_exit(0) }
}
// ANCHOR_END: work

// ANCHOR: wait
/// Sleeps until the child ends. Until it is waited for, an ended child is a zombie: an entry
/// in the process table that keeps its exit status.
#[cfg(unix)]
fn wait_for(child: Pid) -> anyhow::Result<()> {
    let status = loop {
        match waitpid(child, None) {
            Err(nix::Error::EINTR) => {} // a signal came first
            status => break status,
        }
    };
    let fate = match status {
        Ok(WaitStatus::Exited(_, code)) => format!("exited with status {code}"),
        // Try it: kill -TERM the child while it works.
        Ok(WaitStatus::Signaled(_, signal, _)) => format!("was killed by {signal}"),
        // The child is reaped, but nix has no name for the real-time signal that killed it.
        Err(nix::Error::EINVAL) => "was killed by a real-time signal".into(),
        status => anyhow::bail!("cannot wait for the child: {status:?}"),
    };
    let _ = writeln!(io::stdout(), "My child {child} {fate}");
    Ok(())
}
// ANCHOR_END: wait

// ANCHOR: elsewhere
#[cfg(not(unix))]
fn main() -> anyhow::Result<()> {
    anyhow::bail!("fork(2) needs Unix; on Windows, run this program in WSL")
}
// ANCHOR_END: elsewhere
// ANCHOR_END: all
