// ANCHOR: all
// ANCHOR: intro
//! Two processes accept on one listener.
//!
//! fork copies the descriptor table, not the socket: both entries lead to the same listener.
//! Both processes sleep in accept, and Linux wakes one of them for each client.
#![cfg_attr(not(unix), allow(unused))]

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs},
    process, thread,
    time::Duration,
};

use anyhow::Context;
use clap::Parser;
#[cfg(unix)]
use nix::{
    libc,
    sys::signal::{SigHandler, Signal, signal},
    unistd::{ForkResult, Pid, fork},
};
// ANCHOR_END: intro

// ANCHOR: args
/// Echo from a parent and its child, which share one listener
#[derive(Parser)]
struct Args {
    /// Where to listen; port 0 picks a free one
    #[arg(default_value = "127.0.0.1:1234", value_parser = resolve)]
    address: SocketAddr,
}

fn resolve(address: &str) -> anyhow::Result<SocketAddr> {
    let mut addresses = address.to_socket_addrs()?;
    addresses.next().context("the name has no address")
}
// ANCHOR_END: args

// ANCHOR: share
#[cfg(unix)]
fn main() -> anyhow::Result<()> {
    let Args { address } = Args::parse();
    let listener = TcpListener::bind(address).context(format!("cannot listen on {address}"))?;
    let _ = writeln!(io::stdout(), "Listening on {}", listener.local_addr()?);

    // The parent is busy with its clients and waits for nobody: this lets the kernel reap.
    // SAFETY: SIG_IGN runs no code of ours.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) }?;
    let parent = Pid::this();
    // SAFETY: this process has one thread, so the child may do whatever its parent may.
    if let ForkResult::Child = unsafe { fork() }.context("cannot fork")? {
        // The child holds the listener, too. On Linux it ends with its parent; elsewhere it
        // would keep the port until it is killed.
        #[cfg(target_os = "linux")]
        let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
        if Pid::parent() != parent {
            // SAFETY: _exit(2) may be called at any time.
            unsafe { libc::_exit(1) } // it has ended already
        }
    }
    serve(&listener)
}
// ANCHOR_END: share

// ANCHOR: serve
/// One client after another, in the parent and in the child at the same time.
fn serve(listener: &TcpListener) -> ! {
    let me = process::id();
    loop {
        match listener.accept() {
            Ok((connection, peer)) => {
                let _ = writeln!(io::stdout(), "Process {me} serves {peer}");
                if let Err(error) = echo(&connection) {
                    complain(format!("Process {me}, client {peer}: {error}\n"));
                }
            }
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
            // No descriptor or memory is left: the client still waits, so let a second pass.
            Err(error) => {
                complain(format!("Process {me} cannot accept: {error}\n"));
                thread::sleep(Duration::from_secs(1));
            }
        }
    }
}
// ANCHOR_END: serve

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
