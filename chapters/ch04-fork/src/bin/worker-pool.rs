// ANCHOR: all
// ANCHOR: intro
//! MAX_PROCS workers, forked before the first client comes (prefork), accept on one listener.
//!
//! The parent serves nobody. It waits for its workers, and replaces the one that dies; if
//! they die young, one after another, it takes its time.
#![cfg_attr(not(unix), allow(unused))]

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs},
    process, thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::Parser;
#[cfg(unix)]
use nix::{
    libc,
    sys::{
        signal::{SigHandler, Signal, signal},
        wait::WaitStatus,
    },
    unistd::{ForkResult, Pid, fork},
};
// ANCHOR_END: intro

// ANCHOR: pauses
/// Younger than this, a worker's death is a sign that the next one will die, too.
const YOUNG: Duration = Duration::from_secs(1);

/// The pause before a replacement: this at first, twice as long each time, up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(5);
// ANCHOR_END: pauses

// ANCHOR: args
/// Echo from a pool of processes: forked first, replaced when they die
#[derive(Parser)]
struct Args {
    /// Where to listen; port 0 picks a free one
    #[arg(default_value = "127.0.0.1:1234", value_parser = resolve)]
    address: SocketAddr,
    /// How many workers there are, and so how many clients are served at the same time
    #[arg(long, value_name = "MAX_PROCS", default_value = "2", value_parser = clap::value_parser!(u32).range(1..))]
    max_procs: u32,
}

fn resolve(address: &str) -> anyhow::Result<SocketAddr> {
    let mut addresses = address.to_socket_addrs()?;
    addresses.next().context("the name has no address")
}
// ANCHOR_END: args

// ANCHOR: listen
#[cfg(unix)]
fn main() -> anyhow::Result<()> {
    let Args { address, max_procs } = Args::parse();
    let listener = TcpListener::bind(address).context(format!("cannot listen on {address}"))?;
    let _ = writeln!(io::stdout(), "Listening on {}", listener.local_addr()?);

    // Whoever started us may ignore SIGCHLD, and that is inherited: then the kernel would reap
    // our workers itself, and waitpid sleep until the last of them has ended (wait(2), NOTES).
    // SAFETY: the default action runs no code of ours.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) }?;
    // ANCHOR_END: listen
    // ANCHOR: replace
    let parent = Pid::this();
    let mut workers: Vec<(Pid, Instant)> = Vec::new();
    let (mut pause, mut slept) = (Duration::ZERO, Duration::ZERO);
    loop {
        // Reap before each fork, too: a zombie still counts against the limit of processes.
        let full = workers.len() == max_procs as usize;
        let wait = full && slept.is_zero(); // not before those who have died while we slept
        if let Some((child, fate)) = reap(if wait { 0 } else { libc::WNOHANG }) {
            if let Some(index) = workers.iter().position(|(worker, _)| *worker == child) {
                let (worker, since) = workers.swap_remove(index);
                let _ = writeln!(io::stdout(), "Worker {worker} {fate}");
                let young = since.elapsed() < YOUNG + slept; // when it died, nobody knows
                pause = if young { longer(pause) } else { Duration::ZERO };
            }
            continue;
        }
        slept = Duration::ZERO;
        if full {
            continue;
        }

        thread::sleep(pause);
        slept = pause;
        // SAFETY: this process has one thread, so the child may do whatever its parent may.
        match unsafe { fork() } {
            Ok(ForkResult::Parent { child }) => {
                let _ = writeln!(io::stdout(), "Started worker {child}");
                workers.push((child, Instant::now()));
            }
            Ok(ForkResult::Child) => work(&listener, parent),
            Err(error) => {
                let error = io::Error::from(error);
                complain(format!("cannot fork a worker: {error}\n"));
                pause = longer(pause);
            }
        }
    }
}
// ANCHOR_END: replace

// ANCHOR: longer
/// The back-off: nothing, 100 ms, 200 ms, ... 5 s.
fn longer(pause: Duration) -> Duration {
    (pause * 2).clamp(FIRST_PAUSE, LAST_PAUSE)
}
// ANCHOR_END: longer

// ANCHOR: reap
/// Reaps a child that has ended, and tells how; waits for one unless the flags are WNOHANG.
/// None has ended, or a signal came first: then there is none to tell of.
///
/// Any child: this process may have some that it did not start, inherited over execve or
/// adopted as process 1 of a container, and nobody else will ask for them. (nix's waitpid does
/// not say which child it has reaped when that was killed by a real-time signal.)
#[cfg(unix)]
fn reap(flags: libc::c_int) -> Option<(Pid, String)> {
    let mut status = 0;
    // SAFETY: waitpid(2) writes to `status`, which outlives the call.
    let child = unsafe { libc::waitpid(-1, &raw mut status, flags) };
    if child <= 0 {
        return None;
    }
    let child = Pid::from_raw(child);
    let fate = match WaitStatus::from_raw(child, status) {
        Ok(WaitStatus::Exited(_, code)) => format!("exited with status {code}"),
        Ok(WaitStatus::Signaled(_, signal, _)) => format!("was killed by {signal}"),
        _ => "is gone".into(),
    };
    Some((child, fate))
}
// ANCHOR_END: reap

// ANCHOR: work
/// The whole life of a worker: one client after another.
#[cfg(unix)]
fn work(listener: &TcpListener, parent: Pid) -> ! {
    // No orphan keeps the port: Linux kills this process when its parent ends. Elsewhere
    // orphans keep it until they are killed.
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
    if Pid::parent() != parent {
        // SAFETY: _exit(2) may be called at any time.
        unsafe { libc::_exit(1) } // it has ended already
    }
    let me = process::id();
    loop {
        // All idle workers sleep in this call on the same listener; Linux wakes only one.
        match listener.accept() {
            Ok((connection, peer)) => {
                let _ = writeln!(io::stdout(), "Worker {me} serves {peer}");
                if let Err(error) = echo(&connection) {
                    complain(format!("Worker {me}, client {peer}: {error}\n"));
                }
            }
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
            // No descriptor or memory is left: the client still waits, so let a second pass.
            Err(error) => {
                complain(format!("Worker {me} cannot accept: {error}\n"));
                thread::sleep(Duration::from_secs(1));
            }
        }
    }
}
// ANCHOR_END: work

// ANCHOR: complain
/// Other processes print here, too: a line is theirs or ours if it is one write(2).
fn complain(line: String) {
    let _ = io::stderr().write_all(line.as_bytes());
}
// ANCHOR_END: complain

// ANCHOR: echo
fn echo(mut connection: &TcpStream) -> io::Result<()> {
    let greeting = format!("You are connected to process {}\n", process::id());
    connection.write_all(greeting.as_bytes())?;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match connection.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => connection.write_all(&buffer[..count])?,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
// ANCHOR_END: echo

// ANCHOR: elsewhere
#[cfg(not(unix))]
fn main() -> anyhow::Result<()> {
    anyhow::bail!("fork(2) needs Unix; on Windows, run this program in WSL")
}
// ANCHOR_END: elsewhere
// ANCHOR_END: all
