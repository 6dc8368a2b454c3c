//! Wrong on purpose (B6): nobody waits for the children.
//!
//! A process that has ended keeps its entry in the process table, a zombie, until its parent
//! has asked how it ended. The listing never asks: after 50 clients there are 50 of them
//! (`ps -o pid,stat,comm --ppid PID`), and one day fork fails. Look for what is missing in
//! `main`: a waitpid, or SIGCHLD ignored.
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
    sys::signal::Signal,
    unistd::{ForkResult, Pid, fork},
};
use socket2::SockRef;

/// Echo from a process for each client, and leave zombies (wrong on purpose: B6)
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

#[cfg(unix)]
fn main() -> anyhow::Result<()> {
    let Args { address } = Args::parse();
    let listener = TcpListener::bind(address).context(format!("cannot listen on {address}"))?;
    SockRef::from(&listener).listen(1024)?; // std lets only 128 newcomers wait
    let _ = writeln!(io::stdout(), "Listening on {}", listener.local_addr()?);

    // ANCHOR: fault
    // The fault: no waitpid, here or below, and nobody else asked to reap.
    let parent = Pid::this();
    loop {
        let (connection, peer) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
            // ANCHOR_END: fault
            Err(error) => {
                pause("cannot accept", error);
                continue;
            }
        };
        let _ = writeln!(io::stdout(), "Starting a new child process for {peer}");
        // SAFETY: this process has one thread, so the child may do whatever its parent may.
        match unsafe { fork() } {
            Ok(ForkResult::Parent { .. }) => {} // the child has the connection: close our copy
            Ok(ForkResult::Child) => {
                drop(listener);
                serve(connection, parent);
            }
            // Too many processes, or no memory. This client is turned away.
            Err(error) => pause(&format!("Client {peer} refused: cannot fork"), error.into()),
        }
    }
}

/// The whole life of a child: greet, echo, exit.
#[cfg(unix)]
fn serve(connection: TcpStream, parent: Pid) -> ! {
    // No orphan keeps a client: the kernel kills this process when its parent ends.
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
    let orphan = Pid::parent() != parent; // it has ended before we could ask for that

    let done = if orphan { Ok(()) } else { echo(&connection) };
    if let Err(error) = &done {
        let _ = writeln!(io::stderr(), "Process {}: {error}", process::id());
    }
    // SAFETY: _exit(2) may be called at any time.
    unsafe { libc::_exit(done.is_err().into()) }
}

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

/// Says what the system refuses, and waits: asking again at once would not help.
fn pause(what: &str, error: io::Error) {
    let _ = writeln!(io::stderr(), "{what}: {error}");
    thread::sleep(Duration::from_secs(1));
}

#[cfg(not(unix))]
fn main() -> anyhow::Result<()> {
    anyhow::bail!("fork(2) needs Unix; on Windows, run this program in WSL")
}
