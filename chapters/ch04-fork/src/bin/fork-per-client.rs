// ANCHOR: all
// ANCHOR: intro
//! A child for every client, without a limit: the shortest concurrent server there is, and
//! an invitation to whoever wants to fill the process table.
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
use socket2::SockRef;
// ANCHOR_END: intro

// ANCHOR: args
/// Echo to each client from a process of its own, as many as come
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

// ANCHOR: ignore
#[cfg(unix)]
fn main() -> anyhow::Result<()> {
    let Args { address } = Args::parse();
    let listener = TcpListener::bind(address).context(format!("cannot listen on {address}"))?;
    SockRef::from(&listener).listen(1024)?; // std lets only 128 newcomers wait
    let _ = writeln!(io::stdout(), "Listening on {}", listener.local_addr()?);

    // We never ask how a child ended, so let the kernel reap it: no zombies (wait(2), NOTES).
    // SAFETY: SIG_IGN runs no code of ours.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) }?;
    let parent = Pid::this();
    // ANCHOR_END: ignore
    // ANCHOR: fork
    loop {
        let (connection, peer) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
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
// ANCHOR_END: fork

// ANCHOR: serve
/// The whole life of a child: greet, echo, exit.
#[cfg(unix)]
fn serve(connection: TcpStream, parent: Pid) -> ! {
    // No orphan keeps a client: on Linux the kernel kills this process when its parent ends.
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
    let orphan = Pid::parent() != parent; // it has ended before we could ask for that

    let done = if orphan { Ok(()) } else { echo(&connection) };
    if let Err(error) = &done {
        // Other processes print here, too: a line is theirs or ours if it is one write(2).
        let line = format!("Process {}: {error}\n", process::id());
        let _ = io::stderr().write_all(line.as_bytes());
    }
    // SAFETY: _exit(2) may be called at any time. Unlike `process::exit` it does not run the
    // clean-up that the parent has registered for its own end, and the child has a copy of.
    unsafe { libc::_exit(done.is_err().into()) }
}
// ANCHOR_END: serve

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

// ANCHOR: pause
/// Says what the system refuses, and waits: asking again at once would not help.
fn pause(what: &str, error: io::Error) {
    let _ = io::stderr().write_all(format!("{what}: {error}\n").as_bytes());
    thread::sleep(Duration::from_secs(1));
}
// ANCHOR_END: pause

// ANCHOR: elsewhere
#[cfg(not(unix))]
fn main() -> anyhow::Result<()> {
    anyhow::bail!("fork(2) needs Unix; on Windows, run this program in WSL")
}
// ANCHOR_END: elsewhere
// ANCHOR_END: all
